"""A typed view of target memory, with the meaning that C gives it.

``task["mm->pgd"]``, ``task.comm.string()``, ``int(task.pid)``. Nothing is read until a number, a string or the target
of a pointer is asked for; ``snapshot()`` reads an object once. Byte order is the target's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, overload

from kshell.errors import Fault, MemberError, ValueTypeError
from kshell.memory.model import Memory
from kshell.types.model import ArrayType, CType, FloatType, Kind, PointerType, Symbol
from kshell.value.layers import Immediate, Snapshot, through
from kshell.value.path import Route, route
from kshell.value.shape import Shape, decode, shape_of, span

if TYPE_CHECKING:
    from kshell.value.vector import Vector

WRAP = (1 << 64) - 1


class ValueArch(Protocol):
    """What values need to know of a machine."""

    @property
    def byteorder(self) -> Any: ...
    @property
    def pointer_size(self) -> int: ...


class ValueTarget(Protocol):
    """What values need of a target."""

    @property
    def kernel(self) -> Memory: ...
    @property
    def arch(self) -> ValueArch: ...
    def type(self, name: str) -> CType: ...
    def symbolize(self, address: int) -> tuple[Symbol, int] | None: ...


class NoAttributeError(MemberError, AttributeError):  # type: ignore[misc]  # both call the member "name"
    """``value.name`` for a member that is not there: hasattr() works, and the message is :class:`MemberError`'s."""


class Value:
    """An object of a C type somewhere in the target.

    :ivar target: where types and the kernel's memory come from
    :ivar type: its C type, typedefs and qualifiers kept
    :ivar address: of its first byte; 0 for numbers that lie nowhere (:meth:`immediate`)
    :ivar space: the memory it lies in
    :ivar bit_offset: bits before a bit-field in the byte at ``address``
    :ivar bit_size: bits of a bit-field, else None
    """

    __slots__ = ("address", "bit_offset", "bit_size", "space", "target", "type")

    def __init__(
        self, target: ValueTarget, type: CType, address: int, space: Memory | None = None,
        bit_offset: int = 0, bit_size: int | None = None,
    ) -> None:
        self.target, self.type, self.address = target, type, address
        self.space = target.kernel if space is None else space
        self.bit_offset, self.bit_size = bit_offset, bit_size

    @classmethod
    def immediate(cls, target: ValueTarget, type: CType | str, number: int, behind: Memory | None = None) -> Value:
        """Return *number* as a value of *type* that lies nowhere; cut to the size of the type as C does.

        :param behind: the space that it points into, if it is a pointer; default the kernel's
        """
        kind = target.type(type) if isinstance(type, str) else type
        size = shape_of(kind).size
        data = (number & ((1 << 8 * size) - 1)).to_bytes(size, target.arch.byteorder)
        return cls(target, kind, 0, Immediate(target.kernel if behind is None else behind, data))

    # -- where and what ----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """How the type is read; for code that reads many values of one type."""
        return shape_of(self.type)

    @property
    def size(self) -> int:
        """Bytes of the type; 0 for void, functions, incomplete types and flexible arrays."""
        return shape_of(self.type).size

    def __repr__(self) -> str:
        return f"<Value {self.type} at 0x{self.address:x}>"

    def address_value(self) -> Value:
        """Return ``&value``: a pointer to it."""
        if self.bit_size is not None or isinstance(self.space, Immediate):
            raise ValueTypeError("a bit-field or a plain number has no address")
        behind = through(self.space, self.target.kernel)
        return Value.immediate(self.target, PointerType(self.type, self.target.arch.pointer_size), self.address, behind)

    def snapshot(self) -> Value:
        """Return the same value with its bytes read now, once; parts that cannot be read fault when they are used."""
        return Value(
            self.target, self.type, self.address, Snapshot(self.space, self.address, self.size),
            self.bit_offset, self.bit_size,
        )

    # -- members -----------------------------------------------------------------------------------------------------

    def locate(self, found: Route) -> tuple[Memory, int]:
        """Return the memory and address that *found* leads to; reads the pointers on the way."""
        space, address = self.space, self.address
        kernel, arch = self.target.kernel, self.target.arch
        plain = arch.byteorder == "little" and arch.pointer_size == 8
        for hop in found.hops:
            if plain:
                address = space.u64((address + hop) & WRAP)
            else:
                address = int.from_bytes(space.read((address + hop) & WRAP, arch.pointer_size), arch.byteorder)
            space = through(space, kernel)
        return space, (address + found.offset) & WRAP

    def member(self, path: str) -> Value:
        """Return the member that *path* names: ``"comm"``, ``"mm->pgd"``, ``"a.b[3]"``. A pointer is followed first.

        :raises MemberError, ValueTypeError, ParseError: no such path in the type
        :raises Fault: a pointer on the way cannot be read
        """
        found = route(self.type, path)
        space, address = self.locate(found)
        return Value(self.target, found.type, address, space, found.bit, found.width)

    def has(self, path: str) -> bool:
        """Whether the type has this member; nothing is read."""
        try:
            route(self.type, path)
        except (MemberError, ValueTypeError):
            return False
        return True

    def __getattr__(self, name: str) -> Value:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        try:
            return self.member(name)
        except MemberError as error:
            raise NoAttributeError(error.name, error.owner, error.near) from None
        except ValueTypeError as error:
            raise AttributeError(f"{name}: {error}") from None

    @overload
    def __getitem__(self, key: str | int) -> Value: ...
    @overload
    def __getitem__(self, key: slice) -> Vector: ...
    def __getitem__(self, key: str | int | slice) -> Value | Vector:
        """Return a member by path, an element by index, or the elements of an array by slice as a :class:`Vector`."""
        if isinstance(key, str):
            return self.member(key)
        if isinstance(key, slice):
            return self._slice(key)
        start, element, space = self._elements()
        return Value(self.target, element, (start + key * (element.size or 0)) & WRAP, space)

    def _elements(self) -> tuple[int, CType, Memory]:
        """Return address, type and space of element 0 of an array or pointer."""
        bare = shape_of(self.type).bare
        if isinstance(bare, ArrayType):
            start, space = self.address, self.space
        elif isinstance(bare, PointerType):
            start, space = self.integer(), through(self.space, self.target.kernel)
        else:
            raise ValueTypeError(f"cannot index {self.type}: neither an array nor a pointer")
        if not bare.target.size:
            raise ValueTypeError(f"cannot index {self.type}: its elements have no size")
        return start, bare.target, space

    def _slice(self, key: slice) -> Vector:
        from kshell.value.vector import Vector

        start, element, space = self._elements()
        bare = shape_of(self.type).bare
        if isinstance(bare, ArrayType) and bare.count:
            indexes = range(*key.indices(bare.count))
        elif key.stop is None:
            raise ValueTypeError("a slice of a pointer or flexible array needs an end")
        else:
            indexes = range(key.start or 0, key.stop, key.step or 1)
        size = element.size or 0
        return Vector(self.target, element, [(start + i * size) & WRAP for i in indexes], space)

    def __len__(self) -> int:
        bare = shape_of(self.type).bare
        if not isinstance(bare, ArrayType):
            raise ValueTypeError(f"{self.type} has no length")
        return bare.count

    def __iter__(self) -> Iterator[Value]:
        count = len(self)
        if count == 0:
            return
        start, element, space = self._elements()
        size = element.size or 0
        for index in range(count):
            yield Value(self.target, element, start + index * size, space)

    # -- numbers -----------------------------------------------------------------------------------------------------

    def integer(self, path: str | None = None) -> int:
        """Return the number: of an integer, character, truth value, enum, pointer or bit-field; a function's address.

        :param path: of that member; faster than ``member(path).integer()``
        :raises ValueTypeError: a structure, array, float or void
        :raises Fault: it cannot be read
        """
        if path is None:
            shape, space, address = shape_of(self.type), self.space, self.address
            bit, width = self.bit_offset, self.bit_size
            size = shape.size if width is None else span(shape, bit, width)
        else:
            found = shape_of(self.type).routes.get(path) or route(self.type, path)
            shape, bit, width, size = found.shape, found.bit, found.width, found.size
            if found.hops:
                space, address = self.locate(found)
            else:
                space, address = self.space, (self.address + found.offset) & WRAP
        if not shape.integer:
            if shape.kind is Kind.FUNCTION:
                return address
            raise ValueTypeError(f"{self.type if path is None else path} is not a number: {shape.bare}")
        order = self.target.arch.byteorder
        if width is None and order == "little" and (size == 4 or size == 8):
            number = space.u32(address) if size == 4 else space.u64(address)
            top = 8 * size
            return number - (1 << top) if shape.signed and number >> (top - 1) else number
        return decode(space.read(address, size), shape, order, bit, width)

    def number(self) -> float:
        """Return the number of a float, or of an integer."""
        shape = shape_of(self.type)
        if not isinstance(shape.bare, FloatType):
            return self.integer()
        return float_value(self.space.read(self.address, shape.size), self.target.arch.byteorder)

    def __int__(self) -> int:
        return self.integer()

    def __index__(self) -> int:
        return self.integer()

    def __float__(self) -> float:
        return float(self.number())

    def __bool__(self) -> bool:
        shape = shape_of(self.type)
        if shape.kind is Kind.FLOAT:
            return self.number() != 0
        return self.integer() != 0 if shape.integer else True

    def __eq__(self, other: object) -> bool:
        """Numbers are equal as numbers, other objects when they are the same place and type."""
        if isinstance(other, (int, float)):
            return self.number() == other
        if not isinstance(other, Value):
            return NotImplemented
        if shape_of(self.type).integer and shape_of(other.type).integer:
            return self.integer() == other.integer()
        same = through(self.space, self.target.kernel) is through(other.space, other.target.kernel)
        return same and (self.address, str(self.type)) == (other.address, str(other.type))

    __hash__ = None  # type: ignore[assignment]

    def enumerator(self) -> str | None:
        """Return the name of an enum's value, or None when it has none."""
        shape = shape_of(self.type)
        if shape.kind is not Kind.ENUM:
            raise ValueTypeError(f"{self.type} is not an enum")
        return shape.names.name(self.integer())

    # -- bytes and strings -------------------------------------------------------------------------------------------

    def bytes(self) -> bytes:
        """Return the bytes of the object (of a bit-field: those it touches)."""
        return self.space.read(self.address, span(shape_of(self.type), self.bit_offset, self.bit_size))

    def string(self, limit: int = 4096) -> str:
        """Return the text of an array of bytes up to NUL, or that a pointer to bytes leads to.

        :param limit: bytes at most; a longer string is cut
        :raises Fault: it cannot be read up to its NUL; ``partial`` has what could be
        Bytes that are not UTF-8 become lone surrogates (:pep:`383`); escape before showing.
        """
        shape = shape_of(self.type)
        bare = shape.bare
        if not isinstance(bare, (ArrayType, PointerType)) or shape_of(bare.target).size > 1:
            raise ValueTypeError(f"{self.type} is not a string")
        if isinstance(bare, ArrayType):
            if bare.count:
                limit = min(limit, bare.count)
            data = read_string(self.space, self.address, limit)
        else:
            data = read_string(through(self.space, self.target.kernel), self.integer(), limit)
        return data.decode("utf-8", "surrogateescape")

    # -- pointers and types ------------------------------------------------------------------------------------------

    def deref(self) -> Value:
        """Return what a pointer points to; nothing is read there yet."""
        bare = shape_of(self.type).bare
        if not isinstance(bare, PointerType):
            raise ValueTypeError(f"{self.type} is not a pointer type")
        return Value(self.target, bare.target, self.integer(), through(self.space, self.target.kernel))

    def cast(self, type: CType | str) -> Value:
        """Return the value as *type*: a number converts as in C, an object is looked at as another one."""
        kind = self.target.type(type) if isinstance(type, str) else type
        shape = shape_of(self.type)
        if shape.integer and shape_of(kind).integer:
            return Value.immediate(self.target, kind, self.integer(), through(self.space, self.target.kernel))
        return Value(self.target, kind, self.address, self.space, self.bit_offset, None)

    def container_of(self, type: CType | str, member: str) -> Value:
        """Return the object of *type* whose *member* is this one, or is what this pointer points to.

        Source: ``container_of`` in include/linux/container_of.h.
        """
        kind = self.target.type(type) if isinstance(type, str) else type
        found = route(kind, member)
        if found.hops or found.bit:
            raise ValueTypeError(f"{member} is not a member that {kind} contains")
        inner = self.deref() if shape_of(self.type).kind is Kind.POINTER else self
        if isinstance(inner.space, Immediate):
            raise ValueTypeError("a plain number is a member of nothing")
        space = through(inner.space, self.target.kernel) if isinstance(inner.space, Snapshot) else inner.space
        return Value(self.target, kind, (inner.address - found.offset) & WRAP, space)


def read_string(space: Memory, address: int, limit: int) -> bytes:
    """Return the bytes at *address* up to a NUL, at most *limit*.

    :raises Fault: no NUL before the memory ends
    """
    data = b""
    while len(data) < limit:
        piece, fault = space.read_upto(address + len(data), min(limit - len(data), 4096 if data else 256))
        end = piece.find(b"\0")
        if end >= 0:
            return data + piece[:end]
        data += piece
        if fault is not None:
            raise Fault(
                fault.address, limit, fault.reason, partial=data, space=fault.space, detail=fault.detail,
                hint=fault.hint,
            )
    return data


def float_value(data: bytes | memoryview, order: str) -> float:
    """Return the number in an IEEE float of 2, 4 or 8 bytes, or an x87 one of 10, 12 or 16, rounded to a double.

    :raises ValueTypeError: another size
    """
    sign = "<" if order == "little" else ">"
    letter = {2: "e", 4: "f", 8: "d"}.get(len(data))
    if letter is not None:
        return float(struct.unpack(sign + letter, data)[0])
    if len(data) not in (10, 12, 16) or order != "little":
        raise ValueTypeError(f"floats of {len(data)} bytes are not supported")
    mantissa, exponent = struct.unpack_from("<QH", data)
    negative, exponent = exponent >> 15, exponent & 0x7FFF
    if exponent == 0x7FFF:
        number = float("nan") if mantissa << 1 & WRAP else float("inf")
    else:
        import math

        try:
            number = math.ldexp(mantissa, exponent - 16383 - 63)
        except OverflowError:
            number = float("inf")
    return -number if negative else number
