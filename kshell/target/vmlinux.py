"""A vmlinux, System.map or BTF file beside a dump: more symbols and types, once it is certain that it is of its kernel.

The evidence is the build id in the image's own notes (``/sys/kernel/notes``), and every symbol that VMCOREINFO tells:
``_stext`` alone is at the same place in most kernels. VMCOREINFO's BUILD-ID is no evidence, for some kernels wrote
garbage there (6.11.3 to 6.11.9, 6.6.55 to 6.6.62, 6.1.113 to 6.1.118 and others). A BTF file has neither; it is held
to the sizes and offsets in VMCOREINFO.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kshell.errors import Fault, FormatError, KshellError, OpenError
from kshell.target.formats import RAW, look_at, recognise
from kshell.target.open import read_head
from kshell.target.target import Target
from kshell.target.vmcoreinfo import Vmcoreinfo
from kshell.types.elffile import ElfFile, build_id_of
from kshell.types.elfsym import ElfSymbols
from kshell.types.model import StructType
from kshell.types.names import TypeIndex
from kshell.types.procsyms import read_proc_kallsyms

if TYPE_CHECKING:
    from kshell.types.lines import Lines, SourceLine

MAX_NOTES = 1 << 16
MAX_BTF = 256 << 20
BTF_MAGIC = b"\x9f\xeb"
#: VMCOREINFO_SYMBOL_ARRAY(mem_section) is the value of a pointer where that is one, so lower addresses prove nothing
IMAGE = 0xFFFF_FFFF_8000_0000


def add_vmlinux(target: Target, path: str) -> None:
    """Add the symbols and types of the vmlinux, System.map or BTF file at *path* to *target*, behind the image's own.

    :raises OpenError: it cannot be read, or is of another kernel; the message shows both build ids or addresses
    """
    head = read_head(path)
    try:
        if head[:4] == b"\x7fELF":
            _add_elf(target, path)
        elif head[:2] == BTF_MAGIC:
            _add_btf(target, path)
        elif (known := recognise(look_at(path))) is not None and known is not RAW:
            raise OpenError(path, f"{known.name}: neither a vmlinux nor a System.map nor a BTF file", kind="symbols",
                            hint="kshell DUMP VMLINUX; the other parts of a split dump are named with --part")
        else:
            _add_map(target, path)
    except FormatError as error:
        raise OpenError("", str(error), kind="symbols", hint=error.hint) from error


def image_build_id(target: Target) -> str | None:
    """Return the build id in the kernel's own notes, in hexadecimal; None when they cannot be found or read."""
    start, stop = target.symbols.own("__start_notes"), target.symbols.own("__stop_notes")
    if start is None or stop is None:
        return _build_id_by_shape(target) if target.symbols.missing else None
    return _build_id_at(target, start.address, stop.address - start.address)


def _build_id_by_shape(target: Target) -> str | None:
    """Return the build id of a kernel whose symbols lack the labels of its notes."""
    from kshell.target.labels import find_build_id

    try:
        return find_build_id(target)
    except KshellError:
        return None


def _build_id_at(target: Target, address: int, size: int) -> str | None:
    if not 0 < size <= MAX_NOTES:
        return None
    try:
        data = target.kernel.read(address, size)
    except Fault:
        return None
    return build_id_of(data)


# -- a vmlinux ---------------------------------------------------------------------------------------------------------


def _add_elf(target: Target, path: str) -> None:
    elf = ElfFile(path)
    target.on_close(elf.close)
    table = ElfSymbols(elf)
    assert target.vmcoreinfo is not None
    offset = target.vmcoreinfo.kernel_offset
    built, own = image_build_id(target), table.build_id
    notes = elf.section(".notes")
    if built is None and notes is not None and notes.address >= IMAGE:
        built = _build_id_at(target, notes.address + offset, notes.size)  # no symbol tells where they are
    if own is not None and built is not None and own != built:
        raise OpenError(path, f"not the vmlinux of this kernel: build id {own}, the image's {built}",
                        kind="version", hint=_hint(target))
    if table.linked_at("_stext") is None:
        raise OpenError(path, "has no symbol _stext: not a vmlinux, or stripped", kind="symbols",
                        hint="an unstripped vmlinux comes with the kernel's debug package")
    _check(target, path, "vmlinux", table.linked_at, proven=own is not None and own == built)
    target.symbols.add(table.symbols(offset))
    target.findings["vmlinux"] = f"symbols of {path}"
    _add_types(target, lambda index: _types_of(target, index, elf))
    _add_object_file(target, elf, offset)
    if elf.section(".debug_line") is not None and elf.section(".debug_info") is not None:
        target.find_lines = _line_finder(elf, offset)


def _add_object_file(target: Target, elf: ElfFile, offset: int) -> None:
    """Let ``?`` show the bytes of the vmlinux at the addresses of the kernel that runs from it."""
    from kshell.memory.elfmap import open_parts
    from kshell.target.loaded import parts_of

    parts = [part for part in parts_of(elf) if part[0] >> 63]  # not the per-CPU template at 0
    if parts:
        target.object_file = open_parts(elf.path, parts, bias=offset, space="object")
        target.object_file.why_not_writable = "a vmlinux beside a kernel is only read: kshell -w VMLINUX edits it"
        target.on_close(target.object_file.close)


def _line_finder(elf: ElfFile, offset: int) -> Callable[[int], list[SourceLine]]:
    """Return what tells the source line of an address that is *offset* bytes from where it was linked."""
    found: list[Lines] = []

    def find(address: int) -> list[SourceLine]:
        if not found:
            from kshell.types.dwarf_units import Units
            from kshell.types.lines import Lines

            found.append(Lines(Units(elf)))
        return found[0].at((address - offset) % (1 << 64))

    return find


def _types_of(target: Target, index: TypeIndex, elf: ElfFile) -> None:
    """Add what types *elf* has: its BTF where the image has none, and its DWARF behind all others."""
    assert target.vmcoreinfo is not None
    problems: list[str] = []
    none = not len(index)
    if none:
        try:
            data = elf.content(".BTF", MAX_BTF)
            if data:
                from kshell.types.btf import Btf

                index.add(Btf(data))
                target.findings["types"] = f"BTF of {elf.path}; none in the image"
        except KshellError as error:
            problems.append(f"its BTF: {error}")
    if elf.section(".debug_info") is not None:
        from kshell.types.dwarf import Dwarf

        try:
            dwarf = Dwarf(elf, progress=target.progress)
            dwarf.bias = target.vmcoreinfo.kernel_offset
            index.missing = dwarf.missing
            if not len(index):
                index.add(dwarf)
                target.findings["types"] = f"DWARF of {elf.path}; no BTF in the image"
            else:
                index.add(dwarf, last=True)
                target.findings["types"] += f"; for what it lacks DWARF of {elf.path}"
        except KshellError as error:
            problems.append(f"its DWARF: {error}")
    if none and not len(index):
        told = target.findings.get("types", "none")
        target.findings["types"] = f"{told}; {elf.path} has neither BTF nor DWARF"
    if index.missing:
        target.findings["missing types"] = index.missing
    if problems:
        target.findings["vmlinux"] += f"; not used: {'; '.join(problems)}"


def _add_types(target: Target, add: Callable[[TypeIndex], None]) -> None:
    """Let *add* give its types to the target's index when that is made; one that is there already is made anew."""
    before = target.make_types

    def make(target: Target) -> TypeIndex:
        index = before(target) if before is not None else TypeIndex([])
        add(index)
        return index

    target.make_types = make
    target.forget_types()


# -- a System.map, a BTF file ------------------------------------------------------------------------------------------


def _add_map(target: Target, path: str) -> None:
    table = read_proc_kallsyms(path)
    assert target.vmcoreinfo is not None
    _check(target, path, "System.map", lambda name: next((s.address for s in table.find(name)), None))
    target.symbols.add(table.moved(target.vmcoreinfo.kernel_offset))
    target.findings["vmlinux"] = f"symbols of {path}"


def _add_btf(target: Target, path: str) -> None:
    """Add a detached BTF file, as ``pahole --btf_encode_detached`` and ``bpftool btf dump ... format raw`` make."""
    from kshell.types.btf import Btf

    with Path(path).open("rb") as file:
        data = file.read(MAX_BTF + 1)
    if len(data) > MAX_BTF:
        raise FormatError(f"{path}: BTF of more than {MAX_BTF >> 20} MiB")
    try:
        btf = Btf(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}", hint=error.hint) from error
    assert target.vmcoreinfo is not None
    _check_sizes(target, path, btf, target.vmcoreinfo)

    def add(index: TypeIndex) -> None:
        if len(index):
            index.add(btf, last=True)
            target.findings["types"] += f"; for what it lacks BTF of {path}"
        else:
            index.add(btf)
            target.findings["types"] = f"BTF of {path}; none in the image"

    _add_types(target, add)


def _check_sizes(target: Target, path: str, btf: object, info: Vmcoreinfo) -> None:
    """Compare the sizes and offsets that VMCOREINFO tells with those of the types.

    :raises OpenError: one is another
    """
    from kshell.types.btf import Btf

    assert isinstance(btf, Btf)
    for key in info.names():
        word, _, rest = key.partition("(")
        name = rest.rstrip(")")
        if word == "SIZE":
            kind = btf.find("struct", name)
            if kind is not None and kind.size and kind.size != info.size(name):
                what = f"struct {name} has {kind.size} bytes, in the image {info.size(name)}"
                raise OpenError(path, f"not the BTF of this kernel: {what}", kind="version", hint=_hint(target))
        elif word == "OFFSET" and "." in name:
            owner, _, member = name.partition(".")
            kind = btf.find("struct", owner)
            if not isinstance(kind, StructType) or "." in member or not kind.has(member):
                continue
            if kind.member(member).offset != info.offset(name):
                what = f"{name} is at byte {kind.member(member).offset}, in the image at {info.offset(name)}"
                raise OpenError(path, f"not the BTF of this kernel: {what}", kind="version", hint=_hint(target))


def _hint(target: Target) -> str:
    return f"the image is of {target.release}; without a vmlinux it opens as well"


def _check(
    target: Target, path: str, what: str, linked_at: Callable[[str], int | None], *, proven: bool = False,
) -> None:
    """Compare all symbols that VMCOREINFO tells.

    :param proven: the build ids are the same
    :raises OpenError: one is elsewhere, or none is in the file; ``_stext`` alone proves nothing
    """
    assert target.vmcoreinfo is not None
    offset, same = target.vmcoreinfo.kernel_offset, int(proven)
    for name, now in target.vmcoreinfo.symbols().items():
        linked = linked_at(name)
        if linked is None or now < IMAGE:
            continue
        if linked + offset != now:
            raise OpenError(path, f"not the {what} of this kernel: {name} at 0x{linked + offset:x}, "
                            f"in the image at 0x{now:x}", kind="version", hint=_hint(target))
        same += name != "_stext"  # which is at the same place in most kernels
    if not same:
        raise OpenError(path, f"not the {what} of this kernel: it has none of its symbols, or of those that VMCOREINFO "
                        "tells only _stext", kind="version", hint=_hint(target))
