"""The symbols and types of kernel modules, which join the kernel's when a name is not found there.

Kernel source: ``struct module`` (include/linux/module.h), ``struct mod_kallsyms``; ``btf_modules`` in kernel/bpf/btf.c.
A live module's ``btf_data`` is NULL (607c543f939d), so its parsed BTF is found through ``btf_modules``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kshell.errors import FormatError, KshellError
from kshell.types.btf import Btf
from kshell.types.kallsyms import ModuleSymbols
from kshell.value import Value

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.types.model import SymbolSource

MAX_MODULES = 1 << 16
MAX_TABLE = 64 << 20
ELF_SYM_SIZE = 24


def iter_list(target: Target, head: int, type: str, member: str, limit: int = MAX_MODULES) -> Iterator[Value]:
    """Yield the structures of *type* on the list_head at *head*, in order, ``list_for_each_entry`` like.

    :raises FormatError: the list loops or has more than *limit* members
    :raises Fault: an element cannot be read
    """
    ctype = target.type(type)
    offset = ctype.strip().member(member).offset  # type: ignore[attr-defined]
    for node in target.kernel.chase(head, 0, limit):  # type: ignore[attr-defined]
        yield Value(target, ctype, node - offset)


def iter_modules(target: Target) -> Iterator[Value]:
    """Yield every ``struct module`` that is on the ``modules`` list, the newest first."""
    return iter_list(target, target.symbol("modules").address, "struct module", "list")


def symbol_sources(target: Target) -> Iterator[SymbolSource]:
    """Yield the symbols of each module; what cannot be read is left out and told in the findings."""
    broken: list[str] = []
    count = 0
    try:
        for module in iter_modules(target):
            try:
                yield module_symbols(module)
                count += 1
            except KshellError as error:
                broken.append(f"{module['name'].string()}: {error}")
    except KshellError as error:
        broken.append(str(error))
    target.findings["modules"] = f"symbols of {count} modules" + (f"; without {'; '.join(broken)}" if broken else "")


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


def type_sources(target: Target) -> Iterator[tuple[Btf, str]]:
    """Yield (BTF, module name) of each module that has split BTF."""
    head = target.symbols.get("btf_modules")
    base = target.types.base
    if head is None or not isinstance(base, Btf):
        return
    broken: list[str] = []
    count = 0
    try:
        for entry in iter_list(target, head.address, "struct btf_module", "list"):
            try:
                btf = entry["btf"].deref()
                size = btf["data_size"].integer()
                if not 0 < size <= MAX_TABLE:
                    raise FormatError(f"impossible BTF size {size}")
                name = entry["module"].deref()["name"].string()
                yield Btf(entry.space.read(btf["data"].integer(), size), base), name
                count += 1
            except KshellError as error:
                broken.append(str(error))
    except KshellError as error:
        broken.append(str(error))
    target.findings["module types"] = f"BTF of {count} modules" + (f"; without {'; '.join(broken)}" if broken else "")
