"""An ELF file as a target: its bytes by the addresses that it was linked at, its symbols, types and source lines.

``/`` and ``?`` mean the same here, addresses of the file's segments (of an object file's sections); ``\\`` means
offsets in the file. With ``-w`` the file itself is written.
"""

from __future__ import annotations

from kshell.arch.model import arch_of_program
from kshell.errors import FormatError, KshellError, OpenError
from kshell.memory.elfmap import open_parts
from kshell.memory.overlay import Overlay
from kshell.target.loaded import LoadObject, parts_of
from kshell.target.user import Facts, Mapping, Thread, UserTarget
from kshell.types.elffile import ET_REL, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS, ElfFile

FLAGS = ((4, "r"), (2, "w"), (1, "x"))


class FileTarget(UserTarget):
    kind = "file"


class FileFacts(Facts):
    """What an ELF file says of itself."""

    def __init__(self, elf: ElfFile) -> None:
        self.elf = elf

    def mappings(self) -> list[Mapping]:
        """Return the sections that are loaded, or the segments of a file without section headers."""
        found = [
            Mapping(one.address, one.address + one.size, "r" + ("w" if one.flags & SHF_WRITE else "-") + (
                "x" if one.flags & SHF_EXECINSTR else "-"), 0 if one.type == SHT_NOBITS else one.offset, one.name)
            for one in self.elf.sections if one.flags & SHF_ALLOC and one.size]
        if not found:
            for one in self.elf.loads():
                permissions = "".join(letter if one.flags & bit else "-" for bit, letter in FLAGS)
                found.append(Mapping(one.vaddr, one.vaddr + one.memsz, permissions, one.offset, "LOAD"))
        return sorted(found)

    def threads(self) -> list[Thread]:
        return []

    def registers(self, tid: int | None) -> tuple[int, dict[str, int]]:
        raise KshellError("no register set available: a file does not run")

    def auxv(self) -> list[tuple[int, int]]:
        raise KshellError("a file has no auxiliary vector: it does not run")

    def status(self) -> list[tuple[str, str]]:
        elf = self.elf
        facts = [("type", elf.describe()), ("entry", f"0x{elf.entry:x}"), ("size", f"{elf.size} bytes")]
        if elf.build_id is not None:
            facts.append(("build id", elf.build_id))
        packed = [section.name for section in elf.sections if not elf.plain(section) and elf.type != ET_REL]
        if packed:
            facts.append(("compressed sections", ", ".join(packed)))
        return facts


def open_object(path: str, mode: str) -> UserTarget:
    """Open the ELF file at *path*, which is no core.

    :raises OpenError: it cannot be read or written, or is of a machine that is not supported
    """
    try:
        elf = ElfFile(path)
    except FormatError as error:
        raise OpenError("", str(error), kind="format", hint=error.hint) from error
    try:
        arch = arch_of_program(elf.machine, path)
        parts = parts_of(elf)
        memory = open_parts(path, parts, writable=mode == "r+", space="file")
    except BaseException:
        elf.close()
        raise
    whole = open_parts(path, [(0, elf.size, elf.size, 0)], writable=mode == "r+", space="physical")
    memory.file.pair(whole.file)
    facts = FileFacts(elf)
    target = FileTarget(path, f"ELF {elf.describe()} ({arch.name})", arch,
                        Overlay(memory) if mode == "c" else memory, facts, mode=mode)
    target.object_file = target.kernel
    target.physical = Overlay(whole) if mode == "c" else whole
    target.on_close(whole.close)
    low = min((part[0] for part in parts), default=0)
    high = max((part[0] + part[2] for part in parts), default=0)
    target.add_object(LoadObject(None, path, low, high, 0, elf))
    return target
