"""``::print`` of many objects of one type, as a pipeline brings them: read in runs, each text made once.

What is shown is what :func:`~kshell.printer.structure.format_value` and :class:`~kshell.printer.members.Selection` show
of each object; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kshell.errors import Fault
from kshell.escape import escape
from kshell.memory.model import Memory
from kshell.printer.members import Part, Selection, pipe_value
from kshell.printer.options import DEFAULT, PrintOptions
from kshell.printer.structure import Printer, format_value
from kshell.types.model import ArrayType, CType, FunctionType, StructType, VoidType
from kshell.value.layers import Layer, Pages, through
from kshell.value.path import Route
from kshell.value.pieces import Piece, pieces
from kshell.value.shape import decode, shape_of, span
from kshell.value.value import Value, ValueTarget

#: bytes of objects held at once
ROOM = 4 << 20
#: texts of one member kept
TEXTS = 1 << 16

Row = Sequence[Piece | Fault]


class Many:
    """Prints objects of one type.

    :param selection: the members to show; None: the whole object
    """

    def __init__(
        self, target: ValueTarget, type: CType, selection: Selection | None, options: PrintOptions = DEFAULT,
    ) -> None:
        self.target, self.type, self.selection, self.options = target, type, selection, options
        shape = shape_of(type)
        whole = Route((), 0, type, 0, None, span(shape, 0, None), shape)
        parts = [Part("", "", whole)] if selection is None else selection.parts
        self._routes = [part.route for part in parts]
        self._shown = [_Shown(target, part, options, selection is not None) for part in parts]
        self.block = max(1, ROOM // max(1, sum(route.size for route in self._routes)))

    def rows(self, addresses: Sequence[int], space: Memory) -> Iterator[Row]:
        """Yield the bytes of the members of each object at *addresses*; at most ``block`` of them."""
        yield from zip(*pieces(self.target, addresses, space, self._routes), strict=True)

    def lines(self, address: int, space: Memory, row: Row) -> list[str]:
        """Return the lines of one object.

        :raises Fault: nothing of it can be read
        """
        result: list[str] = []
        for piece, shown in zip(row, self._shown, strict=True):
            if not isinstance(piece, Piece):
                return self._slowly(address, space)
            shown.add(piece, result)
        return result

    def _slowly(self, address: int, space: Memory) -> list[str]:
        """Return the lines of an object of which something cannot be read: what can be is shown."""
        value = Value(self.target, self.type, address, space)
        if self.selection is None:
            return list(format_value(value, self.options))
        return list(self.selection.lines(value, self.options))

    def numbers(self, address: int, space: Memory, row: Row, addresses: bool = False) -> Iterator[int]:
        """Yield what a pipe gets of each member: see :func:`~kshell.printer.members.pipe_value`.

        :raises Fault: a member cannot be read
        """
        if not all(isinstance(piece, Piece) for piece in row):  # as far as it can be read
            value = Value(self.target, self.type, address, space)
            chosen = self.selection
            yield from (pipe_value(value, addresses),) if chosen is None else chosen.pipe(value, addresses)
            return
        for piece, shown in zip(row, self._shown, strict=True):
            if isinstance(piece, Piece):
                yield piece.address if addresses else shown.number(piece)

    def value(self, address: int, space: Memory, row: Row) -> Value:
        """Return the object as a value whose members are not read again."""
        return Value(self.target, self.type, address, _Held(space, [p for p in row if isinstance(p, Piece)]))


class _Shown:
    """One member, as text and as number. Short texts of the same bytes are made once."""

    def __init__(self, target: ValueTarget, part: Part, options: PrintOptions, named: bool) -> None:
        self._target = target
        self._name, self._suffix, self._route = part.name if named else None, part.suffix, part.route
        self._printer = Printer(target, target.kernel, options)
        self._pages = self._printer.pages = _RowPages(target.kernel)
        self._space: Memory = target.kernel
        bare = part.route.shape.bare
        plain = not (options.addresses or options.types or options.base_types)
        self._scalar = plain and not isinstance(bare, (ArrayType, StructType, VoidType, FunctionType))
        self._lead = f"{escape(part.name)} = " if named else ""
        self._texts: dict[bytes, str] = {}
        self._bits = part.route.width or 8 * part.route.size
        self._number: Callable[[bytes], int] | None = self._decoder() if part.route.shape.integer else None

    def add(self, piece: Piece, lines: list[str]) -> None:
        """Append the lines of *piece*."""
        route = self._route
        if piece.space is not self._space:
            self._space = piece.space
            self._printer.scalars.strings = through(piece.space, self._target.kernel)
            self._texts.clear()
        if self._scalar:
            text = self._texts.get(piece.data)
            if text is None:
                if len(self._texts) >= TEXTS:
                    self._texts.clear()
                made = self._printer.scalars.text(route.type, route.shape, piece.data, route.bit, route.width)
                text = self._texts[piece.data] = self._lead + made
            lines.append(text)
            return
        self._pages.hold(piece)
        lines += self._printer.item(route.type, piece.address, route.bit, route.width, self._name, self._suffix)

    def number(self, piece: Piece) -> int:
        return piece.address if self._number is None else self._number(piece.data)

    def _decoder(self) -> Callable[[bytes], int]:
        route, order = self._route, self._target.arch.byteorder
        if route.width is None and route.shape.size in (1, 2, 4, 8):
            return lambda data: int.from_bytes(data, order)
        mask = (1 << min(self._bits, 64)) - 1
        return lambda data: decode(data, route.shape, order, route.bit, route.width) & mask


class _RowPages(Pages):
    """Pages with the bytes of one member in front of them."""

    def __init__(self, behind: Memory) -> None:
        super().__init__(behind)
        self._start, self._data = 0, b""

    def hold(self, piece: Piece) -> None:
        if piece.space is not self.behind:
            super().__init__(piece.space)
        self._start, self._data = piece.address, piece.data

    def read(self, address: int, size: int) -> bytes:
        offset = address - self._start
        if offset >= 0 and offset + size <= len(self._data):
            return self._data[offset : offset + size]
        return super().read(address, size)

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        offset = address - self._start
        if offset >= 0 and offset + size <= len(self._data):
            return self._data[offset : offset + size], None
        return super().read_upto(address, size)


class _Held(Layer):
    """A memory with some pieces of it in hand."""

    def __init__(self, behind: Memory, held: list[Piece]) -> None:
        super().__init__(behind)
        self._held = [piece for piece in held if piece.space is behind]

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        for piece in self._held:
            offset = address - piece.address
            if offset >= 0 and offset + size <= len(piece.data):
                return piece.data[offset : offset + size], None
        return self.behind.read_upto(address, size)

