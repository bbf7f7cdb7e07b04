"""``$e`` and ``::linkerset``: what the linker left: global symbols, and tables collected from all object files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    Column,
    Items,
    Output,
    Row,
    Session,
    Symbol,
    Table,
    Text,
    UsageError,
    Word,
    dcmd,
)
from kshell.linux import linkersets

CHUNK = 4096  # symbols whose values are read together
SETS = (Column("NAME", 28), Column("ADDR", kind=ADDRESS), Column("BYTES", 8, COUNT), Column("ITEMSIZE", 8, COUNT),
        Column("ITEMCOUNT", 9, COUNT), Column("ITEMS"))
HOW = {"": "", "*": "pointers to ", "+": "offsets of "}


@dcmd("$e", group="Symbols")
def externs(session: Session) -> Iterator[Output]:
    """List the global functions and objects, each with the 8 bytes that are there now; ? if they cannot be read.

    ::nm -g lists them without their contents.

    Examples:
      $e ! head -3
      $e ! grep '^jiffies('
    """
    found: list[Symbol] = []
    for symbol in session.target.symbols:
        if symbol.type in "TDBRVWGS":
            found.append(symbol)
            if len(found) == CHUNK:
                yield _contents(session, found)
                found = []
    if found:
        yield _contents(session, found)


def _contents(session: Session, symbols: list[Symbol]) -> Text:
    gathered = session.target.kernel.gather([symbol.address for symbol in symbols], 8)
    order, lines = session.byteorder, []
    for symbol, row, good in zip(symbols, gathered.data, gathered.ok, strict=True):
        name = f"{symbol.module}`{symbol.name}" if symbol.module else symbol.name
        value = session.format_number(int.from_bytes(row.tobytes(), order)) if good else "?"
        lines.append(f"{name}({session.format_number(symbol.address)}):\t{value}")
    return Text("\n".join(lines))


@dcmd("linkerset", columns=SETS, group="Symbols")
def linkerset(
    session: Session, address: int | None,
    name: Annotated[str | None, Word("name", "of a set: its objects; module`name is that of a module")],
) -> Iterator[Output]:
    """List the linker sets, or the addresses of the objects of one.

    A linker set is a table collected from all object files: between the symbols __start_NAME and __stop_NAME or
    __end_NAME. ITEMS is what the kernel's own ones hold; the sizes are from its types. Sets of memory that was given
    back when the system was up cannot be read any more.

    Examples:
      ::linkerset
      ::linkerset __param | ::head -3 | ::print struct kernel_param name
      ::linkerset __tracepoints_ptrs | ::head -3 | ::print name
    """
    if address is not None:
        raise UsageError("no address: ::linkerset NAME lists the objects of a set")
    target = session.target
    if name is not None:
        chosen = linkersets.find_set(target, name)
        yield Items(list(linkersets.objects(target, chosen)), chosen.item or None)
        return
    yield Table(SETS)
    for one in linkersets.linker_sets(target):
        full = f"{one.module}`{one.name}" if one.module else one.name
        items = f"{HOW[one.how]}{one.item or 'places'}" if one.how else one.item
        yield Row(one.start, (full, one.start, one.end - one.start, one.size or None, one.length, items))
