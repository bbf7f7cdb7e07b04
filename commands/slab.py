"""Walkers over slab caches: ``::walk dentry`` walks the allocated objects of the cache of that name."""

from __future__ import annotations

from collections.abc import Iterator

from kshell.api import Items, NotFoundError, Output, Session, Warn, walker
from kshell.linux import slab, slub

CACHE = "struct kmem_cache"


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
    found = slub.cache_objects(target, target.value(CACHE, address))
    kind = slab.object_type(target, slab.read_cache(target, target.value(CACHE, address)))
    for page in found.damaged:
        yield Warn(f"the freelist of the slab at 0x{page:x} is damaged: its free objects are not all told")
    yield Items(found.address[found.allocated == allocated].tolist(), kind)
