"""What a target can put into a line, and that none of it gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.escape import escape, escape_bytes, printable


@pytest.mark.parametrize(("text", "shown"), [
    ("swapper/0", "swapper/0"), ("\x1b[2J", r"\x1b[2J"), ("a\nb\t", r"a\x0ab\x09"), ("\x7f\x9b", r"\x7f\x9b"),
    ("\u202egpj", r"\u202egpj"),
    ("\u2066\u200f\u061c", r"\u2066\u200f\u061c"), ("\udcff", r"\xff"), ("\ud800", r"\ud800"),
    ("\u2028", r"\u2028"), ("ü→日", "ü→日"), ("[bold]\\", "[bold]\\"),
])
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_keep() -> None:
    assert escape("a\n\x1b\t", keep="\n\t") == "a\n\\x1b\t"


@given(st.binary())
def test_every_escaped_text_can_be_written_and_moves_nothing(data: bytes) -> None:
    text = escape_bytes(data)
    text.encode()
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or "\u202a" <= c <= "\u202e" for c in text)
    assert escape(text) == text


@pytest.mark.parametrize(("data", "shown"), [
    (b"abc d", "abc d"), ("ü".encode(), "ü"), (b"", ""), (b"  ", "  "),
    (b"a\n\tb\r", r"a\n\tb\r"),
    (rb"a\n", r"a\\n"), (b'"', r'\"'),  # two strings are never shown alike
    (b"\n\n", None), (b"\xff", None), ("\u202e".encode(), None), (b"a\0", None), (b"\x1b", None),
])
def test_printable(data: bytes, shown: str | None) -> None:
    assert printable(data) == shown
