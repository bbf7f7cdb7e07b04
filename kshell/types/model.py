"""The C type model and symbols. Types are made on demand: a target with 126,000 types makes the few that are asked for.

A :class:`TypeSource` and a :class:`SymbolSource` are what each format of types or symbols (BTF, kallsyms, DWARF, ELF)
offers. Sizes and offsets are bytes unless the name says bits.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from kshell.errors import MemberError


class Symbol(NamedTuple):
    """A name for an address.

    :ivar address: its value in this boot (KASLR applied); for a per-CPU variable the offset in the per-CPU area
    :ivar size: bytes, 0 when the table does not say and no neighbour bounds it
    :ivar type: the letter of nm(1): T t D d B b R r A V W ...; capital is global
    :ivar module: the kernel module or object it belongs to, None for the kernel itself
    """

    name: str
    address: int
    size: int
    type: str
    module: str | None = None

    @property
    def shown(self) -> str:
        """The name for people: that of C++ and Rust as it was written, with its module in front."""
        name = self.name
        if name.startswith("_"):
            from kshell.demangle import demangled

            name = demangled(name)
        return f"{self.module}`{name}" if self.module else name


class Kind(enum.Enum):
    """What a type is, as C has it."""

    VOID = "void"
    INT = "int"
    BOOL = "bool"
    CHAR = "char"
    FLOAT = "float"
    POINTER = "pointer"
    ARRAY = "array"
    STRUCT = "struct"
    UNION = "union"
    ENUM = "enum"
    FUNCTION = "function"
    TYPEDEF = "typedef"
    QUALIFIED = "qualified"


class CType:
    """A C type. ``name`` is None for anonymous and derived types; ``size`` is None for incomplete ones.

    ``shape`` belongs to :mod:`kshell.value`: what reading the type takes, worked out when it is first read.
    """

    __slots__ = ("kind", "name", "shape", "size")

    shape: object | None

    def __init__(self, kind: Kind, name: str | None, size: int | None) -> None:
        self.kind, self.name, self.size = kind, name, size
        self.shape = None

    def strip(self) -> CType:
        """Return the type behind typedefs and qualifiers."""
        return self

    def declare(self, inner: str = "") -> str:
        """Return the C declaration of *inner* with this type: ``int x[3]`` for inner ``x``."""
        return f"{self.name or '<anon>'} {inner}".rstrip()

    def __str__(self) -> str:
        return self.declare()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class VoidType(CType):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Kind.VOID, "void", None)


class IntType(CType):
    """An integer, a _Bool or a char."""

    __slots__ = ("signed",)

    def __init__(self, name: str, size: int, signed: bool, kind: Kind = Kind.INT) -> None:
        super().__init__(kind, name, size)
        self.signed = signed


class FloatType(CType):
    __slots__ = ()

    def __init__(self, name: str, size: int) -> None:
        super().__init__(Kind.FLOAT, name, size)


class _Derived(CType):
    """A type made from another one, which is looked up when it is first needed."""

    __slots__ = ("_target",)

    def __init__(self, kind: Kind, name: str | None, size: int | None, target: CType | Callable[[], CType]) -> None:
        super().__init__(kind, name, size)
        self._target = target

    @property
    def target(self) -> CType:
        """The type pointed to, of an element, behind a typedef, or returned."""
        found = self._target
        if not isinstance(found, CType):
            found = self._target = found()
        return found


class PointerType(_Derived):
    __slots__ = ()

    def __init__(self, target: CType | Callable[[], CType], size: int = 8) -> None:
        super().__init__(Kind.POINTER, None, size, target)

    def declare(self, inner: str = "") -> str:
        target = self.target
        if target.kind in (Kind.ARRAY, Kind.FUNCTION):
            return target.declare(f"(*{inner})")
        return target.declare(f"*{inner}")


class ArrayType(_Derived):
    """An array of ``count`` elements; 0 for a flexible array."""

    __slots__ = ("count",)

    def __init__(self, target: CType | Callable[[], CType], count: int) -> None:
        super().__init__(Kind.ARRAY, None, None, target)
        self.count = count

    @property
    def size(self) -> int:
        return (self.target.size or 0) * self.count

    @size.setter
    def size(self, value: int | None) -> None:
        pass

    def declare(self, inner: str = "") -> str:
        return self.target.declare(f"{inner}[{self.count}]")


class TypedefType(_Derived):
    __slots__ = ()

    def __init__(self, name: str, target: CType | Callable[[], CType]) -> None:
        super().__init__(Kind.TYPEDEF, name, None, target)

    @property
    def size(self) -> int | None:
        return self.target.size

    @size.setter
    def size(self, value: int | None) -> None:
        pass

    def strip(self) -> CType:
        return self.target.strip()


class QualifiedType(_Derived):
    """const, volatile, restrict or _Atomic of a type; ``name`` is the qualifier."""

    __slots__ = ()

    def __init__(self, qualifier: str, target: CType | Callable[[], CType]) -> None:
        super().__init__(Kind.QUALIFIED, qualifier, None, target)

    @property
    def size(self) -> int | None:
        return self.target.size

    @size.setter
    def size(self, value: int | None) -> None:
        pass

    def strip(self) -> CType:
        return self.target.strip()

    def declare(self, inner: str = "") -> str:
        if self.target.kind is Kind.POINTER:
            return self.target.declare(f"{self.name} {inner}".rstrip())
        return f"{self.name} {self.target.declare(inner)}"


class FunctionType(_Derived):
    """A function; ``target`` is what it returns."""

    __slots__ = ("parameters", "variadic")

    def __init__(
        self, target: CType | Callable[[], CType], parameters: Sequence[tuple[str, Callable[[], CType]]],
        variadic: bool = False, name: str | None = None,
    ) -> None:
        super().__init__(Kind.FUNCTION, name, None, target)
        self.parameters, self.variadic = parameters, variadic

    def declare(self, inner: str = "") -> str:
        words = [make().declare(name) for name, make in self.parameters]
        words += ["..."] * self.variadic
        return self.target.declare(f"{inner}({', '.join(words) or 'void'})")


class Enumerator(NamedTuple):
    name: str
    value: int


class EnumType(CType):
    """An enum; ``enumerators`` in order of declaration."""

    __slots__ = ("_enumerators", "signed")

    def __init__(
        self, name: str | None, size: int, signed: bool,
        enumerators: Sequence[Enumerator] | Callable[[], Sequence[Enumerator]],
    ) -> None:
        super().__init__(Kind.ENUM, name, size)
        self.signed = signed
        self._enumerators = enumerators

    @property
    def enumerators(self) -> Sequence[Enumerator]:
        found = self._enumerators
        if callable(found):
            found = self._enumerators = found()
        return found

    def declare(self, inner: str = "") -> str:
        return f"enum {self.name or '<anon>'} {inner}".rstrip()


class Member(NamedTuple):
    """A member of a structure or union, or a path of members seen as one.

    :ivar name: None for an anonymous struct or union member
    :ivar bit_offset: from the start of the structure
    :ivar bit_size: width of a bit-field, None for other members
    """

    name: str | None
    type: CType
    bit_offset: int
    bit_size: int | None = None

    @property
    def offset(self) -> int:
        """Bytes from the start of the structure (a bit-field's: rounded down)."""
        return self.bit_offset >> 3


class StructType(CType):
    """A struct or union (``kind`` tells); ``members`` in order of declaration, anonymous ones included as such."""

    __slots__ = ("_index", "_members")

    def __init__(
        self, name: str | None, size: int | None, members: Sequence[Member] | Callable[[], Sequence[Member]],
        kind: Kind = Kind.STRUCT,
    ) -> None:
        super().__init__(kind, name, size)
        self._members = members
        self._index: dict[str, Member] | None = None

    @property
    def members(self) -> Sequence[Member]:
        found = self._members
        if callable(found):
            found = self._members = found()
        return found

    def _by_name(self) -> dict[str, Member]:
        if self._index is None:
            index: dict[str, Member] = {}
            for member in self.members:
                if member.name is not None:
                    index.setdefault(member.name, member)
                    continue
                inner = member.type.strip()
                if isinstance(inner, StructType):
                    for name, found in inner._by_name().items():
                        index.setdefault(name, found._replace(bit_offset=member.bit_offset + found.bit_offset))
            self._index = index
        return self._index

    def names(self) -> Iterator[str]:
        """Yield the names that :meth:`member` finds, those inside anonymous members too."""
        return iter(self._by_name())

    def has(self, name: str) -> bool:
        """Whether a direct or anonymously nested member has this name."""
        return name in self._by_name()

    def member(self, name: str) -> Member:
        """Return the member *name*, looked for inside anonymous members too; its offset is from this structure.

        :raises MemberError: no such member; carries names that are near
        """
        found = self._by_name().get(name)
        if found is None:
            raise MemberError(name, str(self), near_names(name, self._by_name()))
        return found

    def declare(self, inner: str = "") -> str:
        return f"{self.kind.value} {self.name or '<anon>'} {inner}".rstrip()


class TypeSource(Protocol):
    """A source of types. Tags have name spaces of their own, as in C."""

    def find(self, kind: str, name: str) -> CType | None:
        """Return the type *name* in the name space *kind*: "struct", "union", "enum" or "" (typedefs, base types)."""

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield (kind, name) of every named type."""

    def starting(self, kind: str, prefix: str, limit: int) -> list[str]:
        """Return at most *limit* names in *kind* that begin with *prefix*, sorted."""

    def variable_type(self, name: str, address: int | None = None) -> CType | None:
        """Return the type of the variable *name*, or None when the source does not tell.

        :param address: where it is, to choose among statics of one name
        """

    def percpu(self) -> dict[str, tuple[int, CType]]:
        """Return name -> (offset in the per-CPU area, type) of the per-CPU variables that the source tells of."""


class SymbolSource(Protocol):
    """A source of symbols."""

    def find(self, name: str) -> Sequence[Symbol]:
        """Return all symbols of this exact name, in table order."""

    def at(self, address: int) -> Symbol | None:
        """Return the symbol that covers *address*: the closest one not above it whose size reaches it."""

    def starting(self, prefix: str, limit: int) -> Sequence[str]:
        """Return at most *limit* names that begin with *prefix*, sorted."""

    def __iter__(self) -> Iterator[Symbol]: ...

    def __len__(self) -> int: ...


def near_names(name: str, names: Iterator[str] | Sequence[str] | dict[str, Member], limit: int = 3) -> list[str]:
    """Return up to *limit* of *names* that look like *name*, the nearest first; for "did you mean"."""
    import difflib

    if not name:
        return []
    rough = [n for n in names if abs(len(n) - len(name)) <= 3 and (n[:1] == name[:1] or n[-1:] == name[-1:])]
    return difflib.get_close_matches(name, rough[:20000], n=limit, cutoff=0.75)
