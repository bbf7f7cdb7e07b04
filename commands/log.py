"""``::msgbuf``: the kernel log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Annotated

from kshell.api import (
    COUNT,
    Column,
    Decimal,
    Flag,
    KshellError,
    Option,
    Output,
    Row,
    Session,
    Table,
    UsageError,
    dcmd,
)
from kshell.linux import clock, printk

BRIEF = (Column("MESSAGE"),)
VERBOSE = (
    Column("TIMESTAMP", 14, align=">"), Column("LEVEL", 6), Column("FACILITY", 8), Column("CALLER", 8),
    Column("SEQ", 8, COUNT), Column("MESSAGE"),
)
DATED = (Column("TIMESTAMP", 23, key="time"), *VERBOSE[1:])
#: how often a live target is asked for new records, in seconds
PERIOD = 0.5
STYLES = ("error", "error", "error", "error", "warning", "strong", "", "dim")


@dcmd("msgbuf", aliases=("dmesg",), columns=BRIEF, group="Kernel")
def msgbuf(
    session: Session, bare: Annotated[bool, Flag("-t", "without the time")],
    dated: Annotated[bool, Flag("-T", "the time on the wall (UTC) instead of that since boot")],
    verbose: Annotated[bool, Flag("-v", "time, level, facility and caller in columns of their own")],
    level: Annotated[str | None, Option("-l", "level", "this level and what is worse; \"warn,info\": exactly these")],
    pattern: Annotated[str | None, Option("-g", "regex", "only records that match, as grep -E finds them")],
    last: Annotated[Decimal | None, Option("-n", "n", "only the last n records, in decimal")],
    follow: Annotated[bool, Flag("-f", "go on with what a live kernel logs from now on, until Ctrl-C")],
) -> Iterator[Output]:
    """Show the kernel log, as dmesg(1) does.

    It is found through VMCOREINFO alone, so it is there when types and symbols are not. A record that cannot be read
    says why in its place. Levels: emerg alert crit err warn notice info debug; a terminal shows err and worse red, warn
    yellow. CALLER is the task (T12) or CPU (C3) that wrote a record, where the kernel keeps that.

    Examples:
      ::msgbuf
      ::dmesg -l err -T           // errors and worse, with dates
      ::dmesg -g 'BUG|panic' -v
      ::dmesg -v -n 20 ! cat
    """
    if bare and (dated or verbose):
        raise UsageError("-t shows no time: -T and -v do not go with it")
    if follow and not session.target.live:
        raise KshellError("this target does not move: only the log of a live one can be followed")
    if last is not None and last < 0:
        raise UsageError(f"-n {last}: a number of records is not negative")
    wanted = _filter(level, pattern)
    boot_time = clock.read_clock(session.target).boot_time if dated else None
    if verbose:
        yield Table(VERBOSE if boot_time is None else DATED)
    found = (record for record in printk.iter_records(session.target) if wanted(record))
    seen = -1
    for record in found if last is None else deque(found, last):
        seen = record.seq
        yield from _rows(record, bare, verbose, boot_time)
    if follow:
        yield from _later(session, seen, wanted, bare, verbose, boot_time)


def _filter(level: str | None, pattern: str | None) -> Callable[[printk.Record], bool]:
    """Return what says whether a record is wanted; one that cannot be read is, unless its text is asked for."""
    import re

    try:
        levels = printk.parse_levels(level) if level is not None else None
    except ValueError:
        raise UsageError(f"-l {level}: the levels are {' '.join(printk.LEVELS)}") from None
    try:
        search = re.compile(pattern).search if pattern is not None else None
    except re.error as error:
        raise UsageError(f"-g {pattern}: {error}") from None

    def wanted(record: printk.Record) -> bool:
        if levels is not None and record.level not in levels:
            return False
        return search is None or (isinstance(record.text, str) and search(record.text) is not None)

    return wanted


def _later(
    session: Session, seen: int, wanted: Callable[[printk.Record], bool], bare: bool, verbose: bool,
    boot_time: int | None,
) -> Iterator[Output]:
    """Yield what a live kernel logs after record *seen*, without an end."""
    import time

    while True:
        time.sleep(PERIOD)
        session.target.forget()
        for record in printk.iter_records(session.target):
            if record.seq > seen:
                seen = record.seq
                if wanted(record):
                    yield from _rows(record, bare, verbose, boot_time)


def _rows(record: printk.Record, bare: bool, verbose: bool, boot_time: int | None) -> Iterator[Row]:
    style = STYLES[record.level]
    if verbose:
        seconds = f"{record.timestamp // 1_000_000_000}.{record.timestamp // 1000 % 1_000_000:06d}"
        shown = seconds if boot_time is None else printk.wall_time(boot_time + record.timestamp)
        facilities = printk.FACILITIES
        facility = facilities[record.facility] if record.facility < len(facilities) else str(record.facility)
        first, *rest = record.text.split("\n") if isinstance(record.text, str) else (record.text,)
        cells = (shown, printk.LEVELS[record.level], facility, record.caller, record.seq, first)
        yield Row(None, cells, style=style)
        for line in rest:
            yield Row(None, (None, None, None, None, None, line), style=style)
        return
    lines = record.text.split("\n") if bare and isinstance(record.text, str) else record.lines(boot_time)
    for line in lines:
        yield Row(None, (line,), style=style)
