"""Symbols and build id of an ELF file, such as a vmlinux, a program or a library. System V ABI chapters 4 and 5.

Symbols are read from their bytes: a vmlinux has 150,000.
"""

from __future__ import annotations

from kshell.errors import FormatError
from kshell.types.elffile import (
    ET_REL,
    MAX_SECTION,
    NT_GNU_BUILD_ID,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHN_ABS,
    SHN_UNDEF,
    SHT_NOBITS,
    ElfFile,
    iter_symbols,
)
from kshell.types.linkedsyms import LinkedSymbols, Row, keep, key_of, load
from kshell.types.model import Symbol

STB_GLOBAL, STB_WEAK = 1, 2
STT_NOTYPE, STT_TLS = 0, 6
LETTERS = {0: "n", 1: "d", 2: "t", 6: "d", 10: "i"}  # STT_NOTYPE, OBJECT, FUNC, TLS, GNU_IFUNC
MACHINES = {62: "EM_X86_64"}



class ElfSymbols:
    """What is wanted of a vmlinux: its build id, its e_machine, its symbols moved by an offset."""

    def __init__(self, path: str | ElfFile) -> None:
        """:raises FormatError: it cannot be read or is no ELF file that can be read"""
        elf = path if isinstance(path, ElfFile) else ElfFile(path)
        self.path = elf.path
        try:
            self.machine = MACHINES.get(elf.machine, str(elf.machine))
            self.build_id = elf.build_id
            self.table = _table(elf)
        finally:
            if elf is not path:
                elf.close()

    def linked_at(self, name: str) -> int | None:
        """Return the linked address of the symbol *name*, or None."""
        return next((symbol.address for symbol in self.table.find(name)), None)

    def symbols(self, offset: int) -> LinkedSymbols:
        """Return the symbols *offset* bytes from where they were linked; absolute ones (per-CPU) stay."""
        return self.table.moved(offset)


def _table(elf: ElfFile) -> LinkedSymbols:
    """Return the symbols of .symtab, from the cache when they are there."""
    section = elf.section(".symtab")
    key = None
    if section is not None and section.type != SHT_NOBITS and section.link < len(elf.sections):
        key = key_of(elf, section, elf.sections[section.link])
    found = load(key) if key is not None else None
    if found is None:
        found = LinkedSymbols.of(_symbols(elf, ".symtab"))
        if key is not None:
            keep(key, found)
    return found


def read_symbols(elf: ElfFile, module: str | None = None, *, bias: int = 0, dynamic: bool = True) -> list[Symbol]:
    """Return the symbols that *elf* defines: of .symtab, and those of .dynsym (*dynamic*) that are not in it.

    :param bias: what is added to their addresses; thread-local ones, which are offsets, are left out
    """
    found: dict[tuple[str, int], Symbol] = {}
    for table in (".symtab", ".dynsym") if dynamic else (".symtab",):
        for value, size, letter, name in _symbols(elf, table):
            if letter not in "aA":
                value += bias
            elif not value and not size:
                continue  # the name of a version, GLIBC_2.34
            found.setdefault((name, value), Symbol(name, value % (1 << 64), size, letter, module))
    return list(found.values())


def _symbols(elf: ElfFile, table: str) -> list[Row]:
    """Return (value, size, letter of nm, name) of each symbol that is defined; in object files by the address that
    its section was given.
    """
    section = elf.section(table)
    if section is None or section.type == SHT_NOBITS:
        return []
    if not section.link < len(elf.sections):
        raise FormatError(f"{elf.path}: section {table} names no section of strings")
    data, text = elf.content(section, MAX_SECTION), elf.content(elf.sections[section.link], MAX_SECTION)
    letters, bases = _letters(elf), {}
    if elf.type == ET_REL:
        bases = {one.number: one.address for one in elf.sections}
    rows: list[Row] = []
    for name, info, _, home, value, size in iter_symbols(data, elf.bits):
        letter = LETTERS.get(info & 15)
        if letter is None or home == SHN_UNDEF or info & 15 == STT_TLS:
            continue
        end = text.find(b"\0", name)
        if end <= name:
            continue
        if home == SHN_ABS:
            letter = "a"
        elif letter in "nd":
            letter = letters.get(home, letter)
        if info >> 4 == STB_GLOBAL:
            letter = letter.upper()
        elif info >> 4 == STB_WEAK:
            letter = "W" if letter == "t" else "V"
        rows.append((value + bases.get(home, 0), size, letter, text[name:end].decode("utf-8", "replace")))
    return rows


def _letters(elf: ElfFile) -> dict[int, str]:
    """Return the letter that nm(1) has for data in each section."""
    letters: dict[int, str] = {}
    for section in elf.sections:
        if not section.flags & SHF_ALLOC:
            continue
        if section.type == SHT_NOBITS:
            letters[section.number] = "b"
        elif section.flags & SHF_EXECINSTR:
            letters[section.number] = "t"
        else:
            letters[section.number] = "d" if section.flags & SHF_WRITE else "r"
    return letters


__all__ = ["NT_GNU_BUILD_ID", "ElfSymbols", "read_symbols"]
