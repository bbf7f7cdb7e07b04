"""Lists of the kernel by the instructions that use them, for a kernel whose symbols do not tell where they are.

x86-64 kernels name a variable by its address: ``mov $imm32``, ``cmp $imm32``, ``mov sym(%rip)``. The small functions
that go through a list have its head among their operands; which one it is tells the list itself: each link leads back,
and each member looks like one. Kernel source: kernel/module/procfs.c and main.c, mm/slab_common.c, mm/slub.c,
kernel/bpf/btf.c, kernel/workqueue.c, fs/super.c, mm/vmalloc.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kshell.arch.disassembler import Disassembler
from kshell.errors import Fault, FormatError
from kshell.target.image import END, START
from kshell.target.swapper import is_linked
from kshell.types.model import StructType
from kshell.value import Value

if TYPE_CHECKING:
    from kshell.target.target import Target

MAX_FUNCTION = 4096  # bytes that are decoded
MAX_MEMBERS = 1 << 16
LIST_HEAD = 16
NAME = re.compile(r"[!-~][ -~]*\Z")


class Listed(NamedTuple):
    """A list: the functions that use it, the type of its members with their ``link``, and what each is checked by."""

    functions: tuple[str, ...]
    type: str
    link: str
    looks_right: Callable[[Value], bool]


def _named(path: str) -> Callable[[Value], bool]:
    """Return a check that there is a printable name at *path* of a member."""
    return lambda member: NAME.match(member.member(path).string(256)) is not None


def _is_area(area: Value) -> bool:
    start, end = area.integer("va_start"), area.integer("va_end")
    return 1 << 63 <= start < end and not (start | end) % 4096


#: lists by the symbols of their heads
LISTS = {
    "modules": Listed(("m_next", "m_start", "find_module_all", "print_modules", "module_kallsyms_lookup_name"),
                      "struct module", "list", _named("name")),
    "btf_modules": Listed(("btf_try_get_module", "btf_get_module_btf", "btf_module_notify"),
                          "struct btf_module", "list", _named("btf->name")),
    "slab_caches": Listed(("slab_next", "slab_start", "find_mergeable", "dump_unreclaimable_slab"),
                          "struct kmem_cache", "list", _named("name")),
    "workqueues": Listed(("show_all_workqueues", "show_workqueue_state", "freeze_workqueues_busy"),
                         "struct workqueue_struct", "list", _named("name")),
    "super_blocks": Listed(("iterate_supers", "user_get_super", "get_super"),
                           "struct super_block", "s_list", _named("s_id")),
    "vmap_area_list": Listed(("s_next", "s_start", "vread"), "struct vmap_area", "list", _is_area),
}


def find_list(target: Target, name: str) -> tuple[int, str]:
    """Return the address of the head of the list *name* of :data:`LISTS`, and how it was found in words.

    :raises FormatError: no operand leads to such a list, or several do
    :raises KshellError: a type that is needed for it is not there, or instructions cannot be decoded
    """
    listed = LISTS[name]
    kind = target.type(listed.type).strip()
    if not isinstance(kind, StructType):
        raise FormatError(f"{listed.type} is no structure")
    link = kind.member(listed.link).offset
    uses = used_by(target, listed.functions)
    right = {head: count for head in uses if (count := _members(target, head, kind, link, listed.looks_right))}
    words = ", ".join(listed.functions)
    if not uses:
        raise FormatError(f"none of the functions that use it ({words}) is there, or none has addresses")
    if len(right) != 1:
        places = ", ".join(f"0x{head:x}" for head in right)
        raise FormatError(f"several operands of {words} lead to a list of {listed.type}: {places}" if right
                          else f"no operand of {words} leads to a list of {listed.type} (an empty one tells nothing)")
    (head, count), = right.items()
    return head, f"by operands of {', '.join(sorted(uses[head]))}, {count} on the list"


def used_by(target: Target, functions: tuple[str, ...], align: int = 8) -> dict[int, set[str]]:
    """Return the addresses in the kernel image that operands of *functions* of the kernel mean, and who uses each.

    Those of code are none, nor those that are no multiples of *align*.
    """
    decoder = Disassembler(target.arch.name, lambda address: None, lambda offset: None)
    text, end = (target.symbols.own(name) for name in ("_stext", "_etext"))
    code = range(0) if text is None or end is None else range(text.address, end.address)
    found: dict[int, set[str]] = {}
    for source in target.symbols.sources:  # none of modules, which may be what is looked for
        for word in functions:
            for function in source.find(word):
                size = min(function.size, MAX_FUNCTION)
                for address in decoder.addresses(target.kernel, function.address, size):
                    if START <= address < END and not address % align and address not in code:
                        found.setdefault(address, set()).add(word)
    return found


def _members(
    target: Target, head: int, kind: StructType, link: int, looks_right: Callable[[Value], bool],
) -> int:
    """Return how many members the list at *head* has; 0 when it is none of theirs, or empty."""
    space = target.kernel
    at, before, count = head, 0, 0
    try:
        if not is_linked(space, head):
            return 0
        before, at = head, space.u64(head)
        while at != head:
            following, previous = struct.unpack("<QQ", space.read(at, LIST_HEAD))
            if previous != before or count >= MAX_MEMBERS or not looks_right(Value(target, kind, at - link)):
                return 0
            before, at, count = at, following, count + 1
    except Fault:
        return 0
    return count
