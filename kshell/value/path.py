"""Member paths: ``mm->mmap_base``, ``cpus_mask.bits[0]``, ``parent->comm``; their text, and what they mean for a type.

A path is turned into a :class:`Route`: the pointers to follow and the place where the last one leads. Reading through a
route looks no name up. Grammar and error texts: mdb-language.md 11.2.
"""

from __future__ import annotations

from typing import NamedTuple

from kshell.errors import KshellError, ParseError, ValueTypeError
from kshell.lang.numbers import number_value, to_radix
from kshell.types.model import ArrayType, CType, PointerType, StructType
from kshell.value.shape import Shape, shape_of, span


class Step(NamedTuple):
    """One step of a path.

    :ivar kind: "." and "->" lead to a member, "[" to an element, "" is the first member written without a delimiter
    :ivar start, end: where it stands in the text
    """

    kind: str
    name: str
    number: int
    start: int
    end: int


class Route(NamedTuple):
    """Where a path leads from an object.

    :ivar hops: byte offsets at which a pointer is read; the first from the object, each other from the pointer before
    :ivar offset: of the place, in bytes, from the last pointer (from the object if there is none)
    :ivar bit: bits before a bit-field in its first byte
    :ivar width: bits of a bit-field, else None
    :ivar size: bytes to read
    :ivar warnings: array bounds that were passed
    :ivar element: whether the path ends in ``[0]`` on a pointer member, so that its members are told with ``->``
    """

    hops: tuple[int, ...]
    offset: int
    type: CType
    bit: int
    width: int | None
    size: int
    shape: Shape
    warnings: tuple[str, ...] = ()
    element: bool = False


def parse_path(text: str, radix: int = 10) -> tuple[Step, ...]:
    """Return the steps of a path.

    :param radix: of array indexes without a prefix: 10 in Python code, the default radix on a command line
    :raises ParseError: not a path
    """
    steps: list[Step] = []
    at, size = 0, len(text)
    while at < size:
        start = at
        if text[at] == "[":
            end = text.find("]", at)
            if end < 0:
                raise ParseError("no trailing ']'", text, at, size)
            steps.append(Step("[", "", _index(text, at + 1, end, radix), start, end + 1))
            at = end + 1
            continue
        if text[at] == ".":
            kind, at = ".", at + 1
        elif text.startswith("->", at):
            kind, at = "->", at + 2
        elif not steps and (text[at].isalnum() or text[at] == "_"):
            kind = ""
        else:
            raise ParseError(f"'{text[at]}' is not a valid delimiter", text, at, at + 1)
        name = at
        while at < size and (text[at].isalnum() or text[at] == "_"):
            at += 1
        if at == name:
            raise ParseError(f"no member name after '{kind}'", text, start, name)
        steps.append(Step(kind, text[name:at], 0, start, at))
    return tuple(steps)


def _index(text: str, start: int, end: int, radix: int) -> int:
    digits = text[start:end].strip()
    try:
        return -number_value(digits[1:], radix) if digits.startswith("-") else number_value(digits, radix)
    except (ValueError, IndexError) as error:
        raise ParseError(str(error) if digits else "no number in '[]'", text, start, end) from error


def resolve(type: CType, steps: tuple[Step, ...], radix: int = 10) -> Route:
    """Return where *steps* lead from an object of *type*.

    :param radix: for numbers in warnings
    :raises MemberError: a structure without such a member
    :raises ValueTypeError: a step that the type before it does not allow
    """
    hops: list[int] = []
    warnings: list[str] = []
    bits, width, named, element = 0, None, False, False
    for kind, name, index, _, _ in steps:
        bare = type.strip()
        element = False
        if kind == "[":
            if isinstance(bare, PointerType):
                hops.append(bits >> 3)
                bits, element = 0, named and index == 0
            elif isinstance(bare, ArrayType):
                if not 0 <= index < bare.count and bare.count:
                    shown = to_radix(index, radix), to_radix(bare.count - 1, radix)
                    warnings.append(f"index {shown[0]} is outside of array bounds [0 .. {shown[1]}]")
            else:
                raise ValueTypeError("cannot index into non-array, non-pointer type")
            type = bare.target
            if not type.size:
                raise ValueTypeError(f"cannot dereference {type} type")
            bits += 8 * index * type.size
            width = None
            continue
        if kind == "->" or (kind == "" and isinstance(bare, PointerType)):
            if not isinstance(bare, PointerType):
                raise ValueTypeError(f"{type} is not a pointer type")
            hops.append(bits >> 3)
            bits, type = 0, bare.target
            bare = type.strip()
        if not isinstance(bare, StructType):
            raise ValueTypeError(f"{type} is not a struct or union type")
        member = bare.member(name)
        bits, width, type, named = bits + member.bit_offset, member.bit_size, member.type, True
    shape = shape_of(type)
    bit = bits & 7
    return Route(tuple(hops), bits >> 3, type, bit, width, span(shape, bit, width), shape, tuple(warnings), element)


def route(type: CType, path: str, radix: int = 10) -> Route:
    """Return where *path* leads from an object of *type*; worked out once.

    :param radix: of array indexes without a prefix

    :raises ParseError, MemberError, ValueTypeError: as :func:`parse_path` and :func:`resolve`
    """
    routes = shape_of(type).routes
    key = path if radix == 10 else f"{radix} {path}"
    found = routes.get(key)
    if found is None:
        found = routes[key] = resolve(type, parse_path(path, radix), radix)
    return found


def route_at(type: CType, offset: int) -> tuple[str, Route]:
    """Return the path and route of the member that covers byte *offset*: the innermost, the first one in a union.

    :raises KshellError: past the end of the type, or in a hole
    """
    text, bits, at = "", 0, offset * 8
    width: int | None = None
    inner = type
    while True:
        bare = inner.strip()
        if isinstance(bare, ArrayType):
            size = (bare.target.size or 0) * 8
            index = (at - bits) // size if size else bare.count
            if index >= bare.count:
                raise KshellError(f"invalid offset {offset:x}")
            text, bits, inner = f"{text}[{index}]", bits + index * size, bare.target
            continue
        if not isinstance(bare, StructType):
            break
        for member in bare.members:
            start = bits + member.bit_offset
            length = 8 * (member.type.size or 0) if member.bit_size is None else member.bit_size
            if start < at + 8 and at < start + length:
                break
        else:
            raise KshellError(f"invalid offset {offset:x}")
        if member.name is not None:
            text = f"{text}.{member.name}" if text else member.name
        bits, width, inner = start, member.bit_size, member.type
    shape, bit = shape_of(inner), bits & 7
    if at >= bits + 8 * shape.size:
        raise KshellError(f"invalid offset {offset:x}")
    return text, Route((), bits >> 3, inner, bit, width, span(shape, bit, width), shape)


def sizeof(type: CType, path: str = "") -> int:
    """Return the bytes that *type*, or the member that *path* names, takes; pointers on the way are not read.

    :raises ValueTypeError: it has no size: void, a function, an incomplete type, a bit-field
    """
    found = route(type, path)
    size = found.type.size
    if size is None or found.width is not None:
        what = f"bit-field {path}" if found.width is not None else str(found.type)
        raise ValueTypeError(f"{what} has no size in bytes")
    return size


def offsetof(type: CType, path: str) -> tuple[int, int]:
    """Return the (bytes, bits) from the start of *type* to the member that *path* names; bits is 0 but for bit-fields.

    :raises ValueTypeError: a pointer has to be followed, so that the place is not in the object
    """
    found = route(type, path)
    if found.hops:
        raise ValueTypeError(f"member {path} of type {type} is behind a pointer")
    return found.offset, found.bit
