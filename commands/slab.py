"""``::kmastat``: how full the slab caches are; walkers over caches: ``::walk dentry`` walks the allocated objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    Column,
    Flag,
    Items,
    Note,
    NotFoundError,
    Output,
    Row,
    Session,
    Table,
    UsageError,
    Warn,
    Word,
    dcmd,
    walker,
)
from kshell.linux import slab, slab_usage, slub, slub_objects

CACHE = "struct kmem_cache"

COLUMNS = (
    Column("NAME", 25), Column("BUFSIZE", 7, COUNT), Column("INUSE", 8, COUNT), Column("TOTAL", 8, COUNT),
    Column("SLACK", 7, COUNT), Column("SLABS", 7, COUNT), Column("MEMORY", 10, COUNT), Column("UTIL", 5, COUNT),
)
LONG = (
    Column("ADDR", kind=ADDRESS), Column("NAME", 25), Column("INUSE", 8, COUNT), Column("FREE", 7, COUNT),
    Column("PARTIAL", 7, COUNT), Column("CPU", 7, COUNT), Column("SHEAF", 7, COUNT), Column("ACTIVE", 8, COUNT),
    Column("TOTAL", 8, COUNT),
)


@dcmd("kmastat", columns=COLUMNS, yields=CACHE, group="Kernel")
def kmastat(
    session: Session,
    largest: Annotated[bool, Flag("-m", "the caches that take the most memory first")],
    long: Annotated[bool, Flag("-v", "where the free objects are kept")],
    pattern: Annotated[str | None, Word("pattern", "only caches whose name matches this regular expression")],
) -> Iterator[Output]:
    """Show how much of each slab cache is in use; caches without slabs are left out.

    INUSE are the objects that are allocated, TOTAL those that all slabs have room for, SLACK the free ones that are
    kept for a CPU, MEMORY the bytes of the slabs, UTIL the percent of it that allocated objects take. -v splits the
    free ones: in slabs that no CPU holds, in slabs on CPUs' partial lists, in slabs that CPUs allocate from, in
    sheaves; ACTIVE is what /proc/slabinfo calls so, the slack with it. Into a pipe go the kmem_caches.

    Examples:
      ::kmastat -m ! head -10
      ::kmastat -v ^kmalloc
      ::kmastat -m | ::head -3 | ::print struct kmem_cache name object_size
    """
    try:
        matches = re.compile(pattern or "").search
    except re.error as error:
        raise UsageError(f"{pattern}: {error}") from None
    usage = [one for one in slab_usage.slab_usage(session.target) if matches(_name(one))]
    if pattern is not None and not usage:
        raise NotFoundError("slab cache", pattern, hint="::kmastat without a pattern lists all")
    every = [one for one in usage if one.total]
    if largest:
        every.sort(key=lambda one: -one.memory)
    if long:
        yield Table(LONG)
    for one in every:
        size = one.cache.size if one.cache else 0
        if long:
            cells: tuple[int | str | None, ...] = (
                one.address, _name(one), one.allocated, one.free, one.partial, one.cpu, one.sheaf, one.active,
                one.total)
        else:
            used = round(100 * one.allocated * size / one.memory) if one.memory else 0
            cells = (_name(one), size, one.allocated, one.total, one.slack, one.slabs, one.memory, used)
        yield Row(one.address, cells)
    total = sum(one.memory for one in every)
    used = sum(one.allocated * (one.cache.size if one.cache else 0) for one in every)
    yield Note(f"{total >> 10} KiB in {sum(one.slabs for one in every)} slabs, "
               f"{round(100 * used / total) if total else 0} % in use")
    yield from _problems(session, every)


def _name(usage: slab_usage.Usage) -> str:
    return usage.cache.name if usage.cache else f"(not listed, 0x{usage.address:x})"


def _problems(session: Session, every: list[slab_usage.Usage]) -> Iterator[Output]:
    for one in every:
        if one.damaged:
            yield Warn(f"{_name(one)}: the freelists of {one.damaged} slabs are damaged; "
                       "what they do not lead to counts as in use")
    lost = [one for one in every if one.lost]
    if lost:
        names = ", ".join(_name(one) for one in lost[:4]) + (", ..." if len(lost) > 4 else "")
        yield Note(f"the freelists of {sum(one.lost for one in lost)} slabs of {len(lost)} caches ({names}) lead into "
                   "memory that is not there; what they do not lead to counts as in use")
    heap = slub_objects.heap(session.target)
    for address, problem in heap.strange.items():
        yield Warn(f"slabs of the cache at 0x{address:x} are left out: {problem}")
    if heap.slabs.lost:
        yield Note(f"{heap.slabs.lost} struct pages cannot be read: slabs among them are not counted")


def _cache_named(session: Session, name: str) -> int | None:
    try:
        return slab.find_cache(session.target, name).address
    except NotFoundError:
        return None


@walker("kmem", family=_cache_named)
def walk_kmem(session: Session, address: int) -> Iterator[Output]:
    """Walk the allocated objects of a slab cache, by its kmem_cache or its name: ::walk dentry."""
    yield from _objects(session, address, allocated=True)


@walker("freemem")
def walk_freemem(session: Session, address: int) -> Iterator[Output]:
    """Walk the free objects of a slab cache."""
    yield from _objects(session, address, allocated=False)


@walker("kmem_slab", yields="struct slab")
def walk_kmem_slab(session: Session, address: int) -> Iterator[Output]:
    """Walk the slabs of a slab cache, the full ones too."""
    yield Items(slub.all_slabs(session.target).of(address).page.tolist(), "struct slab")


def _objects(session: Session, address: int, *, allocated: bool) -> Iterator[Output]:
    target = session.target
    found = slub_objects.cache_objects(target, target.value(CACHE, address))
    kind = slab.object_type(target, slab.read_cache(target, target.value(CACHE, address)))
    for page in found.damaged:
        yield Warn(f"the freelist of the slab at 0x{page:x} is damaged: its free objects are not all told")
    if found.lost:
        yield Note(f"the freelists of {len(found.lost)} slabs lead into memory that is not in the dump: "
                   "their free objects are not all told")
    yield Items(found.address[found.allocated == allocated].tolist(), kind)
