"""Many rounds of a format of plain numbers at once: ``A,1000/XX`` and ``A,1000/"at "J2Xn`` without a loop over items.

The text is what :class:`kshell.formatverb.FormatRun` makes item by item; it falls back to that where memory ends.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kshell.lang.formats import FORMATS
from kshell.page import MARGIN

if TYPE_CHECKING:
    from kshell.formatverb import Step

#: letters of plain numbers: what the % operator makes of them; and those with a sign
SPECS = dict.fromkeys("BxXJKZ", "x") | dict.fromkeys("VuUEvdDe", "d")
SIGNED = frozenset("vdDe")
CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
#: these get a column more when a number fills their field
GROW = frozenset("JKZ")


def code(letter: str, size: int) -> str:
    """Return how struct spells the numbers of *letter*."""
    return CODES[size] if letter in SIGNED else CODES[size].upper()


def one_letter(steps: Sequence[Step]) -> str:
    """Return the letter, if *steps* are numbers of one letter and nothing else; "" otherwise."""
    letters = {step.letter for step in steps}
    letter = letters.pop() if len(letters) == 1 else ""
    return letter if letter in SPECS else ""


class LineRounds:
    """Rounds that are one line each: numbers, texts and blanks, and a newline at the end.

    :ivar size: bytes of a round
    """

    def __init__(self, steps: Sequence[Step], sizes: Sequence[int], order: str) -> None:
        """
        :param sizes: bytes of a number of each step, 0 for texts and layout
        """
        self.size = sum(size * step.count for step, size in zip(steps, sizes, strict=True))
        codes: list[str] = []
        self._fields: list[str] = []
        pieces: list[str] = []
        for step, size in zip(steps[:-1], sizes, strict=False):
            if not step.letter:
                pieces.append(step.text.replace("%", "%%"))
            elif step.letter == "r":
                pieces.append(" " * step.count)
            else:
                codes += code(step.letter, size) * step.count
                self._fields += step.letter * step.count
                pieces += ["%s"] * step.count
        self._line = " " * MARGIN + "".join(pieces) + "\n"
        self._struct = struct.Struct(order + "".join(codes))
        self.last = FORMATS[self._fields[-1]].size

    @staticmethod
    def fits(steps: Sequence[Step], page: int | None) -> bool:
        """Whether *steps* are such a round, of a line that is never broken."""
        if len(steps) < 2 or (steps[-1].letter, steps[-1].count) != ("n", 1):
            return False
        width = MARGIN
        for step in steps[:-1]:
            if step.letter in SPECS:
                width += (FORMATS[step.letter].width + (step.letter in GROW)) * step.count
            elif step.letter == "r":
                width += step.count
            elif step.letter or "\n" in step.text or not step.text:
                return False
            else:
                width += len(step.text)
            if width > 512:
                return False
        return any(step.letter in SPECS for step in steps) and (page is None or width < page)

    def text(self, data: bytes) -> str:
        """Return the lines of all rounds in *data*."""
        columns = zip(*self._struct.iter_unpack(data), strict=True)
        shown = [_column(letter, column) for letter, column in zip(self._fields, columns, strict=True)]
        line = self._line
        return "".join([line % row for row in zip(*shown, strict=True)])


def _column(letter: str, numbers: Sequence[int]) -> list[str]:
    width, spec = FORMATS[letter].width, SPECS[letter]
    if letter in GROW:
        return [f"{number:<{width}x}" if number >> 60 == 0 else f"{number:<{width + 1}x}" for number in numbers]
    pattern = f"%-{width}{spec}"
    return [pattern % number for number in numbers]
