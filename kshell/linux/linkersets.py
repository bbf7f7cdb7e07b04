"""Linker sets: tables that the linker collects from all object files, between two symbols.

Linux names them ``__start_NAME`` and ``__stop_NAME`` or ``__end_NAME`` (include/asm-generic/vmlinux.lds.h). What is in
one is told by nothing in the image, so the kernel's own sets are listed here; sizes come from the types of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError, NotFoundError

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.types.model import Symbol

START, STOPS = "__start_", ("__stop_", "__end_")
#: sets whose symbols have other names; offsets of 32 bits from where they stand
INITCALLS = "initcall"
MOST = 10_000  # symbols of one prefix
#: whole sections, which are no sets
SECTIONS = frozenset({"rodata", "ro_after_init", "init_task", "init_stack", "BTF", "notes", "bss_decrypted"})

#: what the items of a set are: a type, "*" and a type for pointers to such, "+" for offsets from where they stand
ITEMS = {
    "__jump_table": "struct jump_entry", "static_call_sites": "struct static_call_site",
    "__ksymtab": "struct kernel_symbol", "__ksymtab_gpl": "struct kernel_symbol", "__param": "struct kernel_param",
    "__ex_table": "struct exception_table_entry", "__bug_table": "struct bug_entry", "__dyndbg": "struct _ddebug",
    "__dyndbg_classes": "struct ddebug_class_map", "orc_unwind": "struct orc_entry", "orc_unwind_ip": "+",
    "_bpf_raw_tp": "struct bpf_raw_event_map", "lsm_info": "struct lsm_info", "early_lsm_info": "struct lsm_info",
    "ftrace_events": "*struct trace_event_call", "ftrace_eval_maps": "*struct trace_eval_map",
    "syscalls_metadata": "*struct syscall_metadata", "mcount_loc": "*", "kprobe_blacklist": "*",
    "__tracepoint_str": "*char", "__trace_bprintk_fmt": "*char", "__tracepoints_ptrs": "+struct tracepoint",
    "alloc_tags": "struct alloc_tag", INITCALLS: "+",
    **{f"pci_fixups_{when}": "struct pci_fixup" for when in (
        "early", "header", "final", "enable", "resume", "resume_early", "suspend", "suspend_late")},
}


class LinkerSet(NamedTuple):
    """A set: its items are from *start* to *end*, each of *size* bytes; 0: not known.

    :ivar item: the type of the objects, "" if not known
    :ivar how: "" the items are the objects, "*" they point to them, "+" they are offsets to them
    """

    name: str
    module: str | None
    start: int
    end: int
    item: str
    how: str
    size: int

    @property
    def length(self) -> int | None:
        """How many items there are, None if their size is not known."""
        return (self.end - self.start) // self.size if self.size else None


def linker_sets(target: Target) -> Iterator[LinkerSet]:
    """Yield the sets of the kernel and its modules, in the order of their addresses."""
    starts: list[tuple[str, Symbol]] = []
    ends: dict[tuple[str | None, str], int] = {}
    for prefix in (START, *STOPS):
        for full in target.symbols.starting(prefix, MOST):
            name = full.removeprefix(prefix)
            for symbol in target.symbols.find_all(full):
                if prefix == START:
                    starts.append((name, symbol))
                else:
                    ends.setdefault((symbol.module, name), symbol.address)
    first, last = target.symbols.get("__initcall_start"), target.symbols.get("__initcall_end")
    if first is not None and last is not None:
        starts.append((INITCALLS, first))
        ends[first.module, INITCALLS] = last.address
    for name, symbol in sorted(starts, key=lambda found: found[1].address):
        end = ends.get((symbol.module, name))
        if name and name not in SECTIONS and end is not None and end >= symbol.address and symbol.type not in "TtWw":
            yield _set(target, name, symbol, end)


def _set(target: Target, name: str, symbol: Symbol, end: int) -> LinkerSet:
    item = ITEMS.get(name, "")
    how, item = (item[0], item[1:]) if item[:1] in ("*", "+") else ("", item)
    ctype = target.types.get(item) if item else None
    size = {"*": target.arch.pointer_size, "+": 4}.get(how) or (ctype.size if ctype is not None else None) or 0
    if size and (end - symbol.address) % size:
        size = 0  # this kernel has something else in it
    return LinkerSet(name, symbol.module, symbol.address, end, item if ctype is not None and size else "", how, size)


def find_set(target: Target, name: str) -> LinkerSet:
    """Return the set *name*, of a module as ``module`name``, else the kernel's or that of the first module with it.

    :raises NotFoundError: there is none
    """
    from kshell.types.model import near_names

    module, tick, own = name.rpartition("`")
    every = list(linker_sets(target))
    for one in sorted(every, key=lambda found: found.module is not None):
        if one.name == own and (not tick or one.module == module):
            return one
    raise NotFoundError("linker set", name, near=near_names(own, [one.name for one in every]))


def objects(target: Target, chosen: LinkerSet) -> Iterator[int]:
    """Yield the addresses of the objects of a set.

    :raises KshellError: the size of its items is not known, or it cannot be read: initialization's memory is given back
    """
    if not chosen.size:
        raise KshellError(f"what the items of {chosen.name} are is not known",
                          hint=f"they are from 0x{chosen.start:x} to 0x{chosen.end:x}: ADDR::array TYPE COUNT")
    if _given_back(target, chosen):
        raise KshellError(f"the linker set {chosen.name} was in memory that was given back when the system was up")
    places = range(chosen.start, chosen.end, chosen.size)
    if not chosen.how:
        yield from places
        return
    data = target.kernel.read(chosen.start, chosen.end - chosen.start)
    order = target.arch.byteorder
    for place in places:
        cell = data[place - chosen.start : place - chosen.start + chosen.size]
        if chosen.how == "*":
            yield int.from_bytes(cell, order)
        else:
            yield (place + int.from_bytes(cell, order, signed=True)) % (1 << 64)


def _given_back(target: Target, chosen: LinkerSet) -> bool:
    """Whether a set is in the kernel's init memory, which is other things once the system runs."""
    low, high, state = (target.symbols.get(name) for name in ("__init_begin", "__init_end", "system_state"))
    if low is None or high is None or not low.address <= chosen.start < high.address:
        return False
    return state is None or int.from_bytes(target.kernel.read(state.address, 4), target.arch.byteorder) > 1
