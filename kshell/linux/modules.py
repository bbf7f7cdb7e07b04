"""Kernel modules: the ``modules`` list, as /proc/modules and /sys/module show them.

Kernel source: ``struct module`` in include/linux/module.h, kernel/module/procfs.c and sysfs.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError, NotFoundError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import from_both_ends, list_for_each_entry, member_offset
from kshell.linux.taints import letters

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

#: enum module_state
STATES = ("Live", "Loading", "Unloading", "Unformed")
UNFORMED = 3
#: MODULE_REF_BASE
REF_BASE = 1
MAX_SECTIONS = 4096


class Region(NamedTuple):
    """A piece of a module's memory. ``kind``: "text", "data", "rodata", "ro_after_init", "init_text", ..."""

    kind: str
    base: int
    size: int


class Module(NamedTuple):
    """A loaded module.

    :ivar address: of its ``struct module``
    :ivar base: the first address of its text; ``size``: bytes of all its memory, as /proc/modules counts them
    :ivar references: as /proc/modules shows them; ``used_by``: names of modules that need it, "?" for those
        that cannot be read
    :ivar taints: letters, "" for none; ``version``: MODULE_VERSION or ""
    """

    address: int
    name: str
    base: int
    size: int
    references: int
    used_by: tuple[str, ...]
    state: str
    taints: str
    version: str
    srcversion: str
    regions: tuple[Region, ...]


def iter_modules(target: Target) -> Iterator[Module]:
    """Yield every module, the newest first, as /proc/modules does; those that are not formed yet are left out.

    :raises SymbolNotFoundError: the kernel's symbols do not tell where the list is
    :raises Fault, FormatError: the list or a module is damaged; all that can be read was yielded before
    """
    require_kernel(target)
    head = target.symbol("modules").address
    kind = target.type("struct module")
    offset = member_offset(kind, "list")
    before, behind, damage = from_both_ends(target.kernel, head)
    for node in dict.fromkeys(before + behind):
        try:
            value = target.value(kind, node - offset)
            module = None if value.integer("state") == UNFORMED else read_module(target, value)
        except KshellError as error:
            damage = damage or error
            continue
        if module is not None:
            yield module
    if damage is not None:
        raise damage


def find_module(target: Target, name: str) -> Module:
    """Return the module *name*; ``-`` and ``_`` are the same in a module's name.

    :raises NotFoundError: it is not loaded; carries names that are near
    """
    from kshell.types.model import near_names

    names = []
    for module in iter_modules(target):
        if module.name == name.replace("-", "_"):
            return module
        names.append(module.name)
    raise NotFoundError("module", name, near_names(name, names))


def read_module(target: Target, value: Value) -> Module:
    """Return what a ``struct module`` says.

    :raises Fault: it cannot be read
    """
    state = value.integer("state")
    found = tuple(regions(target, value))
    base = next((region.base for region in found if region.kind == "text"), found[0].base if found else 0)
    references = value.integer("refcnt.counter") - REF_BASE if value.has("refcnt") else 0
    bits = value.integer("taints") if value.has("taints") else 0
    return Module(
        value.address, value["name"].string(), base, sum(region.size for region in found), references,
        tuple(_users(target, value)), STATES[state] if state < len(STATES) else f"state {state}", letters(bits),
        _text(value, "version"), _text(value, "srcversion"), found)


def regions(target: Target, value: Value) -> Iterator[Region]:
    """Yield the pieces of memory of a ``struct module`` that are not empty."""
    if value.has("mem"):  # 6.4+ (ac3b43283923 "module: replace module_layout with module_memory")
        kinds = _memory_kinds(target)
        for number, piece in enumerate(value["mem"]):
            size = piece.integer("size")
            if size:
                yield Region(kinds[number] if number < len(kinds) else f"mem{number}", piece.integer("base"), size)
        return
    # 4.5+ (7523e4dc5057 "module: use a structure to encapsulate layout"), before: module_core
    layouts = ("core_layout.base", "core_layout.size", "init_layout.base", "init_layout.size")
    if not value.has("core_layout"):
        layouts = ("module_core", "core_size", "module_init", "init_size")
    for kind, base_name, size_name in (("text", *layouts[:2]), ("init_text", *layouts[2:])):
        length = value.integer(size_name)
        if length:
            yield Region(kind, value.integer(base_name), length)


def _memory_kinds(target: Target) -> list[str]:
    """Return the names of ``enum mod_mem_type`` by number: text, data, rodata, ..."""
    from kshell.types.model import EnumType

    kind = target.type("enum mod_mem_type").strip()
    if not isinstance(kind, EnumType):
        raise FormatError("enum mod_mem_type is not an enum in these types")
    names = [enumerator.name.removeprefix("MOD_") for enumerator in kind.enumerators]
    return [name.lower() for name in names if name not in ("MEM_NUM_TYPES", "INVALID")]


def _users(target: Target, value: Value) -> Iterator[str]:
    """Yield the names of the modules that use this one: print_unload_info()."""
    if not value.has("source_list"):  # CONFIG_MODULE_UNLOAD is off
        return
    try:
        for use in list_for_each_entry(target, "struct module_use", value["source_list"].address, "source_list"):
            yield use["source"].deref()["name"].string()
    except KshellError:  # pages left out of the dump, damage: the module itself is read all the same
        yield "?"
    if value.integer("init") and not value.integer("exit"):
        yield "[permanent]"


def _text(value: Value, member: str) -> str:
    if not value.has(member) or not value.integer(member):
        return ""
    return value[member].string(256)


class Section(NamedTuple):
    name: str
    address: int


def sections(target: Target, value: Value) -> Iterator[Section]:
    """Yield the ELF sections of a ``struct module`` with their addresses, as /sys/module/NAME/sections shows them."""
    pointer = value.integer("sect_attrs") if value.has("sect_attrs") else 0
    if not pointer:
        return
    table = target.value("struct module_sect_attrs", pointer)
    if not table.has("nsections"):
        # 6.14+ (d8959b947a8d "module: sysfs: Drop member 'module_sect_attrs::nsections'"): grp.bin_attrs ends in NULL
        array = table.integer("grp.bin_attrs")
        for number in range(MAX_SECTIONS):
            attribute = int.from_bytes(target.kernel.read(array + number * 8, 8), "little")
            if not attribute:
                return
            entry = target.value("struct bin_attribute", attribute)
            yield Section(entry["attr.name"].string(256), entry.integer("private"))
        return
    count = table.integer("nsections")
    if not 0 <= count <= MAX_SECTIONS:
        raise FormatError(f"module 0x{value.address:x} has an impossible number of sections: {count}")
    kind = target.type("struct module_sect_attr")
    size = kind.size or 0
    first = table["attrs"].address
    for number in range(count):
        entry = target.value(kind, first + number * size)
        # 5.8+ (ed66f991bb19 "module: Refactor section attr into bin attribute"), before: mattr and a name of its own
        name = entry["battr.attr.name"] if entry.has("battr") else entry["name"]
        yield Section(name.string(256), entry.integer("address"))
