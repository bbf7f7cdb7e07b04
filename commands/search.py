"""``::find``: where in memory something is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from kshell.api import (
    ADDRESS,
    Argument,
    Column,
    Decimal,
    Flag,
    Note,
    Number,
    Option,
    Output,
    Row,
    Session,
    UsageError,
    Word,
    address_text,
    dcmd,
)
from kshell.linux import search as memory

SIZES = (1, 2, 4, 8)


@dcmd("find", columns=(Column("ADDR", kind=ADDRESS), Column("PHYS", kind=ADDRESS), Column("WHAT")),
      aliases=("search",), group="Memory")
def find(
    session: Session, address: int | None,
    text: Annotated[bool, Flag("-s", "the pattern is text")],
    wide: Annotated[bool, Flag("-w", "the pattern is text in UTF-16")],
    hexadecimal: Annotated[bool, Flag("-x", "the pattern is bytes in hexadecimal")],
    regex: Annotated[bool, Flag("-r", "the pattern is a regular expression over bytes")],
    user: Annotated[bool, Flag("-u", "search the memory of the process context")],
    physical: Annotated[bool, Flag("-p", "addresses are physical: the one given, and those into a pipe")],
    size: Annotated[Number | None, Option("-b", "bytes", "the pattern is an integer of 1, 2, 4 or 8 bytes; 8 without")],
    mask: Annotated[Number | None, Option("-m", "mask", "bits of the integer that count")],
    length: Annotated[Number | None, Option("-l", "len", "search so many bytes from the address on")],
    most: Annotated[Decimal | None, Option("-n", "num", "stop after so many hits")],
    pattern: Annotated[list[Argument], Word("pattern", "an expression; with -s, -w, -x, -r something else")],
) -> Iterator[Output]:
    """Find bytes, text or numbers in memory.

    Without an address all of RAM is searched, once, and ADDR is where the kernel's image or the direct map has it; with
    one, -l bytes of virtual memory from there on, or of physical memory with -p; with -u all that the process context
    maps. Integers are looked for at multiples of
    their size. What could not be searched is told at the end. Into a pipe go the addresses.

    Examples:
      ::find -n 3 -s 'Linux version'
      ::find -n 3 init_task
      linux_banner::find -l 1000 -x '4c69 6e75 78'
      0::find -p -l 100000 -s 'Linux version'
    """
    if text + wide + hexadecimal + regex > 1:
        raise UsageError("one of -s, -w, -x, -r")
    if not pattern:
        raise UsageError("a pattern is missing")
    if (length is None) != (address is None):
        raise UsageError("an address and -l LEN go together: linux_banner::find -l 1000 -s Linux")
    search = memory.Search(*_finder(session, pattern, text, wide, hexadecimal, regex, size or 8, mask))
    if user and physical:
        raise UsageError("-u and -p do not go together")
    hits = _hits(session, search, address, length, user, physical)
    yield from islice(hits, most)
    told = memory.missed_text(search.missed)
    if told:
        yield Note(told)


def _finder(
    session: Session, pattern: list[Argument], text: bool, wide: bool, hexadecimal: bool, regex: bool, size: int,
    mask: int | None,
) -> tuple[memory.Find, int]:
    words = " ".join(word if isinstance(word, str) else f"0x{word:x}" for word in pattern)
    if text or wide:
        return memory.bytes_finder(words.encode("utf-16-le" if wide else "utf-8", "surrogateescape"))
    if regex:
        return memory.regex_finder(words)
    if hexadecimal:
        try:
            return memory.bytes_finder(bytes.fromhex(words))
        except ValueError:
            raise UsageError(f"{words}: not bytes in hexadecimal", hint="two digits a byte: -x '4c69 6e75'") from None
    if size not in SIZES:
        raise UsageError(f"{size} is not 1, 2, 4 or 8 bytes")
    return memory.word_finder(session.evaluate(words), size, session.byteorder, mask=mask)


def _hits(
    session: Session, search: memory.Search, address: int | None, length: int | None, user: bool, physical: bool,
) -> Iterator[Row]:
    target = session.target
    if user:
        for run in session.user.ranges():
            if run.held:
                for hit in search.run(session.user, run.start, run.end):
                    yield Row(hit, (hit, None, ""))
        return
    if address is not None and length is not None and not physical:
        for hit in search.run(session.space(address), address, min(address + length, 1 << 64)):
            yield Row(hit, (hit, None, address_text(target, hit, session.radix)))
        return
    names = memory.PhysicalNames(target)
    if address is not None and length is not None:
        hits = search.run(target.physical, address, min(address + length, 1 << 64))
    else:
        hits = memory.search_ram(target, search)
    for hit in hits:
        place, symbolic = names.virtual(hit)
        text = address_text(target, place, session.radix) if symbolic else ""
        yield Row(hit if physical else place, (place, hit, text))
