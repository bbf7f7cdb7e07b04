"""What a kernel exports to modules, with addresses: variables too, which kallsyms lacks without CONFIG_KALLSYMS_ALL.

Kernel source: ``struct kernel_symbol`` in include/linux/export.h and kernel/module/internal.h. Since 4.19
(7290d5809571) value and name are s32 relative to their own place where the architecture can, and since 5.4
(8651ec01daed) a namespace follows them. Which layout it is tells what it leads to. Per-CPU variables have their
offsets. Where kallsyms lacks the labels of the tables they are found by their shape (kshell/target/labels.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from kshell.errors import FormatError
from kshell.memory.model import Memory
from kshell.types.kallsyms import LOW
from kshell.types.linkedsyms import LinkedSymbols, Row
from kshell.types.model import Symbol

TABLES = ("__ksymtab", "__ksymtab_gpl")
MAX_TABLE = 4 << 20
MAX_STRINGS = 16 << 20
MAX_NAME = 512
PROBED = 32  # entries that tell the layout
#: bytes of an entry, and whether its numbers are relative to their places
LAYOUTS = ((12, True), (8, True), (24, False), (16, False))
NAME = re.compile(rb"[A-Za-z_][\w.$]*\Z")
TOP = 1 << 64


class ExportedSymbols(LinkedSymbols):
    """Exported symbols. Where one ends nothing tells, so each covers its first byte only."""

    def symbol(self, number: int) -> Symbol:
        found = super().symbol(number)
        return Symbol(found.name, found.address, 0, found.type, found.module)


def load_exported(space: Memory, address_of: Callable[[str], int | None]) -> ExportedSymbols:
    """Read the kernel's export tables; what lies in its text, which kallsyms has, is left out.

    :param address_of: gives the address of a label, ``__start___ksymtab`` for example, or None
    :raises FormatError: the tables are not there, empty (CONFIG_MODULES=n), or of no known layout
    :raises Fault: they cannot be read
    """
    rows: list[Row] = []
    text, end = address_of("_stext") or 0, address_of("_etext") or 0
    for table in TABLES:
        start, stop = address_of(f"__start_{table}"), address_of(f"__stop_{table}")
        if start is None or stop is None:
            raise FormatError(f"no label tells where {table} is")
        if not 0 <= stop - start <= MAX_TABLE:
            raise FormatError(f"{table} has an impossible size of {stop - start} bytes")
        if stop > start:
            rows += [(address, 0, "D", name) for address, name in _table(space, start, space.read(start, stop - start))
                     if not text <= address < end]
    if not rows:
        raise FormatError("the kernel exports nothing (built without CONFIG_MODULES)")
    return ExportedSymbols.of(rows)


def _table(space: Memory, start: int, data: bytes) -> Iterator[tuple[int, str]]:
    for size, relative in LAYOUTS:
        if len(data) % size:
            continue
        places = list(_entries(start, data, size, relative))
        if all((address >> 63 or address < LOW) and name >> 63 for address, name in places) and all(
                _text(space.read_upto(name, MAX_NAME)[0]) for _, name in places[:PROBED]):
            break
    else:
        raise FormatError(f"the export table at 0x{start:x} has no known layout")
    low, high = min(name for _, name in places), max(name for _, name in places) + MAX_NAME
    strings = space.read_upto(low, high - low)[0] if high - low <= MAX_STRINGS else b""
    for address, name in places:
        found = _text(strings[name - low : name - low + MAX_NAME] or space.read_upto(name, MAX_NAME)[0])
        if found:
            yield address, found


def _entries(start: int, data: bytes, size: int, relative: bool) -> Iterator[tuple[int, int]]:
    """Yield (address, where its name is)."""
    if relative:
        for at in range(0, len(data), size):
            value, name = struct.unpack_from("<ii", data, at)
            yield (start + at + value) % TOP, (start + at + 4 + name) % TOP
    else:
        for at in range(0, len(data), size):
            yield struct.unpack_from("<QQ", data, at)


def _text(data: bytes) -> str:
    """Return the name that *data* begins with, "" when it is none."""
    name, end, _ = data.partition(b"\0")
    return name.decode("ascii") if end and NAME.match(name) else ""
