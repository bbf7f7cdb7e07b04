"""A target of built bytes with the few types that the kernel's containers need; for tests of damage."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from kshell.errors import Fault, Reason, SymbolNotFoundError, TypeNotFoundError
from kshell.memory.model import Memory
from kshell.target.vmcoreinfo import Vmcoreinfo
from kshell.types.model import ArrayType, CType, IntType, Member, PointerType, StructType, Symbol, VoidType
from kshell.value import Value

if TYPE_CHECKING:
    from kshell.target.target import Target

BASE = 0xFFFF_8880_0000_0000
ULONG = IntType("unsigned long", 8, False)
UINT = IntType("unsigned int", 4, False)
U8 = IntType("unsigned char", 1, False)
POINTER = PointerType(VoidType())

TYPES: dict[str, CType] = {
    "struct maple_tree": StructType("maple_tree", 16, [
        Member("ma_flags", UINT, 32), Member("ma_root", POINTER, 64),
    ]),
    "struct maple_range_64": StructType("maple_range_64", 256, [
        Member("parent", POINTER, 0), Member("pivot", ArrayType(ULONG, 15), 64),
        Member("slot", ArrayType(POINTER, 16), 1024),
    ]),
    "struct maple_arange_64": StructType("maple_arange_64", 240, [
        Member("parent", POINTER, 0), Member("pivot", ArrayType(ULONG, 9), 64),
        Member("slot", ArrayType(POINTER, 10), 640), Member("gap", ArrayType(ULONG, 10), 1280),
    ]),
    "struct xarray": StructType("xarray", 16, [Member("xa_flags", UINT, 32), Member("xa_head", POINTER, 64)]),
    "struct xa_node": StructType("xa_node", 576, [
        Member("shift", U8, 0), Member("offset", U8, 8), Member("slots", ArrayType(POINTER, 64), 320),
    ]),
    "struct idr": StructType("idr", 24, [Member("idr_rt", ULONG, 0), Member("idr_base", UINT, 128)]),
    "struct item": StructType("item", 32, [Member("value", ULONG, 0), Member("node", ArrayType(ULONG, 2), 64)]),
}


class Bytes(Memory):
    """64 KiB of zeroes at BASE, to be filled; nothing elsewhere."""

    space = "kernel"

    def __init__(self) -> None:
        self.data = bytearray(1 << 16)
        self.gone: set[int] = set()

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        offset = address - BASE
        end = offset + size
        for page in range(offset >> 12, (end + 4095) >> 12):
            if page in self.gone:
                end = min(end, max(page << 12, offset))
        piece = bytes(self.data[offset:end]) if 0 <= offset < len(self.data) else b""
        if len(piece) == size:
            return piece, None
        return piece, Fault(address + len(piece), size, Reason.NOT_MAPPED, partial=piece, space="kernel")

    def words(self, offset: int, *values: int) -> int:
        """Put 64-bit words at BASE + *offset*; return that address."""
        struct.pack_into(f"<{len(values)}Q", self.data, offset, *(value & (1 << 64) - 1 for value in values))
        return BASE + offset

    def put(self, offset: int, data: bytes) -> int:
        self.data[offset : offset + len(data)] = data
        return BASE + offset


class Built:
    """As much of a Target as the readers of containers ask for."""

    live = False
    kind = "kernel"

    def __init__(self, types: Mapping[str, CType] = TYPES, info: str = "") -> None:
        self.kernel = Bytes()
        self.known = dict(types)
        self.symbols: dict[str, Symbol] = {}
        self.types = SimpleNamespace(get=self.known.get)
        self.arch = SimpleNamespace(byteorder="little", kernel_half=1 << 63, pointer_size=8)
        self.vmcoreinfo = Vmcoreinfo(f"OSRELEASE=built\n{info}".encode()) if info else None

    def type(self, name: str) -> CType:
        if name not in self.known:
            raise TypeNotFoundError(name)
        return self.known[name]

    def address_of(self, name: str) -> int:
        told = self.vmcoreinfo.symbol(name) if self.vmcoreinfo else None
        if told is None:
            raise SymbolNotFoundError(name)
        return told

    def value(self, kind: str | CType, address: int) -> Value:
        return Value(self, self.type(kind) if isinstance(kind, str) else kind, address)

    def symbolize(self, address: int) -> tuple[Symbol, int] | None:
        return None

    @property
    def target(self) -> Target:
        return cast("Target", self)
