"""Units and entries of ``.debug_info``: found by hopping over headers, read when asked for. DWARF 5 standard 7.5.

An entry's attributes are decoded without pyelftools: a vmlinux has 15 million entries, and an object of it takes too
long to be made for each. Only the bytes of units that are asked for are read.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kshell.errors import FormatError
from kshell.types import dwarf_forms as f
from kshell.types.dwarf_forms import Abbrev, Abbreviations, sleb, uleb
from kshell.types.elffile import ElfFile

MAX_UNITS = 1 << 20
MAX_UNIT = 1 << 30
MAX_NAME = 1 << 16
KEPT = 16  # units whose bytes are kept
#: unit types of DWARF 5 whose header has something more, and how many bytes
TYPE_UNITS = (2, 6)
SKELETONS = (4, 5)
Value = int | bytes


class Die(NamedTuple):
    """One entry.

    :ivar offset: in ``.debug_info``; :ivar end: where its attributes end
    :ivar values: attribute -> (form, number or bytes); references and strings are not followed
    """

    offset: int
    tag: int
    children: bool
    values: dict[int, tuple[int, Value]]
    end: int

    def has(self, attribute: int) -> bool:
        return attribute in self.values


class Unit(NamedTuple):
    """A unit's header.

    :ivar start: of the unit; :ivar first: its first entry; :ivar end: one past its last byte
    :ivar signature: of a type unit, and ``type_offset`` where its type is; else 0
    """

    start: int
    first: int
    end: int
    version: int
    offset_size: int
    address_size: int
    abbrev: int
    type: int
    signature: int
    type_offset: int


class Units:
    """The units of one file.

    :param source: the file; sections are read when they are needed
    """

    def __init__(self, source: ElfFile) -> None:
        """:raises FormatError: it has no ``.debug_info``, or a damaged one"""
        self.source = source
        section = source.section(".debug_info")
        if section is None:
            raise FormatError(f"{source.path} has no DWARF (.debug_info): it was built without -g, or stripped")
        self._info: bytes | None = None
        self._offset = section.offset
        if source.plain(section):
            source._check(section)
            self.size = section.size
        else:
            self._info = source.content(section)
            self.size = len(self._info)
        #: type units of DWARF 4 have a section of their own: read as if it lay behind .debug_info
        self._types_at, self._types = self.size, source.content(".debug_types")
        self.size += len(self._types)
        self._by_signature: dict[int, int] | None = None
        self.abbreviations = Abbreviations(source.content(".debug_abbrev"))
        self._strings: dict[str, bytes] = {}
        self._bytes: dict[int, bytes] = {}
        self._roots: dict[int, Die] = {}
        self.damage = ""
        #: gives the units of the file that has what several have in common (dwz), or None
        self.alternate: Callable[[], Units | None] = lambda: None
        self.units = list(self._headers())
        self._starts = [unit.start for unit in self.units]

    # -- bytes -----------------------------------------------------------------------------------------------------

    def _pread(self, size: int, offset: int) -> bytes:
        if offset >= self._types_at:
            return self._types[offset - self._types_at :][:size]
        size = min(size, self._types_at - offset)
        if self._info is not None:
            return self._info[offset : offset + size]
        return self.source.pread(size, self._offset + offset)

    def section(self, name: str) -> bytes:
        """Return the section *name* whole, kept; b"" when there is none."""
        found = self._strings.get(name)
        if found is None:
            found = self._strings[name] = self.source.content(name)
        return found

    def bytes_of(self, unit: Unit) -> bytes:
        """Return the bytes of *unit*, its header included."""
        found = self._bytes.get(unit.start)
        if found is None:
            if len(self._bytes) >= KEPT:
                self._bytes.clear()
            found = self._bytes[unit.start] = self._pread(unit.end - unit.start, unit.start)
            if len(found) < unit.end - unit.start:
                raise FormatError(f"{self.source.path} ends inside .debug_info")
        return found

    # -- units -----------------------------------------------------------------------------------------------------

    def _headers(self) -> Iterator[Unit]:
        at = 0
        for _ in range(MAX_UNITS):
            head = self._pread(48, at)
            if len(head) < 11:
                return
            (length,), width, here = struct.unpack_from("<I", head), 4, 4
            if length == 0xFFFF_FFFF and len(head) >= 24:
                (length,), width, here = struct.unpack_from("<Q", head, 4), 8, 12
            end = at + here + length
            own = at >= self._types_at  # in .debug_types
            if length < 7 or end > (self.size if own else self._types_at) or length > MAX_UNIT:
                place = f"0x{at - self._types_at:x} of .debug_types" if own else f"0x{at:x} of .debug_info"
                self.damage = f"the unit at {place} has an impossible length of {length} bytes"
                if own or not self._types:
                    return
                at = self._types_at
                continue
            try:
                unit = _header(head, at, here, end, width, is_type=own)
            except (FormatError, struct.error) as error:
                unit, self.damage = None, str(error)
            if unit is not None:
                yield unit
            at = end

    def unit_of(self, offset: int) -> Unit:
        """Return the unit that holds *offset*.

        :raises FormatError: none does
        """
        at = bisect_right(self._starts, offset) - 1
        if at < 0 or not self.units[at].first <= offset < self.units[at].end:
            raise FormatError(f"DWARF: nothing is at 0x{offset:x} of .debug_info")
        return self.units[at]

    def root(self, unit: Unit) -> Die:
        """Return the first entry of *unit*, which describes it."""
        found = self._roots.get(unit.start)
        if found is None:
            found = self._roots[unit.start] = self.die(unit, unit.first)
        return found

    # -- entries ---------------------------------------------------------------------------------------------------

    def die(self, unit: Unit, offset: int) -> Die:
        """Return the entry at *offset*; tag 0 is the end of a list of children.

        :raises FormatError: it cannot be read
        """
        data = self.bytes_of(unit)
        at = offset - unit.start
        try:
            code, at = uleb(data, at)
            if code == 0:
                return Die(offset, 0, False, {}, unit.start + at)
            abbrev = self.abbreviations.table(unit.abbrev).get(code)
            if abbrev is None:
                raise FormatError(f"DWARF: the entry at 0x{offset:x} has abbreviation {code}, which does not exist")
            values, at = _values(unit, abbrev, data, at)
        except (IndexError, ValueError, struct.error) as error:
            raise FormatError(f"DWARF: the entry at 0x{offset:x} is cut") from error
        if at > len(data):
            raise FormatError(f"DWARF: the entry at 0x{offset:x} reaches past its unit")
        return Die(offset, abbrev.tag, abbrev.children, values, unit.start + at)

    def children(self, unit: Unit, parent: Die) -> Iterator[Die]:
        """Yield the direct children of *parent*."""
        if not parent.children:
            return
        at = parent.end
        while at < unit.end:
            die = self.die(unit, at)
            if die.tag == 0:
                return
            yield die
            at = self.after(unit, die)

    def after(self, unit: Unit, die: Die) -> int:
        """Return where the entry behind *die* and all below it begins."""
        if not die.children:
            return die.end
        if die.has(f.AT_SIBLING):
            beyond = self.reference(unit, die, f.AT_SIBLING)
            if beyond is not None and die.end <= beyond <= unit.end:
                return beyond
        at, depth = die.end, 1
        while depth and at < unit.end:
            inner = self.die(unit, at)
            at = inner.end
            if inner.tag == 0:
                depth -= 1
            elif inner.children:
                depth += 1
        return at

    # -- attributes ------------------------------------------------------------------------------------------------

    def reference(self, unit: Unit, die: Die, attribute: int) -> int | None:
        """Return the offset in ``.debug_info`` that an attribute refers to; None: it has none, or into another file."""
        found = die.values.get(attribute)
        if found is None:
            return None
        form, value = found
        if not isinstance(value, int):
            return None
        if form in (f.F_REF1, f.F_REF2, f.F_REF4, f.F_REF8, f.F_REF_UDATA):
            return unit.start + value
        if form == f.F_REF_ADDR:
            return value
        if form == f.F_REF_SIG8:
            if self._by_signature is None:
                self._by_signature = {one.signature: one.start + one.type_offset
                                      for one in reversed(self.units) if one.type_offset}
            return self._by_signature.get(value)
        return None

    def number(self, die: Die, attribute: int) -> int | None:
        """Return an attribute's number; None when it has none, or a block that is more than a constant."""
        found = die.values.get(attribute)
        if found is None:
            return None
        if isinstance(found[1], int):
            return found[1]
        block = found[1]
        if block[:1] in (b"\x23", b"\x10") and len(block) > 1:  # DW_OP_plus_uconst, DW_OP_constu
            return uleb(block, 1)[0]
        return None

    def text(self, unit: Unit, die: Die, attribute: int = f.AT_NAME) -> str | None:
        """Return an attribute's text; None when it has none, or it is in another file."""
        found = die.values.get(attribute)
        if found is None:
            return None
        data = self.text_bytes(unit, *found)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def text_bytes(self, unit: Unit, form: int, value: Value) -> bytes | None:
        """Return the text that *value* of *form* is or leads to."""
        if isinstance(value, bytes):
            return value
        if form == f.F_STRP:
            return _string(self.section(".debug_str"), value)
        if form in (f.F_GNU_STRP_ALT, f.F_STRP_SUP):
            other = self.alternate()
            return _string(other.section(".debug_str"), value) if other is not None else None
        if form == f.F_LINE_STRP:
            return _string(self.section(".debug_line_str"), value)
        if form in (f.F_STRX, f.F_STRX1, f.F_STRX2, f.F_STRX3, f.F_STRX4, f.F_GNU_STR_INDEX):
            base = self.number(self.root(unit), f.AT_STR_OFFSETS_BASE) or 0
            at = base + value * unit.offset_size
            cell = self.section(".debug_str_offsets")[at : at + unit.offset_size]
            return _string(self.section(".debug_str"), int.from_bytes(cell, "little")) if cell else None
        return None

    def address(self, unit: Unit, form: int, value: Value) -> int | None:
        """Return the address that *value* of *form* is, or where ``.debug_addr`` has it."""
        if not isinstance(value, int):
            return None
        if form == f.F_ADDR:
            return value
        if form in (f.F_ADDRX, f.F_ADDRX1, f.F_ADDRX2, f.F_ADDRX3, f.F_ADDRX4, f.F_GNU_ADDR_INDEX):
            base = self.number(self.root(unit), f.AT_ADDR_BASE) or 0
            at = base + value * unit.address_size
            cell = self.section(".debug_addr")[at : at + unit.address_size]
            return int.from_bytes(cell, "little") if cell else None
        return None


def _header(head: bytes, start: int, here: int, end: int, width: int, *, is_type: bool = False) -> Unit | None:
    """Return the unit whose header is *head*; None for those whose contents are in other files (.dwo).

    :param is_type: of DWARF 4, it is a type unit
    """
    (version,) = struct.unpack_from("<H", head, here)
    here += 2
    offset = "<I" if width == 4 else "<Q"
    if 2 <= version <= 4:
        abbrev, address_size = struct.unpack_from(offset, head, here)[0], head[here + width]
        kind, here = 1, here + width + 1
        signature = inside = 0
        if is_type:
            (signature,), (inside,) = struct.unpack_from("<Q", head, here), struct.unpack_from(offset, head, here + 8)
            kind, here = TYPE_UNITS[0], here + 8 + width
    elif version == 5:
        kind, address_size = head[here], head[here + 1]
        abbrev, here = struct.unpack_from(offset, head, here + 2)[0], here + 2 + width
        signature = inside = 0
        if kind in TYPE_UNITS:
            (signature,), (inside,) = struct.unpack_from("<Q", head, here), struct.unpack_from(offset, head, here + 8)
            here += 8 + width
        elif kind in SKELETONS:
            here += 8
    else:
        raise FormatError(f"DWARF version {version} is not known")
    if address_size not in (4, 8):
        raise FormatError(f"DWARF: addresses of {address_size} bytes")
    return Unit(start, start + here, end, version, width, address_size, abbrev, kind, signature, inside)


def _values(unit: Unit, abbrev: Abbrev, data: bytes, at: int) -> tuple[dict[int, tuple[int, Value]], int]:
    values: dict[int, tuple[int, Value]] = {}
    for attribute, form, constant in abbrev.attributes:
        if form == f.F_INDIRECT:
            form, at = uleb(data, at)
        value: Value
        size = f.FIXED.get(form)
        if form == f.F_IMPLICIT_CONST:
            value = constant
        elif form == f.F_FLAG_PRESENT:
            value = 1
        elif size is not None:
            if size < 0:
                small = size == -1 or (form == f.F_REF_ADDR and unit.version < 3)
                size = unit.address_size if small else unit.offset_size
            value = int.from_bytes(data[at : at + size], "little")
            at += size
        elif form == f.F_SDATA:
            value, at = sleb(data, at)
        elif form in f.LEB:
            value, at = uleb(data, at)
        else:
            end = f.skip(data, at, form, unit.address_size, unit.offset_size, unit.version)
            if form == f.F_STRING:
                value = data[at : end - 1]
            else:
                width = f.BLOCKS[form]
                value = data[at + width if width else uleb(data, at)[1] : end]
            at = end
        values.setdefault(attribute, (form, value))
    return values, at


def _string(section: bytes, offset: int) -> bytes | None:
    end = section.find(b"\0", offset, offset + MAX_NAME)
    return section[offset:end] if 0 <= offset <= end else None


#: tells how much of a pass is done: (what, bytes done, bytes in all)
Progress = Callable[[str, int, int], None]
