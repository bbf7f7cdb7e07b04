"""Top-level page tables found in physical memory by their looks: the last road to a kernel.

The kernel's own, ``init_top_pgt``, lies in the kernel image that it maps, so it can be held to that: its last entry
leads to the image, and the image, walked to, has the table itself in it. Kernel source: arch/x86/kernel/head_64.S.
"""

from __future__ import annotations

from collections.abc import Iterator

from kshell.arch.model import Arch
from kshell.errors import KshellError
from kshell.memory.model import Memory
from kshell.target.formats import Progress
from kshell.target.image import Image, find_image
from kshell.target.space import AddressSpace

PAGE = 4096
SLOTS = 512
CHUNK = 16 << 20
MAX_CANDIDATES = 1 << 14
MAX_IMAGES = 256  # different tables that are looked into for a kernel image
PRESENT, LARGE = 1, 0x80
FRAME = 0x000F_FFFF_FFFF_F000
UNUSED = 0x7FF0_0000_0000_0000  # bits that a top-level entry leaves zero: no-execute is bit 63


def kernel_roots(
    physical: Memory, arch: Arch, start: int = 0, end: int = 1 << 64, *,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[tuple[AddressSpace, Image]]:
    """Yield the address space of every kernel whose top table lies between the physical addresses *start* and *end*.

    Those of 5 levels come instead of the table below them, which looks like one of 4. Imports numpy.
    """
    candidates = dict(_candidates(physical, start, end, progress))
    spaces: dict[int, tuple[AddressSpace, Image]] = {}
    images: dict[tuple[int, int], Image | None] = {}  # by what the last entry leads to: all tasks' tables share it
    for levels in (4, 5):
        for root, last in candidates.items():
            if levels == 5 and last not in spaces:
                continue
            space = kernel_space(physical, arch, root, levels)
            if (levels, last) not in images:
                if len(images) >= MAX_IMAGES:
                    continue
                images[levels, last] = _image(space)
            image = images[levels, last]
            if image is None or not image.start <= root + image.delta < image.end:
                continue
            try:
                if space.translate(root + image.delta) == root:
                    spaces[root] = space, image
            except KshellError:
                continue
    below = {candidates[root] for root, (space, _) in spaces.items() if space.format.levels == 5}
    for root, found in spaces.items():
        if root not in below:
            yield found


def kernel_space(physical: Memory, arch: Arch, root: int, levels: int) -> AddressSpace:
    """Return the kernel half of what the table at *root* maps."""
    return AddressSpace(physical, arch.paging(levels), root, space="kernel", half=(arch.kernel_half, 1 << 64))


def _image(space: AddressSpace) -> Image | None:
    try:
        return find_image(space)
    except KshellError:
        return None


def _candidates(physical: Memory, start: int, end: int, progress: Progress) -> Iterator[tuple[int, int]]:
    """Yield (address, what the last entry leads to) of pages without user half whose last entry leads to a table."""
    import numpy as np

    runs = [run for run in physical.ranges() if run.held]
    top = max((run.end for run in runs), default=0)
    total, done = sum(run.end - run.start for run in runs), 0
    count = 0
    for run in runs:
        at = -(-max(run.start, start) // PAGE) * PAGE
        stop = min(run.end, end)
        while at + PAGE <= stop:
            size = min(CHUNK, stop - at) // PAGE * PAGE
            done += size
            progress("looking for page tables", done, total)
            data, fault = physical.read_upto(at, size)
            whole = len(data) // PAGE
            tables = np.frombuffer(data, "<u8", whole * SLOTS).reshape(whole, SLOTS)
            last = tables[:, SLOTS - 1]
            frames = last & np.uint64(FRAME)
            good = (last & np.uint64(PRESENT | LARGE | UNUSED)) == PRESENT
            good &= (frames != 0) & (frames < np.uint64(top))
            for row in np.flatnonzero(good).tolist():
                if not tables[row, : SLOTS // 2].any():
                    yield at + row * PAGE, int(frames[row])
                    count += 1
                    if count >= MAX_CANDIDATES:
                        return
            # behind a page that cannot be read after all, go on with the next one
            at += size if fault is None else (whole + 1) * PAGE
