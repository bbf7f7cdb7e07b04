"""``::checksum``: whether two images hold the same memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import COUNT, Column, Flag, Note, Number, Option, Output, Row, Session, UsageError, dcmd
from kshell.linux import checksum as sums
from kshell.linux.search import missed_text, ram


@dcmd("checksum", columns=(Column("BYTES", 16, COUNT), Column("SHA256", 64)), group="Memory")
def checksum(
    session: Session, address: int | None,
    length: Annotated[Number | None, Option("-l", "len", "so many bytes from the address on")],
    physical: Annotated[bool, Flag("-p", "the address is physical")],
    user: Annotated[bool, Flag("-u", "all that the process context maps")],
) -> Iterator[Output]:
    """Show a checksum of memory.

    Of all RAM that the image holds; with an address, of -l bytes from there on; with -u of a process. The start of each
    gapless run counts, the container does not: a dump and its compressed copy have the same.
    What could not be read is told, and does not count.

    Examples:
      ::checksum
      _stext::checksum -l 100000
      ::getu victim; ::checksum -u
    """
    if (length is None) != (address is None) or (physical and address is None):
        raise UsageError("an address and -l LEN go together: linux_banner::checksum -l 40")
    if user and address is not None:
        raise UsageError("-u takes no address")
    progress = None
    if address is not None and length is not None:
        memory = session.physical if physical else session.space(address)
        runs = [(address, min(address + length, 1 << 64))]
    elif user:
        memory = session.user
        runs = [(run.start, run.end) for run in memory.ranges() if run.held]
    else:
        memory, runs = session.physical, ram(session.target)
        progress = session.target.progress
    whole = sum(end - start for start, end in runs)
    found = sums.checksum(memory, runs, progress and (lambda done: progress("reading RAM", done, whole)))
    if progress is not None:
        progress("", whole, whole)
    yield Row(None, (found.size, found.digest))
    if told := missed_text(found.missed, "read"):
        yield Note(told)
