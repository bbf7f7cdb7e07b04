"""Many objects of one type: one member of all of them at once.

``tasks.column("pid")`` reads 100,000 members in one gather, ``tasks.columns("pid", "comm")`` reads members that are
close together at once. Few objects are read one by one, for numpy takes longer to import than to be of use.
A member that cannot be read is a :class:`~kshell.errors.Fault` in its row, never a number.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import Fault, ValueTypeError
from kshell.memory.model import Memory
from kshell.types.model import ArrayType, CType, FloatType, PointerType, VoidType
from kshell.value.layers import through
from kshell.value.path import Route, route
from kshell.value.shape import Shape, decode, shape_of
from kshell.value.value import WRAP, Value, ValueTarget, float_value

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Bools = numpy.typing.NDArray[numpy.bool_]
    Words = numpy.typing.NDArray[numpy.uint64]
    Column = list[Any]
    Addresses = Sequence[int] | Words

#: fewer objects than this are read one by one while numpy is not loaded: importing it takes 100 ms, a row 3 us
SMALL = 20_000
#: and fewer than this when it is
SMALL_LOADED = 64
#: so many of them at a time
BLOCK = 1024
#: a gap of this many bytes between two members is read along; a wider one makes a gather of its own.
#: Measured with 8,000 rows of 4 columns: 9 ms for gaps up to 256, 10 ms for 1024, 14 ms for 4096
GAP = 256
#: the same where each row is a system call of its own
SMALL_GAP = 1024
#: how struct spells numbers by their size
CODES = {1: "b", 2: "h", 4: "i", 8: "q"}


class Held(NamedTuple):
    """Bytes of each object that whoever found the objects has read already: *size* from offset *low* on, or None."""

    low: int
    size: int
    rows: Sequence[bytes | None]


class Vector:
    """Objects of one type at many addresses; an address of 0 stands for no object, and is faulted when read.

    :param held: parts of each object, in the order of *addresses*; members in one of them are not read again
    """

    __slots__ = ("addresses", "held", "space", "target", "type")

    def __init__(
        self, target: ValueTarget, type: CType, addresses: Addresses, space: Memory | None = None,
        held: Sequence[Held] = (),
    ) -> None:
        self.target, self.type, self.addresses, self.held = target, type, addresses, held
        self.space = target.kernel if space is None else space

    def __len__(self) -> int:
        return len(self.addresses)

    def __iter__(self) -> Iterator[Value]:
        for address in self.addresses:
            yield Value(self.target, self.type, int(address), self.space)

    def __getitem__(self, index: int) -> Value:
        return Value(self.target, self.type, int(self.addresses[index]), self.space)

    def __repr__(self) -> str:
        return f"<Vector of {len(self)} {self.type}>"

    def _is_small(self) -> bool:
        return len(self.addresses) < (SMALL_LOADED if "numpy" in sys.modules else SMALL)

    # -- columns -----------------------------------------------------------------------------------------------------

    def column(self, path: str) -> Column:
        """Return the member *path* of every object: see :meth:`columns`."""
        return self.columns(path)[0]

    def columns(self, *paths: str) -> list[Column]:
        """Return a list for each of *paths*, a row for each object.

        Integers, enums, pointers and bit-fields are ints, floats floats, arrays of ``char`` or of bytes str up to NUL
        (other bytes than UTF-8 as lone surrogates); what cannot be read is the Fault.

        :raises MemberError, ValueTypeError: a path that the type does not have, or that is no such thing
        """
        routes = [route(self.type, path) for path in paths]
        for path, found in zip(paths, routes, strict=True):
            _check(path, found)
        return self.cells(routes)

    def cells(self, routes: list[Route]) -> list[Column]:
        """As :meth:`columns`, for numbers and strings that are found already."""
        return self._small(routes) if self._is_small() else self._large(routes)

    def _small(self, routes: list[Route]) -> list[Column]:
        order = self.target.arch.byteorder
        columns: list[Column] = [[] for _ in routes]
        for first in range(0, len(self.addresses), BLOCK):
            starts = [int(address) for address in self.addresses[first : first + BLOCK]]
            ends: dict[tuple[int, ...], tuple[list[int], Memory]] = {(): (starts, self.space)}
            for group in groups(routes, SMALL_GAP):
                held = self._held(group)
                low, size = (group.low, group.size) if held is None else (held.low, held.size)
                if held is not None:
                    rows = held.rows[first : first + BLOCK]
                else:
                    pointers, space = self._ends(ends, group.hops)
                    rows = space.read_many([(address + low) & WRAP for address in pointers], size)
                lost = [number for number, row in enumerate(rows) if row is None]
                blob = b"".join([bytes(size) if row is None else row for row in rows])
                for number in group.numbers:
                    at = routes[number].offset - low
                    column = _cut(blob, size, at, routes[number], order) if group.size else [""] * len(rows)
                    for row in lost:
                        column[row] = self._row(starts[row], routes[number], order)
                    columns[number] += column
        return columns

    def _held(self, group: Group) -> Held | None:
        """Return the rows that are held already and have all of *group*; None when there are none."""
        low, high = group.low, group.low + group.size
        return None if group.hops else next(
            (held for held in self.held if held.low <= low and high <= held.low + held.size), None)

    def _ends(
        self, ends: dict[tuple[int, ...], tuple[list[int], Memory]], hops: tuple[int, ...]
    ) -> tuple[list[int], Memory]:
        """Return where *hops* lead, 0 where one cannot be read, and the space that is in; *ends* holds those known."""
        if hops not in ends:
            pointers, space = self._ends(ends, hops[:-1])
            rows = space.read_many([(pointer + hops[-1]) & WRAP for pointer in pointers],
                                   self.target.arch.pointer_size)
            order = self.target.arch.byteorder
            found = [int.from_bytes(row or b"", order) for row in rows]
            ends[hops] = found, through(space, self.target.kernel)
        return ends[hops]

    def _row(self, address: int, found: Route, order: str) -> Any:
        """Return one cell, read on its own, or why it cannot be read."""
        space, size = self.space, self.target.arch.pointer_size
        try:
            for hop in found.hops:
                address = int.from_bytes(space.read((address + hop) & WRAP, size), order)  # type: ignore[arg-type]
                space = through(space, self.target.kernel)
            data = space.read((address + found.offset) & WRAP, found.size)
        except Fault as fault:
            return fault
        return _cell(data, found, order)

    def _large(self, routes: list[Route]) -> list[Column]:
        columns: list[Column] = []
        blocks = self._gather(routes)
        for found, (data, ok) in zip(routes, blocks, strict=True):
            column = _convert(data, found, self.target.arch.byteorder)
            if not ok.all():
                order = self.target.arch.byteorder
                for row in (~ok).nonzero()[0].tolist():
                    column[row] = self._row(int(self.addresses[row]), found, order)
            columns.append(column)
        return columns

    def _gather(self, routes: list[Route]) -> list[tuple[Any, Bools]]:
        """Return uint8[n, size] and the mask of good rows for each route; members close together are read at once."""
        import numpy as np

        # Routes over the same pointers share them: (hops,) -> addresses and mask behind them.
        ends: dict[tuple[int, ...], tuple[Words, Bools, Memory]] = {}
        start = np.asarray(self.addresses, np.uint64)
        ends[()] = start, np.ones(len(start), np.bool_), self.space
        result: dict[int, tuple[Any, Bools]] = {}
        for hops, low, size, numbers in groups(routes, GAP):
            for depth in range(1, len(hops) + 1):
                if hops[:depth] not in ends:
                    ends[hops[:depth]] = self._follow(*ends[hops[: depth - 1]], hops[depth - 1])
            addresses, good, space = ends[hops]
            data, ok = _gather_some(space, addresses, good, low, size)
            for n in numbers:
                at = routes[n].offset - low
                result[n] = data[:, at : at + routes[n].size], ok
        return [result[n] for n in range(len(routes))]

    def _follow(self, addresses: Words, good: Bools, space: Memory, hop: int) -> tuple[Words, Bools, Memory]:
        size = self.target.arch.pointer_size
        data, ok = _gather_some(space, addresses, good, hop, size)
        dtype = f"{'<' if self.target.arch.byteorder == 'little' else '>'}u{size}"
        pointers = data.reshape(-1).view(dtype).astype("u8", copy=False)
        return pointers, ok, through(space, self.target.kernel)

    def array(self, path: str) -> tuple[Any, Bools]:
        """Return the member *path* of every object as an array, and which rows hold an answer. Imports numpy.

        Numbers become an integer array of their size and sign (bit-fields 64 bits), everything else uint8[n, size].
        """
        found = route(self.type, path)
        data, ok = self._gather([found])[0]
        if not (found.shape.integer or isinstance(found.shape.bare, FloatType)):
            return data, ok
        return _numbers(data, found, self.target.arch.byteorder), ok

    # -- other objects -----------------------------------------------------------------------------------------------

    def member(self, path: str) -> Vector:
        """Return the members *path* of all objects; 0 where a pointer on the way is null or cannot be read."""
        found = route(self.type, path)
        if not found.hops:
            offset = found.offset
            if self._is_small():
                return self._other(found.type, [a and (int(a) + offset) & WRAP for a in self.addresses], self.space)
            import numpy as np

            start = np.asarray(self.addresses, np.uint64)
            return self._other(found.type, np.where(start == 0, np.uint64(0), start + np.uint64(offset)), self.space)
        # The address of the place is what its pointer says, plus the offset: read the last pointer, add.
        *before, last = found.hops
        size = self.target.arch.pointer_size
        pointer = found._replace(hops=tuple(before), offset=last, shape=_POINTERS[size], size=size, width=None, bit=0)
        space = through(self.space, self.target.kernel)
        return self._other(found.type, self._pointers(pointer, found.offset), space)

    def follow(self, path: str = "") -> Vector:
        """Return what the pointer members *path* point to; 0 where one is null or cannot be read."""
        found = route(self.type, path)
        if not isinstance(found.shape.bare, PointerType):
            raise ValueTypeError(f"{path or self.type} is not a pointer type")
        return self._other(found.shape.bare.target, self._pointers(found, 0), through(self.space, self.target.kernel))

    def _pointers(self, found: Route, offset: int) -> Addresses:
        if self._is_small():
            order = self.target.arch.byteorder
            cells = [self._row(int(address), found, order) for address in self.addresses]
            return [(cell + offset) & WRAP if isinstance(cell, int) and cell else 0 for cell in cells]
        import numpy as np

        data, ok = self._gather([found])[0]
        numbers = _numbers(data, found, self.target.arch.byteorder).astype("u8", copy=False)
        zero = np.uint64(0)
        return np.where(ok & (numbers != zero), numbers + np.uint64(offset), zero)

    def _other(self, type: CType, addresses: Addresses, space: Memory) -> Vector:
        return Vector(self.target, type, addresses, space)


class Group(NamedTuple):
    """Routes whose members are read at once: *size* bytes at *low* behind *hops*; ``numbers`` are their places."""

    hops: tuple[int, ...]
    low: int
    size: int
    numbers: list[int]


def groups(routes: list[Route], gap: int) -> list[Group]:
    """Put routes over the same pointers together whose members are at most *gap* bytes apart."""
    groups: list[Group] = []
    for number, found in sorted(enumerate(routes), key=lambda item: (item[1].hops, item[1].offset)):
        last = groups[-1] if groups else None
        if last is not None and last.hops == found.hops and found.offset <= last.low + last.size + gap:
            size = max(last.size, found.offset + found.size - last.low)
            groups[-1] = last._replace(size=size, numbers=[*last.numbers, number])
        else:
            groups.append(Group(found.hops, found.offset, found.size, [number]))
    return groups


_POINTERS: dict[int, Shape] = {size: shape_of(PointerType(VoidType(), size)) for size in (4, 8)}


def _check(path: str, found: Route) -> None:
    shape = found.shape
    if not (shape.integer or isinstance(shape.bare, FloatType) or _is_text(shape)):
        raise ValueTypeError(f"{path} is not a number or a string: {found.type}")


def _is_text(shape: Shape) -> bool:
    return isinstance(shape.bare, ArrayType) and shape_of(shape.bare.target).size == 1


def _cell(data: bytes, found: Route, order: str) -> Any:
    shape = found.shape
    if shape.integer:
        return decode(data, shape, order, found.bit, found.width)
    if isinstance(shape.bare, FloatType):
        return float_value(data, order)
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _cut(blob: bytes, size: int, at: int, found: Route, order: str) -> Column:
    """Return the cells at offset *at* of rows of *size* bytes that follow each other in *blob*."""
    shape = found.shape
    code = CODES.get(shape.size) if shape.integer and found.width is None else None
    if code is not None and not shape.signed:
        code = code.upper()
    sign = "<" if order == "little" else ">"
    layout = struct.Struct(f"{sign}{at}x{code or f'{found.size}s'}{size - at - found.size}x")
    cells = [cell for cell, in layout.iter_unpack(blob)]
    if code is not None:
        return cells
    return _texts(cells) if _is_text(shape) else [_cell(cell, found, order) for cell in cells]


def _texts(pieces: Iterable[bytes]) -> Column:
    return [piece.split(b"\0", 1)[0].decode("utf-8", "surrogateescape") for piece in pieces]


def _convert(data: Any, found: Route, order: str) -> Column:
    """Return uint8[n, size] as a list of numbers or strings."""
    shape = found.shape
    if shape.integer and shape.size in (1, 2, 4, 8):
        return list(_numbers(data, found, order).tolist())
    if not _is_text(shape):
        return [_cell(bytes(row), found, order) for row in data]
    size = found.size
    blob = data.tobytes()
    return _texts(blob[at : at + size] for at in range(0, len(blob), size)) if size else [""] * len(data)


def _numbers(data: Any, found: Route, order: str) -> Any:
    """Return uint8[n, size] as an array of the numbers that *found* reads."""
    import numpy as np

    shape, width = found.shape, found.width
    sign = "<" if order == "little" else ">"
    if width is None:
        if shape.size not in (1, 2, 4, 8):
            raise ValueTypeError(f"numbers of {shape.size} bytes do not fit an array")
        letter = "f" if isinstance(shape.bare, FloatType) else "i" if shape.signed else "u"
        return np.ascontiguousarray(data).view(f"{sign}{letter}{shape.size}").reshape(-1)
    if found.size > 8 or sign == ">":
        rows = [decode(bytes(row), shape, order, found.bit, width) for row in data]
        return np.array(rows, np.int64 if shape.signed else np.uint64)
    wide = np.zeros((len(data), 8), np.uint8)
    wide[:, : found.size] = data
    numbers = wide.view("<u8").reshape(-1) >> np.uint64(found.bit)
    if shape.signed:
        room = 64 - width
        return (numbers << np.uint64(room)).view("<i8") >> np.int64(room)
    return numbers & np.uint64((1 << width) - 1)


def _gather_some(space: Memory, addresses: Words, good: Bools, offset: int, size: int) -> tuple[Any, Bools]:
    """Gather *size* bytes at ``addresses + offset`` where *good* and not null; other rows are not ok."""
    import numpy as np

    good = good & (addresses != 0)
    if good.all():
        gathered = space.gather(addresses + np.uint64(offset & WRAP), size)
        return gathered.data, gathered.ok
    data = np.zeros((len(addresses), size), np.uint8)
    ok = np.zeros(len(addresses), np.bool_)
    if good.any():
        gathered = space.gather(addresses[good] + np.uint64(offset & WRAP), size)
        data[good], ok[good] = gathered.data, gathered.ok
    return data, ok
