"""``::msgbuf``: the kernel log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import COUNT, Column, Flag, Output, Row, Session, Table, dcmd
from kshell.linux import printk

BRIEF = (Column("MESSAGE"),)
VERBOSE = (
    Column("TIMESTAMP", 14, align=">"), Column("LEVEL", 6), Column("FACILITY", 8), Column("CALLER", 8),
    Column("SEQ", 8, COUNT), Column("MESSAGE"),
)


@dcmd("msgbuf", aliases=("dmesg",), columns=BRIEF, group="Kernel")
def msgbuf(
    session: Session, bare: Annotated[bool, Flag("-t", "without the time")],
    verbose: Annotated[bool, Flag("-v", "time, level, facility and caller in columns of their own")],
) -> Iterator[Output]:
    """Show the kernel log, as dmesg(1) does.

    It is found through VMCOREINFO alone, so it is there when types and symbols are not. A record that cannot be read
    says why in its place.

    Examples:
      ::msgbuf
      ::dmesg -v ! grep -i error
    """
    if verbose:
        yield Table(VERBOSE)
    for record in printk.iter_records(session.target):
        if verbose:
            seconds = f"{record.timestamp // 1_000_000_000}.{record.timestamp // 1000 % 1_000_000:06d}"
            facilities = printk.FACILITIES
            facility = facilities[record.facility] if record.facility < len(facilities) else str(record.facility)
            first, *rest = record.text.split("\n") if isinstance(record.text, str) else (record.text,)
            yield Row(None, (seconds, printk.LEVELS[record.level], facility, record.caller, record.seq, first))
            for line in rest:
                yield Row(None, (None, None, None, None, None, line))
        elif bare and isinstance(record.text, str):
            for line in record.text.split("\n"):
                yield Row(None, (line,))
        else:
            for line in record.lines():
                yield Row(None, (line,))
