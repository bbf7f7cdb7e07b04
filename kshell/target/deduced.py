"""Variables that no table of the kernel names (no ``CONFIG_KALLSYMS_ALL``), found by what is known of them.

Each is looked for when its name is first asked for, believed only if its shape and all that it leads to is right, and
told by ``Target.findings``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.types.model import Symbol

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.types.names import SymbolIndex

#: Gives the address of a variable and how it was found; raises KshellError.
Road = Callable[["Target"], tuple[int, str]]
KERNEL = 1 << 63
FINDING = "deduced"  # the word of Target.findings


#: the names in :data:`kshell.target.operands.LISTS` and :data:`kshell.target.scalars.VARIABLES`: these, and what the
#: first task needs, are imported when asked for
LISTED = ("modules", "btf_modules", "slab_caches", "workqueues", "super_blocks", "vmap_area_list")
#: labels of tables in the image, in :data:`kshell.target.labels.TABLES`
LABELS = ("__start_BTF", "__stop_BTF", "__start___ksymtab", "__stop___ksymtab", "__start___ksymtab_gpl",
          "__stop___ksymtab_gpl", "__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind",
          "__stop_orc_unwind", "__start_orc_header")
VARIABLES = ("tainted_mask", "max_pfn", "worker_pool_idr", "sock_inode_cachep", "swap_info", "nr_swapfiles")


def _first_task(target: Target) -> tuple[int, str]:
    from kshell.target.swapper import find_init_task

    return find_init_task(target)


def _timekeeper(target: Target) -> tuple[int, str]:
    from kshell.target.scalars import find_timekeeper

    return find_timekeeper(target)


def _variable_road(name: str) -> Road:
    def road(target: Target) -> tuple[int, str]:
        from kshell.target.scalars import find_variable

        return find_variable(target, name)

    return road


def _list_road(name: str) -> Road:
    def road(target: Target) -> tuple[int, str]:
        from kshell.target.operands import find_list

        return find_list(target, name)

    return road


class DeducedSymbols:
    """The symbols found so far, and the roads to the others.

    :param index: the symbols that they join
    """

    def __init__(self, target: Target, index: SymbolIndex) -> None:
        self._target, self._index = target, index
        self._labels = set(LABELS)
        self._found: dict[str, Symbol] = {}
        self._told: dict[str, str] = {}
        self._roads: dict[str, Road] = {
            "init_task": _first_task, "tk_core": _timekeeper, **{name: _list_road(name) for name in LISTED},
            **{name: _variable_road(name) for name in VARIABLES}}

    def find(self, name: str) -> list[Symbol]:
        if name in self._labels and not self._known(name):
            self._look_for_table(name)
        if name in self._roads and not self._known(name):
            self._look(name, self._roads.pop(name))  # a road may ask for names, this one too
        found = self._found.get(name)
        return [] if found is None else [found]

    def _known(self, name: str) -> bool:
        """Whether another source has it by now, as a vmlinux that was added."""
        return any(source.find(name) for source in self._index.sources if source is not self)

    def _look_for_table(self, name: str) -> None:
        """Look for the table that the label *name* is of: all its labels are known or none is."""
        from kshell.target.labels import TABLES, find_labels

        labels, word = next((names, word) for names, (word, _) in TABLES.items() if name in names)
        self._labels -= set(labels)
        try:
            found = find_labels(self._target, name, self._index.own)
            self._found |= {label: Symbol(label, at, 0, "r") for label, at in found.labels.items()}
            how = found.how
        except KshellError as error:
            how = f"not found: {error}"
        self._tell(word, how)

    def _tell(self, name: str, how: str) -> None:
        self._told[name] = f"{name}: {how}"
        self._target.findings[FINDING] = "; ".join(self._told.values())

    def _look(self, name: str, road: Road) -> None:
        target = self._target
        try:
            address, how = road(target)
            self._found[name] = symbol = Symbol(name, address, 0, "d")
            kind = target.type_of(symbol)
            self._found[name] = symbol._replace(size=0 if kind is None else kind.size or 0)
        except KshellError as error:
            how = f"not found: {error}"
            if target.live:  # it may have been changing
                self._roads[name] = road
        self._tell(name, how)

    def lowest(self) -> int:
        """Return an address below which no symbol lies."""
        return KERNEL

    def at(self, address: int) -> Symbol | None:
        return next((one for one in self if one.address <= address < one.address + max(one.size, 1)), None)

    def below(self, address: int, lowest: int = 0) -> Symbol | None:
        """Return the closest symbol not above *address*, whatever its size; None for one that is below *lowest*."""
        if address < lowest:
            return None
        return max((one for one in self if one.address <= address), key=lambda one: one.address, default=None)

    def starting(self, prefix: str, limit: int) -> list[str]:
        return sorted(name for name in self._found if name.startswith(prefix))[:limit]

    def __iter__(self) -> Iterator[Symbol]:
        return iter(list(self._found.values()))

    def __len__(self) -> int:
        return len(self._found)
