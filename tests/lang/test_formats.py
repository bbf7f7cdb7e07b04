"""Format letters (mdb-language.md 9.3)."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.lang.formats import FORMATS, FormatKind, bit_lines, field_width, format_value

VALUES = st.integers(0, 2**64 - 1)


def shown(value: int, letter: str) -> str:
    """As ``value=letter``: the low bytes, little-endian."""
    return format_value(letter, (value & 2**64 - 1).to_bytes(8, "little")[: FORMATS[letter].size])


@pytest.mark.parametrize(("value", "letter", "text"), [
    (0x1FF, "B", "ff"), (8, "b", "010"), (0, "b", "0"), (-1, "V", "255"), (-1, "v", "-1"), (0x41, "c", "A"),
    (0, "C", "\\0"), (0xFF, "C", "\\377"), (10, "C", "\\n"), (0x1234, "x", "1234"), (-1, "d", "-1"), (-1, "u", "65535"),
    (-1, "o", "0177777"), (-1, "q", "0-1"), (0x1234, "h", "3412"), (0x10, "X", "10"), (-1, "D", "-1"),
    (-1, "Q", "0-1"), (0x12345678, "H", "78563412"), (0x3FC00000, "f", "+1.5000000e+00"), (-1, "J", "f" * 16),
    (-1, "E", "18446744073709551615"), (-1, "e", "-1"), (8, "G", "10"), (-8, "g", "-10"), (5, "R", "101"),
    (0x4025000000000000, "F", "+1.0500000000000000e+01"), (0, "w", "0"), (0x1F, "W", "1f"),
])
def test_9_3_examples(value: int, letter: str, text: str) -> None:
    assert shown(value, letter) == text


def test_9_3_default_radix() -> None:
    assert format_value("w", b"\x1f\0", "little", 10) == "31"
    assert format_value("W", b"\0\0\0\x1f", "big", 8) == "37"


@given(VALUES)
def test_9_3_numbers_against_struct(value: int) -> None:
    for order, sign in (("little", "<"), ("big", ">")):
        data = value.to_bytes(8, "little")
        for letters, code, spec in (
            ("B", "B", "x"), ("V", "B", "d"), ("v", "b", "d"), ("x", "H", "x"), ("u", "H", "d"), ("d", "h", "d"),
            ("X", "I", "x"), ("U", "I", "d"), ("D", "i", "d"), ("JKZ", "Q", "x"), ("E", "Q", "d"), ("e", "q", "d"),
            ("G", "Q", "o"), ("g", "q", "o"), ("R", "Q", "b"),
        ):
            size = struct.calcsize(code)
            (expected,) = struct.unpack(sign + code, data[:size])
            for letter in letters:
                assert FORMATS[letter].size == size
                assert format_value(letter, data[:size], order) == format(expected, spec)  # type: ignore[arg-type]


@given(VALUES)
def test_9_3_doubles_are_read_back(bits: int) -> None:
    data = bits.to_bytes(8, "little")
    text = format_value("F", data)
    assert struct.unpack("<d", data)[0] == float(text) or "nan" in text


def test_9_3_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert shown(0, "Y") == "1970 Jan  1 00:00:00"
    assert shown(-1, "Y") == "1969 Dec 31 23:59:59"
    assert shown(86400 * 365, "y") == "1971 Jan  1 00:00:00"
    assert shown(0x7000000000000000, "y") == "7000000000000000"


def test_9_3_j() -> None:
    assert bit_lines(0x1D).split("\n") == [
        "11101", "||| |", "||| +-- bit 0 mask 0x01", "||+---- bit 2 mask 0x04", "|+----- bit 3 mask 0x08",
        "+------ bit 4 mask 0x10"]
    assert bit_lines(0) == "0"
    assert bit_lines(0x402).split("\n")[2:] == [
        "|        +--- bit 1  mask 0x002", "+------------ bit 10 mask 0x400"]
    assert bit_lines(0b10).split("\n") == ["10", "|", "+--- bit 1 mask 0x2"]


@given(VALUES)
def test_9_3_j_masks_make_up_the_value(value: int) -> None:
    assert sum(int(line.rpartition(" ")[2], 16) for line in bit_lines(value).split("\n")[2:]) == value


def test_9_3_full_hex_fields_are_one_wider() -> None:
    assert field_width("J", shown(1 << 60, "J")) == 17
    assert field_width("J", shown((1 << 60) - 1, "J")) == 16
    assert field_width("R", shown(-1, "R")) == 65


def test_9_3_unassigned_letters() -> None:
    assert not set("AkmlLMz") & set(FORMATS)
    assert FORMATS["p"].kind is FormatKind.SYMBOL and FORMATS["s"].kind is FormatKind.STRING
