"""Programs and libraries where they are loaded: symbols, types and source lines, found when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from kshell.errors import FormatError, KshellError
from kshell.types.debugfiles import alternate_file, debug_file, mini_file
from kshell.types.elffile import ET_REL, SHF_ALLOC, ElfFile
from kshell.types.elfsym import read_symbols
from kshell.types.model import Symbol
from kshell.types.objsyms import ObjectSymbols

if TYPE_CHECKING:
    from kshell.memory.elfmap import Part
    from kshell.types.dwarf import Dwarf
    from kshell.types.dwarf_units import Progress
    from kshell.types.lines import Lines, SourceLine
    from kshell.types.model import TypeSource


class LoadObject:
    """One ELF file in memory.

    :ivar name: what it is called in ``libc.so.6`puts``; None for the program itself
    :ivar path: as the target names it; :ivar start: of what is loaded; :ivar end: of it
    :ivar bias: what is added to the addresses that it was linked at
    :ivar elf: the file; None when it is not there, or another one is; ``problem`` says why
    """

    def __init__(
        self, name: str | None, path: str, start: int, end: int, bias: int = 0, elf: ElfFile | None = None,
        problem: str = "", build_id: str | None = None,
    ) -> None:
        self.name, self.path, self.start, self.end, self.bias = name, path, start, end, bias
        self.elf, self.problem = elf, problem
        self._build_id = build_id
        self.progress: Progress | None = None
        self._opened: list[ElfFile] = [] if elf is None else [elf]
        self.symbols = ObjectSymbols(start, end, self._symbols)

    @property
    def build_id(self) -> str | None:
        """Its build id in hexadecimal, of the file or, without one, as the target tells."""
        return self._build_id or (self.elf.build_id if self.elf is not None else None)

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.name or os.path.basename(self.path) or self.path

    @cached_property
    def debug(self) -> ElfFile | None:
        """The file with its debugging data: itself, or a separate one."""
        if self.elf is None or self.elf.section(".debug_info") is not None:
            return self.elf
        found = debug_file(self.elf)
        if found is not None:
            self._opened.append(found)
        return found

    def _symbols(self) -> list[Symbol]:
        if self.elf is None:
            return []
        found: list[Symbol] = []
        files: list[ElfFile] = [self.elf]
        try:
            if self.elf.section(".symtab") is None:
                more = self.debug if self.debug is not self.elf else None
                more = more or mini_file(self.elf)
                files += [more] if more is not None else []
            for file in files:
                known = {(symbol.name, symbol.address) for symbol in found}
                found += [symbol for symbol in read_symbols(file, self.name, bias=self.bias)
                          if (symbol.name, symbol.address) not in known]
        except FormatError as error:
            self.problem = self.problem or str(error)
        return found

    # -- types and lines -------------------------------------------------------------------------------------------

    def types(self) -> list[TypeSource]:
        """Return its sources of types: BTF, then DWARF.

        :raises FormatError: one is there and damaged
        """
        found: list[TypeSource] = []
        # a module's BTF goes on where its kernel's ends, which is not here
        if self.elf is not None and self.elf.section(".BTF") is not None and self.elf.section(".modinfo") is None:
            from kshell.types.btf import Btf

            found.append(Btf(self.elf.content(".BTF", 256 << 20)))
        if self.dwarf is not None:
            found.insert(0, self.dwarf)
        return found

    @cached_property
    def dwarf(self) -> Dwarf | None:
        """Its DWARF, or None when it has none.

        :raises FormatError: it is damaged
        """
        debug = self.debug
        if debug is None or debug.section(".debug_info") is None:
            return None
        from kshell.types.dwarf import Dwarf

        found = Dwarf(debug, lambda: self._alternate(debug), self.progress)
        found.bias = self.bias
        return found

    def _alternate(self, debug: ElfFile) -> ElfFile | None:
        found = alternate_file(debug)
        if found is not None:
            self._opened.append(found)
        return found

    @cached_property
    def lines(self) -> Lines | None:
        """Its source lines, or None when it has none."""
        if self.dwarf is None:
            return None
        from kshell.types.lines import Lines

        return Lines(self.dwarf.units)

    def source_lines(self, address: int) -> list[SourceLine]:
        """Return the place in the source of *address*, as loaded."""
        return self.lines.at((address - self.bias) % (1 << 64)) if self.lines is not None else []

    def close(self) -> None:
        """Close its files."""
        for file in self._opened:
            file.close()
        self._opened.clear()

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end


def parts_of(elf: ElfFile) -> list[Part]:
    """Return where the bytes of *elf* belong in memory: its loaded segments, or the sections of an object file."""
    if elf.type == ET_REL or not any(elf.loads()):
        return [(one.address, 0 if one.type == 8 else one.size, one.size, one.offset) for one in elf.sections
                if one.flags & SHF_ALLOC and one.size]
    return [(one.vaddr, one.filesz, one.memsz, one.offset) for one in elf.loads()]


def bias_of(elf: ElfFile, start: int, offset: int) -> int:
    """Return what a loader added to the addresses of *elf* when it mapped its file's *offset* to *start*.

    :raises FormatError: no segment has that offset
    """
    for segment in elf.loads():
        page = segment.offset & -4096
        if page <= offset < segment.offset + max(segment.filesz, 1):
            return start - (segment.vaddr - segment.offset + offset)
    raise FormatError(f"{elf.path}: nothing of it is loaded from offset 0x{offset:x}")


def module_of(objects: list[LoadObject], name: str) -> str | bool | None:
    """Return the name of the object that *name* means, as people shorten it; False when there is none.

    A path, a base name, a base name cut at a dot (``libc``), ``a.out`` for the program. Reference: mdb-language.md 6.
    """
    if name == "a.out":
        return None
    tests: list[Callable[[LoadObject], bool]] = [
        lambda one: name in (one.path, one.name), lambda one: name == os.path.basename(one.path),
        lambda one: os.path.basename(one.path).partition(".")[0] == name,
        lambda one: os.path.basename(one.path).partition("-")[0] == name,
    ]
    for test in tests:
        for one in objects:
            if test(one):
                return one.name
    return False


def opened(path: str, wanted: str | None, what: str) -> tuple[ElfFile | None, str]:
    """Return the file at *path* if it is the one with build id *wanted* (None: any), and why not.

    :param what: it is of, for the message: "core"
    """
    try:
        elf = ElfFile(path)
    except KshellError as error:
        return None, str(error)
    own = elf.build_id
    if wanted is not None and own is not None and own != wanted:
        elf.close()
        return None, f"{path} is another file now: build id {own}, the {what}'s {wanted}"
    return elf, ""
