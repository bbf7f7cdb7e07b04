"""``::pte``, ``::ptable``: entries of page tables in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    HEX,
    Column,
    Expr,
    Flag,
    Option,
    Output,
    Row,
    Session,
    Table,
    UsageError,
    dcmd,
)
from kshell.linux import page_entries
from kshell.linux import vtop as vtop_
from kshell.linux.page_entries import Entry

COLUMNS = (Column("ENTRY", kind=ADDRESS), Column("KIND", 7), Column("PFN", 9, HEX, ">"), Column("FLAGS", 50),
           Column("NOTE"))
SLOTS = (Column("SLOT", 4, DECIMAL, ">"), *COLUMNS)


@dcmd("pte", columns=COLUMNS, group="Memory")
def pte(
    session: Session, address: int,
    level: Annotated[Expr | None, Option("-l", "level", "of a table of this level: 0 a PTE (default), 1 a PMD, ...")],
) -> Iterator[Output]:
    """Say what an entry of a page table says: the entry itself is the address.

    KIND is page, 2M page or 1G page for one that maps memory, table, swapped, none, or bad for one with a reserved bit
    set. The level tells a large page from a table. Into a pipe goes the page frame.

    Examples:
      8000000001234067::pte
      12000e3::pte -l 1
    """
    space = vtop_.page_tables(session.target.kernel)
    yield _row(page_entries.decode(space.format, address, page_entries.level_of(space, level or 0)))


@dcmd("ptable", columns=SLOTS, group="Memory")
def ptable(
    session: Session, address: int,
    level: Annotated[Expr | None, Option("-l", "level", "what table it is: 0 of PTEs (default), 1 of PMDs, ...")],
    virtual: Annotated[bool, Flag("-a", "the address is a virtual one: the lowest table on the way to it")],
) -> Iterator[Output]:
    """Show the entries of the page table in a page frame, whose number is the address; empty ones are left out.

    With -a the table by which a virtual address is mapped, and which address each entry is for. Into a pipe go the page
    frames that the entries lead to.

    Examples:
      init_task::ptable -a ! head -3
      1000::ptable -l 3
    """
    if virtual and level is not None:
        raise UsageError("-l is for the table in a page frame, -a finds the level")
    if not virtual:
        space = vtop_.page_tables(session.target.kernel)
        for entry in page_entries.table(space, address, page_entries.level_of(space, level or 0)):
            yield _row(entry, entry.slot)
        return
    space = vtop_.page_tables(session.space(address))
    frame, depth, first = page_entries.last_table(space, address)
    yield Table((Column("VIRTUAL", kind=ADDRESS), *SLOTS))
    for entry in page_entries.table(space, frame, depth):
        yield _row(entry, page_entries.virtual(space, first, depth, entry.slot), entry.slot)


def _row(entry: Entry, *before: int) -> Row:
    return Row(entry.pfn, (*before, entry.entry, entry.kind, entry.pfn, entry.flags, entry.note))
