"""Slab objects against the kernel's own lists and counters: tasks, total_objects, structures that point back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.linux import slab, slub
from kshell.linux.tasks import iter_threads
from kshell.session import Session
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.value import Vector
from tests.guest.image import GuestImage


@pytest.fixture(scope="module", params=["guest_61", "guest_612", "guest_la57"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    image: GuestImage = request.getfixturevalue(request.param)
    with open_target(str(image.elf)) as opened:
        yield opened


def objects(target: Target, name: str) -> tuple[set[int], set[int]]:
    """Return the allocated and the free objects of a cache."""
    found = slub.cache_objects(target, target.value("struct kmem_cache", slab.find_cache(target, name).address))
    assert not found.damaged
    return set(found.address[found.allocated].tolist()), set(found.address[~found.allocated].tolist())


def test_allocated_tasks_are_those_of_the_task_list(target: Target) -> None:
    allocated, free = objects(target, "task_struct")
    threads = {task.address for task in iter_threads(target)}
    idle = allocated - threads
    assert threads <= allocated and free
    # beyond the list there are the idle tasks of the CPUs but the first, whose task is init_task
    assert sorted(Vector(target, target.type("struct task_struct"), sorted(idle)).column("pid")) == [
        0] * (len(target.cpu_numbers("online")) - 1)


def test_every_cache_has_the_objects_that_the_kernel_counts(target: Target) -> None:
    caches = list(slab.iter_caches(target))
    assert len(caches) > 80
    for cache in caches:
        found = slub.cache_objects(target, target.value("struct kmem_cache", cache.address))
        assert (len(found.address), found.damaged) == (cache.objects, []), cache.name
        assert len(set(found.address.tolist())) == len(found.address)


def test_allocated_dentries_point_to_their_superblock(target: Target) -> None:
    allocated, free = objects(target, "dentry")
    blocks = set(Vector(target, target.type("struct dentry"), sorted(allocated)).column("d_sb"))
    assert len(allocated) > 1000 and free
    assert set(Vector(target, target.type("struct super_block"), sorted(blocks)).column("s_magic")).isdisjoint({0})


def test_a_freelist_that_leads_out_of_its_slab_is_told(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        cache = target.value("struct kmem_cache", slab.find_cache(target, "kmalloc-64").address)
        whole = slub.cache_objects(target, cache)
        row = next(n for n, head in enumerate(slub.all_slabs(target).of(cache.address).freelist.tolist()) if head)
        slabs = slub.all_slabs(target).of(cache.address)
        page, head = int(slabs.page[row]), int(slabs.freelist[row])
        target.kernel.write(head + cache.integer("offset"), b"\x41" * 8)
        damaged = slub.cache_objects(target, cache)
        assert damaged.damaged == [page]
        assert whole.allocated.sum() <= damaged.allocated.sum() < len(damaged.address)


def test_cache_names_are_walkers(guest_61: GuestImage) -> None:
    from kshell.builtin import make_registry

    with open_target(str(guest_61.elf)) as target:
        session = Session(target, make_registry(lambda _: None, plugins=False))
        allocated, _ = objects(target, "mm_struct")
        (found,) = session.walk("mm_struct")
        assert set(found.values) == allocated  # type: ignore[union-attr]
        assert found.type == "struct mm_struct"  # type: ignore[union-attr]
