"""Escapes inside quotes, and their inverse.

Reference: mdb-language.md 2.5 (words), 2.3 (character constants), 8.4 (quoted shell commands).
"""

from __future__ import annotations

import re

_LETTERS = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\",
}
_NAMES = {char: letter for letter, char in _LETTERS.items()}
_ESCAPE = re.compile(r'\\([0-7]{1,3}|[abfnrtv"\\])')
_CHAR_ESCAPE = re.compile(r"""\\([0-7]{1,3}|[abfnrtv"'\\])""")


def unescape(text: str) -> str:
    r"""Return *text* with ``\n``, ``\"``, ``\101`` and so on replaced; an unknown escape keeps its backslash."""
    return _ESCAPE.sub(_replace, text)


def unescape_single(text: str) -> str:
    r"""As :func:`unescape`, with ``\'`` an escape too (quoted shell commands)."""
    return _CHAR_ESCAPE.sub(_replace, text)


def char_bytes(text: str) -> bytes:
    r"""Return the bytes of a character constant's inside: escapes as in :func:`unescape` and ``\'``, else UTF-8."""
    pieces: list[bytes] = []
    position = 0
    for match in _CHAR_ESCAPE.finditer(text):
        pieces.append(text[position : match.start()].encode("utf-8", "surrogatepass"))
        pieces.append(_replace(match).encode("latin-1"))
        position = match.end()
    pieces.append(text[position:].encode("utf-8", "surrogatepass"))
    return b"".join(pieces)


def _replace(match: re.Match[str]) -> str:
    what = match[1]
    if what[0] in "01234567":
        return chr(int(what, 8) & 0xFF)
    return _LETTERS.get(what, what)


def escape(text: str) -> str:
    r"""Return what stands between double quotes for *text*: ``unescape(escape(text)) == text``, no raw newline."""
    return "".join(_escape_char(char) for char in text)


def _escape_char(char: str) -> str:
    if char in _NAMES:
        return "\\" + _NAMES[char]
    return f"\\{ord(char):03o}" if char < " " or char == "\x7f" else char


def escape_bytes(data: bytes) -> str:
    r"""Return *data* as text with C escapes: ``\0``, ``\n``, ``\377`` (formats ``C`` and ``S``)."""
    pieces = []
    for index, byte in enumerate(data):
        char = chr(byte)
        if byte == 0:
            digit_follows = data[index + 1 : index + 2] in (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7")
            pieces.append("\\000" if digit_follows else "\\0")
        elif byte < 0x7F:
            pieces.append(_escape_char(char))
        else:
            pieces.append(f"\\{byte:03o}")
    return "".join(pieces)
