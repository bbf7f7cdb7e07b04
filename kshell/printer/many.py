"""``::print`` of many objects of one type, as a pipeline brings them: read in runs, each text made once.

What is shown is what :func:`~kshell.printer.structure.format_value` and :class:`~kshell.printer.members.Selection` show
of each object; a test holds the two together. An object of which something cannot be read is left to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kshell.errors import Fault
from kshell.escape import escape
from kshell.memory.model import Memory
from kshell.printer.members import Part, Selection
from kshell.printer.options import DEFAULT, PrintOptions
from kshell.printer.structure import Printer
from kshell.types.model import ArrayType, CType, FunctionType, Kind, StructType, VoidType
from kshell.value.layers import Layer, Pages, through
from kshell.value.path import Route
from kshell.value.pieces import Pieces, pieces
from kshell.value.shape import decode, shape_of, span
from kshell.value.value import Value, ValueTarget

#: bytes of objects held at once
ROOM = 4 << 20
#: texts of one member kept
TEXTS = 1 << 16


class Many:
    """Prints objects of one type.

    :param selection: the members to show; None: the whole object
    :ivar block: objects that should be read at once
    """

    def __init__(
        self, target: ValueTarget, type: CType, selection: Selection | None, options: PrintOptions = DEFAULT,
    ) -> None:
        self.target, self.type, self.selection = target, type, selection
        shape = shape_of(type)
        whole = Route((), 0, type, 0, None, span(shape, 0, None), shape)
        self._parts = [Part("", "", whole)] if selection is None else selection.parts
        self._shown = [_Shown(target, part, options, selection is not None) for part in self._parts]
        self.block = max(1, ROOM // max(1, sum(part.route.size for part in self._parts)))

    def read(self, addresses: Sequence[int], space: Memory) -> Objects:
        """Read the members of the objects at *addresses*; at most ``block`` of them."""
        columns = pieces(self.target, addresses, space, [part.route for part in self._parts])
        return Objects(self, addresses, space, columns)


class Objects:
    """Some objects whose members have been read.

    :ivar good: whether all members of object n could be read; the others cannot be asked for
    """

    def __init__(self, many: Many, addresses: Sequence[int], space: Memory, columns: list[Pieces]) -> None:
        self._many, self._addresses, self._space, self._columns = many, addresses, space, columns
        self.good = [True] * len(addresses)
        for column in columns:
            if None in column.data:
                self.good = [ok and data is not None for ok, data in zip(self.good, column.data, strict=True)]

    def runs(self) -> Iterator[tuple[int, int, bool]]:
        """Yield (first, end, good) of objects that are all good, or all not."""
        start = 0
        while start < len(self.good):
            try:
                end = self.good.index(not self.good[start], start)
            except ValueError:
                end = len(self.good)
            yield start, end, self.good[start]
            start = end

    def text(self, first: int, end: int) -> str:
        """Return the lines of objects *first* to *end*, with newlines."""
        made = [shown.lines(column, first, end)
                for column, shown in zip(self._columns, self._many._shown, strict=True)]
        return "".join([line for row in zip(*made, strict=True) for line in row])

    def numbers(self, first: int, end: int, addresses: bool = False) -> list[int]:
        """Return what a pipe gets of the members of each: see :func:`~kshell.printer.members.pipe_value`."""
        made = [shown.numbers(column, first, end, addresses)
                for column, shown in zip(self._columns, self._many._shown, strict=True)]
        return made[0] if len(made) == 1 else [number for row in zip(*made, strict=True) for number in row]

    def value(self, number: int) -> Value:
        """Return object *number* as a value whose members are not read again."""
        held = [(column.address(number), column.data[number] or b"") for column in self._columns
                if column.space is self._space]
        return Value(self._many.target, self._many.type, self._addresses[number], _Held(self._space, held))


class _Shown:
    """One member, as text and as number. Short texts of the same bytes are made once."""

    def __init__(self, target: ValueTarget, part: Part, options: PrintOptions, named: bool) -> None:
        self._target, self._route = target, part.route
        self._name, self._suffix = part.name if named else None, part.suffix
        self._printer = Printer(target, target.kernel, options)
        self._pages = self._printer.pages = _RowPages(target.kernel)
        self._space: Memory = target.kernel
        plain = not (options.addresses or options.types or options.base_types)
        complex_ = isinstance(part.route.shape.bare, (ArrayType, StructType, VoidType, FunctionType))
        self._scalar = plain and not complex_
        self._pointers = part.route.shape.kind is Kind.POINTER and part.route.width is None
        self._lead = f"{escape(part.name)} = " if named else ""
        self._texts: dict[bytes | None, str] = {}
        self._number: Callable[[bytes], int] | None = self._decoder() if part.route.shape.integer else None

    def lines(self, column: Pieces, first: int, end: int) -> list[str]:
        """Return the lines of objects *first* to *end*, one text each."""
        if column.space is not self._space:
            self._space = column.space
            self._printer.scalars.strings = through(column.space, self._target.kernel)
            self._pages.__init__(column.space)  # type: ignore[misc]
            self._texts.clear()
        if not self._scalar:
            return [self._long(column.address(number), column.data[number] or b"") for number in range(first, end)]
        texts, data = self._texts, column.data[first:end]
        if len(texts) >= TEXTS:
            texts.clear()
        route, make, lead = self._route, self._printer.scalars.text, self._lead
        fresh = set(data).difference(texts)
        if self._pointers and len(fresh) > 1:
            order, scalars = self._target.arch.byteorder, self._printer.scalars
            held = [piece for piece in fresh if piece]
            values = [int.from_bytes(piece, order) for piece in held]
            texts.update(zip(held, [f"{lead}{text}\n" for text in scalars.pointers(route.shape, values)], strict=True))
            fresh.difference_update(held)
        for piece in fresh:
            texts[piece] = f"{lead}{make(route.type, route.shape, piece or b'', route.bit, route.width)}\n"
        return [texts[piece] for piece in data]

    def _long(self, address: int, data: bytes) -> str:
        route = self._route
        self._pages.hold(address, data)
        lines = self._printer.item(route.type, address, route.bit, route.width, self._name, self._suffix)
        return "".join([line + "\n" for line in lines])

    def numbers(self, column: Pieces, first: int, end: int, addresses: bool) -> list[int]:
        if addresses or self._number is None:
            return [column.address(number) for number in range(first, end)]
        number = self._number
        return [number(data or b"") for data in column.data[first:end]]

    def _decoder(self) -> Callable[[bytes], int]:
        route, order = self._route, self._target.arch.byteorder
        if route.width is None:
            return lambda data: int.from_bytes(data, order)
        mask = (1 << min(route.width, 64)) - 1
        return lambda data: decode(data, route.shape, order, route.bit, route.width) & mask


class _RowPages(Pages):
    """Pages with the bytes of one member in front of them."""

    def __init__(self, behind: Memory) -> None:
        super().__init__(behind)
        self.hold(0, b"")

    def hold(self, start: int, data: bytes) -> None:
        self._start, self._data = start, data

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

    def __init__(self, behind: Memory, held: list[tuple[int, bytes]]) -> None:
        super().__init__(behind)
        self._held = held

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        for start, data in self._held:
            offset = address - start
            if offset >= 0 and offset + size <= len(data):
                return data[offset : offset + size], None
        return self.behind.read_upto(address, size)
