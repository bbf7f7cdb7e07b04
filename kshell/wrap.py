"""``::set -o autowrap``: lines longer than the page are broken at its width."""

from __future__ import annotations

import re

#: what moves nothing: colours and other attributes (ECMA-48, SGR)
_PARTS = re.compile(r"\x1b\[[0-9;]*m|\n|\t|[^\x1b\n\t]+|\x1b")
TAB = 8


class Wrapper:
    """Breaks text that comes in pieces; tabs go to multiples of 8."""

    def __init__(self) -> None:
        self._column = 0

    def wrap(self, text: str, width: int) -> str:
        """Return *text* with a newline wherever a line would be longer than *width* characters."""
        if self._column + len(text) <= width and "\n" not in text and "\t" not in text and "\x1b" not in text:
            self._column += len(text)
            return text
        made: list[str] = []
        for part in _PARTS.findall(text):
            if part == "\n":
                self._column = 0
            elif part == "\t":
                self._column = (self._column // TAB + 1) * TAB
                if self._column >= width:
                    part, self._column = "\n", 0
            elif not part.startswith("\x1b["):
                made.append(self._broken(part, width))
                continue
            made.append(part)
        return "".join(made)

    def _broken(self, text: str, width: int) -> str:
        lines = []
        while len(text) > width - self._column:
            room = max(width - self._column, 0)
            lines.append(text[:room])
            text, self._column = text[room:], 0
        self._column += len(text)
        return "\n".join([*lines, text])
