"""Where on the line the formatting verbs are: the left margin, tabs and wrapping by whole fields.

Reference: mdb-language.md 9.2 (2 and 4), 7.3 (the last line is ended once).
"""

from __future__ import annotations

from collections.abc import Sequence

PAGE_WIDTH = 80
MARGIN = 16


class Page:
    """Collects text; :meth:`flush` hands it over.

    A line's margin is put when the line gets its first field, so one with nothing else on it never appears.

    :ivar column: where the next character goes; 0 on a new line
    :ivar width: columns of the page; None does not wrap (pipes)
    """

    def __init__(self, width: int | None = PAGE_WIDTH, margin: int = MARGIN) -> None:
        self.width, self.margin = width, margin
        self.column = 0
        self._parts: list[str] = []

    def flush(self) -> str:
        """Return the text collected since the last call."""
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def field(self, text: str, width: int = 0) -> None:
        """Put *text*, left-justified in *width* columns, on a new line if the padded field does not fit."""
        need = max(len(text), width)
        if self.width is not None and self.column > self.margin and self.column + need > self.width:
            self.newline()
        self._indent()
        self._put(text)
        if width > len(text):
            self.blanks(width - len(text))

    def lines(self, text: str) -> None:
        """Put *text*, which may hold newlines; each of its lines starts at the margin."""
        first, *rest = text.split("\n")
        if first:
            self.field(first)
        for line in rest:
            self.newline()
            if line:
                self.field(line)

    def blanks(self, count: int) -> None:
        """Put blanks; those that would reach the edge of the page become a newline."""
        self._indent()
        if self.width is not None and self.column + count >= self.width:
            self.newline()
        else:
            self._put(" " * count)

    def tab(self, stop: int) -> None:
        """Put blanks up to the next multiple of *stop* columns."""
        self._indent()
        count = -self.column % max(stop, 1)
        if count:
            self.blanks(count)

    def newline(self) -> None:
        """End the line."""
        self._parts.append("\n")
        self.column = 0

    def end_line(self) -> None:
        """Format ``n``: end the line; an empty one is printed with its margin."""
        self._indent()
        self.newline()

    def numbers(self, values: Sequence[int], spec: str, width: int) -> None:
        """Put *values* as fields of equal *width*; as if by :meth:`field`, but whole lines at a time.

        :param spec: ``x`` or ``d``, of the ``%`` operator
        """
        done = 0
        if self.width is not None:
            per_line = max((self.width - self.margin) // width, 1)
            while done < len(values):
                if self.column > self.margin and self.column + width > self.width:
                    self.newline()
                if not self.column:
                    break
                self.field(f"{values[done]:{spec}}", width)
                done += 1
            # The last line may have to go on with other items: the loop at the end makes it.
            lines = (len(values) - done - 1) // per_line
            if lines > 0:
                last = f"%{spec}\n" if self.margin + per_line * width >= self.width else f"%-{width}{spec}\n"
                line = " " * self.margin + f"%-{width}{spec}" * (per_line - 1) + last
                self._parts.append(line * lines % tuple(values[done : done + lines * per_line]))
                done += lines * per_line
        for value in values[done:]:
            self.field(f"{value:{spec}}", width)

    def whole_lines(self, text: str) -> None:
        """Put lines that are complete, margin and newline included."""
        self._parts.append(text)

    def hexadecimal(self, data: bytes, size: int, order: str, width: int, grows: bool) -> None:
        """Put the numbers in *data* as by :meth:`field`, whole screens at a time. Imports numpy.

        :param size: bytes of each; *order*: "<" or ">"
        :param grows: a number that fills its field gets a column more
        """
        from kshell import screens

        cells = screens.Cells(data, size, order)
        if self.width is None:
            self._put(screens.one_line(cells, width, grows).decode("ascii"))
            return
        wide = cells.lengths >= width if grows else cells.lengths < 0
        done = 0
        while done < len(wide) and self.column:
            self.field(f"{cells.values[done]:x}", width + bool(wide[done]))
            done += 1
            if done < len(wide) and self.column + width + bool(wide[done]) > self.width:
                self.newline()
        rest, left = cells.after(done), wide[done:]
        if not left.any() or left.all():
            text, count = screens.lines(rest, width, grows, self.margin, self.width)
        elif self.width - self.margin == 4 * width:
            text, count = screens.mixed_lines(rest, width, self.margin, self.width)
        else:
            text, count = bytearray(), 0
        self._parts.append(text.decode("ascii"))
        for value, one in zip(rest.values[count:].tolist(), left[count:].tolist(), strict=True):
            self.field(f"{value:x}", width + one)

    def outdented(self, text: str, width: int, stop: int) -> None:
        """Put a label that ignores the margin: padded to *width*, then to the next multiple of *stop*."""
        size = max(len(text), width)
        self._put(text)
        self._put(" " * (size - len(text) + -(self.column - len(text) + size) % stop))

    def finish(self) -> None:
        """End the last line, if there is anything on it."""
        if self.column:
            self.newline()

    def _indent(self) -> None:
        if self.column == 0 and self.margin:
            self._put(" " * self.margin)

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self.column += len(text)
