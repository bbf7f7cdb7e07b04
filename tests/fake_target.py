"""A target made of a few bytes, for tests of the language and the shell: no image, no page tables."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from kshell.errors import Fault, Reason, SymbolNotFoundError
from kshell.memory.model import Memory
from kshell.types.model import Symbol, near_names

if TYPE_CHECKING:
    from kshell.target.target import Target

KERNEL = 0xFFFF_8880_0000_0000
USER = 0x40_0000
DATA = bytes(range(256)) * 16


class Bytes(Memory):
    """*data* at *start*, nothing elsewhere."""

    def __init__(self, space: str, start: int, data: bytes, writable: bool = False) -> None:
        self.space, self.start, self.data, self.writable = space, start, bytearray(data), writable

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        offset = address - self.start
        piece = bytes(self.data[offset : offset + size]) if 0 <= offset < len(self.data) else b""
        if len(piece) == size:
            return piece, None
        fault = Fault(address + len(piece), size, Reason.NOT_MAPPED, partial=piece, space=self.space)
        return piece, fault

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        if not self.writable:
            raise Fault(address, len(data), Reason.READ_ONLY, space=self.space, verb="write")
        offset = address - self.start
        done = max(0, min(len(data), len(self.data) - offset)) if offset >= 0 else 0
        self.data[offset : offset + done] = data[:done]
        if done < len(data):
            raise Fault(address + done, len(data), Reason.NOT_MAPPED, done=done, space=self.space, verb="write")


class Symbols:
    """A handful of symbols."""

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        self.all = {symbol.name: symbol for symbol in symbols}

    def get(self, name: str) -> Symbol | None:
        return self.all.get(name)

    def starting(self, prefix: str, limit: int) -> list[str]:
        return sorted(name for name in self.all if name.startswith(prefix))[:limit]


class FakeTarget:
    """As much of a Target as the shell asks for."""

    def __init__(self, writable: bool = False) -> None:
        self.kind, self.object_file = "kernel", None
        self.path, self.description, self.live = "fake", "fake memory", False
        self.mode = "r+" if writable else "r"
        self.writable = writable
        self.arch = SimpleNamespace(name="x86_64", kernel_half=1 << 63, byteorder="little", pointer_size=8)
        self.kernel = Bytes("kernel", KERNEL, DATA, writable)
        self.physical = Bytes("physical", 0, DATA, writable)
        self.symbols = Symbols([
            Symbol("init_task", KERNEL + 0x100, 0x40, "D"), Symbol("jiffies", KERNEL + 0x200, 8, "D"),
            Symbol("helper", KERNEL + 0x300, 0x10, "t", "mod"),
        ])
        self.cpus: list[object] = []
        self.control = None
        self.findings = {"kernel": "6.1.0-fake"}
        self.types = SimpleNamespace(get=lambda _name: None, complete=lambda prefix, limit: [
            name for name in ("struct list_head", "struct task_struct") if name.startswith(prefix)])
        self.closed = False

    def symbol(self, name: str, module: str | None = None) -> Symbol:
        found = self.symbols.get(name)
        if found is None or (module is not None and found.module != module):
            raise SymbolNotFoundError(name, near_names(name, list(self.symbols.all)))
        return found

    def symbolize(self, address: int) -> tuple[Symbol, int] | None:
        for symbol in self.symbols.all.values():
            if symbol.address <= address < symbol.address + symbol.size:
                return symbol, address - symbol.address
        return None

    def check(self) -> None:
        self.physical.check()

    def close(self) -> None:
        self.closed = True


def fake_target(writable: bool = False) -> Target:
    """Return a fake where a Target is asked for."""
    return cast("Target", FakeTarget(writable))
