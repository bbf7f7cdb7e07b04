"""Which pages of a kernel are worth keeping: makedumpfile's dump levels, from the page array of the kernel itself.

makedumpfile.c ``__exclude_unnecessary_pages``: of every ``struct page`` its flags, counts and mapping decide. The
numbers of the flags come from VMCOREINFO, as there; members from VMCOREINFO or BTF. The array is read in blocks and
judged in vectors. Pages whose ``struct page`` cannot be read are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kshell.errors import KshellError, Reason
from kshell.memory import bitmap
from kshell.memory.kdumpheader import LEVELS
from kshell.memory.plan import Plan
from kshell.value import offsetof, sizeof

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from kshell.target.target import Target

    Bools = numpy.typing.NDArray[numpy.bool_]
    Column = numpy.typing.NDArray[numpy.uint64]

ZERO, CACHE, CACHE_PRIVATE, USER, FREE = 1, 2, 4, 8, 16
BLOCK = 1 << 15  # pages judged at once: larger than the largest block of the buddy allocator, and aligned
MAX_ORDER = 15
ANON = 1  # PAGE_MAPPING_ANON, include/linux/page-flags.h


def exclude(target: Target, plan: Plan, level: int, progress: Callable[[int], None]) -> dict[int, int]:
    """Take the pages of *level* out of *plan*; return how many were left out by each of its bits.

    :raises KshellError: the page array cannot be found
    """
    out = dict.fromkeys(_bits(level), 0)
    if level & ~ZERO:
        PageArray(target).exclude(plan, level, out, progress)
    if level & ZERO:
        zero = bytes(plan.page)
        for frame, data in plan.pieces(bytearray(plan.kept)):
            for at in range(0, len(data), plan.page):
                if data[at : at + plan.page] == zero and frame + at // plan.page not in plan.lost:
                    bitmap.set_range(plan.kept, frame + at // plan.page, frame + at // plan.page + 1, False)
                    out[ZERO] += 1
            progress(len(data) // plan.page)
    return out


def _bits(level: int) -> list[int]:
    """Return the bits by which pages of *level* go: makedumpfile's 4 leaves out both kinds of cache."""
    return [bit for bit in LEVELS if level & bit or (bit == CACHE and level & CACHE_PRIVATE)]


def explain(
    target: Target, level: int, progress: Callable[[int], None] = lambda pages: None,
) -> tuple[dict[int, int], int]:
    """Return how many of the pages that the image leaves out go by each bit of *level*, and how many by none of them.

    The page structs tell; pages of zeroes (bit 1) they do not know. Bounded by what is left out, not by RAM.

    :param progress: told of pages looked at
    :raises KshellError: the page array cannot be found
    """
    import numpy as np

    array = PageArray(target)
    frames = max((item.end for item in target.physical.ranges()), default=0) // target.arch.page_size
    gone = np.zeros(-(-frames // 8) + BLOCK, np.uint8)
    out, rest = dict.fromkeys(_bits(level & ~ZERO), 0), 0
    for first, missing in _left_out(target):
        why = array.judge(first, BLOCK, level, gone)
        gone[first >> 3 : (first + BLOCK) >> 3] = np.packbits(why != 0, bitorder="little")
        counts = np.bincount(why[missing], minlength=FREE + 1)
        for bit in out:
            out[bit] += int(counts[bit])
        rest += int(counts[0])
        progress(int(missing.sum()))
    return out, rest


def _left_out(target: Target) -> Iterator[tuple[int, Bools]]:
    """Yield (first frame, which of its BLOCK frames are left out) of the blocks in which some are, ascending."""
    import numpy as np

    page, block, missing = target.arch.page_size, -1, np.zeros(0, np.bool_)
    for item in target.physical.ranges():
        if item.held or item.reason is not Reason.EXCLUDED:
            continue
        at, end = -(-item.start // page), item.end // page
        while at < end:
            if at // BLOCK != block:
                if block >= 0:
                    yield block * BLOCK, missing
                block, missing = at // BLOCK, np.zeros(BLOCK, np.bool_)
            stop = min(end, (block + 1) * BLOCK)
            missing[at - block * BLOCK : stop - block * BLOCK] = True
            at = stop
    if block >= 0:
        yield block * BLOCK, missing


class PageArray:
    """The kernel's array of ``struct page`` (CONFIG_SPARSEMEM_VMEMMAP: one virtual run, by frame number)."""

    def __init__(self, target: Target) -> None:
        """:raises KshellError: it is not known where it is, or what its flags mean"""
        info = target.vmcoreinfo
        if info is None or target.arch.name != "x86_64":
            raise KshellError("page flags are read on x86_64, of kernels with VMCOREINFO",
                              hint="-d 1 leaves out pages of zeroes without them")
        self.target = target
        page = target.type("struct page")
        self.size = info.size("page") or sizeof(page)
        self.base = target.kernel.u64(target.symbol("vmemmap_base").address)

        def page_offset(path: str) -> int:
            found = offsetof(page, path)
            return found if isinstance(found, int) else found[0]

        def member(name: str, path: str) -> int:
            told = info.offset(f"page.{name}")
            return page_offset(path) if told is None else told

        self.flags, self.mapping = member("flags", "flags"), member("mapping", "mapping")
        self.private, self.mapcount = member("private", "private"), member("_mapcount", "_mapcount")
        self.head = member("compound_head", "compound_head")
        self.dtor = info.offset("page.compound_dtor")
        self.numbers = {name: info.number(name) for name in (
            "PG_lru", "PG_private", "PG_swapcache", "PG_swapbacked", "PG_slab", "PG_hwpoison", "PG_head_mask",
            "PAGE_BUDDY_MAPCOUNT_VALUE", "PAGE_SLAB_MAPCOUNT_VALUE", "PAGE_OFFLINE_MAPCOUNT_VALUE",
            "PAGE_HUGETLB_MAPCOUNT_VALUE", "HUGETLB_PAGE_DTOR")}
        for needed in ("PG_lru", "PG_private", "PG_swapcache", "PAGE_BUDDY_MAPCOUNT_VALUE"):
            if self.numbers[needed] is None:
                raise KshellError(f"VMCOREINFO has no NUMBER({needed}): pages cannot be told apart",
                                  hint="-d 1 leaves out pages of zeroes without it")

    def exclude(self, plan: Plan, level: int, out: dict[int, int], progress: Callable[[int], None]) -> None:
        """Clear the bits of the pages of *level* in *plan*; count them in *out*."""
        import numpy as np

        kept = np.frombuffer(plan.kept, np.uint8)
        gone = np.zeros(len(plan.kept), np.uint8)
        for first in range(0, plan.frames, BLOCK):
            part = slice(first >> 3, (min(first + BLOCK, plan.frames) + 7) >> 3)
            held = np.unpackbits(kept[part], bitorder="little").astype(bool)
            if not held.any():
                continue
            why = self.judge(first, len(held), level, gone)
            for bit in out:
                out[bit] += int(((why == bit) & held).sum())
            gone[part] |= np.packbits(why != 0, bitorder="little")
            kept[part] &= ~gone[part]
            progress(int(held.sum()))

    def _read(self, first: int, count: int) -> tuple[bytearray, Bools]:
        """Return the page array's bytes and which of its entries could be read."""
        import numpy as np

        buffer = bytearray((count + 1) * self.size)  # one more: a compound page is told by its second entry
        good = np.ones(count + 1, np.bool_)
        at, start = 0, self.base + first * self.size
        with memoryview(buffer) as view:
            while at < len(view):
                fault = self.target.kernel.read_into(start + at, view[at:])
                if fault is None:
                    break
                done = at + fault.done
                at = min(((start + done) | 4095) + 1 - start, len(view))  # the page array's next page
                view[done:at] = bytes(at - done)
                good[done // self.size : -(-at // self.size)] = False
        return buffer, good

    def judge(
        self, first: int, count: int, level: int, gone: numpy.typing.NDArray[numpy.uint8],
    ) -> numpy.typing.NDArray[numpy.uint8]:
        """Return for each page the bit of *level* by which it goes, 0 to keep it."""
        import numpy as np

        raw, good = self._read(first, count)
        entries = np.frombuffer(raw, np.uint8).reshape(-1, self.size)

        def column(offset: int, kind: str) -> Column:
            width = np.dtype(kind).itemsize
            return np.ascontiguousarray(entries[:, offset : offset + width]).view(kind)[:, 0]

        flags, mapping, head = column(self.flags, "<u8"), column(self.mapping, "<u8"), column(self.head, "<u8")
        mapcount, number = column(self.mapcount, "<i4"), self.numbers

        def flag(name: str) -> Bools:
            bit = number[name]
            if bit is None:
                return np.zeros(len(flags), np.bool_)
            return (flags >> np.uint64(bit)) & np.uint64(1) != 0  # type: ignore[no-any-return]

        def kind(name: str) -> Bools:
            value = number[name]
            if value is None:
                return np.zeros(len(flags), np.bool_)
            return mapcount == np.int32((value + (1 << 31)) % (1 << 32) - (1 << 31))  # type: ignore[no-any-return]

        slab = kind("PAGE_SLAB_MAPCOUNT_VALUE") if number["PAGE_SLAB_MAPCOUNT_VALUE"] is not None else flag("PG_slab")
        anon = (mapping & np.uint64(ANON) != 0) & ~slab
        backed = flag("PG_swapbacked") if number["PG_swapbacked"] is not None else np.ones(len(flags), np.bool_)
        cache = (flag("PG_lru") | backed & flag("PG_swapcache")) & ~anon
        private = flag("PG_private")
        huge = kind("PAGE_HUGETLB_MAPCOUNT_VALUE")
        if self.dtor is not None and number["HUGETLB_PAGE_DTOR"] is not None and number["PG_head_mask"]:
            is_head = flags & np.uint64(number["PG_head_mask"]) != 0
            huge[:-1] |= is_head[:-1] & (column(self.dtor, "<u1")[1:] == number["HUGETLB_PAGE_DTOR"])
        why = np.zeros(len(flags), np.uint8)
        rules = [(USER, anon | huge), (CACHE_PRIVATE, cache & private), (CACHE, cache & ~private)]
        for bit, rule in rules:
            why[rule & bool(level & bit)] = bit
        if level & CACHE_PRIVATE:
            why[cache & ~private] = CACHE  # makedumpfile: 4 leaves out both kinds
        tail = head & np.uint64(1) != 0
        why[tail | ~good] = 0
        why = why[:count]
        self._follow_heads(why, head[:count], tail[:count] & good[:count], first, gone)
        if level & FREE:
            free = kind("PAGE_BUDDY_MAPCOUNT_VALUE") & ~slab & good
            order = column(self.private, "<u8")
            for at in np.nonzero(free[:count] & (order[:count] <= MAX_ORDER))[0].tolist():
                why[at : at + (1 << int(order[at]))] = FREE
        return why

    def _follow_heads(
        self, why: numpy.typing.NDArray[numpy.uint8], head: Column, tail: Bools, first: int,
        gone: numpy.typing.NDArray[numpy.uint8],
    ) -> None:
        """The other pages of a compound page go as its first one does."""
        import numpy as np

        rows = np.nonzero(tail)[0]
        heads = (head[rows] - np.uint64(1) - np.uint64(self.base)) // np.uint64(self.size)
        true = heads < first + rows.astype(np.uint64)  # a damaged one leads nowhere
        rows, heads = rows[true], heads[true].astype(np.int64)
        inside = heads >= first
        why[rows[inside]] = why[heads[inside] - first]
        earlier, at = rows[~inside], heads[~inside]
        why[earlier[(gone[at >> 3] >> (at & 7).astype(np.uint8)) & 1 != 0]] = USER
