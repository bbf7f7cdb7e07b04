"""Swap areas: ``swap_info[]``, as /proc/swaps tells them.

Kernel source: ``struct swap_info_struct`` in include/linux/swap.h, ``swap_show`` in mm/swapfile.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.paths import Paths, path_or_error

if TYPE_CHECKING:
    from kshell.target.target import Target

SWP_USED = 1
MAX_AREAS = 256
S_IFMT, S_IFBLK = 0o170000, 0o060000
#: in the top bit 6.13+ (7277433096f6) keeps whether the area is on the list of those with room
COUNTER = (1 << 30) - 1


class SwapArea(NamedTuple):
    """A swap area; ``size`` and ``used`` are bytes, ``kind`` is "partition" or "file"."""

    address: int
    path: str | KshellError
    kind: str
    size: int
    used: int
    priority: int


def iter_swap(target: Target) -> Iterator[SwapArea]:
    """Yield the swap areas that are in use, in the order of /proc/swaps.

    :raises KshellError: they cannot be found or read
    """
    require_kernel(target)
    count = min(target.kernel.u32(target.symbol("nr_swapfiles").address), MAX_AREAS)
    array = target.symbol("swap_info").address
    paths = Paths(target)
    for number in range(count):
        address = target.kernel.u64(array + 8 * number)
        if not address:
            continue
        area = target.value("struct swap_info_struct", address)
        file = area.integer("swap_file")
        if not area.integer("flags") & SWP_USED or not file:
            continue
        inode = area["swap_file"].deref()["f_mapping"].deref()["host"].deref()
        kind = "partition" if inode.integer("i_mode") & S_IFMT == S_IFBLK else "file"
        pages = area["inuse_pages"]
        used = pages.integer("counter") & COUNTER if pages.has("counter") else pages.integer()
        yield SwapArea(address, path_or_error(paths, file), kind, area.integer("pages") << 12, used << 12,
                       area.integer("prio"))
