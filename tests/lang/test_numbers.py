"""Numbers, radix, quoting (mdb-language.md 2.3, 2.5, 5.3)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.lang.numbers import MAX, char_value, decimal_value, number_value, show_base, to_radix
from kshell.lang.quoting import escape, escape_bytes, unescape


@pytest.mark.parametrize(("text", "radix", "value"), [
    ("0x10", 10, 16), ("0X1f", 10, 31), ("0t10", 16, 10), ("0T1_000_000", 16, 1000000), ("0o17", 16, 15),
    ("0i101", 16, 5), ("10", 16, 16), ("10", 10, 10), ("010", 16, 16), ("010", 8, 8), ("44_44_", 16, 0x4444),
    ("0x123_4567", 16, 0x1234567), ("dead", 16, 0xDEAD), ("ffffffffffffffff", 16, 2**64 - 1), ("0" * 5000 + "7", 16, 7),
    ("0t1.5", 16, struct.unpack("<Q", struct.pack("<d", 1.5))[0]),
])
def test_2_3_numbers(text: str, radix: int, value: int) -> None:
    assert number_value(text, radix) == value


@pytest.mark.parametrize(("text", "radix", "message"), [
    ("19", 8, "digit '9' is invalid in current base"), ("dead", 10, "digit 'd' is invalid in current base"),
    ("10000000000000000", 16, "specified value exceeds maximum immediate value"),
    ("0t" + "9" * 5000, 16, "specified value exceeds maximum immediate value"),
])
def test_2_3_number_errors(text: str, radix: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        number_value(text, radix)


@pytest.mark.parametrize(("text", "value"), [("ab", 0x6162), ("", 0), ("\\n", 10), ("\\0a", 0x61), ("\\'", 0x27),
                                             ("\\377", 0xFF), ("abcdefgh", 0x6162636465666768), ("é", 0xC3A9)])
def test_2_3_character_constants(text: str, value: int) -> None:
    assert char_value(text) == value


def test_2_3_character_constant_too_long() -> None:
    with pytest.raises(ValueError, match="may not exceed 8 bytes"):
        char_value("abcdefghi")


@pytest.mark.parametrize(("value", "radix", "text"), [
    (9, 16, "9"), (10, 16, "0xa"), (0, 16, "0"), (9, 10, "9"), (10, 10, "0t10"), (7, 8, "7"), (8, 8, "0o10"),
    (1, 2, "1"), (2, 2, "0i10"), (-1, 10, "-0t1"), (2**64 - 1, 16, "0xffffffffffffffff"),
])
def test_5_3_show_base(value: int, radix: int, text: str) -> None:
    assert show_base(value, radix) == text


@given(st.integers(0, 2**64 - 1), st.integers(2, 16))
def test_5_3_to_radix_is_read_back(value: int, radix: int) -> None:
    assert number_value("0" + to_radix(value, radix), radix) == value
    assert int(to_radix(-value, radix), radix) == -value


@pytest.mark.parametrize(("text", "value"), [
    ("10", 10), ("0t10", 10), ("010", 10), (str(MAX), MAX), (str(MAX + 1), None), ("9" * 5000, None), ("", None),
    ("0t", None), ("-1", None), ("0x10", None), ("1a", None), ("\u0661", None), ("\u00b2", None),
])
def test_decimal_digits(text: str, value: int | None) -> None:
    assert decimal_value(text) == value


@pytest.mark.parametrize(("text", "meaning"), [
    (r"%x\n", "%x\n"), (r"\q", r"\q"), (r"\101\0", "A\0"), (r"\"\\", '"\\'), (r"\1011", "A1"), (r"\777", "\xff"),
])
def test_2_5_escapes(text: str, meaning: str) -> None:
    assert unescape(text) == meaning


@given(st.text())
def test_2_5_escape_is_undone(text: str) -> None:
    assert unescape(escape(text)) == text
    assert "\n" not in escape(text)


@given(st.binary())
def test_9_3_c_notation_is_unambiguous(data: bytes) -> None:
    assert unescape(escape_bytes(data)).encode("latin-1") == data
