"""Lines longer than the page: broken at its width (``::set -o autowrap``), or prose folded between its words."""

from __future__ import annotations

import re

#: what stands in front of the words of a line: its indentation, and a name or an option with two blanks behind it
_LEAD = re.compile(r" *(?:.*[^ ]  +(?=[^ ]))?")
#: what moves nothing: colours and other attributes (ECMA-48, SGR)
_PARTS = re.compile(r"\x1b\[[0-9;]*m|\n|\t|[^\x1b\n\t]+|\x1b")
TAB = 8
#: characters of a line that ended because the page did: source lines have up to 130
FULL = 90


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


def fold(text: str, width: int) -> str:
    """Return *text* with its lines broken between words, so that none is longer than *width* where that is possible.

    The rest of a line stands under its first word; in a list of names and explanations, under the explanation.
    """
    return "\n".join(_folded(line, width) if len(line) > width else line for line in text.split("\n"))


def reflow(text: str, width: int) -> str:
    """Return *text* as :func:`fold` does, but with the lines of a paragraph made into one first.

    A line goes on with the next when it is at least :data:`FULL` long and the next stands as far to the right.
    """
    if all(len(line) <= width for line in text.split("\n")):
        return text
    made: list[str] = []
    full = False
    for line in text.split("\n"):
        bare = line.lstrip(" ")
        same = full and bare and len(line) - len(bare) == len(made[-1]) - len(made[-1].lstrip(" "))
        if same and "  " not in bare:
            made[-1] += " " + bare
        else:
            made.append(line)
        full = len(line) >= FULL
    return fold("\n".join(made), width)


def _folded(line: str, width: int) -> str:
    from textwrap import wrap

    found = _LEAD.match(line)
    assert found is not None
    lead = found[0] if len(found[0]) <= width // 2 else line[: len(line) - len(line.lstrip(" "))]
    rest = wrap(line[len(lead) :], max(width - len(lead), 1), break_long_words=False, break_on_hyphens=False,
                replace_whitespace=False, drop_whitespace=True)
    return lead + ("\n" + " " * len(lead)).join(rest)
