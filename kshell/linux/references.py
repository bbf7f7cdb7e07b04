"""Who points to what in slabs: every aligned word of kernel memory that is an address in an allocated object.

As kmemleak does (mm/kmemleak.c), conservatively: whatever looks like a pointer into an object is one, to its beginning
or into it. Read are the pages that the kernel keeps its data in; not user memory, page cache, free pages, nor page
tables, and in slabs not the free objects. Words are looked at in vectors, a chunk of memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import KshellError, Reason
from kshell.linux import census, slub_objects
from kshell.linux.pages import page_array
from kshell.linux.slub_objects import ALLOCATED

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target

    Words = numpy.typing.NDArray[numpy.uint64]
    Numbers = numpy.typing.NDArray[numpy.int64]
    Bools = numpy.typing.NDArray[numpy.bool_]

#: pages that may hold pointers of the kernel's
HOLDING = (census.RESERVED, census.SLAB, census.STACK, census.VMALLOC, census.PERCPU, census.COMPOUND, census.KERNEL,
           census.MORE)
PAGE = 4096
CHUNK = 8 << 20
#: the source of references that are in no object of a slab
ROOT = -1


class Edges(NamedTuple):
    """References to allocated objects, one row each.

    :ivar source: number of the object that holds it, ROOT for memory outside of slabs; ``target``: of the object
    :ivar place: address of the word in the direct map
    """

    source: Numbers
    target: Numbers
    place: Words


class Missed(NamedTuple):
    """Pages that could not be read, in all and of slabs."""

    pages: int
    slabs: int


def kernel_runs(target: Target) -> list[tuple[int, int]]:
    """Return the runs of physical memory that the kernel keeps data in, as (first frame, frame behind)."""
    import numpy as np

    kind = census.census(target).kind
    wanted = np.isin(kind, HOLDING)
    for first, last in _crash_kernel(target):
        wanted[first : last + 1] = False
    edges = np.diff(np.concatenate(([0], wanted.astype(np.int8), [0])))
    starts, ends = (edges == 1).nonzero()[0], (edges == -1).nonzero()[0]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _crash_kernel(target: Target) -> Iterator[tuple[int, int]]:
    """Yield the frames (first, last) kept for a crash kernel: what is there is another kernel's."""
    for name in ("crashk_res", "crashk_low_res"):
        symbol = target.symbols.get(name)
        if symbol is None:
            continue
        try:
            found = target.value("struct resource", symbol.address)
            start, end = found.integer("start"), found.integer("end")
        except KshellError:
            continue
        if 0 < start < end:
            yield start >> 12, end >> 12


class Scan:
    """One look through kernel memory for references to objects.

    :ivar heap: the objects; ``total``: bytes that will be looked at, ``done``: those that were
    :ivar missed: what could not be read, when :meth:`edges` has come to its end
    """

    def __init__(self, target: Target) -> None:
        self.target, self.heap = target, slub_objects.heap(target)
        self.array = page_array(target)
        self.runs = kernel_runs(target)
        self.total = sum(end - start for start, end in self.runs) * PAGE
        self.missed, self.done = Missed(0, 0), 0
        self._kind = census.census(target).kind

    def edges(self) -> Iterator[Edges]:
        """Yield the references, a chunk of memory at once, by ascending place."""
        for first, end in self.runs:
            at, stop = first * PAGE, end * PAGE
            while at < stop:
                size = min(CHUNK, stop - at)
                data, fault = self.target.physical.read_upto(at, size)
                if fault is not None:  # the page that is not there is passed over
                    data = data[: len(data) & -PAGE]
                self.done += len(data)
                if data:
                    yield self._chunk(at, data)
                at += len(data)
                if fault is not None:
                    kind = int(self._kind[at >> 12])
                    if kind != census.RESERVED or fault.reason is not Reason.OUTSIDE:  # holes below 1 MiB
                        self.missed = Missed(self.missed.pages + 1, self.missed.slabs + (kind == census.SLAB))
                    at += PAGE
                    self.done += PAGE

    def number(self, address: int) -> int:
        """Return the number of the allocated object that *address* is in.

        :raises KshellError: it is in none
        """
        found = int(self.objects(as_words([address]))[0])
        if found < 0:
            raise KshellError(f"0x{address:x} is in no allocated object of a slab")
        return found

    def extent(self, number: int) -> tuple[int, int]:
        """Return (address, bytes) of object *number*."""
        import numpy as np

        row = int(np.searchsorted(self.heap.starts, number, "right")) - 1
        return self.heap.object(row, number - int(self.heap.starts[row]))

    def addresses(self, numbers: list[int]) -> list[int]:
        """Return the addresses of objects by their numbers."""
        return [self.extent(number)[0] for number in numbers]

    def referents(self, address: int) -> list[int]:
        """Return the numbers of the objects that the one of *address* points into, each once.

        :raises KshellError: it is in no object, or the object cannot be read
        """
        import numpy as np

        number = self.number(address)
        start, size = self.extent(number)
        words = np.frombuffer(self.target.kernel.read(start, size & -8), "<u8")
        found = self.objects(words)
        return [other for other in dict.fromkeys(found[found >= 0].tolist()) if other != number]

    def _chunk(self, paddr: int, data: bytes) -> Edges:
        import numpy as np

        words = np.frombuffer(data, "<u8")
        frames = (words - np.uint64(self.array.direct)) >> np.uint64(12)
        rows = (frames < np.uint64(self.array.frames)).nonzero()[0]
        rows = rows[self._kind[frames[rows].astype(np.int64)] == census.SLAB]
        target = self.objects(words[rows])
        rows, target = rows[target >= 0], target[target >= 0]
        place = np.uint64(self.array.direct + paddr) + (rows * 8).astype(np.uint64)
        source = np.full(len(rows), ROOT, np.int64)
        inside = self._kind[((place - np.uint64(self.array.direct)) >> np.uint64(12)).astype(np.int64)] == census.SLAB
        source[inside] = self.objects(place[inside])
        good = ~inside | (source >= 0)  # in a slab, but in no object of it that is allocated: nobody's
        return Edges(source[good], target[good], place[good])

    def objects(self, addresses: Words) -> Numbers:
        """Return the numbers of the allocated objects that addresses are in, -1 for none."""
        import numpy as np

        row, index, _ = self.heap.find(addresses)
        good = (row >= 0) & (index >= 0)
        number = np.where(good, self.heap.starts[np.maximum(row, 0)] + index, 0)
        if not len(self.heap):
            return np.full(len(addresses), -1, np.int64)
        found: Numbers = np.where(good & (self.heap.state[number] == ALLOCATED), number, -1)
        return found


def register_values(target: Target) -> list[int]:
    """Return the values of all registers that the target has of its CPUs: roots too."""
    from kshell.linux.cpus import cpu_states

    try:
        states = cpu_states(target)
    except KshellError:
        return []
    return [value & (1 << 64) - 1 for state in states.values() for value in state.registers.values()]


def as_words(values: list[int]) -> Any:
    """Return numbers as uint64."""
    import numpy as np

    return np.array(values, np.uint64)
