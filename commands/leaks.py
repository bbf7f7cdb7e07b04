"""``::findleaks``: objects that nothing refers to any more."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    Call,
    Column,
    Decimal,
    Flag,
    Items,
    KshellError,
    Note,
    NotFoundError,
    Option,
    Output,
    Record,
    Row,
    Session,
    UsageError,
    Warn,
    Word,
    dcmd,
    escape,
    walker,
)
from kshell.linux import leaks, slab, slab_tracks, whatis_pages

CACHE = "struct kmem_cache"
#: leaks of one cache whose allocation stacks are looked up
MAX_TRACKED = 1 << 20
COLUMNS = (
    Column("CACHE", kind=ADDRESS), Column("LEAKED", 8, COUNT), Column("LOST", 8, COUNT), Column("BYTES", 11, COUNT),
    Column("FIRST", kind=ADDRESS), Column("NAME", 24), Column("CALLER"),
)


@dcmd("findleaks", columns=COLUMNS, group="Kernel")
def findleaks(
    session: Session, call: Call,
    verbose: Annotated[bool, Flag("-v", "the stack of the allocation under each row")],
    least: Annotated[Decimal | None, Option("-n", "num", "only groups of so many objects or more")],
    pattern: Annotated[str | None, Word("pattern", "only caches whose name matches this regular expression")],
) -> Iterator[Output]:
    """Find leaked objects of slab caches: allocated, and nothing that the kernel can get at refers to them.

    All kernel memory is looked through for words that are addresses in objects: from what is outside of slabs (data,
    per-CPU memory, stacks, vmalloc, registers) the objects are marked that can be reached; the others are leaked.
    LEAKED are those nothing refers to, LOST those that only leaked ones do. A stale word may hide a leak, so counts
    are of at least so many; what the kernel forgets on purpose when it boots (headers of sysctl tables) is told too.

    Grouped by cache, and by who allocated them where the kernel keeps that (boot it with slub_debug=U,NAME).
    Into a pipe go the objects.

    Examples:
      ::findleaks
      ::findleaks -v ^kmalloc
      ::findleaks | ::whatis
    """
    try:
        matches = re.compile(pattern or "").search
    except re.error as error:
        raise UsageError(f"{pattern}: {error}") from None
    if pattern is not None and not any(matches(cache.name) for cache in slab.iter_caches(session.target)):
        raise NotFoundError("slab cache", pattern, hint="::kmastat lists them")
    found = leaks.find_leaks(session.target)
    by_cache: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for address, cache, direct in zip(
            found.address.tolist(), found.cache.tolist(), found.direct.tolist(), strict=True):
        by_cache[cache].append((address, direct))
    groups = [group for cache, objects in by_cache.items() for group in _groups(session, cache, objects)]
    groups.sort(key=lambda group: -len(group.objects))
    for group in groups:
        if not matches(group.name) or len(group.objects) < (least or 0):
            continue
        addresses = [address for address, _ in group.objects]
        if call.pipe_out:
            yield Items(addresses, group.type)
            continue
        leaked = sum(direct for _, direct in group.objects)
        names = [session.name_of(frame) for frame in group.stack]
        cells = (group.cache, leaked, len(addresses) - leaked, len(addresses) * group.size, addresses[0], group.name,
                 names[0] if names else "")
        yield _record(cells, names, group.pids) if verbose else Row(addresses[0], cells, group.type)
    yield from _told(found)


def _record(cells: tuple[int | str, ...], names: list[str], pids: list[tuple[int, int]]) -> Record:
    """Return a row with the stack of the allocation below it."""
    cache, leaked, lost, size, first, name, _ = cells
    lines = [f"{escape(str(name))}: {leaked} leaked, {lost} lost with them, {size} bytes, the first at {first:x}"]
    lines += [f"    {escape(frame)}" for frame in names]
    if pids:
        lines.append(f"    by {', '.join(f'pid {pid} ({count} times)' for pid, count in pids)}")
    return Record(lines, lambda: {
        "cache": f"0x{cache:x}", "leaked": leaked, "lost": lost, "bytes": size, "first": f"0x{first:x}",
        "name": escape(str(name)), "stack": [escape(frame) for frame in names],
        "pids": [{"pid": pid, "count": count} for pid, count in pids]}, first)  # type: ignore[arg-type]


class _Group:
    """Leaks of one cache that were allocated in the same place."""

    def __init__(self, cache: int, name: str, size: int, type: str | None, stack: tuple[int, ...]) -> None:
        self.cache, self.name, self.size, self.type, self.stack = cache, name, size, type, stack
        self.objects: list[tuple[int, bool]] = []
        self.pids: list[tuple[int, int]] = []


def _groups(session: Session, cache: int, objects: list[tuple[int, bool]]) -> list[_Group]:
    target = session.target
    known = whatis_pages.cache_at(target, cache)
    name, size = (known.name, known.size) if known is not None else (f"(not listed, 0x{cache:x})", 0)
    type = slab.object_type(target, known) if known is not None else None
    try:
        tracks = slab_tracks.alloc_tracks(target, cache, [address for address, _ in objects[:MAX_TRACKED]])
    except KshellError:
        tracks = None
    groups: dict[tuple[int, ...], _Group] = {}
    pids: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for number, one in enumerate(objects):
        track = tracks[number] if tracks is not None and number < len(tracks) else None
        stack = () if track is None else track.stack or (track.address,)
        group = groups.setdefault(stack, _Group(cache, name, size, type, stack))
        group.objects.append(one)
        if track is not None:
            pids[stack][track.pid] += 1
    for stack, group in groups.items():
        group.pids = pids[stack].most_common(4)
    return list(groups.values())


def _told(found: leaks.Leaks) -> Iterator[Output]:
    share = f"{len(found.address)} of {found.objects} allocated objects"
    yield Note(f"{share} are leaked; looked at {found.scanned >> 20} MiB")
    if found.missed.pages:
        yield Warn(f"{found.missed.pages} pages of kernel memory could not be read, {found.missed.slabs} of them in "
                   "slabs: what only they refer to counts as leaked")


@walker("leak")
def walk_leak(session: Session, address: int | None) -> Iterator[Output]:
    """Walk the leaked objects, of all slab caches or of the kmem_cache at the address."""
    if address is not None and whatis_pages.cache_at(session.target, address) is None:
        raise KshellError(f"0x{address:x} is no struct kmem_cache of the kernel's list")
    found = leaks.find_leaks(session.target)
    for cache in dict.fromkeys(found.cache.tolist()):
        if address in (None, cache):
            known = whatis_pages.cache_at(session.target, cache)
            kind = slab.object_type(session.target, known) if known is not None else None
            yield Items(found.address[found.cache == cache].tolist(), kind)
    if found.missed.pages:
        yield Warn(f"{found.missed.pages} pages of kernel memory could not be read: what only they refer to is walked")
