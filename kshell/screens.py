"""Whole screens of hexadecimal numbers, made with numpy: what ``A,0t1000000/X`` is printed with.

The same text as :meth:`kshell.page.Page.field` makes number by number (mdb-language.md 9.2, 9.3): fields are padded,
lines broken between fields, padding that would reach the edge of the page left out. Every number takes a cell of equal
size: its digits with holes for leading zeroes, blanks, and padding with holes for what the digits took; the holes, a
byte that no text has, are taken out of the whole at the end. Digits come from tables of all 16-bit numbers.
"""

from __future__ import annotations

from typing import Any

HOLE, BLANK, NEWLINE = 0xFF, 0x20, 0x0A
_CODES = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}
_tables: list[Any] = []


def _make_tables() -> tuple[Any, Any, Any, Any]:
    """Return for each 16-bit number, as four characters: all digits; without leading zeroes, 0 as "0", or as nothing.

    The fourth is how many digits it has without leading zeroes, 0 for 0.
    """
    import numpy as np

    if not _tables:
        numbers = np.arange(1 << 16)
        digits = np.frombuffer(b"0123456789abcdef", np.uint8)
        full = np.stack([digits[numbers >> shift & 15] for shift in (12, 8, 4, 0)], axis=1)
        lengths = np.array([(number.bit_length() + 3) // 4 for number in range(1 << 16)], np.uint8)
        bare = np.where(np.arange(4) < 4 - lengths[:, None], HOLE, full).astype(np.uint8)
        last = bare.copy()
        last[0, 3] = ord("0")
        _tables.extend([table.copy().view("<u4").reshape(-1) for table in (full, last, bare)] + [lengths])
    return _tables[0], _tables[1], _tables[2], _tables[3]


class Cells:
    """Numbers of 1, 2, 4 or 8 bytes.

    :param data: the numbers; *order* is "<" or ">"
    :ivar values: the numbers; ``digits``: of each, 4 characters in a u4, without leading zeroes; ``lengths``: how many
    """

    def __init__(self, data: bytes, size: int, order: str) -> None:
        import numpy as np

        self.values = np.frombuffer(data, order + _CODES[size]).astype(_CODES[size], copy=False)
        full, last, bare, lengths = _make_tables()
        wide = self.values if size > 1 else self.values.astype(np.uint16)
        parts = max(size // 2, 1)
        halves = wide.astype(f"<u{2 * parts}").view("<u2").reshape(-1, parts)
        self.digits = np.empty((len(self.values), parts), "<u4")
        self.lengths = np.zeros(len(self.values), np.uint8)
        begun = np.zeros(len(self.values), np.bool_)
        for place in range(parts):
            half = halves[:, parts - 1 - place]
            own = last if place == parts - 1 else bare
            if place == 0:
                self.digits[:, 0] = own[half]
                self.lengths += lengths[half]
            else:
                self.digits[:, place] = np.where(begun, full[half], own[half])
                self.lengths += np.where(begun, np.uint8(4), lengths[half])
            if place < parts - 1:
                begun |= half != 0
        np.maximum(self.lengths, 1, out=self.lengths)

    def after(self, done: int) -> Cells:
        """Return all but the first *done* numbers."""
        rest = Cells.__new__(Cells)
        rest.values, rest.digits, rest.lengths = self.values[done:], self.digits[done:], self.lengths[done:]
        return rest


def _paddings(width: int, grows: bool) -> Any:
    """Return for each length of a number the blanks behind it, filled with holes to whole u4s."""
    import numpy as np

    room = -(-width // 4) * 4
    table = np.full((17, room), HOLE, np.uint8)
    for length in range(17):
        table[length, : max(width - length, 1 if grows else 0)] = BLANK
    return table.view("<u4")


def one_line(cells: Cells, width: int, grows: bool) -> bytes:
    """Return all numbers as fields of *width* columns with no line breaks; *grows*: one more where one fills it."""
    import numpy as np

    padding = _paddings(width, grows)[cells.lengths]
    data: bytes = np.concatenate((cells.digits, padding), axis=1).tobytes()
    return data.translate(None, bytes([HOLE]))


def lines(cells: Cells, width: int, grows: bool, margin: int, page: int) -> tuple[bytearray, int]:
    """Return whole lines, and how many numbers are in them.

    Lines begin with *margin* blanks and hold as many fields as fit into *page* columns. With *grows* either all numbers
    or none fill their fields, see :func:`mixed_lines`.
    """
    import numpy as np

    field = width + (grows and len(cells.lengths) > 0 and bool(cells.lengths[0] >= width))
    each = max((page - margin) // field, 1)
    count = max(len(cells.values) - 1, 0) // each  # the last line may have to go on with other items
    first = np.arange(count, dtype=np.int64) * each
    cut = margin + each * field >= page  # the padding of the last field would reach the edge
    return _packed(_rows(cells, first, each, width, grows, margin, cut)), count * each


def mixed_lines(cells: Cells, width: int, margin: int, page: int) -> tuple[bytearray, int]:
    """As :func:`lines`, where some numbers fill their fields, which are one column wider then, and others do not.

    Only for pages where exactly four fields fit, and three when one of four is wide: 80 columns.
    """
    import numpy as np

    wide = cells.lengths >= width
    total = len(wide)
    four = np.ones(total, np.bool_)
    for ahead in range(4):
        four[: total - ahead] &= ~wide[ahead:]
    # Where lines of four begin, and of three, changes now and then: between the changes lines are equally long.
    starts, at = [], 0
    for end in [*(np.flatnonzero(four[1:] != four[:-1]) + 1).tolist(), total]:
        step = 4 if at < total and four[at] else 3
        end = min(end, total - 3)
        if at < end:
            starts.append(np.arange(at, end, step))
            at += len(starts[-1]) * step
    first = np.concatenate(starts) if starts else np.zeros(0, np.int64)
    rows = _rows(cells, first, 4, width, True, margin, True)
    # a line of three: the fourth number's part is nothing but a newline
    short = (~four[first]).nonzero()[0]
    tail = 4 * cells.digits.shape[1] + 1
    _column(rows.table, rows.table.shape[1] - tail, tail)[short] = np.frombuffer(
        bytes([HOLE]) * (tail - 1) + bytes([NEWLINE]), f"V{tail}")[0]
    return _packed(rows), at


class _Rows:
    """Lines under construction: ``table`` is uint8[n, m] over ``buffer``."""

    def __init__(self, count: int, width: int) -> None:
        import numpy as np

        self.buffer = bytearray(count * width)
        self.table = np.frombuffer(self.buffer, np.uint8).reshape(count, width)


def _column(table: Any, at: int, width: int) -> Any:
    """Return the columns *at* to ``at + width`` as one column of items that are copied whole."""
    return table[:, at : at + width].view(f"V{width}")[:, 0]


def _rows(cells: Cells, first: Any, each: int, width: int, grows: bool, margin: int, cut: bool) -> _Rows:
    """Return lines of *each* numbers from *first* on: margin, fields, and a newline at the end.

    :param cut: the last field is not padded
    """

    size = 4 * cells.digits.shape[1]
    digits = cells.digits.view(f"V{size}").reshape(-1)
    paddings = _paddings(width, grows)
    pad = 4 * paddings.shape[1]
    paddings = paddings.view(f"V{pad}").reshape(-1)
    rows = _Rows(len(first), margin + each * (size + pad) - cut * pad + 1)
    rows.table[:] = BLANK
    count = len(first)
    regular = count and first[-1] - first[0] == (count - 1) * each
    for number in range(each):
        start = int(first[0]) + number if regular else 0
        which: Any = slice(start, start + (count - 1) * each + 1, each) if regular else first + number
        at = margin + number * (size + pad)
        _column(rows.table, at, size)[:] = digits[which]
        if number < each - 1 or not cut:
            _column(rows.table, at + size, pad)[:] = paddings[cells.lengths[which]]
    rows.table[:, -1] = NEWLINE
    return rows


def _packed(rows: _Rows) -> bytearray:
    return rows.buffer.translate(None, bytes([HOLE]))
