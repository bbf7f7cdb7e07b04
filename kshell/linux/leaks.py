"""Leaked objects: allocated, and not reachable from anything that the kernel can still get at.

A mark phase over the objects of all slabs: from the references in memory outside of slabs and in registers, along the
references in marked objects (:mod:`kshell.linux.references`). What is not marked is leaked; of that, what another
leaked object refers to is lost with it. Kernel source of the idea: mm/kmemleak.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.linux.references import ROOT, Missed, Scan, as_words, register_values
from kshell.linux.slub_objects import ALLOCATED

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target

    Words = numpy.typing.NDArray[numpy.uint64]
    Numbers = numpy.typing.NDArray[numpy.int64]
    Bools = numpy.typing.NDArray[numpy.bool_]

#: as few objects as this are marked one by one: a step of vectors for each link of a long list costs more
FEW = 64


class Leaks(NamedTuple):
    """The leaked objects, ascending.

    :ivar address: of each; ``cache``: of its ``kmem_cache``; ``number``: in the heap
    :ivar direct: False for those that another leaked object refers to
    :ivar objects: how many objects are allocated in all; ``scanned``: bytes; ``missed``: what could not be read
    """

    address: Words
    cache: Words
    number: Numbers
    direct: Bools
    objects: int
    scanned: int
    missed: Missed


def find_leaks(target: Target) -> Leaks:
    """Return the objects that nothing refers to. ``target.progress`` is told how far it is.

    :raises KshellError: the page array cannot be read, or the kernel has no SLUB
    """
    import numpy as np

    scan, show = Scan(target), target.progress
    marked = np.zeros(len(scan.heap), np.bool_)
    sources, goals = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    try:
        for edges in scan.edges():
            root = edges.source == ROOT
            marked[edges.target[root]] = True
            between = ~root & (edges.source != edges.target)
            sources.append(edges.source[between])
            goals.append(edges.target[between])
            if show is not None:
                show("looking for references", scan.done, scan.total)
    finally:
        if show is not None:
            show("", scan.total, scan.total)
    registers = scan.objects(as_words(register_values(target)))
    marked[registers[registers >= 0]] = True
    source, goal = np.concatenate(sources), np.concatenate(goals)
    mark(marked, source, goal)
    allocated = scan.heap.state == ALLOCATED
    lost = allocated & ~marked
    number = lost.nonzero()[0]
    referred = np.zeros(len(marked), np.bool_)
    referred[goal[lost[source]]] = True
    slab = scan.heap.of_slab()[number]
    return Leaks(scan.heap.addresses()[number], scan.heap.slabs.cache[slab], number, ~referred[number],
                 int(allocated.sum()), scan.total, scan.missed)


def mark(marked: Bools, source: Numbers, goal: Numbers) -> None:
    """Set *marked* for all that can be reached from what is set, along the links from *source* to *goal*."""
    import numpy as np

    order = np.argsort(source, kind="stable")
    goal = goal[order]
    starts = np.searchsorted(source[order], np.arange(len(marked) + 1))
    front = marked.nonzero()[0]
    while len(front) > FEW:
        counts = starts[front + 1] - starts[front]
        ends = np.cumsum(counts)
        total = int(ends[-1])
        place = np.arange(total) - np.repeat(ends - counts, counts) + np.repeat(starts[front], counts)
        found = goal[place]
        front = np.unique(found[~marked[found]])
        marked[front] = True
    stack = front.tolist()
    while stack:
        one = stack.pop()
        for other in goal[starts[one] : starts[one + 1]].tolist():
            if not marked[other]:
                marked[other] = True
                stack.append(other)
