"""A vmlinux or System.map beside a dump: more symbols, once it is certain that it is of the same kernel.

The evidence is the build id in the image's own notes (``/sys/kernel/notes``), and every symbol that VMCOREINFO tells:
``_stext`` alone is at the same place in most kernels. VMCOREINFO's BUILD-ID is no evidence, for some kernels wrote
garbage there (6.11.3 to 6.11.9, 6.6.55 to 6.6.62, 6.1.113 to 6.1.118 and others).
"""

from __future__ import annotations

from collections.abc import Callable

from kshell.errors import Fault, FormatError, OpenError
from kshell.memory.notes import iter_notes
from kshell.target.open import read_head
from kshell.target.target import Target
from kshell.types.elfsym import NT_GNU_BUILD_ID, ElfSymbols
from kshell.types.procsyms import read_proc_kallsyms

MAX_NOTES = 1 << 16
#: VMCOREINFO_SYMBOL_ARRAY(mem_section) is the value of a pointer where that is one, so lower addresses prove nothing
IMAGE = 0xFFFF_FFFF_8000_0000


def add_vmlinux(target: Target, path: str) -> None:
    """Add the symbols of the vmlinux or System.map at *path* to *target*, behind those of the image.

    :raises OpenError: it cannot be read, or is of another kernel; the message shows both build ids or addresses
    """
    head = read_head(path)
    try:
        if head[:4] == b"\x7fELF":
            _add_elf(target, path)
        else:
            _add_map(target, path)
    except FormatError as error:
        raise OpenError("", str(error), kind="symbols", hint=error.hint) from error


def image_build_id(target: Target) -> str | None:
    """Return the build id in the kernel's own notes, in hexadecimal; None when they cannot be found or read."""
    start, stop = target.symbols.get("__start_notes"), target.symbols.get("__stop_notes")
    if start is None or stop is None or not 0 < stop.address - start.address <= MAX_NOTES:
        return None
    try:
        data = target.kernel.read(start.address, stop.address - start.address)
    except Fault:
        return None
    found = (note.desc.hex() for note in iter_notes(data) if note.name == "GNU" and note.type == NT_GNU_BUILD_ID)
    return next(found, None)


def _add_elf(target: Target, path: str) -> None:
    elf = ElfSymbols(path)
    assert target.vmcoreinfo is not None
    built = image_build_id(target)
    if elf.build_id is not None and built is not None and elf.build_id != built:
        raise OpenError(path, f"not the vmlinux of this kernel: build id {elf.build_id}, the image's {built}",
                        kind="version", hint=_hint(target))
    if elf.linked_at("_stext") is None:
        raise OpenError(path, "has no symbol _stext: not a vmlinux, or stripped", kind="symbols",
                        hint="an unstripped vmlinux comes with the kernel's debug package")
    _check(target, path, "vmlinux", elf.linked_at)
    target.symbols.add(elf.symbols(target.vmcoreinfo.kernel_offset))
    target.findings["vmlinux"] = f"symbols of {path}"


def _add_map(target: Target, path: str) -> None:
    table = read_proc_kallsyms(path)
    assert target.vmcoreinfo is not None
    _check(target, path, "System.map", lambda name: next((s.address for s in table.find(name)), None))
    target.symbols.add(table.moved(target.vmcoreinfo.kernel_offset))
    target.findings["vmlinux"] = f"symbols of {path}"


def _hint(target: Target) -> str:
    return f"the image is of {target.release}; without a vmlinux it opens as well"


def _check(target: Target, path: str, what: str, linked_at: Callable[[str], int | None]) -> None:
    """Compare all symbols that VMCOREINFO tells.

    :raises OpenError: one is elsewhere, or none is in the file
    """
    assert target.vmcoreinfo is not None
    offset, same = target.vmcoreinfo.kernel_offset, 0
    for name, now in target.vmcoreinfo.symbols().items():
        linked = linked_at(name)
        if linked is None or now < IMAGE:
            continue
        if linked + offset != now:
            raise OpenError(path, f"not the {what} of this kernel: {name} at 0x{linked + offset:x}, "
                            f"in the image at 0x{now:x}", kind="version", hint=_hint(target))
        same += 1
    if not same:
        raise OpenError(path, f"not the {what} of this kernel: it has none of its symbols", kind="version",
                        hint=_hint(target))
