"""DWARF's tags, attributes and forms; abbreviations, and how an entry made by one lies in ``.debug_info``.

DWARF 5 standard 7.5.3 (abbreviations), 7.5.6 (forms); GNU extensions of DWARF 4. Version 2 to 5, 32- and 64-bit format.
"""

from __future__ import annotations

from typing import NamedTuple

from kshell.errors import FormatError

# tags
(ARRAY, CLASS, ENUM, FORMAL, LEXICAL, MEMBER, POINTER, REFERENCE, COMPILE_UNIT, STRUCT, SUBROUTINE, TYPEDEF, UNION,
 UNSPECIFIED_PARAMETERS, INHERITANCE, INLINED, PTR_TO_MEMBER, SUBRANGE, BASE, CONST, ENUMERATOR, SUBPROGRAM, VARIABLE,
 VOLATILE, RESTRICT, NAMESPACE, UNSPECIFIED, PARTIAL_UNIT, TYPE_UNIT, RVALUE, ATOMIC, SKELETON) = (
    0x01, 0x02, 0x04, 0x05, 0x0B, 0x0D, 0x0F, 0x10, 0x11, 0x13, 0x15, 0x16, 0x17, 0x18, 0x1C, 0x1D, 0x1F, 0x21, 0x24,
    0x26, 0x28, 0x2E, 0x34, 0x35, 0x37, 0x39, 0x3B, 0x3C, 0x41, 0x42, 0x47, 0x4A)

# attributes
(AT_SIBLING, AT_LOCATION, AT_NAME, AT_BYTE_SIZE, AT_BIT_OFFSET, AT_BIT_SIZE, AT_STMT_LIST, AT_LOW_PC, AT_HIGH_PC,
 AT_COMP_DIR, AT_CONST_VALUE, AT_UPPER_BOUND, AT_ABSTRACT_ORIGIN, AT_COUNT, AT_MEMBER_LOCATION, AT_DECLARATION,
 AT_ENCODING, AT_EXTERNAL, AT_SPECIFICATION, AT_TYPE, AT_RANGES, AT_CALL_FILE, AT_CALL_LINE, AT_DATA_BIT_OFFSET,
 AT_STR_OFFSETS_BASE, AT_ADDR_BASE, AT_RNGLISTS_BASE, AT_DWO_NAME, AT_GNU_DWO_NAME, AT_PRODUCER, AT_LANGUAGE,
 AT_LINKAGE_NAME, AT_SIGNATURE) = (
    0x01, 0x02, 0x03, 0x0B, 0x0C, 0x0D, 0x10, 0x11, 0x12, 0x1B, 0x1C, 0x2F, 0x31, 0x37, 0x38, 0x3C, 0x3E, 0x3F, 0x47,
    0x49, 0x55, 0x58, 0x59, 0x6B, 0x72, 0x73, 0x74, 0x76, 0x2130, 0x25, 0x13, 0x6E, 0x69)

# forms
(F_ADDR, F_BLOCK2, F_BLOCK4, F_DATA2, F_DATA4, F_DATA8, F_STRING, F_BLOCK, F_BLOCK1, F_DATA1, F_FLAG, F_SDATA, F_STRP,
 F_UDATA, F_REF_ADDR, F_REF1, F_REF2, F_REF4, F_REF8, F_REF_UDATA, F_INDIRECT, F_SEC_OFFSET, F_EXPRLOC,
 F_FLAG_PRESENT, F_STRX, F_ADDRX, F_REF_SUP4, F_STRP_SUP, F_DATA16, F_LINE_STRP, F_REF_SIG8, F_IMPLICIT_CONST,
 F_LOCLISTX, F_RNGLISTX, F_REF_SUP8, F_STRX1, F_STRX2, F_STRX3, F_STRX4, F_ADDRX1, F_ADDRX2, F_ADDRX3, F_ADDRX4) = (
    0x01, *range(0x03, 0x2D))
F_GNU_ADDR_INDEX, F_GNU_STR_INDEX, F_GNU_REF_ALT, F_GNU_STRP_ALT = 0x1F01, 0x1F02, 0x1F20, 0x1F21

#: bytes of the forms that have always the same; negative: -1 an address, -2 an offset of the format
FIXED = {
    F_ADDR: -1, F_DATA2: 2, F_DATA4: 4, F_DATA8: 8, F_DATA1: 1, F_FLAG: 1, F_STRP: -2, F_REF_ADDR: -2, F_REF1: 1,
    F_REF2: 2, F_REF4: 4, F_REF8: 8, F_SEC_OFFSET: -2, F_FLAG_PRESENT: 0, F_REF_SUP4: 4, F_STRP_SUP: -2, F_DATA16: 16,
    F_LINE_STRP: -2, F_REF_SIG8: 8, F_IMPLICIT_CONST: 0, F_REF_SUP8: 8, F_STRX1: 1, F_STRX2: 2, F_STRX3: 3,
    F_STRX4: 4, F_ADDRX1: 1, F_ADDRX2: 2, F_ADDRX3: 3, F_ADDRX4: 4, F_GNU_REF_ALT: -2, F_GNU_STRP_ALT: -2,
}
#: forms that are one LEB128 number
LEB = frozenset({F_SDATA, F_UDATA, F_REF_UDATA, F_STRX, F_ADDRX, F_LOCLISTX, F_RNGLISTX, F_GNU_ADDR_INDEX,
                 F_GNU_STR_INDEX})
#: blocks, by the bytes of their length; 0: a LEB128 number
BLOCKS = {F_BLOCK1: 1, F_BLOCK2: 2, F_BLOCK4: 4, F_BLOCK: 0, F_EXPRLOC: 0}
MAX_LEB = 10


class Abbrev(NamedTuple):
    """One abbreviation.

    :ivar children: whether entries of it have children
    :ivar attributes: (attribute, form, value of an implicit constant)
    """

    tag: int
    children: bool
    attributes: tuple[tuple[int, int, int], ...]


def uleb(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned LEB128 number at *at*, and where it ends.

    :raises FormatError: it has no end
    """
    number = shift = 0
    for byte in data[at : at + MAX_LEB]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at + shift // 7
    raise FormatError(f"DWARF: a number that has no end at 0x{at:x}")


def sleb(data: bytes, at: int) -> tuple[int, int]:
    """Return the signed LEB128 number at *at*, and where it ends."""
    number, end = uleb(data, at)
    bits = 7 * (end - at)
    return number - (1 << bits) if data[end - 1] & 0x40 else number, end


class Abbreviations:
    """``.debug_abbrev``: tables by their offset, decoded when first needed.

    The tables of a kernel's 3,000 units repeat the same few hundred abbreviations, so those are decoded once.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._known: dict[bytes, tuple[Abbrev, int]] = {}
        self._tables: dict[int, dict[int, Abbrev]] = {}

    def table(self, offset: int) -> dict[int, Abbrev]:
        """Return the abbreviations of the table at *offset*, by code.

        :raises FormatError: it is damaged
        """
        found = self._tables.get(offset)
        if found is None:
            if len(self._tables) > 64:
                self._tables.clear()
            found = self._tables[offset] = self._read(offset)
        return found

    def _read(self, at: int) -> dict[int, Abbrev]:
        data, known = self._data, self._known
        if not 0 <= at < max(len(data), 1):
            raise FormatError(f"DWARF: the abbreviations at 0x{at:x} are outside their section")
        table: dict[int, Abbrev] = {}
        while at < len(data):
            code = data[at]
            at += 1
            if code >= 0x80:
                code, at = uleb(data, at - 1)
            if code == 0:
                break
            # A declaration ends with two zeroes. Those found first may be an implicit constant of 0 and the first of
            # the two: what was decoded from the same bytes before tells how long it is then, too.
            key = data[at : data.find(b"\0\0", at + 2)]
            hit = known.get(key)
            if hit is None:
                hit = known[key] = self._one(at)
            table[code] = hit[0]
            at += hit[1]
        return table

    def _one(self, start: int) -> tuple[Abbrev, int]:
        data = self._data
        tag, at = uleb(data, start)
        if at >= len(data):
            raise FormatError("DWARF: the abbreviations are cut")
        children = data[at] != 0
        at += 1
        attributes: list[tuple[int, int, int]] = []
        while True:
            name, at = uleb(data, at)
            form, at = uleb(data, at)
            constant = 0
            if form == F_IMPLICIT_CONST:
                constant, at = sleb(data, at)
            if name == form == 0:
                return Abbrev(tag, children, tuple(attributes)), at - start
            attributes.append((name, form, constant))


def skip(data: bytes, at: int, form: int, address_size: int, offset_size: int, version: int) -> int:
    """Return where the value of *form* at *at* ends.

    :raises FormatError: the form is not known
    """
    size = FIXED.get(form)
    if size is not None:
        if size < 0:
            size = address_size if size == -1 or (form == F_REF_ADDR and version < 3) else offset_size
        return at + size
    if form in LEB:
        while data[at] >= 0x80:
            at += 1
        return at + 1
    if form in BLOCKS:
        width = BLOCKS[form]
        if width:
            return at + width + int.from_bytes(data[at : at + width], "little")
        length, at = uleb(data, at)
        return at + length
    if form == F_STRING:
        return data.index(0, at) + 1
    if form == F_INDIRECT:
        form, at = uleb(data, at)
        if form == F_INDIRECT:
            raise FormatError("DWARF: an indirect form of an indirect form")
        return skip(data, at, form, address_size, offset_size, version)
    raise FormatError(f"DWARF: form 0x{form:x} is not known")
