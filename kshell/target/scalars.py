"""Variables that are no lists, by the instructions that use them, for a kernel whose symbols do not name them.

What the small functions that use a variable have in common among their operands is few; what lies there tells which
one it is. Kernel source: kernel/panic.c, kernel/time/timekeeping.c, kernel/dma/direct.c, kernel/workqueue.c,
net/socket.c, mm/swapfile.c. As in :mod:`kshell.target.operands`, on x86-64 only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, Reason
from kshell.target.operands import used_by
from kshell.target.space import AddressSpace
from kshell.types.model import StructType

if TYPE_CHECKING:
    from kshell.target.target import Target

#: ``tainted_mask`` has 20 bits by now (include/linux/panic.h)
MAX_TAINT = 1 << 32
MAX_FRAMES = 1 << 40
MAX_SWAPFILES = 32  # 1 << MAX_SWAPFILES_SHIFT, less those for other uses: include/linux/swap.h
DIRECT_MAP = {4: 0xFFFF_8880_0000_0000, 5: 0xFF11_0000_0000_0000}  # without KASLR of memory
XA_NODE = 2  # the two low bits of an entry of an xarray that leads to a node
MAX_LEVELS = 16  # of nodes; each has 64 slots, 16 with CONFIG_BASE_SMALL
NO_SWAP = " (where there was never a swap area nothing tells)"


class Used(NamedTuple):
    """A variable that is no list.

    :ivar functions: that use it; each by any of its names
    :ivar looks_right: whether what lies at an address is its content
    :ivar align: of its address
    :ivar empty: for the message: when what lies there tells nothing
    """

    functions: tuple[tuple[str, ...], ...]
    looks_right: Callable[[Target, int], bool]
    align: int = 8
    empty: str = ""


def find_variable(target: Target, name: str) -> tuple[int, str]:
    """Return the address of the variable *name* of :data:`VARIABLES`, and how it was found in words.

    :raises FormatError: the functions that use it have no operand in common that looks like it, or several
    :raises KshellError: types or symbols that are needed for it are not there
    """
    used = VARIABLES[name]
    words = ", ".join("/".join(names) for names in used.functions)
    found = [place for names in used.functions if (place := used_by(target, names, used.align))]
    if len(found) < 2:
        raise FormatError(f"of the functions that use it ({words}) two are needed, and {len(found)} can be read")
    common = sorted(set[int].intersection(*map(set, found)))
    right = [at for at in common if _holds(used, target, at)]
    if len(right) != 1:
        places = ", ".join(f"0x{at:x}" for at in right)
        raise FormatError(f"several operands of {words} look like it: {places}" if right
                          else f"no operand that {words} have in common looks like it{used.empty}")
    by = sorted({word for place in found for word in place[right[0]]})
    return right[0], f"by the operand that {', '.join(by)} have in common"


def _holds(used: Used, target: Target, at: int) -> bool:
    try:
        return used.looks_right(target, at)
    except Fault:
        return False


def _is_taint(target: Target, at: int) -> bool:
    return target.kernel.u64(at) < MAX_TAINT


def _is_last_frame(target: Target, at: int) -> bool:
    """Whether the direct map ends at the page frame of the number at *at*."""
    space, size = target.kernel, target.arch.page_size
    frames = space.u64(at)
    if not isinstance(space, AddressSpace) or not 0 < frames < MAX_FRAMES:
        return False
    base = target.symbols.get("page_offset_base")
    start = DIRECT_MAP[space.format.levels] if base is None else space.u64(base.address)
    end = frames * size
    if space.translate(start + end - size) != end - size:
        return False
    try:
        space.translate(start + end)
    except Fault as fault:
        return fault.reason is Reason.NOT_MAPPED
    return False


def _is_cache(name: bytes) -> Callable[[Target, int], bool]:
    """Return a check that a pointer leads to the slab cache *name*."""

    def check(target: Target, at: int) -> bool:
        space = target.kernel
        text = space.u64(space.u64(at) + _offset(target, "struct kmem_cache", "name"))
        return space.read(text, len(name) + 1) == name + b"\0"

    return check


def _is_pool_table(target: Target, at: int) -> bool:
    """Whether an idr lies at *at* whose first entries are worker pools with these numbers."""
    space, base = target.kernel, _offset(target, "struct idr", "idr_base")
    entry = space.u64(at + _offset(target, "struct idr", "idr_rt") + _offset(target, "struct xarray", "xa_head"))
    if space.u32(at + base):
        return False
    slots, shift = _offset(target, "struct xa_node", "slots"), _offset(target, "struct xa_node", "shift")
    node_type = target.type("struct xa_node").strip()
    count = (node_type.member("slots").type.size or 0) // 8 if isinstance(node_type, StructType) else 0
    for _ in range(MAX_LEVELS):
        if entry & 3 != XA_NODE:
            return False
        node = entry - XA_NODE
        if not space.read(node + shift, 1)[0]:
            break
        entry = space.u64(node + slots)
    pools = [space.u64(node + slots + 8 * number) for number in range(count)]
    number = _offset(target, "struct worker_pool", "id")
    # two for each CPU, which are never removed; XArrays mark reserved slots by odd entries
    return sum(pool != 0 for pool in pools) >= 2 and all(
        space.u32(pool + number) == index for index, pool in enumerate(pools) if pool and not pool & 3)


def _swap_areas(target: Target, at: int) -> int:
    """Return how many pointers at *at* lead to the swap areas 0, 1, ..."""
    space, kind = target.kernel, _offset(target, "struct swap_info_struct", "type")
    for number in range(MAX_SWAPFILES):
        pointer = space.u64(at + 8 * number)
        if not pointer:
            return number
        if space.read(pointer + kind, 1)[0] != number:
            return 0
    return MAX_SWAPFILES


def _is_swap_table(target: Target, at: int) -> bool:
    return _swap_areas(target, at) > 0


def _is_swap_count(target: Target, at: int) -> bool:
    table = target.symbol("swap_info").address
    count = _swap_areas(target, table)
    return not table <= at < table + 8 * count and target.kernel.u32(at) == count


def _offset(target: Target, owner: str, member: str) -> int:
    kind = target.type(owner).strip()
    if not isinstance(kind, StructType):
        raise FormatError(f"{owner} is no structure")
    return kind.member(member).offset


#: variables by their symbols
VARIABLES = {
    "tainted_mask": Used((("get_taint",), ("test_taint",), ("add_taint",)), _is_taint),
    "max_pfn": Used((("dma_direct_supported",), ("dma_direct_get_required_mask",)), _is_last_frame),
    "worker_pool_idr": Used((("work_busy",), ("show_all_workqueues", "show_workqueue_state")), _is_pool_table),
    "sock_inode_cachep": Used((("sock_alloc_inode",), ("sock_free_inode",)), _is_cache(b"sock_inode_cache")),
    "swap_info": Used((("si_swapinfo",), ("swap_start",)), _is_swap_table, empty=NO_SWAP),
    "nr_swapfiles": Used((("si_swapinfo",), ("__do_sys_swapoff", "__x64_sys_swapoff")), _is_swap_count, 4, NO_SWAP),
}


def find_timekeeper(target: Target) -> tuple[int, str]:
    """Return the address of ``tk_core``, and how it was found in words.

    ktime_get_real_seconds() does no more than return a member of it, ktime_get_seconds() another one behind a warning;
    ktime_get_coarse_real_ts64() begins with the sequence count that is its first member.

    :raises FormatError: their operands do not agree
    :raises KshellError: the types that are needed for it are not there
    """
    keeper, data = target.type("struct timekeeper").strip(), target.types.get("struct tk_data")
    assert isinstance(keeper, StructType)
    inner = 8 if data is None else _offset(target, "struct tk_data", "timekeeper")
    asked = {"ktime_get_real_seconds": inner + keeper.member("xtime_sec").offset,
             "ktime_get_seconds": inner + keeper.member("ktime_sec").offset, "ktime_get_coarse_real_ts64": 0}
    found = [{at - offset for at in used_by(target, (name,))} for name, offset in asked.items()]
    words = ", ".join(asked)
    right = sorted(set[int].intersection(*found))
    if len(right) != 1:
        places = ", ".join(f"0x{at:x}" for at in right)
        raise FormatError(f"operands of {words} agree about several places: {places}" if right
                          else f"operands of {words} do not agree about where it is")
    return right[0], f"by operands of {words}"
