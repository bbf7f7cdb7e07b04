"""Hex dumps in the layout of ``::dump``, made a block of lines at a time.

Reference: mdb-language.md 11.4. A dump is a generator of text blocks (each ends in a newline) and, where memory could
not be read, a :class:`KshellError`. Rendering is table driven: no loop runs over bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from kshell.errors import KshellError
from kshell.evaluate import MASK, reason_text
from kshell.lang.node import Record
from kshell.partial import Read, read_prefix

_FIRST_CHUNK, _LAST_CHUNK = 1 << 10, 1 << 16
_PRINTABLE = bytes(byte if 0x20 <= byte <= 0x7E else 0x2E for byte in range(256))
_PARAGRAPH = 16


class DumpOptions(Record):
    """The options of ``::dump``; what does not fit is replaced as mdb does, silently.

    :ivar endian: ``-e``, each group as a little-endian number; no header, no text, no alignment
    :ivar no_text: ``-q``
    :ivar relative: ``-r``, number from 0; implies *unaligned*
    :ivar squeeze: ``-s``, repeated lines become one ``*``
    :ivar trim: ``-t``, only the bytes asked for
    :ivar unaligned: ``-u``, lines start at the address
    :ivar group: ``-g``, bytes in a group: a power of two that divides the line, else 4
    :ivar paragraphs: ``-w``, 16 bytes each, at most 16
    :ivar address_digits: at least so many (``-v``: 16)
    """

    endian: bool = False
    no_text: bool = False
    relative: bool = False
    squeeze: bool = False
    trim: bool = False
    unaligned: bool = False
    group: int = 4
    paragraphs: int = 1
    address_digits: int = 0

    @property
    def line_bytes(self) -> int:
        """Bytes on a line."""
        return _PARAGRAPH * min(max(self.paragraphs, 1), 16)

    @property
    def group_bytes(self) -> int:
        """Bytes in a group."""
        good = self.group > 0 and self.group & (self.group - 1) == 0 and self.line_bytes % self.group == 0
        return self.group if good else 4

    @property
    def is_aligned(self) -> bool:
        """True if lines start at multiples of their size."""
        return not (self.unaligned or self.relative or self.endian)


class Layout:
    """The columns of one dump: fixed by the options, the address and the size asked for."""

    def __init__(self, address: int, size: int, options: DumpOptions) -> None:
        self.options = options
        self.address = address
        self._line, self._group = options.line_bytes, options.group_bytes
        self._bias = -address if options.relative else 0
        highest = (address + max(size, 1) - 1 + self._bias) & MASK
        self.digits = max(-(-highest.bit_length() // 4), options.address_digits)
        self._has_text = not (options.no_text or options.endian)
        self._before: bytes | None = None  # the last full line, for squeeze
        self._starred = False

    def header(self) -> str:
        """Return the line of address digits, with a newline; empty with ``-e``."""
        if self.options.endian:
            return ""
        origin = 0 if self.options.relative or self.options.is_aligned else self.address
        mark = self.address % self._line if self.options.is_aligned else -1
        numbers = [f"{(origin + index) & 15:x}" for index in range(self._line)]
        pairs = ["\\/" if index == mark else f"{digit:>2}" for index, digit in enumerate(numbers)]
        numbers[mark : mark + 1] = ["v"] if mark >= 0 else numbers[mark : mark + 1]
        text = "  " + "".join(numbers) if self._has_text else ""
        return f"{'':{self.digits}}  {self._join(pairs)}{text}\n"

    def lines(self, address: int, data: bytes, is_last: bool) -> str:
        """Return the text of *data*, whole lines; with *is_last* the last one is shown even if it repeats."""
        hexes, texts = self._columns(data)
        width, digits = self._line, self.digits
        rows = [
            f"{at:0{digits}x}:  {hexed}{text}\n"
            for at, hexed, text in zip(
                range(address + self._bias, address + self._bias + len(data), width), hexes, texts, strict=True
            )
        ]
        if self.options.squeeze:
            rows = self._squeeze(rows, data, is_last)
        return "".join(rows)

    def partial(self, address: int, data: bytes, first: int) -> str:
        """Return one line of which only ``data``, from offset *first* on, is known; blanks for the others."""
        self._before, self._starred = None, False
        padded = bytes(first) + data + bytes(self._line - first - len(data))
        known = range(first, first + len(data))
        order = list(range(self._line))
        if self.options.endian:
            order = [at - at % self._group + self._group - 1 - at % self._group for at in order]
        pairs = [f"{padded[at]:02x}" if at in known else "  " for at in order]
        text = ""
        if self._has_text:
            shown = padded.translate(_PRINTABLE).decode("ascii")
            text = "  " + "".join(shown[at] if at in known else " " for at in range(self._line))
        line = f"{address + self._bias:0{self.digits}x}: {self._join(pairs)}{text}"
        return (line.rstrip() if not self._has_text else line) + "\n"

    def _join(self, pairs: list[str]) -> str:
        """Put a blank before each group, and another one before every 8th byte if bytes stand alone."""
        parts: list[str] = []
        for index, pair in enumerate(pairs):
            if index % self._group == 0:
                parts.append("  " if self._group == 1 and index and index % 8 == 0 else " ")
            parts.append(pair)
        return "".join(parts)

    def _columns(self, data: bytes) -> tuple[list[str], list[str]]:
        group, width = self._group, self._line
        count = len(data) // width
        if self.options.endian and group > 1:
            swapped = bytearray(len(data))
            for offset in range(group):
                swapped[offset::group] = data[group - 1 - offset :: group]
            shown = bytes(swapped)
        else:
            shown = data
        every = shown.hex(" ", group)
        step = width * 2 + width // group
        hexes = [every[at : at + step - 1] for at in range(0, count * step, step)]
        if group == 1:
            eight = 8 * 3
            hexes = ["  ".join([line[at : at + eight - 1] for at in range(0, step, eight)]) for line in hexes]
        if not self._has_text:
            return hexes, [""] * count
        text = data.translate(_PRINTABLE).decode("ascii")
        return hexes, ["  " + text[at : at + width] for at in range(0, len(data), width)]

    def _squeeze(self, rows: list[str], data: bytes, is_last: bool) -> list[str]:
        kept: list[str] = []
        width = self._line
        for index, row in enumerate(rows):
            line = data[index * width : (index + 1) * width]
            if line == self._before and not (is_last and index == len(rows) - 1):
                if not self._starred:
                    kept.append("*\n")
                self._starred = True
                continue
            self._before, self._starred = line, False
            kept.append(row)
        return kept


def dump(
    read: Read, address: int, size: int, options: DumpOptions | None = None, *, header: bool = True
) -> Iterator[str | KshellError]:
    """Yield a dump of ``address`` to ``address + size``, rounded to whole lines where the options do not say otherwise.

    Bytes before *address* that cannot be read are left blank, those after the end too. A byte that was asked for and
    cannot be read ends the dump with an error.

    :param read: returns exactly so many bytes or raises a KshellError
    """
    options = options or DumpOptions()
    layout = Layout(address, size, options)
    width = options.line_bytes
    wanted_end = address + max(size, 1)
    start = address - address % width if options.is_aligned else address
    whole = options.is_aligned and not options.trim
    end = wanted_end + -wanted_end % width if whole else wanted_end
    if header and (text := layout.header()):
        yield text
    position, chunk = start, _FIRST_CHUNK
    while position < end:
        # The first line and the last one may be partly known; whole ones go by the block.
        if position < address or end - position < width or (whole and position + width > wanted_end):
            text, error = _edge(read, layout, position, address, wanted_end, options.trim or not whole)
            if text:
                yield text
            if error is not None:
                yield error
                return
            position += width
            continue
        want = min(chunk - chunk % width or width, (wanted_end - position) // width * width)
        data, error = read_prefix(read, position, want)
        full = len(data) - len(data) % width
        text = layout.lines(position, data[:full], error is not None or position + full >= end)
        if error is not None:
            if full < len(data):
                text += layout.partial(position + full, data[full:], 0)
            if text:
                yield text
            yield _failure(position + len(data), error)
            return
        yield text
        position += want
        chunk = min(chunk * 4, _LAST_CHUNK)


def _edge(
    read: Read, layout: Layout, line: int, address: int, wanted_end: int, trim: bool
) -> tuple[str, KshellError | None]:
    """Return the text of a line that holds an end of the range asked for, and why it stops there, if it does."""
    width = layout.options.line_bytes
    low, high = max(line, address), min(line + width, wanted_end)
    first, last = (low, high) if trim else (line, line + width)
    before = b""
    if first < low:
        try:
            before = read(first, low - first)
        except KshellError:
            first = low
    data, error = read_prefix(read, low, high - low)
    if error is not None:
        return (layout.partial(line, before + data, first - line) if data else ""), _failure(low + len(data), error)
    if last > high:
        data += read_prefix(read, high, last - high)[0]
    data = before + data
    if len(data) == width:
        return layout.lines(line, data, line + width >= wanted_end), None
    return layout.partial(line, data, first - line), None


def _failure(address: int, error: KshellError) -> KshellError:
    wrapped = KshellError(f"failed to read data at 0x{address:x}: {reason_text(error)}", hint=error.hint)
    wrapped.__cause__ = error
    return wrapped
