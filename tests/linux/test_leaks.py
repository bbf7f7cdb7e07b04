"""Leaks and references: a guest that leaked 10,000 objects, a list that was cut off, marking against a plain walk."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.api import Items
from kshell.builtin import make_registry
from kshell.errors import KshellError
from kshell.linux import census, leaks, references, slab, slab_tracks, slub_objects, tasks, whatis
from kshell.linux.lists import list_for_each
from kshell.linux.pages import page_array
from kshell.linux.search import Search, search_ram, word_finder
from kshell.session import Session
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.value import Vector
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec

LEAKED = 10_000


@pytest.fixture(scope="module")
def leaky(guest_leak: GuestImage) -> Iterator[Target]:
    with open_target(str(guest_leak.elf)) as target:
        yield target


def kept_sessions(target: Target) -> list[int]:
    """Return the sessions that the module has on its list."""
    head = target.symbol("kept_sessions", "disaster").address
    return [node - 8 for node in list_for_each(target, head)]  # struct session: magic, list


def test_the_planted_leak_is_found_with_who_allocated_it(leaky: Target) -> None:
    cache = slab.find_cache(leaky, "disaster_session").address
    found = leaks.find_leaks(leaky)
    sessions = found.address[found.cache == cache].tolist()
    kept = kept_sessions(leaky)
    assert len(kept) == 100 and not set(kept) & set(sessions)
    assert LEAKED - 10 <= len(sessions) <= LEAKED  # a stale word may look like a pointer
    assert found.direct[found.cache == cache].all()
    assert len(found.address) - len(sessions) <= 8  # headers of sysctl tables, which the kernel forgets on purpose
    tracks = slab_tracks.alloc_tracks(leaky, cache, sessions)
    assert tracks is not None and None not in tracks
    (stack,) = {track.stack for track in tracks if track is not None}
    names = [symbol[0].name for address in stack if (symbol := leaky.symbolize(address)) is not None]
    assert names[0] == "open_session" and {"disaster_write", "vfs_write", "do_syscall_64"} <= set(names)
    assert slab_tracks.alloc_tracks(leaky, slab.find_cache(leaky, "dentry").address, [0]) is None


def test_a_ring_that_lost_its_head_is_lost_too(guest_leak: GuestImage) -> None:
    with open_target(str(guest_leak.elf), mode="c") as target:
        kept = kept_sessions(target)
        head = target.symbol("kept_sessions", "disaster").address
        target.kernel.write(head, head.to_bytes(8, "little") * 2)
        found = leaks.find_leaks(target)
        direct = dict(zip(found.address.tolist(), found.direct.tolist(), strict=True))
        assert set(kept) <= set(direct)
        assert not any(direct[session] for session in kept)  # each is referred to, by another one


@pytest.mark.parametrize("name", ["6.1", "6.12", "5.10", "kdump"])
def test_a_kernel_at_peace_leaks_next_to_nothing(name: str) -> None:
    image = have(named_spec(name))
    with open_target(str(image.elf if image.elf.exists() else image.folder / "makedumpfile.zlib")) as target:
        start = time.process_time()
        found = leaks.find_leaks(target)
        assert time.process_time() - start < 20
        assert found.objects > 50_000 and found.missed.pages == 0
        assert 0 < len(found.address) <= 8
        # they are what register_sysctl() made and nobody keeps: ctl_table_root, or the base table, is in each
        roots = {target.symbol(symbol).address for symbol in ("sysctl_table_root", "kernel_base_table",
                                                              "sysctl_base_table") if target.symbols.get(symbol)}
        for address in found.address.tolist():
            words = {int.from_bytes(target.kernel.read(address + at, 8), "little") for at in range(0, 96, 8)}
            assert words & roots


def test_memory_that_is_not_there_is_told() -> None:
    image = have(named_spec("kdump-6.12"))
    with open_target(str(image.folder / "makedumpfile.zlib")) as target:
        found = leaks.find_leaks(target)
        assert found.missed.slabs > 0 and found.missed.pages >= found.missed.slabs


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=120),
       st.sets(st.integers(0, 39), max_size=5), st.sampled_from([0, 2, 64]))
def test_marking_reaches_what_a_plain_walk_reaches(
    count: int, links: list[tuple[int, int]], roots: set[int], few: int,
) -> None:
    links = [(source, goal) for source, goal in links if source < count and goal < count]
    marked = np.zeros(count, np.bool_)
    marked[[root for root in roots if root < count]] = True
    reached = {root for root in roots if root < count}
    front = list(reached)
    while front:
        one = front.pop()
        for source, goal in links:
            if source == one and goal not in reached:
                reached.add(goal)
                front.append(goal)
    patched = pytest.MonkeyPatch()
    patched.setattr(leaks, "FEW", few)
    try:
        sources, goals = (np.array([link[end] for link in links], np.int64) for end in (0, 1))
        leaks.mark(marked, sources, goals)
    finally:
        patched.undo()
    assert set(marked.nonzero()[0].tolist()) == reached


def test_references_holders_and_referents(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf)) as target:
        session = Session(target, make_registry(lambda _: None, plugins=False))
        init = tasks.find_task(target, 1)
        value = tasks.task_value(target, init)

        def walk(name: str) -> list[int]:
            return [number for items in session.walk(name, init) if isinstance(items, Items) for number in items.values]

        start, room = whatis.extent(target, init + 100)
        assert start == init
        array, kind, heap = page_array(target), census.census(target).kind, slub_objects.heap(target)
        everywhere = {array.direct + hit for hit in search_ram(
            target, Search(*word_finder(init, 8, "little", distance=room)))}
        places = walk("references")
        assert len(places) == len(set(places)) > 50 and set(places) <= everywhere
        for place in everywhere - set(places):  # where nobody can get at it
            row, index, _ = (int(found[0]) for found in heap.find(np.array([place], np.uint64)))
            free = row >= 0 and (index < 0 or heap.state[heap.starts[row] + index] != slub_objects.ALLOCATED)
            assert free or kind[place - array.direct >> 12] not in references.HOLDING
        every = tasks.process_addresses(target)
        parents = Vector(target, tasks.task_type(target), every).column("real_parent")
        children = [task for task, parent in zip(every, parents, strict=True) if parent == init]
        holders = walk("holders")
        assert len(children) > 5 and set(children) <= set(holders) and init not in holders
        referents = walk("referents")
        assert {value.integer("mm"), value.integer("signal"), value.integer("files")} <= set(referents)
        with pytest.raises(KshellError, match="no allocated object"):
            references.Scan(target).number(target.symbol("init_task").address)


def test_free_objects_and_free_pages_hold_no_references(leaky: Target) -> None:
    scan = references.Scan(leaky)
    heap = slub_objects.heap(leaky)
    for edges in scan.edges():
        inside = edges.source >= 0
        assert (heap.state[edges.source[inside]] == slub_objects.ALLOCATED).all()
        assert (heap.state[edges.target] == slub_objects.ALLOCATED).all()
    assert scan.done == scan.total
