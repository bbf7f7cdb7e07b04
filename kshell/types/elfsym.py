"""Symbols and build id of an ELF file, such as a vmlinux. System V ABI chapters 4 and 5.

pyelftools finds the sections; symbols and notes are read from their bytes here, for a vmlinux has 150,000 symbols.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from kshell.errors import FormatError
from kshell.memory.notes import iter_notes
from kshell.types.procsyms import SymbolList

MAX_SECTION = 256 << 20
NT_GNU_BUILD_ID = 3
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
STB_GLOBAL = 1
LETTERS = {0: "n", 1: "d", 2: "t", 6: "d", 10: "i"}  # STT_NOTYPE, OBJECT, FUNC, TLS, GNU_IFUNC
ELF_SYM = struct.Struct("<IBBHQQ")


class ElfSymbols:
    """What is wanted of an ELF file with symbols: its build id, its e_machine, its symbols moved by an offset."""

    def __init__(self, path: str) -> None:
        """:raises FormatError: it cannot be read or is no 64-bit little-endian ELF file"""
        from elftools.elf.elffile import ELFFile

        self.path = path
        try:
            with Path(path).open("rb") as file:
                elf = ELFFile(file)
                if elf.elfclass != 64 or not elf.little_endian:
                    raise FormatError(f"{path}: an ELF file of 32 bits or big-endian: not supported yet")
                self.machine: str = elf["e_machine"]
                size = file.seek(0, 2)
                sections = {section.name: section for section in elf.iter_sections()}
                self.build_id = _build_id(sections, size)
                table = sections.get(".symtab")
                self._rows = [] if table is None else _rows(table, elf.get_section(table["sh_link"]), size)
        except OSError as error:
            raise FormatError(f"{path}: {error.strerror}") from error
        except FormatError:
            raise
        except Exception as error:  # pyelftools raises what comes on damaged files: its own, KeyError, struct.error
            raise FormatError(f"{path}: not an ELF file that can be read: {error or type(error).__name__}") from error

    def linked_at(self, name: str) -> int | None:
        """Return the linked address of the symbol *name*, or None."""
        return next((address for address, _, found, _ in self._rows if found == name), None)

    def symbols(self, offset: int) -> SymbolList:
        """Return the symbols *offset* bytes from where they were linked; absolute ones (per-CPU) stay."""
        return SymbolList(self._rows).moved(offset)


def _content(section: Any, size: int) -> bytes:
    """Return the bytes of *section* of a file of *size* bytes."""
    if section["sh_type"] == "SHT_NOBITS" or section["sh_offset"] + section["sh_size"] > size:
        raise FormatError(f"section {section.name} lies outside the file: it is cut or damaged")
    if section["sh_size"] > MAX_SECTION:
        raise FormatError(f"section {section.name} has an impossible size of {section['sh_size']} bytes")
    data: bytes = section.data()
    return data


def _build_id(sections: dict[str, Any], size: int) -> str | None:
    """Return the build id in hexadecimal: a vmlinux has it in .notes, among Xen's of the same type; others alone."""
    for name in (".notes", ".note.gnu.build-id"):
        if name in sections:
            for note in iter_notes(_content(sections[name], size)):
                if note.name == "GNU" and note.type == NT_GNU_BUILD_ID:
                    return note.desc.hex()
    return None


def _rows(table: Any, strings: Any, size: int) -> list[tuple[int, str, str, str | None]]:
    data, text = _content(table, size), _content(strings, size)
    rows: list[tuple[int, str, str, str | None]] = []
    for name, info, _, section, value, _ in ELF_SYM.iter_unpack(data[: len(data) // ELF_SYM.size * ELF_SYM.size]):
        letter = LETTERS.get(info & 15)
        end = text.find(b"\0", name)
        if letter is None or section == SHN_UNDEF or end <= name:
            continue
        if section == SHN_ABS:
            letter = "a"
        if info >> 4 == STB_GLOBAL:
            letter = letter.upper()
        rows.append((value, letter, text[name:end].decode("utf-8", "replace"), None))
    return rows
