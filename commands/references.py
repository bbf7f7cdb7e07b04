"""``::kgrep``: who holds a value, or a pointer into an object; walkers over references between objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    Call,
    Column,
    Decimal,
    Flag,
    Item,
    Items,
    KshellError,
    Note,
    Number,
    Option,
    Output,
    Row,
    Session,
    UsageError,
    Warn,
    dcmd,
    walker,
)
from kshell.linux import references, whatis
from kshell.linux import search as memory

SIZES = (1, 2, 4, 8)
SHOWN = 1000  # places that are shown when nobody said how many


@dcmd("kgrep", columns=(Column("ADDR", kind=ADDRESS), Column("WHAT")), group="Memory")
def kgrep(
    session: Session, address: int, call: Call,
    verbose: Annotated[bool, Flag("-v", "say how much was searched")],
    whole: Annotated[bool, Flag("-o", "pointers into the object of a slab, task or stack that the address is in")],
    quick: Annotated[bool, Flag("-q", "addresses only")],
    distance: Annotated[Number | None, Option("-d", "dist", "words from the value to so much above it")],
    mask: Annotated[Number | None, Option("-m", "mask", "bits that count")],
    inverse: Annotated[Number | None, Option("-M", "invmask", "bits that do not count")],
    lowest: Annotated[Number | None, Option("-a", "min", "the lowest address")],
    highest: Annotated[Number | None, Option("-A", "max", "the address to stop before")],
    size: Annotated[Number | None, Option("-s", "size", "bytes of a word: 1, 2, 4 or 8; 8 without")],
    most: Annotated[Decimal | None, Option("-n", "num", "stop after so many places; 1000 on the screen")],
) -> Iterator[Output]:
    """Find the places in memory that hold a value: the address is the value. Each is told by what it is in.

    Every place in RAM is looked at once, at multiples of the size, and told by its address in the kernel's image or
    the direct map, and what ::whatis says of it. With -o pointers to any byte of the object are found, as lists and
    trees have them. Into a pipe go the addresses. Pipes and shell commands get all; 0::kgrep alone would not end.

    Examples:
      init_task::kgrep ! head -3
      init_task::kgrep | ::head -2 | ::map *.
      init_task::kgrep -q -d 8 ! wc -l
      ::walk dentry | ::head -1 | ::kgrep -o
    """
    if sum(option is not None for option in (distance, mask, inverse)) + whole > 1:
        raise UsageError("one of -d, -m, -M, -o")
    if (size or 8) not in SIZES:
        raise UsageError(f"{size} is not 1, 2, 4 or 8 bytes")
    if distance is not None and distance < 0:
        raise UsageError(f"-d {distance}: words from the value upwards are found, none below it")
    target = session.target
    value, room = whatis.extent(target, address) if whole else (address, distance or 0)
    under = mask if inverse is None else ~inverse & (1 << 64) - 1
    found = memory.word_finder(value, size or 8, session.byteorder, mask=under, distance=room)
    search, names = memory.Search(*found), memory.PhysicalNames(target)
    limit = most if most is not None or call.pipe_out or call.shell_out else SHOWN
    shown = 0
    for hit in memory.search_ram(target, search):
        place, _ = names.virtual(hit)
        if place < (lowest or 0) or (highest is not None and place >= highest):
            continue
        if limit is not None and shown >= limit:
            if most is None:
                yield Warn(KshellError(f"more than {SHOWN} places hold 0x{address:x}",
                                       hint="-n NUM shows more of them, | ::count counts them"))
            break
        shown += 1
        if quick or call.pipe_out:
            yield Item(place)
        else:
            yield Row(place, (place, what(session, place)))
    told = memory.missed_text(search.missed)
    if told:
        yield Note(told)
    if verbose:
        total = sum(end - start for start, end in memory.ram(target))
        if not total:
            raise KshellError("the target holds no physical memory")
        yield Note(f"searched {total >> 20} MiB of RAM")


def what(session: Session, place: int) -> str:
    """Return the most specific thing that ::whatis says of *place*."""
    answer = next((one for one in whatis.whatis(session.target, place, verbose=True) if one.kind != "error"), None)
    if answer is None:
        return ""
    return f"{answer.start:x}+{answer.offset:x}, {answer.text}" if answer.offset else answer.text


@walker("references")
def walk_references(session: Session, address: int) -> Iterator[Output]:
    """Walk the places in kernel memory that hold a pointer into the object of a slab that the address is in.

    Free objects, free pages, user memory and page cache are left out; ::kgrep -o looks everywhere.
    """
    scan = references.Scan(session.target)
    number = scan.number(address)
    for edges in scan.edges():
        yield Items(edges.place[edges.target == number].tolist())
    if scan.missed.pages:
        yield Warn(f"{scan.missed.pages} pages of kernel memory could not be read")


@walker("holders")
def walk_holders(session: Session, address: int) -> Iterator[Output]:
    """Walk the objects of slabs that hold a pointer into the one that the address is in, each once."""
    scan = references.Scan(session.target)
    number = scan.number(address)
    every: set[int] = set()
    for edges in scan.edges():
        every.update(edges.source[(edges.target == number) & (edges.source != number)].tolist())
    every.discard(references.ROOT)
    yield Items(scan.addresses(sorted(every)))
    if scan.missed.pages:
        yield Warn(f"{scan.missed.pages} pages of kernel memory could not be read")


@walker("referents")
def walk_referents(session: Session, address: int) -> Iterator[Output]:
    """Walk the objects of slabs that the one at the address points into, in the order of its words, each once."""
    scan = references.Scan(session.target)
    yield Items(scan.addresses(scan.referents(address)))
