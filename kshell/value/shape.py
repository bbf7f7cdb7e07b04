"""What reading a type takes, worked out once a type: the type behind typedefs, its size, sign, and paths into it.

A :class:`Shape` is kept in the type's ``shape`` slot, so that a value read in a loop looks nothing up twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.types.model import CType, EnumType, IntType, Kind, QualifiedType, StructType

if TYPE_CHECKING:
    from kshell.value.enums import EnumNames
    from kshell.value.path import Route

#: kinds that are one number
INTEGERS = frozenset({Kind.INT, Kind.BOOL, Kind.CHAR, Kind.ENUM, Kind.POINTER})


class Shape:
    """How to read a type.

    :ivar bare: the type behind typedefs and qualifiers
    :ivar size: bytes; 0 for void, functions, incomplete types and flexible arrays
    :ivar integer: whether it is one number: an integer, a character, a truth value, an enum or a pointer
    :ivar char: whether it is C's ``char`` (not ``unsigned char`` or ``u8``, which hold numbers)
    :ivar text: whether arrays of it may hold text, and pointers to it lead to some: ``char``, and ``unsigned char``
        spelled so (names of dentries), not through a typedef like ``u8``
    :ivar routes: member paths from this type that were resolved already
    """

    __slots__ = ("_names", "bare", "char", "integer", "kind", "routes", "signed", "size", "text")

    def __init__(self, type: CType) -> None:
        bare = type.strip()
        self.bare = bare
        self.kind = bare.kind
        self.size = bare.size or 0
        self.signed = isinstance(bare, (IntType, EnumType)) and bare.signed
        self.integer = bare.kind in INTEGERS
        # Since Linux 6.2 (3bc753c06dd0 "kbuild: treat char as always unsigned") char is unsigned: the name decides.
        self.char = isinstance(bare, IntType) and bare.name == "char" and bare.size == 1
        self.text = self.char or (isinstance(bare, IntType) and bare.name == "unsigned char" and _spelled(type))
        self.routes: dict[str, Route] = {}
        self._names: EnumNames | None = None

    @property
    def names(self) -> EnumNames:
        """The enumerators of an enum, indexed."""
        if self._names is None:
            from kshell.value.enums import EnumNames

            assert isinstance(self.bare, EnumType)
            self._names = EnumNames(self.bare)
        return self._names


def _spelled(type: CType) -> bool:
    """Whether no typedef is on the way to the bare type."""
    while isinstance(type, QualifiedType):
        type = type.target
    return type.kind is not Kind.TYPEDEF


def shape_of(type: CType) -> Shape:
    """Return the shape of *type*, made once."""
    shape = type.shape
    if shape is None:
        shape = type.shape = Shape(type)
    assert isinstance(shape, Shape)
    return shape


def is_struct(type: CType) -> bool:
    """Whether *type* is a struct or union behind its typedefs."""
    return isinstance(type.strip(), StructType)


def decode(data: bytes | memoryview, shape: Shape, order: str, bit: int = 0, width: int | None = None) -> int:
    """Return the integer that *data* holds.

    :param data: for a bit-field the bytes from the one that holds its first bit to the one that holds its last
    :param order: "little" or "big"
    :param bit: bits before the bit-field in the first byte
    :param width: bits of the bit-field, None for a whole integer
    """
    if width is None:
        return int.from_bytes(data, order, signed=shape.signed)  # type: ignore[arg-type]
    number = int.from_bytes(data, order)  # type: ignore[arg-type]
    # Bits are counted from the least significant end on little-endian machines, from the most significant on others.
    number = (number >> (bit if order == "little" else len(data) * 8 - bit - width)) & ((1 << width) - 1)
    if shape.signed and number >> (width - 1):
        number -= 1 << width
    return number


def span(shape: Shape, bit: int, width: int | None) -> int:
    """Return the bytes to read for a value: the whole type, or those a bit-field touches."""
    return shape.size if width is None else (bit + width + 7) >> 3
