"""Symbols as nlist(3ELF) has them, and the table of an ELF file that is given as the namelist.

Format: ELF-64 section headers, ``.symtab`` entries (st_name, st_info, st_other, st_shndx, st_value, st_size).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path

from kshell.kvm.errors import OpenError
from kshell.types.model import Symbol

STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
SHN_ABS = 0xFFF1        # of every symbol of a kernel snapshot: its value needs no section
_SHT_SYMTAB = 2
_ENTRY = struct.Struct("<IBBHQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
#: A kernel's symbol table has these; one without them is some other program's.
ANCHORS = ("init_mm", "init_task")


class Nlist:
    """One entry of :func:`kshell.kvm.kvm_nlist`: a name to look for, and what was found.

    :ivar n_value: its address in this boot; 0 when not found
    :ivar n_type: STT_FUNC 2, STT_OBJECT 1, STT_NOTYPE 0 (also when not found: look at the value then)
    :ivar n_scnum: SHN_ABS (65521) when found
    """

    __slots__ = ("n_name", "n_scnum", "n_type", "n_value")

    def __init__(self, n_name: str | None) -> None:
        self.n_name = n_name
        self.n_value = self.n_type = self.n_scnum = 0

    def clear(self) -> None:
        """Forget what was found."""
        self.n_value = self.n_type = self.n_scnum = 0

    def fill(self, symbol: Symbol) -> None:
        """Take over what was found."""
        self.n_value, self.n_type, self.n_scnum = symbol.address, symbol_type(symbol), SHN_ABS

    def __repr__(self) -> str:
        return f"Nlist({self.n_name!r}, n_value={self.n_value:#x}, n_type={self.n_type})"


def symbol_type(symbol: Symbol) -> int:
    """Return the ELF symbol type behind the letter of nm(1)."""
    letter = symbol.type.lower()
    if letter in "tw":
        return STT_FUNC
    return STT_OBJECT if letter in "bdrvgs" else STT_NOTYPE


def best_symbol(found: Sequence[Symbol]) -> Symbol | None:
    """Return the one that nlist takes: the last in the order of an ELF table, where locals come before globals."""
    best: Symbol | None = None
    for symbol in found:
        if best is None or symbol.type.isupper() or not best.type.isupper():
            best = symbol
    return best


def check_namelist(path: str) -> None:
    """See that *path* is the symbol table of a kernel: an ELF file with a ``.symtab``, or a System.map.

    :raises OpenError: it is not; the message names what is missing
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (the with is below, outside the try)
    except FileNotFoundError as error:
        raise OpenError(path, f"{path}: no such namelist", kind="missing") from error
    except PermissionError as error:
        raise OpenError(path, f"{path}: namelist: permission denied", kind="permission") from error
    except OSError as error:
        raise OpenError(path, f"{path}: namelist: {error.strerror}", kind="format") from error
    with file:
        head = file.read(64)
        if head[:4] == b"\x7fELF":
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                missing = _missing_elf(path, data, head)
        else:
            missing = _missing_text(path, head + file.read(64 << 20))
    if missing:
        raise OpenError(path, f"{path}: the namelist has no symbol {missing}: not a Linux kernel's", kind="symbols",
                        hint="give the vmlinux with its symbol table (not stripped), or leave it out")


def _missing_text(path: str, text: bytes) -> str | None:
    """A System.map: lines of address, letter, name."""
    first = text.split(b"\n", 1)[0].split()
    if len(first) < 3 or len(first[1]) != 1 or not _is_hex(first[0]):
        raise OpenError(path, f"{path}: the namelist is neither an ELF file nor a System.map")
    for name in ANCHORS:
        if f" {name}\n".encode() not in text:
            return name
    return None


def _is_hex(text: bytes) -> bool:
    try:
        int(text, 16)
    except ValueError:
        return False
    return True


def _missing_elf(path: str, data: mmap.mmap, head: bytes) -> str | None:
    if len(head) < 64:
        raise OpenError(path, f"{path}: the namelist is cut inside its ELF header", kind="header")
    if head[4] != 2:
        raise OpenError(path, f"{path}: not a 64-bit kernel namelist", kind="wordsize")
    if head[5] != 1:
        raise OpenError(path, f"{path}: a big-endian namelist is not supported", kind="unsupported")
    offset, size, count = struct.unpack_from("<Q", head, 40)[0], *struct.unpack_from("<HH", head, 58)
    sections = []
    for number in range(count):
        place = offset + number * size
        if size < _SECTION.size or place + _SECTION.size > len(data):
            raise OpenError(path, f"{path}: the section table of the namelist lies beyond its end", kind="format")
        sections.append(_SECTION.unpack_from(data, place))
    table = next((section for section in sections if section[1] == _SHT_SYMTAB), None)
    if table is None or table[6] >= len(sections):
        raise OpenError(path, f"{path}: the namelist has no symbol table (.symtab): it is stripped", kind="symbols")
    entries = data[table[4] : table[4] + table[5] // _ENTRY.size * _ENTRY.size]
    strings = sections[table[6]]
    names = data[strings[4] : strings[4] + strings[5]]
    wanted: dict[int, str] = {}
    for name in ANCHORS:
        place = names.find(name.encode() + b"\0")
        while place >= 0:
            wanted[place] = name
            place = names.find(name.encode() + b"\0", place + 1)
    usable = len(entries) // _ENTRY.size * _ENTRY.size
    here = {wanted[entry[0]] for entry in _ENTRY.iter_unpack(entries[:usable]) if entry[0] in wanted and entry[3]}
    return next((name for name in ANCHORS if name not in here), None)
