"""Which addresses an entry covers: DW_AT_low_pc and DW_AT_high_pc, or lists of ranges. DWARF 5 standard 2.17.

Lists are in ``.debug_rnglists`` since version 5, in ``.debug_ranges`` before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kshell.errors import FormatError
from kshell.types import dwarf_forms as f
from kshell.types.dwarf_forms import uleb
from kshell.types.dwarf_units import Die, Unit, Units

MAX_RANGES = 1 << 16
(END_OF_LIST, BASE_ADDRESSX, STARTX_ENDX, STARTX_LENGTH, OFFSET_PAIR, BASE_ADDRESS, START_END, START_LENGTH) = range(8)


def ranges_of(units: Units, unit: Unit, die: Die) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the addresses of *die*; nothing when it has no code."""
    low = die.values.get(f.AT_LOW_PC)
    start = units.address(unit, *low) if low is not None else None
    high = die.values.get(f.AT_HIGH_PC)
    if start is not None and high is not None:
        if high[0] in (f.F_ADDR, f.F_ADDRX, f.F_ADDRX1, f.F_ADDRX2, f.F_ADDRX3, f.F_ADDRX4):
            end = units.address(unit, *high)
        else:  # since version 4 the length
            end = start + high[1] if isinstance(high[1], int) else None
        if end is not None and end > start:
            yield start, end
        return
    found = die.values.get(f.AT_RANGES)
    if found is None or not isinstance(found[1], int):
        return
    root = units.root(unit)
    low = root.values.get(f.AT_LOW_PC)
    base = (units.address(unit, *low) if low is not None else 0) or 0
    try:
        if unit.version >= 5:
            yield from _rnglist(units, unit, _place(units, unit, *found), base)
        else:
            yield from _ranges(units, unit, found[1], base)
    except (IndexError, struct.error) as error:
        raise FormatError(f"DWARF: the ranges of the entry at 0x{die.offset:x} are cut") from error


def _place(units: Units, unit: Unit, form: int, value: int | bytes) -> int:
    assert isinstance(value, int)
    if form != f.F_RNGLISTX:
        return value
    base = units.number(units.root(unit), f.AT_RNGLISTS_BASE) or 0
    cell = units.section(".debug_rnglists")[base + value * unit.offset_size :][: unit.offset_size]
    return base + int.from_bytes(cell, "little")


def _ranges(units: Units, unit: Unit, at: int, base: int) -> Iterator[tuple[int, int]]:
    data = units.section(".debug_ranges")
    size = unit.address_size
    for _ in range(MAX_RANGES):
        low = int.from_bytes(data[at : at + size], "little")
        high = int.from_bytes(data[at + size : at + 2 * size], "little")
        if low == high == 0 or at + 2 * size > len(data):
            return
        if low == (1 << 8 * size) - 1:
            base = high
        elif low < high:
            yield base + low, base + high
        at += 2 * size


def _rnglist(units: Units, unit: Unit, at: int, base: int) -> Iterator[tuple[int, int]]:
    data, size = units.section(".debug_rnglists"), unit.address_size

    def plain(at: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    def indexed(number: int) -> int:
        return units.address(unit, f.F_ADDRX, number) or 0

    for _ in range(MAX_RANGES):
        kind = data[at]
        at += 1
        if kind == END_OF_LIST:
            return
        if kind in (BASE_ADDRESSX, STARTX_ENDX, STARTX_LENGTH, OFFSET_PAIR):
            first, at = uleb(data, at)
            second = 0
            if kind != BASE_ADDRESSX:
                second, at = uleb(data, at)
            if kind == BASE_ADDRESSX:
                base = indexed(first)
            elif kind == OFFSET_PAIR:
                yield base + first, base + second
            else:
                start = indexed(first)
                yield start, indexed(second) if kind == STARTX_ENDX else start + second
        elif kind == BASE_ADDRESS:
            base, at = plain(at), at + size
        elif kind == START_END:
            yield plain(at), plain(at + size)
            at += 2 * size
        elif kind == START_LENGTH:
            start = plain(at)
            length, at = uleb(data, at + size)
            yield start, start + length
        else:
            raise FormatError(f"DWARF: a range of kind {kind} is not known")


def read_aranges(units: Units) -> list[tuple[int, int, int]]:
    """Return (start, end, offset of the unit) of what ``.debug_aranges`` tells, ascending; damage ends it.

    Standard 6.1.2. Compilers other than GCC often write none.
    """
    data = units.section(".debug_aranges")
    found: list[tuple[int, int, int]] = []
    at = 0
    while at + 12 <= len(data):
        (length,), here, wide = struct.unpack_from("<I", data, at), at + 4, 4
        if length == 0xFFFF_FFFF and at + 24 <= len(data):
            (length,), here, wide = struct.unpack_from("<Q", data, at + 4), at + 12, 8
        end = here + length
        if end > len(data) or length < 4 + wide:
            break
        unit = int.from_bytes(data[here + 2 : here + 2 + wide], "little")
        size, here = data[here + 2 + wide], here + 4 + wide
        if size in (4, 8):
            pair = 2 * size
            here = at + -(-(here - at) // pair) * pair
            form = "<QQ" if size == 8 else "<II"
            for low, span in struct.iter_unpack(form, data[here : here + (end - here) // pair * pair]):
                if span:
                    found.append((low, low + span, unit))
        at = end
    found.sort()
    return found
