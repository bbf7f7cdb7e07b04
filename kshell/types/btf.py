"""BTF: the kernel's own types, made into the model on demand.

Documentation/bpf/btf.rst; include/uapi/linux/btf.h; lib/bpf's split BTF: a module's types and strings continue the
kernel's. Types are made when asked for and kept, so that one id is one object; chains and sizes are bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from kshell import cache
from kshell.errors import FormatError
from kshell.types import btf_index as b
from kshell.types.model import (
    ArrayType,
    CType,
    Enumerator,
    EnumType,
    FloatType,
    FunctionType,
    IntType,
    Kind,
    Member,
    PointerType,
    QualifiedType,
    StructType,
    TypedefType,
    VoidType,
)

if TYPE_CHECKING:
    from kshell.types.btf_index import Index

MAX_CHAIN = 64  # typedefs, qualifiers and arrays one behind the other; C compilers stop far earlier
MAX_PARTS = 4096  # types in one declaration
QUALIFIERS = {b.CONST: "const", b.VOLATILE: "volatile", b.RESTRICT: "restrict"}
WRAPPERS = (b.TYPEDEF, b.CONST, b.VOLATILE, b.RESTRICT, b.TYPE_TAG, b.FUNC)  # of the size of what they wrap
VOID = VoidType()


class Btf:
    """One BTF blob. With *base* it is split BTF, as a module's: ids and strings go on where the base ends."""

    def __init__(self, data: bytes | memoryview, base: Btf | None = None, digest: str | None = None) -> None:
        """:param digest: cache.key_of(*data*) where it is known

        :raises FormatError: *data* is not BTF or damaged
        """
        self.base = base
        self._sections = b.Sections(data)
        self._words = self._sections.words
        self._strings = self._sections.strings
        self.first: int = base.last if base is not None else 1
        self._string_base: int = base.string_end if base is not None else 0
        above = struct.pack("<II", self.first, self._string_base) + (base.key if base is not None else "").encode()
        #: of the content, the base's included
        self.key: str = cache.key_of((digest or cache.key_of(data)).encode(), above)
        strings = base.string_bytes if base is not None else None
        self._index: Index = b.build_index(self._sections, self.first, self._string_base, self.key, strings)
        self.last: int = self.first + len(self._index.places)
        self.string_end: int = self._string_base + len(self._strings)
        self._types: dict[int, CType] = {}

    def __len__(self) -> int:
        return len(self._index.places)

    # -- look-up ---------------------------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> CType | None:
        """Return the type *name* in the name space *kind*: "struct", "union", "enum" or "" (typedefs, base types)."""
        numbers = self._index.find(kind, name)
        for number in numbers:
            found = self.by_id(number)
            if found.size:
                return found  # rather than an empty or incomplete one of the same name
        return self.by_id(numbers[0]) if numbers else None

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield (kind, name) of every named type."""
        for kind in b.SPACES[:4]:
            for name in self._index.space(kind)[0]:
                yield kind, name

    def starting(self, kind: str, prefix: str, limit: int) -> list[str]:
        """Return at most *limit* names in *kind* that begin with *prefix*, sorted."""
        return self._index.space(kind)[0].starting(prefix, limit)

    def function(self, name: str) -> FunctionType | None:
        """Return the prototype of the function *name*, or None."""
        for number in self._index.find("func", name):
            found = self.by_id(self._record(number)[2])
            if isinstance(found, FunctionType):
                return found
        return None

    def percpu(self) -> dict[str, tuple[int, CType]]:
        """Return name -> (offset in the section, type) of every per-CPU variable that BTF tells of."""
        found: dict[str, tuple[int, CType]] = {}
        for number in self._index.find("section", ".data..percpu"):
            place, info, _ = self._place(number)
            for row in range(info & 0xFFFF):
                variable, offset, _ = self._words[place + 3 + 3 * row : place + 6 + 3 * row]
                name, _, target = self._record(variable)
                found[self.string(name)] = (offset, self.by_id(target))
        return found

    def variable_type(self, name: str, address: int | None = None) -> CType | None:
        """Return the type of the per-CPU (or other) variable *name*, or None when BTF does not tell."""
        numbers = self._index.find("var", name)
        return self.by_id(self._record(numbers[0])[2]) if numbers else None

    # -- records ---------------------------------------------------------------------------------------------------

    def string_bytes(self, offset: int) -> bytes:
        """Return the string at *offset*; those below the split are the base's.

        :raises FormatError: it leads outside, or has no end
        """
        if offset < self._string_base:
            assert self.base is not None
            return self.base.string_bytes(offset)
        at = offset - self._string_base
        # names are short; the whole section is searched only for one that is not
        for reach in (256, len(self._strings)):
            text = bytes(self._strings[at : at + reach])
            end = text.find(b"\0")
            if end >= 0:
                return text[:end]
        raise FormatError(f"BTF string 0x{offset:x} leads outside the string section")

    def string(self, offset: int) -> str:
        """Return the string at *offset*, as :meth:`string_bytes`."""
        return self.string_bytes(offset).decode("utf-8", "replace")

    def _place(self, number: int) -> tuple[int, int, int]:
        """Return (word where type *number* begins, its info, its size or type)."""
        if not self.first <= number < self.last:
            raise FormatError(f"BTF type {number} does not exist: there are {self.last - 1}")
        place = self._index.places[number - self.first]
        return place, self._words[place + 1], self._words[place + 2]

    def _record(self, number: int) -> tuple[int, int, int]:
        """Return (name, info, size or type) of type *number*, of the base too."""
        if number < self.first and self.base is not None:
            return self.base._record(number)
        place, info, third = self._place(number)
        return self._words[place], info, third

    def by_id(self, number: int) -> CType:
        """Return type *number*; 0 is void.

        :raises FormatError: there is none, or its chain of typedefs never ends
        """
        if number == 0:
            return VOID
        if number < self.first and self.base is not None:
            return self.base.by_id(number)
        found = self._types.get(number)
        if found is None:
            self._check_chain(number)
            found = self._types[number] = self._make(number)
        return found

    def _behind(self, number: int) -> tuple[int, int]:
        """Return (kind of type *number*, the type that it is made of), of an array its element; 0 when of none."""
        _, info, third = self._record(number)
        kind = info >> 24 & 0x1F
        if kind == b.ARRAY:
            owner = self._owner(number)
            return kind, owner._words[owner._place(number)[0] + 3]
        return kind, third if kind in WRAPPERS or kind in (b.PTR, b.FUNC_PROTO) else 0

    def _owner(self, number: int) -> Btf:
        return self if number >= self.first or self.base is None else self.base._owner(number)

    def _check_chain(self, number: int) -> None:
        """Refuse a type whose size would never be known, or whose declaration would never end.

        :raises FormatError: typedefs, qualifiers, arrays, pointers or prototypes in a circle
        """
        seen = number
        for _ in range(MAX_CHAIN):
            kind, behind = self._behind(seen) if seen else (0, 0)
            if kind not in WRAPPERS and kind != b.ARRAY:
                break
            seen = behind
        else:
            raise FormatError(f"BTF type {number} is made of itself: its chain of types never ends")
        todo, parts = [(number, 0)], 0
        while todo:
            seen, depth = todo.pop()
            parts += 1
            kind, behind = self._behind(seen) if seen else (0, 0)
            if depth > MAX_CHAIN or parts > MAX_PARTS:
                raise FormatError(f"BTF type {number} is made of itself: its declaration never ends")
            if behind and kind != b.TYPEDEF:  # whose name is what is declared
                todo.append((behind, depth + 1))
            if kind == b.FUNC_PROTO:
                owner = self._owner(seen)
                place, info, _ = owner._place(seen)
                todo += [(owner._words[place + 4 + 2 * row], depth + 1) for row in range(info & 0xFFFF)]

    def _check_nesting(self, number: int) -> None:
        """Refuse a structure that contains itself, or a larger one, by value.

        :raises FormatError: it does
        """
        todo, seen = [number], set[int]()
        while todo:
            outer = todo.pop()
            size = self._record(outer)[2]
            for inner in self._contained(outer):
                other = self._record(inner)[2]
                if inner == number or other > size or len(seen) > MAX_PARTS:
                    raise FormatError(f"BTF type {number} contains itself or a larger type")
                if other == size and inner not in seen:
                    seen.add(inner)
                    todo.append(inner)

    def _contained(self, number: int) -> Iterator[int]:
        """Yield the structures and unions that are by value in structure *number*."""
        owner = self._owner(number)
        place, info, _ = owner._place(number)
        for row in range(info & 0xFFFF):
            inner = owner._words[place + 4 + 3 * row]
            for _ in range(MAX_CHAIN):
                kind, behind = self._behind(inner) if inner else (0, 0)
                if kind in (b.STRUCT, b.UNION):
                    yield inner
                if kind == b.ARRAY:
                    holder = self._owner(inner)
                    behind *= holder._words[holder._place(inner)[0] + 5] > 0
                elif kind not in WRAPPERS:
                    break
                inner = behind

    def _lazy(self, number: int) -> Callable[[], CType]:
        return lambda: self.by_id(number)

    def _make(self, number: int) -> CType:
        place, info, third = self._place(number)
        kind = info >> 24 & 0x1F
        name = self.string(self._words[place]) if self._words[place] else None
        if kind == b.INT:
            return _integer(name or "int", third, self._words[place + 3])
        if kind == b.PTR:
            return PointerType(self._lazy(third))
        if kind == b.ARRAY:
            return ArrayType(self._lazy(self._words[place + 3]), self._words[place + 5])
        if kind in (b.STRUCT, b.UNION):
            what = Kind.STRUCT if kind == b.STRUCT else Kind.UNION
            return StructType(name, third, lambda: self._members(number), what)
        if kind in (b.ENUM, b.ENUM64):
            signed = bool(info >> 31)
            return EnumType(name, third, signed, lambda: self._enumerators(place, info, kind == b.ENUM64))
        if kind == b.FWD:
            return StructType(name, None, (), Kind.UNION if info >> 31 else Kind.STRUCT)
        if kind == b.TYPEDEF:
            return TypedefType(name or "", self._lazy(third))
        if kind in QUALIFIERS:
            return QualifiedType(QUALIFIERS[kind], self._lazy(third))
        if kind == b.FLOAT:
            return FloatType(name or "float", third)
        if kind in (b.TYPE_TAG, b.FUNC):
            return self.by_id(third)  # transparent: a tag adds no meaning to memory
        if kind == b.FUNC_PROTO:
            return self._prototype(place, info, third)
        raise FormatError(f"BTF type {number} (kind {kind}) is not a type that a value can have")

    def _members(self, owner: int) -> Sequence[Member]:
        place, info, size = self._place(owner)
        bitfields = bool(info >> 31)  # kind_flag: the width is in the upper byte of the offset
        members = []
        words = self._words[place + 3 : place + 3 + 3 * (info & 0xFFFF)].tolist()
        for row in range(0, len(words), 3):
            name, number, offset = words[row : row + 3]
            width = offset >> 24 if bitfields else 0
            if bitfields:
                offset &= 0xFFFFFF
            members.append(self._member(name, number, offset, width))
            inner = members[-1].type.strip()
            while isinstance(inner, ArrayType) and inner.count:
                inner = inner.target.strip()
            if isinstance(inner, StructType) and (inner.size or 0) >= size:
                self._check_nesting(owner)
        return members

    def _member(self, name: int, number: int, offset: int, width: int) -> Member:
        ctype = self.by_id(number)
        text = self.string(name) if name else None
        if not width:
            # Before kind_flag, a bit-field is an integer type of so many bits.
            inner = ctype.strip()
            if isinstance(inner, BitInt):
                return Member(text, inner.whole, offset + inner.bit_offset, inner.bits)
        return Member(text, ctype, offset, width or None)

    def _enumerators(self, place: int, info: int, wide: bool) -> Sequence[Enumerator]:
        each = 3 if wide else 2
        words = self._words[place + 3 : place + 3 + each * (info & 0xFFFF)].tolist()
        signed = bool(info >> 31)
        found = []
        for row in range(0, len(words), each):
            value = words[row + 1] | (words[row + 2] << 32 if wide else 0)
            bits = 64 if wide else 32
            if signed and value >> (bits - 1):
                value -= 1 << bits
            found.append(Enumerator(self.string(words[row]), value))
        return found

    def _prototype(self, place: int, info: int, result: int) -> FunctionType:
        words = self._words[place + 3 : place + 3 + 2 * (info & 0xFFFF)].tolist()
        parameters = [(words[row], words[row + 1]) for row in range(0, len(words), 2)]
        variadic = bool(parameters) and parameters[-1] == (0, 0)
        if variadic:
            parameters.pop()
        named = [(self.string(name) if name else "", self._lazy(number)) for name, number in parameters]
        return FunctionType(self._lazy(result), named, variadic)


class BitInt(IntType):
    """An integer of fewer bits than its bytes hold: how BTF and CTF without kind_flag write a bit-field."""

    __slots__ = ("bit_offset", "bits", "whole")

    def __init__(self, whole: IntType, bit_offset: int, bits: int) -> None:
        super().__init__(whole.name or "int", whole.size or 4, whole.signed, whole.kind)
        self.whole, self.bit_offset, self.bits = whole, bit_offset, bits


def _integer(name: str, size: int, word: int) -> IntType:
    encoding, offset, bits = word >> 24 & 0xF, word >> 16 & 0xFF, word & 0xFF
    if not 0 < size <= 16:
        raise FormatError(f"BTF integer {name!r} has an impossible size of {size} bytes")
    # encoding: 1 signed, 2 char, 4 bool; compilers mark plain char by its name only
    kind = Kind.BOOL if encoding & 4 else Kind.CHAR if encoding & 2 or name in CHARS else Kind.INT
    whole = IntType(name, size, bool(encoding & 1) or name == "char", kind)
    return BitInt(whole, offset, bits) if offset or 0 < bits < 8 * size else whole


CHARS = ("char", "signed char", "unsigned char")
