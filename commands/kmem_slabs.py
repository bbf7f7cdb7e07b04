"""``::kmem_slabs``, ``::kmem_verify``: slabs of caches, and whether their free lists are sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    Call,
    Column,
    Item,
    Items,
    Note,
    NotFoundError,
    Output,
    Row,
    Session,
    Table,
    Text,
    Word,
    dcmd,
    walker,
)
from kshell.linux import slab, slab_lists

CACHE = "struct kmem_cache"
WHICH = Word("name", "only this cache, by name")
COLUMNS = (
    Column("ADDR", kind=ADDRESS), Column("NAME", 25), Column("SLABS", 7, COUNT), Column("PARTIAL", 7, COUNT),
    Column("EMPTY", 6, COUNT), Column("CPU", 6, COUNT), Column("BUFFERS", 8, COUNT), Column("UNUSED", 8, COUNT),
    Column("WASTE", 5, COUNT))  # fmt: skip
SLABS = (Column("SLAB", kind=ADDRESS), Column("BASE", kind=ADDRESS), Column("INUSE", 6, COUNT),
         Column("OBJECTS", 7, COUNT), Column("STATE", 8), Column("PROBLEM"))  # fmt: skip
VERIFY = (Column("NAME", 25), Column("ADDR", kind=ADDRESS), Column("INTEGRITY"))


@dcmd("kmem_slabs", columns=COLUMNS, yields=CACHE, group="Kernel")
def kmem_slabs(
    session: Session, address: int | None, which: Annotated[str | None, WHICH],
) -> Iterator[Output]:
    """Show how many slabs each cache has and how full they are; with a cache, its slabs one by one.

    PARTIAL and EMPTY are slabs that no CPU holds and of which some or all objects are free, CPU those that a CPU
    allocates from or has on its partial list. WASTE is the percent of the objects that are UNUSED. A cache is named by
    its kmem_cache, as the address, or by its name. Into a pipe go the caches, or the struct slabs.

    Examples:
      ::kmem_slabs ! sort -rnk 8 | head -5
      ::kmem_slabs dentry ! head -3
      ::kmem_cache -n mm_struct | ::kmem_slabs
    """
    cache = _cache(session, address, which)
    if cache is not None:
        yield Table(SLABS, "struct slab")
        for one in slab_lists.cache_slabs(session.target, cache):
            yield Row(one.slab, (one.slab, one.address, one.inuse, one.objects, one.state, one.problem))
        return
    names = {one.address: one.name for one in slab.iter_caches(session.target)}
    for pointer, found in slab_lists.counted(session.target).items():
        waste = round(100 * found.unused / found.objects) if found.objects else 0
        yield Row(pointer, (pointer, names.get(pointer, "(not listed)"), found.slabs, found.partial, found.empty,
                            found.cpu, found.objects, found.unused, waste))


@dcmd("kmem_verify", columns=VERIFY, yields=CACHE, group="Kernel")
def kmem_verify(
    session: Session, address: int | None, call: Call, which: Annotated[str | None, WHICH],
) -> Iterator[Output]:
    """Check the free lists of slab caches: of all, or of one.

    Each list is followed: whether it stays in its slab, on objects, does not come back, and has as many objects as the
    slab counts as free. Red zones and poison (slub_debug) are not looked at. Of one cache each bad slab is told; into a
    pipe go the bad ones' struct slabs, else the caches that have some.

    Examples:
      ::kmem_verify ! grep -v clean
      ::kmem_verify dentry
    """
    target = session.target
    cache = _cache(session, address, which)
    names = {one.address: one.name for one in slab.iter_caches(target)}
    if cache is None:
        for pointer, found in slab_lists.counted(target).items():
            words = [f"{found.damaged} corrupt slabs"] if found.damaged else []
            words += [f"{found.lost} slabs not told: memory is missing"] if found.lost else []
            if not call.pipe_out or found.damaged:
                yield Row(pointer, (names.get(pointer, "(not listed)"), pointer, ", ".join(words) or "clean"))
        return
    slabs = slab_lists.cache_slabs(target, cache)
    bad = [one for one in slabs if one.problem]
    if call.pipe_out:
        yield from (Item(one.slab, "struct slab") for one in bad)
        return
    yield Text(f"Summary for cache '{names.get(cache, '(not listed)')}'")
    for one in bad:
        yield Text(f"  slab {one.slab:x} (memory at {one.address:x}): {one.problem}", one.slab)
    yield Note(f"{len(bad)} of {len(slabs)} slabs are bad" if bad else f"clean: {len(slabs)} slabs")


def _cache(session: Session, address: int | None, name: str | None) -> int | None:
    if name is not None:
        return slab.find_cache(session.target, name).address
    if address is not None and address not in {one.address for one in slab.iter_caches(session.target)}:
        raise NotFoundError("slab cache", f"0x{address:x}", hint="::kmem_cache lists them")
    return address


@walker("kmem_slab_partial", yields="struct slab")
def walk_partial(session: Session, address: int) -> Iterator[Output]:
    """Walk the slabs on the nodes' lists of partial slabs of a slab cache."""
    yield Items(slab_lists.partial_list(session.target, address), "struct slab")


@walker("kmem_cpu_cache", yields="struct kmem_cache_cpu")
def walk_cpu(session: Session, address: int) -> Iterator[Output]:
    """Walk the kmem_cache_cpus of a slab cache, one of each CPU."""
    yield Items(slab_lists.cpu_caches(session.target, address), "struct kmem_cache_cpu")
