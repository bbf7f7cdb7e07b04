"""The letters of the formatting verbs, and the text of one value for those that need nothing but bytes.

Reference: mdb-language.md 9.3. Letters that need symbols, strings of unknown length, instructions or the state of the
page are marked by their kind; ``kshell.formatverb`` executes them.
"""

from __future__ import annotations

import enum
import struct
import time
from collections.abc import Callable
from typing import Literal

from kshell.lang.node import Record
from kshell.lang.numbers import to_radix
from kshell.lang.quoting import escape_bytes

ByteOrder = Literal["little", "big"]


class FormatKind(enum.Enum):
    """What a letter needs to be executed."""

    VALUE = "value"  # bytes only: format_value
    SYMBOL = "symbol"  # p P a
    STRING = "string"  # s S
    INSTRUCTION = "instruction"  # i I
    LAYOUT = "layout"  # n N r t T
    MOVE = "move"  # + - ^


class FormatLetter(Record):
    """One display letter.

    :ivar size: bytes it reads; 0 for none or as many as it takes
    :ivar width: columns of its field, blank padded; 0 for no padding
    :ivar tag: ``C`` core, ``S`` common, ``R`` rare (the reference's tags)
    """

    letter: str
    size: int
    width: int
    description: str
    tag: str
    kind: FormatKind = FormatKind.VALUE

    @property
    def size_text(self) -> str:
        """As ``::formats`` shows it: ``4 bytes``, ``1 byte``, ``variable size`` or nothing."""
        if self.kind in (FormatKind.STRING, FormatKind.INSTRUCTION):
            return "variable size"
        if not self.size:
            return ""
        return "1 byte" if self.size == 1 else f"{self.size} bytes"


_S, _I, _L, _M, _P = (
    FormatKind.STRING, FormatKind.INSTRUCTION, FormatKind.LAYOUT, FormatKind.MOVE, FormatKind.SYMBOL,
)

FORMATS: dict[str, FormatLetter] = {
    row.letter: row
    for row in (
        FormatLetter("+", 0, 0, "increment dot by the count", "C", _M),
        FormatLetter("-", 0, 0, "decrement dot by the count", "C", _M),
        FormatLetter("B", 1, 8, "hexadecimal int", "C"),
        FormatLetter("C", 1, 0, "character using C character notation", "S"),
        FormatLetter("D", 4, 16, "decimal signed int", "C"),
        FormatLetter("E", 8, 21, "decimal unsigned long long", "C"),
        FormatLetter("F", 8, 0, "double", "S"),
        FormatLetter("G", 8, 23, "octal unsigned long long", "S"),
        FormatLetter("H", 4, 16, "swap bytes and shorts", "S"),
        FormatLetter("I", 0, 0, "address and disassembled instruction", "R", _I),
        FormatLetter("J", 8, 16, "hexadecimal long long", "C"),
        FormatLetter("K", 8, 16, "hexadecimal uintptr_t", "C"),
        FormatLetter("N", 0, 0, "newline", "C", _L),
        FormatLetter("O", 4, 16, "octal unsigned int", "S"),
        FormatLetter("P", 8, 19, "symbol", "C", _P),
        FormatLetter("Q", 4, 16, "octal signed int", "R"),
        FormatLetter("R", 8, 64, "binary int", "S"),
        FormatLetter("S", 0, 0, "string using C string notation", "S", _S),
        FormatLetter("T", 0, 0, "horizontal tab", "C", _L),
        FormatLetter("U", 4, 16, "decimal unsigned int", "C"),
        FormatLetter("V", 1, 8, "decimal unsigned int", "S"),
        FormatLetter("W", 4, 16, "default radix unsigned int", "R"),
        FormatLetter("X", 4, 16, "hexadecimal int", "C"),
        FormatLetter("Y", 4, 24, "decoded time32_t", "S"),
        FormatLetter("Z", 8, 16, "hexadecimal long long", "R"),
        FormatLetter("^", 0, 0, "decrement dot by the size of the item before, times the count", "S", _M),
        FormatLetter("a", 0, 16, "dot as symbol+offset", "C", _P),
        FormatLetter("b", 1, 8, "octal unsigned int", "S"),
        FormatLetter("c", 1, 0, "character", "C"),
        FormatLetter("d", 2, 8, "decimal signed short", "C"),
        FormatLetter("e", 8, 21, "decimal signed long long", "C"),
        FormatLetter("f", 4, 0, "float", "S"),
        FormatLetter("g", 8, 24, "octal signed long long", "R"),
        FormatLetter("h", 2, 8, "swap bytes", "S"),
        FormatLetter("i", 0, 0, "disassembled instruction", "C", _I),
        FormatLetter("j", 8, 0, "jazzed-up binary", "S"),
        FormatLetter("n", 0, 0, "newline", "C", _L),
        FormatLetter("o", 2, 8, "octal unsigned short", "S"),
        FormatLetter("p", 8, 19, "symbol", "C", _P),
        FormatLetter("q", 2, 8, "octal signed short", "R"),
        FormatLetter("r", 0, 0, "whitespace", "C", _L),
        FormatLetter("s", 0, 0, "raw string", "C", _S),
        FormatLetter("t", 0, 0, "horizontal tab", "C", _L),
        FormatLetter("u", 2, 8, "decimal unsigned short", "C"),
        FormatLetter("v", 1, 8, "decimal signed int", "S"),
        FormatLetter("w", 2, 8, "default radix unsigned short", "R"),
        FormatLetter("x", 2, 8, "hexadecimal short", "C"),
        FormatLetter("y", 8, 24, "decoded time64_t", "S"),
    )
}

#: Letters that write or search when they come first after ``/ \\ ?``: size and description; ``z`` has no size.
WRITE_LETTERS: dict[str, tuple[int, str]] = {
    "v": (1, "write decimal signed int"),
    "w": (2, "write default radix unsigned short"),
    "W": (4, "write default radix unsigned int"),
    "Z": (8, "write hexadecimal long long"),
    "z": (0, "write using the type of the symbol"),
}
SEARCH_LETTERS: dict[str, tuple[int, str]] = {
    "l": (2, "match short"),
    "L": (4, "match int"),
    "M": (8, "match long long"),
}

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def format_value(letter: str, data: bytes, byteorder: ByteOrder = "little", radix: int = 16) -> str:
    """Return the text of *data* as *letter* shows it, not padded; for ``j`` several lines.

    :param letter: of kind VALUE
    :param data: exactly as many bytes as the letter reads; for ``c`` and ``C`` any number
    :param radix: for ``w``, ``W`` and a ``y`` that is no date
    """
    if letter == "w" or letter == "W":
        return to_radix(int.from_bytes(data, byteorder), radix)
    if letter == "y":
        return format_time(int.from_bytes(data, byteorder, signed=True)) or to_radix(
            int.from_bytes(data, byteorder), radix
        )
    return _VALUES[letter](data, byteorder)


def field_width(letter: str, text: str) -> int:
    """Return the columns of the field that shows *text*: one more than usual when ``J K Z R`` would fill it."""
    width = FORMATS[letter].width
    return width + 1 if letter in "JKZR" and len(text) == width else width


def format_time(seconds: int) -> str | None:
    """Return local time as ``1970 Jan  1 00:00:00``; None for what is no date."""
    try:
        when = time.localtime(seconds)
    except (OverflowError, ValueError, OSError):
        return None
    clock = f"{when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02}"
    return f"{when.tm_year} {_MONTHS[when.tm_mon - 1]} {when.tm_mday:2} {clock}"


def bit_lines(value: int) -> str:
    """Return format ``j``: the value in binary, then a line for each set bit, lowest first."""
    binary = f"{value:b}"
    if not value:
        return binary
    top = len(binary) - 1
    digits = top // 4 + 1
    lines = [binary, binary.replace("0", " ").replace("1", "|").rstrip()]
    for bit in range(top + 1):
        if value >> bit & 1:
            above = binary[: top - bit].replace("0", " ").replace("1", "|")
            pad = " " if top >= 10 > bit else ""
            lines.append(f"{above}+{'-' * (bit + 2)} bit {bit} {pad}mask 0x{1 << bit:0{digits}x}")
    return "\n".join(lines)


def _unsigned(spec: str, prefix: str = "") -> Callable[[bytes, ByteOrder], str]:
    def shown(data: bytes, byteorder: ByteOrder) -> str:
        value = int.from_bytes(data, byteorder)
        return prefix + format(value, spec) if value else "0"

    return shown


def _signed(spec: str, prefix: str = "") -> Callable[[bytes, ByteOrder], str]:
    def shown(data: bytes, byteorder: ByteOrder) -> str:
        value = int.from_bytes(data, byteorder, signed=True)
        return prefix + format(value, spec) if value else "0"

    return shown


def _swapped(data: bytes, byteorder: ByteOrder) -> str:
    return f"{int.from_bytes(data, 'big' if byteorder == 'little' else 'little'):x}"


def _floating(code: str, spec: str) -> Callable[[bytes, ByteOrder], str]:
    def shown(data: bytes, byteorder: ByteOrder) -> str:
        (value,) = struct.unpack(("<" if byteorder == "little" else ">") + code, data)
        return format(value, spec)

    return shown


def _time32(data: bytes, byteorder: ByteOrder) -> str:
    seconds = int.from_bytes(data, byteorder, signed=True)
    return format_time(seconds) or str(seconds)


_HEX = _unsigned("x")
_VALUES: dict[str, Callable[[bytes, ByteOrder], str]] = {
    **dict.fromkeys("BxXJKZ", _HEX),
    **dict.fromkeys("VuUE", _unsigned("d")),
    **dict.fromkeys("vdDe", _signed("d")),
    **dict.fromkeys("boO", _unsigned("o", "0")),
    **dict.fromkeys("qQ", _signed("o", "0")),
    **dict.fromkeys("hH", _swapped),
    "G": _unsigned("o"),
    "g": _signed("o"),
    "R": _unsigned("b"),
    "j": lambda data, byteorder: bit_lines(int.from_bytes(data, byteorder)),
    "f": _floating("f", "+.7e"),
    "F": _floating("d", "+.16e"),
    "Y": _time32,
    "c": lambda data, byteorder: data.decode("latin-1"),
    "C": lambda data, byteorder: escape_bytes(data),
}
