"""The symbols and types of kernel modules, which join the kernel's when a name is not found there.

Kernel source: ``struct module`` (include/linux/module.h), ``struct mod_kallsyms``; ``btf_modules`` in kernel/bpf/btf.c.
A live module's ``btf_data`` is NULL (607c543f939d), so its parsed BTF is found through ``btf_modules``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from kshell.errors import FormatError, KshellError
from kshell.types.btf import Btf
from kshell.types.kallsyms import ModuleSymbols
from kshell.value import Value

if TYPE_CHECKING:
    from kshell.target.target import Target

_T = TypeVar("_T")

MAX_MODULES = 1 << 16
MAX_TABLE = 64 << 20
ELF_SYM_SIZE = 24


def iter_list(target: Target, head: int, type: str, member: str, limit: int = MAX_MODULES) -> Iterator[Value]:
    """Yield the structures of *type* on the list_head at *head*, in order, ``list_for_each_entry`` like.

    :raises FormatError: the list loops, ends in NULL, or has more than *limit* members
    :raises Fault: an element cannot be read
    """
    ctype = target.type(type)
    offset = ctype.strip().member(member).offset  # type: ignore[attr-defined]
    for node in _chase(target, head, 0, limit):
        yield Value(target, ctype, node - offset)


def _chase(target: Target, head: int, link: int, limit: int) -> list[int]:
    """Return the nodes of a list_head, followed by the pointer at *link* of each. Raises as :func:`iter_list`."""
    nodes: list[int] = target.kernel.chase(head, link, limit)  # type: ignore[attr-defined]
    if nodes and not target.kernel.moving and not target.kernel.u64(nodes[-1] + link):
        error = FormatError(f"the list at 0x{head:x} does not come back to its head: 0x{nodes[-1]:x} leads to NULL")
        error.visited = nodes  # type: ignore[attr-defined]
        raise error
    return nodes


def reachable(target: Target, head: int, type: str, member: str) -> tuple[list[Value], KshellError | None]:
    """Return the structures that :func:`iter_list` yields, and why it cannot yield all of them.

    A damaged list is followed from both ends; the structures where that ends may not be readable.
    """
    try:
        return list(iter_list(target, head, type, member)), None
    except KshellError as error:
        why, nodes = error, list(getattr(error, "visited", ()))
    try:
        nodes += _chase(target, head, target.arch.pointer_size, MAX_MODULES)[::-1]
    except KshellError as error:
        nodes += list(getattr(error, "visited", ()))[::-1]
    ctype = target.type(type)
    offset = ctype.strip().member(member).offset  # type: ignore[attr-defined]
    return [Value(target, ctype, node - offset) for node in dict.fromkeys(nodes)], why


def iter_modules(target: Target) -> Iterator[Value]:
    """Yield every ``struct module`` that is on the ``modules`` list, the newest first.

    :raises KshellError: the list is damaged; what can be reached from its ends comes first
    """
    found, why = reachable(target, target.symbol("modules").address, "struct module", "list")
    yield from found
    if why is not None:
        raise why


class Roster(Generic[_T]):
    """What was read of each member of a kernel's list, kept for as long as that is the same one.

    Whether the list is still the same is one look at its links and at what tells one of its structures from another.

    :param head: the symbol of the list; *type* is its structures' with the list_head in *link*
    :param marks: members that tell whether a structure is the same one, the last of them behind all others
    :param read: gives what is wanted of a structure
    """

    def __init__(
        self, target: Target, head: str, type: str, link: str, marks: tuple[str, ...], read: Callable[[Value], _T],
    ) -> None:
        self._target, self._head, self._type, self._link = target, head, type, link
        self._marks, self._read = marks, read
        self._seen: list[bytes | None] = []
        self._kept: dict[tuple[int, tuple[bytes, ...]], _T | None] = {}
        #: what could not be read, and why
        self.broken: list[str] = []

    def __call__(self) -> list[_T]:
        """Return it of each structure that is on the list now; what cannot be read is told by :attr:`broken`."""
        try:
            if not self._seen or self._look([address for address, _ in self._kept]) != self._seen:
                self._renew()
        except KshellError as error:
            self._seen, self._kept, self.broken = [], {}, [str(error)]
        return [found for found in self._kept.values() if found is not None]

    def _renew(self) -> None:
        target = self._target
        found, why = reachable(target, target.symbol(self._head).address, self._type, self._link)
        entries = {entry.address: entry for entry in found}
        seen, before = self._look(list(entries)), self._kept
        self._seen, self._kept, self.broken = seen, {}, [str(why)] if why else []
        if why and target.kernel.moving:
            self._seen = []  # the next time it may be whole
        for entry, data in zip(entries.values(), seen[1:], strict=True):
            spans = [(entry[mark].address - entry.address, entry[mark].size) for mark in self._marks]
            key = entry.address, tuple((data or b"")[at : at + size] for at, size in spans)
            self._kept[key] = None
            try:
                kept = before.get(key)
                self._kept[key] = self._read(entry) if kept is None else kept
            except KshellError as error:
                self.broken.append(str(error))

    def _look(self, addresses: list[int]) -> list[bytes | None]:
        """Return the head of the list, and each structure's bytes as far as they matter."""
        memory = self._target.kernel
        ctype = self._target.type(self._type)
        last = Value(self._target, ctype, 0)[self._marks[-1]]
        head: bytes | None = memory.read(self._target.symbol(self._head).address, 16)
        return [head, *memory.read_many(addresses, last.address + last.size)]


def symbol_sources(target: Target) -> Callable[[], list[ModuleSymbols]]:
    """Return what gives the symbols of each module; what cannot be read is left out and told in the findings."""
    # a module's symbols are others once it is initialised: those of its init sections go
    roster = Roster(target, "modules", "struct module", "list", ("state", "name"), _named_symbols)

    def sources() -> list[ModuleSymbols]:
        found = roster()
        target.findings["modules"] = f"symbols of {len(found)} modules" + _without(roster.broken)
        return found

    return sources


def _without(broken: list[str]) -> str:
    more = f", and {len(broken) - 1} more like it" if len(broken) > 1 else ""
    return f"; not all: {broken[0]}{more}" if broken else ""


def _named_symbols(module: Value) -> ModuleSymbols:
    try:
        return module_symbols(module)
    except KshellError as error:
        raise FormatError(f"{module['name'].string()}: {error}") from error


def module_symbols(module: Value) -> ModuleSymbols:
    """Return the symbols that the kernel keeps for *module*, its ``mod_kallsyms``.

    :raises KshellError: the tables cannot be read or have an impossible size
    """
    # Since Linux 4.5 (8244062ef1e5 "modules: fix longstanding /proc/kallsyms vs module insertion race") the tables
    # are in struct mod_kallsyms; before, in struct module itself.
    table = module["kallsyms"].deref() if module.has("kallsyms") else module
    count = table["num_symtab"].integer()
    if not 0 <= count <= MAX_TABLE // ELF_SYM_SIZE:
        raise FormatError(f"impossible number of symbols: {count}")
    space = module.space
    symtab = space.read(table["symtab"].integer(), count * ELF_SYM_SIZE)
    strtab_address = table["strtab"].integer()
    # st_name is the first word of six in an Elf64_Sym
    strings = max(memoryview(symtab).cast("I")[::6], default=0)
    if strings > MAX_TABLE:
        raise FormatError(f"impossible string table of {strings} bytes")
    strtab, _ = space.read_upto(strtab_address, strings + 512)
    letters = None
    # Since Linux 5.2 (1c7651f43777 "kallsyms: store type information in its own array").
    if table.has("typetab"):
        letters = space.read(table["typetab"].integer(), count)
    return ModuleSymbols(module["name"].string(), symtab, strtab, letters)


def type_sources(target: Target) -> Callable[[], list[tuple[Btf, str]]]:
    """Return what gives (BTF, module name) of each module that has split BTF."""
    roster = Roster(target, "btf_modules", "struct btf_module", "list", ("btf", "module"), partial(_btf_of, target))

    def sources() -> list[tuple[Btf, str]]:
        if target.symbols.get("btf_modules") is None or not isinstance(target.types.base, Btf):
            return []
        found = roster()
        target.findings["module types"] = f"BTF of {len(found)} modules" + _without(roster.broken)
        return found

    return sources


def _btf_of(target: Target, entry: Value) -> tuple[Btf, str]:
    btf = entry["btf"].deref()
    size = btf["data_size"].integer()
    if not 0 < size <= MAX_TABLE:
        raise FormatError(f"impossible BTF size {size}")
    base = target.types.base
    assert isinstance(base, Btf)
    return Btf(entry.space.read(btf["data"].integer(), size), base), entry["module"].deref()["name"].string()
