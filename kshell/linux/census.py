"""What every page of memory is used for: one number a page, from the page array and the lists that complete it.

Kernel source: include/linux/page-flags.h; mm/page_alloc.c (the buddy allocator and the CPUs' lists), mm/hugetlb.c,
mm/vmalloc.c, mm/percpu.c. A compound page is what its first page is. What has an owner that the page does not tell
(vmalloc, stacks, per-CPU memory) is found from the owner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import KshellError
from kshell.linux import memory_map
from kshell.linux.kept import kept
from kshell.linux.lists import chase, member_offset, visited_before
from kshell.linux.page_types import ANON, KSM, MOVABLE, PageTypes, slab_of
from kshell.linux.pages import PageArray, iter_runs
from kshell.linux.table_pages import process_tables
from kshell.linux.task_stacks import stack_bases
from kshell.linux.vmalloc_pages import array_pages, mapped_pages
from kshell.linux.zones import iter_zones, pcp_heads
from kshell.value import Vector

if TYPE_CHECKING:
    import numpy.typing

    from kshell.linux.page_types import Bytes
    from kshell.target.target import Target

    Words = numpy.typing.NDArray[numpy.uint64]
    Bools = numpy.typing.NDArray[numpy.bool_]
    Kinds = numpy.typing.NDArray[numpy.uint8]
    Frames = numpy.typing.NDArray[numpy.int64]

#: what a page is. HOLE: no memory, no struct page; LOST: a struct page that cannot be read; UPPER: page tables that
#: /proc/meminfo does not count; COMPOUND: large kmalloc() and other compound pages; MORE: behind the first of several
(HOLE, LOST, RESERVED, FREE, CPU_FREE, ANONYMOUS, FILE, BUFFERS, SHMEM, HUGETLB, SLAB, TABLE, STACK, VMALLOC, PERCPU,
 MOVED, OFFLINE, UPPER, COMPOUND, KERNEL, MORE) = range(21)
NAMES = ("no memory", "not known", "reserved", "free", "free, on a CPU's list", "anonymous", "file", "block device",
         "shared memory", "huge page", "slab", "page table", "kernel stack", "vmalloc", "per-CPU",
         "zsmalloc or balloon", "offline", "upper page table", "kernel, compound", "kernel", "kernel")
MAX_ORDER = 20


class Census(NamedTuple):
    """What each page is used for.

    :ivar kind: of each frame, one of the numbers above
    :ivar swapcache: pages of anonymous memory that are in the swap cache too
    :ivar problems: what could not be followed; the pages concerned count as something else
    """

    kind: Kinds
    swapcache: int
    problems: list[str]

    def frames(self, *kinds: int) -> Any:
        """Return the numbers of the frames of these kinds, ascending."""
        import numpy as np

        return np.isin(self.kind, kinds).nonzero()[0]

    def pages(self, array: PageArray) -> Any:
        """Return the addresses of all struct pages, holes left out, as uint64."""
        import numpy as np

        frames = (self.kind != HOLE).nonzero()[0].astype(np.uint64)
        return frames * np.uint64(array.size) + np.uint64(array.start)


def census(target: Target) -> Census:
    """Return the census of all pages; it is taken once for each state of the memory.

    :raises KshellError: the page array cannot be found or read
    """
    return kept(target, "census", lambda target: _Taker(target).take())


class _Taker:
    def __init__(self, target: Target) -> None:
        import numpy as np

        self.target, self.types = target, PageTypes(target)
        self.array = self.types.array
        self.kind: Kinds = np.zeros(self.array.frames, np.uint8)
        self.problems: list[str] = []
        self.swapcache = 0

    def take(self) -> Census:
        import numpy as np

        buddies: list[tuple[Frames, Words]] = []
        tails: list[tuple[Frames, Frames]] = []
        files: list[tuple[Frames, Words]] = []
        for first, pages, ok in iter_runs(self.target, self.array):
            self._run(first, pages, ok, buddies, tails, files)
        self._files(files)
        for frame, head in tails:
            self.kind[frame] = self.kind[head]
        for frame, order in buddies:
            self._buddies(frame, order)
        for what in (self._cpu_free, self._huge, self._vmalloc, self._tables):
            try:
                what()
            except KshellError as error:
                self.problems.append(str(error))
        lost = int(np.count_nonzero(self.kind == LOST))
        if lost:
            self.problems.append(f"{lost} struct pages cannot be read")
        return Census(self.kind, self.swapcache, self.problems)

    def _run(self, first: int, pages: Bytes, ok: Bools, buddies: list[Any], tails: list[Any], files: list[Any]) -> None:
        """Judge pages by what their struct page says; remember those that others are needed for."""
        import numpy as np

        types = self.types
        flags, mapping = types.words(pages, "flags"), types.words(pages, "mapping")
        words = types.halves(pages, "_mapcount")
        link = types.words(pages, "compound_head")
        low = mapping & np.uint64(3)
        # a page type other than a map count says all there is to say; slabs have one, or a flag
        typed = (words >> np.uint32(24) >= np.uint32(0xE0)) & (words != np.uint32(0xFFFF_FFFF))
        slab, plain = slab_of(types, flags, words), ~typed
        rules: list[tuple[int, Bools]] = [
            (ANONYMOUS, plain & ((low == ANON) | (low == KSM))),
            (MOVED, (plain & (low == MOVABLE) & (mapping > np.uint64(1 << 63))) | types.is_type(words, "zsmalloc")),
            (FILE, plain & (low == 0) & (mapping > np.uint64(1 << 63))), (OFFLINE, types.is_type(words, "offline")),
            (HUGETLB, types.is_type(words, "hugetlb")), (TABLE, types.is_type(words, "table")), (SLAB, slab),
            (RESERVED, types.has_flag(flags, "PG_reserved")),
        ]
        found = np.full(len(flags), KERNEL, np.uint8)
        for kind, mask in rules:
            found[mask] = kind
        tail = (link & np.uint64(1) != 0) & (found != RESERVED) & ok
        found[(found == KERNEL) & types.has_flag(flags, "PG_head")] = COMPOUND
        found[(found == KERNEL) & (types.halves(pages, "_refcount") == 0)] = MORE
        found[tail] = KERNEL
        found[~ok] = LOST
        self.kind[first : first + len(found)] = found
        self.swapcache += int((types.has_flag(flags, "PG_swapcache") & types.has_flag(flags, "PG_swapbacked")
                               & (found == ANONYMOUS)).sum())
        free = types.is_type(words, "buddy") & ok
        if free.any():
            rows = free.nonzero()[0]
            buddies.append((rows + first, types.words(pages, "private")[rows]))
        if tail.any():
            rows = tail.nonzero()[0]
            head = (link[rows] - np.uint64(1) - np.uint64(self.array.start)) // np.uint64(self.array.size)
            good = head < (rows + first).astype(np.uint64)  # a damaged one leads nowhere
            tails.append((rows[good] + first, head[good].astype(np.int64)))
        rows = (found == FILE).nonzero()[0]
        if len(rows):
            files.append((rows + first, mapping[rows]))

    def _buddies(self, frames: Frames, orders: Words) -> None:
        """Mark the blocks of free pages: 2 to the order pages from each frame on."""
        import numpy as np

        good = orders <= MAX_ORDER
        if not good.all():
            self.problems.append(f"{int((~good).sum())} free blocks have an impossible order")
        frames, orders = frames[good], orders[good].astype(np.int64)
        for order in np.unique(orders).tolist():
            starts = frames[orders == order]
            each = (starts[:, None] + np.arange(1 << order)).reshape(-1)
            self.kind[each[each < len(self.kind)]] = FREE

    def _files(self, files: list[tuple[Frames, Words]]) -> None:
        """Tell shared memory and block devices from files, by the superblock of the inode of each mapping."""
        import numpy as np

        if not files:
            return
        target = self.target
        frames, mappings = (np.concatenate(column) for column in zip(*files, strict=True))
        distinct, where = np.unique(mappings, return_inverse=True)
        blocks, operations = Vector(target, target.type("struct address_space"), distinct.tolist()).columns(
            "host->i_sb", "a_ops")
        device, shared = target.symbols.get("blockdev_superblock"), target.symbols.get("shmem_aops")
        bdev = target.kernel.u64(device.address) if device is not None else 0
        shmem = shared.address if shared is not None else 0  # rootfs too, where it is tmpfs
        lost = [one for one in blocks if not isinstance(one, int)]
        if lost:
            self.problems.append(f"{len(lost)} of {len(distinct)} mappings cannot be read: their pages count as files")
        kinds = [BUFFERS if block == bdev else SHMEM if how == shmem else FILE
                 for block, how in zip(blocks, operations, strict=True)]
        self.kind[frames] = np.array(kinds, np.uint8)[where]

    # -- what is found from the other side ---------------------------------------------------------------------------

    def _mark(self, frames: Any, kind: int) -> None:
        """Mark the frames that are nothing special so far."""
        import numpy as np

        frames = np.asarray(frames, np.int64)
        frames = frames[(frames >= 0) & (frames < len(self.kind))]
        plain = (self.kind[frames] == KERNEL) | (self.kind[frames] == COMPOUND) | (self.kind[frames] == MORE)
        self.kind[frames[plain]] = kind

    def _frames_of(self, pages: Words) -> Any:
        """Return the frames of struct pages; -1 where there can be none."""
        import numpy as np

        index = (pages - np.uint64(self.array.start)) // np.uint64(self.array.size)
        return np.where(index < np.uint64(self.array.frames), index.astype(np.int64), -1)

    def _cpu_free(self) -> None:
        """Mark the pages on the CPUs' lists of free pages."""
        import numpy as np

        at = self.types.at["lru"]
        for zone in iter_zones(self.target):
            for head, order in pcp_heads(self.target, zone):
                try:
                    nodes = chase(self.target.kernel, head)
                except KshellError as error:
                    nodes = visited_before(error)
                    self.problems.append(f"a CPU's list of free pages: {error}")
                if nodes:
                    frames = self._frames_of(np.array(nodes, np.uint64) - np.uint64(at))
                    self._mark((frames[:, None] + np.arange(1 << order)).reshape(-1), CPU_FREE)

    def _huge(self) -> None:
        """Mark huge pages, in use and free, from the lists of each size."""
        import numpy as np

        for head, order in _huge_lists(self.target):
            try:
                nodes = chase(self.target.kernel, head)
            except KshellError as error:
                nodes = visited_before(error)
                self.problems.append(f"a list of huge pages: {error}")
            for first in self._frames_of(np.array(nodes, np.uint64) - np.uint64(self.types.at["lru"])).tolist():
                if first >= 0:
                    self.kind[first : first + (1 << order)] = HUGETLB

    def _vmalloc(self) -> None:
        """Mark the pages of vmalloc areas, among them stacks and per-CPU memory."""
        import numpy as np

        target = self.target
        areas: list[memory_map.VmallocArea] = []
        try:
            areas.extend(memory_map.iter_vmalloc(target))
        except KshellError as error:
            self.problems.append(f"vmalloc areas: {error}")
        stacks = set(stack_bases(target))
        found = array_pages(target, self.array, areas)
        if found.lost:
            self.problems.append(f"{found.lost} pages of vmalloc areas are not told")
        stack = np.array([area.start in stacks for area in areas], np.bool_)[found.area] if areas else found.area > 0
        self._mark(found.frame[stack], STACK)
        self._mark(found.frame[~stack], VMALLOC)
        self._mark(mapped_pages(target, areas).frame, PERCPU)  # chunks of per-CPU memory

    def _tables(self) -> None:
        """Mark the upper levels of processes' page tables, which have no page type."""
        for tables in process_tables(self.target, 3):
            self._mark(tables.frame, UPPER)
            if tables.top:  # with PTI, the page behind is the user's (PGD_ALLOCATION_ORDER)
                behind = tables.frame[tables.frame + 1 < len(self.kind)] + 1
                self._mark(behind[self.kind[behind] == MORE], UPPER)


def _huge_lists(target: Target) -> Iterator[tuple[int, int]]:
    """Yield (list head, order) of the lists of huge pages of each size: in use, and the free ones of each node."""
    from kshell.linux.slab import node_count

    sizes, array = target.symbols.get("hugetlb_max_hstate"), target.symbols.get("hstates")
    kind = target.types.get("struct hstate")
    if sizes is None or array is None or kind is None or not kind.size:
        return
    for number in range(min(target.kernel.u32(sizes.address), 16)):
        at = array.address + number * kind.size
        order = target.value(kind, at).integer("order")
        if order > MAX_ORDER:
            continue
        yield at + member_offset(kind, "hugepage_activelist"), order
        for node in range(min(node_count(target), 1024)):
            yield at + member_offset(kind, f"hugepage_freelists[{node}]"), order
