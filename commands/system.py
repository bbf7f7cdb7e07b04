"""``::showrev``: which system this is; ``::time``: how long it has been up (mdb-language.md 11.1, 12.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import Flag, Output, Record, Session, UsageError, dcmd, escape
from kshell.linux import clock, uts


@dcmd("showrev", group="Kernel")
def showrev(session: Session) -> Iterator[Output]:
    """Show the host, the release and the version of the kernel.

    Examples:
      ::showrev
    """
    names = uts.uname(session.target)
    lines = [
        f"Hostname: {names.nodename}", f"Release: {names.release}", f"Kernel architecture: {names.machine}",
        f"Kernel version: {names.sysname} {names.release} {names.version}"]
    yield Record(map(escape, lines), names._asdict)


@dcmd("time", group="Kernel")
def time(
    session: Session,
    decimal: Annotated[bool, Flag("-d", "in decimal")], hexadecimal: Annotated[bool, Flag("-x", "in hexadecimal")],
    date: Annotated[bool, Flag("-c", "nanoseconds since 1970 instead: the clock on the wall")],
) -> Iterator[Output]:
    """Show the nanoseconds that the system has been up without sleep (ktime_get).

    It is the time of the last update of the kernel's clock. In the current radix without -d or -x.

    Examples:
      ::time -d
      ::time -c
    """
    if decimal and hexadecimal:
        raise UsageError("-d or -x, not both")
    found = clock.read_clock(session.target)
    number = found.wall if date else found.monotonic
    text = f"0t{number}" if decimal else f"0x{number:x}" if hexadecimal else session.format_number(number)
    yield Record([text], lambda: {"ns": number}, number)
