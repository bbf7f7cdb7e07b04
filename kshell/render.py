"""Output made visible: tables and text for people, one JSON object a line (NDJSON) for programs.

Text from the target is escaped here (:mod:`kshell.escape`) and nowhere else. Tables stream: widths are fixed by the
columns, the last column is free. On a terminal, free text is cut to its column, an address never; elsewhere nothing is.
JSON: keys are the column names in lower case; an address is a "0x..." string, a count a number, what could not be read
``{"error": reason}``; an integer above 2**53 - 1, which many readers would round, is a "0x..." string too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from kshell.errors import Fault, KshellError
from kshell.escape import escape
from kshell.lang.numbers import show_base
from kshell.output import (
    Block,
    Column,
    Done,
    EndLine,
    Flush,
    Item,
    Items,
    Output,
    Record,
    Records,
    Row,
    Table,
    Text,
)

_EXACT = (1 << 53) - 1
_HEADER = "\x1b[4m", "\x1b[24m"
#: Row.style -> the escape sequence before the line; four of the 16 colours that every terminal has
_STYLES = {"error": "\x1b[31m", "warning": "\x1b[33m", "strong": "\x1b[1m", "dim": "\x1b[2m"}
_PLAIN = "\x1b[0m"
_MISSING = "?"
_LETTERS = {"text": "d", "decimal": "d", "count": "d", "hex": "x", "address": "x", "octal": "o"}


class Renderer(Protocol):
    """Turns outputs into text, piece by piece."""

    def render(self, item: Output) -> Iterable[str]: ...

    def end_line(self) -> Iterable[str]:
        """End an open line, because an error is about to be written below it."""

    def finish(self) -> Iterable[str]:
        """End an open line, and forget the table: the dcmd is through."""


def cell_writer(column: Column, last: bool, cut: bool) -> Callable[[Any], str]:
    """Return a function from a cell of *column* to its padded text.

    :param last: it is the last column: no padding, no cutting
    :param cut: longer text is cut, ending in an ellipsis
    """
    kind, zeros = column.kind, column.zeros
    prefix = "0x" * column.prefix
    width = column_width(column)
    right = is_right(column)

    def write(cell: Any) -> str:
        if isinstance(cell, str):
            text = cell if cell.isprintable() else escape(cell)
            if cut and kind == "text" and len(text) > width and not last:
                text = text[: width - 1] + "…"
        elif cell is None:
            text = ""
        elif isinstance(cell, KshellError):
            text = _MISSING
        elif isinstance(cell, bool):
            text = "yes" if cell else "no"
        elif kind == "address":
            text = f"{prefix}{cell:0{zeros or 16}x}"
        elif kind == "hex":
            text = f"{prefix}{cell:0{zeros}x}"
        elif kind == "octal":
            text = f"{cell:0{zeros}o}"
        else:
            text = str(cell)
        if last:
            return text.rjust(width) if right else text
        return text.rjust(width) if right else text.ljust(width)

    return write


def is_right(column: Column) -> bool:
    """Whether the cells of *column* stand at its right edge."""
    return (column.align or ("<" if column.kind in ("text", "address") else ">")) == ">"


def column_width(column: Column) -> int:
    """Return the characters that *column* takes."""
    return max(column.width or (16 if column.kind == "address" else 0), len(column.name))


class _Layout:
    """How the rows of one table are written."""

    def __init__(self, table: Table, cut: bool, underline: bool) -> None:
        columns = table.columns
        last = len(columns) - 1
        self._joint = table.joint
        self._columns = columns
        self._writers = [cell_writer(column, at == last, cut) for at, column in enumerate(columns)]
        self._formats: dict[tuple[type, ...], str | None] = {}
        self._cuts = [(at, column_width(column)) for at, column in enumerate(columns[:-1])
                      if cut and column.kind == "text"]
        names = []
        for at, column in enumerate(columns):
            width = 0 if at == last and not is_right(column) else column_width(column)
            names.append(column.name.rjust(width) if is_right(column) else column.name.ljust(width))
        line = " ".join(names)
        shown = columns and table.header
        self.header = (_HEADER[0] + line + _HEADER[1] if underline else line.rstrip()) + "\n" if shown else ""

    def line(self, cells: tuple[Any, ...]) -> str:
        """Return the text of a row. Rows of plain numbers and short clean text go through one format."""
        kinds = tuple(map(type, cells))
        try:
            template = self._formats[kinds]
        except KeyError:
            template = self._formats[kinds] = self._template(kinds)
        if template is not None and not (self._cuts and self._too_long(cells)):
            text = template % cells
            if text.isprintable():
                return text.rstrip() + "\n"
        return self._joint.join(
            [write(cell) for write, cell in zip(self._writers, cells, strict=True)]).rstrip() + "\n"

    def _too_long(self, cells: tuple[Any, ...]) -> bool:
        return any(len(cells[at]) > width for at, width in self._cuts if type(cells[at]) is str)

    def _template(self, kinds: tuple[type, ...]) -> str | None:
        """Return the %-format for cells of these types, None when they need a closer look."""
        if len(kinds) != len(self._columns) or not set(kinds) <= {str, int}:
            return None
        parts = []
        for at, (column, kind) in enumerate(zip(self._columns, kinds, strict=True)):
            letter = "s" if kind is str else _LETTERS[column.kind]
            zeros = column.zeros or 16 * (column.kind == "address")
            precision = f".{zeros}" if letter in "xo" and zeros else ""
            width = column_width(column)
            if at == len(kinds) - 1 and not is_right(column):
                width = 0
            flags = "-" * (not is_right(column)) + "#" * (column.prefix and letter == "x")
            parts.append(f"%{flags}{width or ''}{precision}{letter}")
        return self._joint.replace("%", "%%").join(parts)


class TextRenderer:
    """For people, shell commands and logs.

    :param radix: asked for the current radix when an Item is printed
    :param terminal: long free text is cut to its column, the header underlined, and rows have their styles
    :param width: asked for the columns of the terminal when prose is shown
    """

    def __init__(
        self, radix: Callable[[], int] = lambda: 16, *, terminal: bool = False, width: Callable[[], int] = lambda: 80,
    ) -> None:
        self._radix, self._terminal, self._width = radix, terminal, width
        self._table: Table | None = None
        self._listing = False  # names and what they are, one a line
        self._layout = _Layout(Table(()), False, False)
        # https://no-color.org
        self._coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._header = ""
        self._open = False

    def render(self, item: Output) -> Iterable[str]:
        """Return the text of *item* in pieces, with the newlines that belong to it."""
        if isinstance(item, Row):
            line = self._layout.line(item.cells)
            if self._listing:
                line = self._folded(line)
            if item.style and self._coloured:
                line = f"{_STYLES[item.style]}{line[:-1]}{_PLAIN}\n"
            if not self._header:
                return (line,)
            header, self._header = self._header, ""
            return (*self.end_line(), header, line)
        if isinstance(item, Item):
            return (*self.end_line(), show_base(item.value, self._radix()) + "\n")
        if isinstance(item, Table):
            if item != self._table:
                self._table = item
                self._layout = _Layout(item, self._terminal, self._terminal)
                self._listing = self._terminal and not item.header and item.columns[-1].kind == "text"
                self._header = self._layout.header
            return ()
        if isinstance(item, Text):
            text = escape(item.text, "\n\t") + item.end
            return self._text(self._reflowed(text) if item.prose and self._terminal else text)
        if isinstance(item, Record):
            return self._lines(item)
        if isinstance(item, Records):
            return (*self.end_line(), item.text())
        if isinstance(item, Items):
            return (*self.end_line(), *(show_base(value, self._radix()) + "\n" for value in item.values))
        if isinstance(item, Block):
            data = item.data if isinstance(item.data, str) else item.data.decode("utf-8", "backslashreplace")
            return self._text(data)
        if isinstance(item, str):
            return self._text(escape(item, "\n\t") + "\n")
        if isinstance(item, int):
            return self.render(Item(item))
        if isinstance(item, EndLine):
            return self.end_line()
        if isinstance(item, Done):
            return tuple(self.finish())
        if isinstance(item, Flush):
            return ()
        raise TypeError(f"a dcmd may not yield {type(item).__name__}")

    def _folded(self, line: str) -> str:
        from kshell.wrap import fold

        return fold(line, self._width())

    def _reflowed(self, text: str) -> str:
        from kshell.wrap import reflow

        return reflow(text, self._width())

    def _text(self, text: str) -> tuple[str, ...]:
        self._open = not text.endswith("\n") if text else self._open
        return (text,)

    def _lines(self, record: Record) -> Iterator[str]:
        yield from self.end_line()
        for line in record.lines:
            yield line + "\n"

    def end_line(self) -> tuple[str, ...]:
        if not self._open:
            return ()
        self._open = False
        return ("\n",)

    def finish(self) -> Iterable[str]:
        self._table = None
        self._header = ""
        return self.end_line()


class JsonRenderer:
    """One JSON object a line."""

    def __init__(self) -> None:
        self._table: tuple[Column, ...] = ()
        self._keys: list[tuple[str, str]] = []
        self._text = ""

    def render(self, item: Output) -> Iterator[str]:
        """Yield the line of *item*; text waits for the end of its line."""
        if type(item) is Row:
            cells = zip(self._keys, item.cells, strict=True)
            yield dump_json({key: json_cell(cell, kind) for (key, kind), cell in cells})
        elif isinstance(item, Table):
            self._table = item.columns
            self._keys = [(column.key or column.name.lower(), column.kind) for column in item.columns]
        elif isinstance(item, Text):
            yield from self._lines(escape(item.text, "\n\t") + item.end)
        elif isinstance(item, Item):
            found: dict[str, Any] = {"addr": f"0x{item.value:x}"}
            if item.type is not None:
                found["type"] = str(item.type)
            yield dump_json(found)
        elif isinstance(item, Record):
            yield dump_json(item.data())
        elif isinstance(item, Records):
            yield from map(dump_json, item.data())
        elif isinstance(item, Items):
            for one in item.each():
                yield from self.render(one)
        elif isinstance(item, Block):
            data = item.data if isinstance(item.data, str) else item.data.decode("utf-8", "backslashreplace")
            yield from self._lines(data)
        elif isinstance(item, str):
            yield from self.render(Text(item))
        elif isinstance(item, int):
            yield from self.render(Item(item))
        elif isinstance(item, Done | EndLine):
            yield from self.finish()
        elif not isinstance(item, Flush):
            raise TypeError(f"a dcmd may not yield {type(item).__name__}")

    def _lines(self, text: str) -> Iterator[str]:
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            yield dump_json({"text": line})

    def end_line(self) -> Iterator[str]:
        return self.finish()

    def finish(self) -> Iterator[str]:
        if self._text:
            text, self._text = self._text, ""
            yield dump_json({"text": text})


_encoder: Any = None


def dump_json(data: Mapping[str, Any]) -> str:
    """Return *data* as a line of JSON; text is kept as UTF-8, lone surrogates are escaped."""
    global _encoder
    if _encoder is None:
        import json

        _encoder = json.JSONEncoder(ensure_ascii=False, default=_plain, separators=(", ", ": ")).encode
    line: str = _encoder(data)
    return (line if line.isascii() else line.encode("utf-8", "backslashreplace").decode()) + "\n"


def json_cell(cell: Any, kind: str) -> Any:
    """Return a cell of a column of this kind as JSON has it."""
    if isinstance(cell, KshellError):
        return _plain(cell)
    if isinstance(cell, str):
        return cell if cell.isprintable() else escape(cell)
    if isinstance(cell, int) and not isinstance(cell, bool) and (kind == "address" or abs(cell) > _EXACT):
        return f"0x{cell:x}"
    return cell


def _plain(thing: Any) -> Any:
    if isinstance(thing, Fault):
        return {"error": thing.reason.value, "addr": f"0x{thing.address:x}"}
    if isinstance(thing, KshellError):
        return {"error": str(thing)}
    raise TypeError(f"{type(thing).__name__} has no JSON form")


def error_record(error: KshellError | str, where: str = "", place: str = "") -> dict[str, Any]:
    """Return the JSON object for an error: its text, the dcmd, file and line, the next step, the address, if any."""
    found: dict[str, Any] = {"error": escape(str(error))}
    if where:
        found["command"] = where
    if place:
        found["place"] = escape(place.removesuffix(": "))
    if isinstance(error, KshellError) and error.hint:
        found["hint"] = escape(error.hint, "\n")
    if isinstance(error, Fault):
        found["addr"] = f"0x{error.address:x}"
    return found
