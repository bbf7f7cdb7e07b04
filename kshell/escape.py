"""The one place where text from a target is made safe to show.

A comm, a string, a symbol name or a log line may be crafted: an escape sequence repaints the terminal, a bidi control
reorders a line, half a UTF-8 character breaks an encoder. All of them become ``\\x1b`` or ``\\u202e``.
Code points: Unicode 15 section 23.1 (C0, C1), 23.2 (bidi controls, line separators); bytes that were not UTF-8 arrive
as the lone surrogates of :pep:`383` and are shown as the bytes they were.
"""

from __future__ import annotations

import re

#: C0, DEL and C1; ALM, LRM, RLM; line and paragraph separator, embeddings and overrides; isolates; surrogates; BOM
UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
_find = re.compile(f"[{UNSAFE}]")


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def escape(text: str, keep: str = "") -> str:
    """Return *text* with every control character, bidi control and lone surrogate as ``\\xNN`` or ``\\uNNNN``.

    :param keep: characters that stay as they are, for text of several lines: ``"\\n\\t"``
    """
    if _find.search(text) is None:
        return text
    if not keep:
        return _find.sub(_shown, text)
    return _find.sub(lambda match: match[0] if match[0] in keep else _shown(match), text)


def escape_bytes(data: bytes | bytearray | memoryview, keep: str = "") -> str:
    """Return *data* as text: UTF-8 where it is UTF-8, escaped as :func:`escape` does elsewhere."""
    return escape(bytes(data).decode("utf-8", "surrogateescape"), keep)


#: what C writes differently in a string and can still be read
_C_STRING = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def printable(data: bytes) -> str | None:
    """Return *data* as C writes it between quotes if all of it is text, else None. Cuts nothing; NUL is no text.

    Newlines and tabs, which strings end in and are laid out with, are text; strings of nothing else are not.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    shown = text.translate(_C_STRING)
    return shown if shown.isprintable() and not (text.isspace() and shown != text) else None
