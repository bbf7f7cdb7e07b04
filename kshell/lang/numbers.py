"""Numbers from text and to text: prefixes, the default radix and the show-base rule.

Reference: mdb-language.md 2.3 (forms of numbers), 5.3 (radix, "show base").
"""

from __future__ import annotations

import struct

from kshell.lang.quoting import char_bytes

MAX = 2**64 - 1
PREFIXES = {"x": 16, "t": 10, "o": 8, "i": 2}
SHOWN_PREFIX = {16: "0x", 10: "0t", 8: "0o", 2: "0i"}
_DIGITS = "0123456789abcdef"


def number_value(text: str, radix: int) -> int:
    """Return the value of a number as the lexer finds them; *radix* (2-16) is for numbers without a prefix.

    :raises ValueError: a digit is too large for the radix, or the value needs more than 64 bits; the text is mdb's
    """
    if text[0] == "0" and len(text) > 1 and text[1] in "xXtToOiI":
        radix, text = PREFIXES[text[1].lower()], text[2:]
        if "." in text:
            (bits,) = struct.unpack("<Q", struct.pack("<d", float(text)))
            return int(bits)
    digits = text.replace("_", "").lower()
    allowed = _DIGITS[:radix]
    wrong = next((digit for digit in digits if digit not in allowed), None)
    if wrong is not None:
        raise ValueError(f"digit '{wrong}' is invalid in current base")
    digits = digits.lstrip("0")
    # Hostile text: more than 64 digits never fit, and Python refuses to convert thousands of them.
    value = int(digits or "0", radix) if len(digits) <= 64 else MAX + 1
    if value > MAX:
        raise ValueError("specified value exceeds maximum immediate value")
    return value


def decimal_value(text: str) -> int | None:
    """Return the number that the decimal digits of *text* are, with or without ``0t`` before them.

    None where there is something else in it, or it needs more than 64 bits (Python refuses thousands of digits).
    """
    digits = text.removeprefix("0t")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 20:
        return None
    value = int(digits)
    return value if value <= MAX else None


def char_value(text: str) -> int:
    """Return the value of ``'text'``: the first character is the most significant byte.

    :raises ValueError: more than 8 bytes
    """
    data = char_bytes(text)
    if len(data) > 8:
        raise ValueError("character constant may not exceed 8 bytes")
    return int.from_bytes(data, "big")


def to_radix(value: int, radix: int) -> str:
    """Return *value* in *radix* (2-16), lower case, without a prefix; a negative one with its sign."""
    if value < 0:
        return "-" + to_radix(-value, radix)
    if radix == 16:
        return f"{value:x}"
    if radix == 10:
        return str(value)
    if radix == 8:
        return f"{value:o}"
    if radix == 2:
        return f"{value:b}"
    if not 2 <= radix <= 16:
        raise ValueError(f"radix {radix} is not 2 to 16")
    digits = ""
    while value:
        value, digit = divmod(value, radix)
        digits = _DIGITS[digit] + digits
    return digits or "0"


def show_base(value: int, radix: int) -> str:
    """Return *value* in *radix*, with ``0x``, ``0t``, ``0o`` or ``0i`` if it could be read wrongly without.

    Bare are values of one digit that is the same in decimal: up to 9 (base 16 and 10), 7 (8), 1 (2). The test is made
    on the unsigned 64-bit value, so a negative one always has its prefix: ``-0t1``.
    """
    if 0 <= value <= min(radix - 1, 9):
        return to_radix(value, radix)
    sign, size = ("-", -value) if value < 0 else ("", value)
    return sign + SHOWN_PREFIX.get(radix, "") + to_radix(size, radix)
