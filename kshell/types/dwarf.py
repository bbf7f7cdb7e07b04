"""DWARF as a source of types: names by the index, types made when they are asked for. DWARF 5 standard chapter 5.

A declaration without its members (``struct file;``) means the complete type of that name, in whichever unit it is.
What is in other files is followed where that is possible: the common part that dwz(1) makes; or named: split DWARF.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from kshell.errors import FormatError
from kshell.types import dwarf_forms as f
from kshell.types.dwarf_index import SPACES, Index, build_index
from kshell.types.dwarf_layout import Shapes, array_counts, member_place
from kshell.types.dwarf_units import Die, Progress, Unit, Units
from kshell.types.elffile import ElfFile
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

QUALIFIERS = {f.CONST: "const", f.VOLATILE: "volatile", f.RESTRICT: "restrict", f.ATOMIC: "_Atomic"}
POINTERS = (f.POINTER, f.REFERENCE, f.RVALUE, f.PTR_TO_MEMBER)
TAGS = {f.STRUCT: Kind.STRUCT, f.CLASS: Kind.STRUCT, f.UNION: Kind.UNION}
MAX_PARTS = 1 << 16  # members of a structure, values of an enum
VOID = VoidType()
#: DW_ATE_*, DWARF 5 standard 5.1.1
ATE_BOOLEAN, ATE_COMPLEX, ATE_FLOAT, ATE_SIGNED, ATE_SIGNED_CHAR, ATE_UNSIGNED_CHAR = 2, 3, 4, 5, 6, 8


class Dwarf:
    """The types, and the types of variables and functions, in the DWARF of one file.

    :param alternate: gives the file of a common part (``.gnu_debugaltlink``), or None when it is not there
    :param progress: told how far the first pass over a large file is
    """

    def __init__(
        self, source: ElfFile, alternate: Callable[[], ElfFile | None] | None = None, progress: Progress | None = None,
    ) -> None:
        """:raises FormatError: the file has no DWARF, or its headers are damaged"""
        self.source = source
        self.units = Units(source)
        #: what KASLR or a loader added to the addresses that it was linked at
        self.bias = 0
        self.progress = progress
        self._alternate = alternate
        self.units.alternate = lambda: None if self.other is None else self.other.units
        self._index: Index | None = None
        self._types: dict[int, CType] = {}
        self._shapes = Shapes(self.units)
        self._addresses: dict[int, int] | None = None

    @cached_property
    def other(self) -> Dwarf | None:
        """What is in the file that several have in common (``.gnu_debugaltlink``); None when that is not there."""
        file = self._alternate() if self._alternate is not None else None
        return None if file is None else Dwarf(file)

    @property
    def index(self) -> Index:
        """The names; made, or read from the cache, when they are first asked for."""
        if self._index is None:
            built = self.source.build_id
            key = None if built is None else f"{built}-{self.units.size:x}{'-alt' if self.other is not None else ''}"
            self._index = build_index(self.units, key, self.progress)
        return self._index

    @property
    def split(self) -> str | None:
        """The name of a .dwo file when the types are in such files; None when they are here."""
        for unit in self.units.units[:1]:
            root = self.units.root(unit)
            for attribute in (f.AT_DWO_NAME, f.AT_GNU_DWO_NAME):
                if root.has(attribute):
                    return self.units.text(unit, root, attribute) or "?"
        return None

    @property
    def missing(self) -> str:
        """What of its types is in files that are not read, and the next step; "" when all is here."""
        if self.split is None:
            return ""
        return (f"the types of {os.path.basename(self.source.path)} are in {self.split} and its like (built with "
                "-gsplit-dwarf; a kernel with CONFIG_DEBUG_INFO_SPLIT), which are not read: build it without that")

    # -- look-up ---------------------------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> CType | None:
        """Return the type *name* in the name space *kind*: "struct", "union", "enum" or "" (typedefs, base types)."""
        for place in self.index.find(kind, name):
            return self.by_offset(place)
        return self.other.find(kind, name) if self.other is not None else None

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield (kind, name) of every named type."""
        for kind in SPACES[:4]:
            for name in self.index.spaces[kind][0]:
                yield kind, name
        if self.other is not None:
            yield from self.other.names()

    def starting(self, kind: str, prefix: str, limit: int) -> list[str]:
        """Return at most *limit* names in *kind* that begin with *prefix*, sorted."""
        found = self.index.spaces[kind][0].starting(prefix, limit)
        if self.other is not None:
            found = sorted({*found, *self.other.starting(kind, prefix, limit)})[:limit]
        return found

    def function(self, name: str) -> FunctionType | None:
        """Return the prototype of the function *name*, or None."""
        for place in self.index.find("func", name):
            found = self.by_offset(place)
            if isinstance(found, FunctionType):
                return found
        return None

    def variable_type(self, name: str, address: int | None = None) -> CType | None:
        """Return the type of the variable *name*, or None.

        :param address: where it is: tells which one, of statics of the same name
        """
        places = self.index.find("var", name)
        if not places:
            return None
        chosen = places[0]
        if len(places) > 1 and address is not None:
            linked = (address - self.bias) % (1 << 64)
            chosen = next((place for place in places if self._location(place) == linked), chosen)
        unit = self.units.unit_of(chosen)
        die = self.units.die(unit, chosen)
        if not die.has(f.AT_TYPE) and die.has(f.AT_SPECIFICATION):
            # "extern int a[];" may be completed by "int a[5];": that one has a type of its own
            place = self.units.reference(unit, die, f.AT_SPECIFICATION)
            if place is not None:
                unit = self.units.unit_of(place)
                die = self.units.die(unit, place)
        return self._type_of(unit, die)

    def _location(self, offset: int) -> int | None:
        """Return the address that the variable at *offset* was linked at, or None when it is not that plain."""
        unit = self.units.unit_of(offset)
        found = self.units.die(unit, offset).values.get(f.AT_LOCATION)
        if found is None or not isinstance(found[1], bytes):
            return None
        block = found[1]
        if block[:1] == b"\x03" and len(block) == 1 + unit.address_size:  # DW_OP_addr
            return int.from_bytes(block[1:], "little")
        return None

    def __len__(self) -> int:
        return sum(len(self.index.spaces[kind][0]) for kind in SPACES[:4])

    # -- types -----------------------------------------------------------------------------------------------------

    def by_offset(self, offset: int) -> CType:
        """Return the type whose entry is at *offset* of ``.debug_info``.

        :raises FormatError: there is none, or its chain of types never ends
        """
        found = self._types.get(offset)
        if found is None:
            unit = self.units.unit_of(offset)
            die = self.units.die(unit, offset)
            self._shapes.check_chain(offset)
            found = self._types[offset] = self._make(unit, die)
        return found

    def _by_signature(self, unit: Unit, die: Die) -> CType:
        """Return the type that *die*, which is no more than a name for it, says is in a type unit."""
        place = self.units.reference(unit, die, f.AT_SIGNATURE)
        return self.by_offset(place) if place is not None else self._foreign(*die.values[f.AT_SIGNATURE])

    def _type_of(self, unit: Unit, die: Die) -> CType:
        """Return the type that DW_AT_type of *die* refers to; void without one."""
        found = die.values.get(f.AT_TYPE)
        if found is None:
            return VOID
        place = self.units.reference(unit, die, f.AT_TYPE)
        if place is not None:
            return self.by_offset(place)
        return self._foreign(*found)

    def _foreign(self, form: int, value: int | bytes) -> CType:
        """Return a type that is in another file."""
        if form in (f.F_GNU_REF_ALT, f.F_REF_SUP4, f.F_REF_SUP8) and isinstance(value, int):
            if self.other is None:
                raise FormatError(f"{self.source.path}: the type is in the common part that dwz made of several "
                                  "files (.gnu_debugaltlink), and that file is not there",
                                  hint="the package with debugging symbols has it in /usr/lib/debug/.dwz")
            return self.other.by_offset(value)
        if form == f.F_REF_SIG8:
            raise FormatError(f"{self.source.path}: the type is in a type unit that is not in it (signature "
                              f"0x{int(value):x})", hint="it may be in a .dwo file: build without -gsplit-dwarf")
        raise FormatError(f"DWARF: a reference of form 0x{form:x} leads nowhere")

    def _lazy(self, unit: Unit, die: Die) -> Callable[[], CType]:
        return lambda: self._type_of(unit, die)

    def _make(self, unit: Unit, die: Die) -> CType:
        if die.has(f.AT_SIGNATURE):
            return self._by_signature(unit, die)
        tag, name = die.tag, self.units.text(unit, die)
        size = self.units.number(die, f.AT_BYTE_SIZE)
        if tag in (f.BASE, f.SUBRANGE):
            return self._base(unit, die, name or "int", size)
        if tag in POINTERS:
            return PointerType(self._lazy(unit, die), size or unit.address_size)
        if tag in TAGS:
            if die.has(f.AT_DECLARATION):
                return self._complete(TAGS[tag], name)
            return StructType(name, size or 0, lambda: self._members(unit, die, size or 0), TAGS[tag])
        if tag == f.TYPEDEF:
            return TypedefType(name or "", self._lazy(unit, die))
        if tag in QUALIFIERS:
            return QualifiedType(QUALIFIERS[tag], self._lazy(unit, die))
        if tag == f.ARRAY:
            element: CType | Callable[[], CType] = self._lazy(unit, die)
            for count in reversed(array_counts(self.units, unit, die)):
                element = ArrayType(element, count)
            return element if isinstance(element, CType) else ArrayType(element, 0)
        if tag == f.ENUM:
            return self._enum(unit, die, name, size)
        if tag in (f.SUBROUTINE, f.SUBPROGRAM):
            return self._function(unit, die)
        if tag == f.UNSPECIFIED:
            return VOID
        raise FormatError(f"DWARF: the entry at 0x{die.offset:x} (tag 0x{tag:x}) is not a type that a value can have")

    def _base(self, unit: Unit, die: Die, name: str, size: int | None) -> CType:
        encoding = self.units.number(die, f.AT_ENCODING)
        if size is None and die.tag == f.SUBRANGE:
            return self._type_of(unit, die)
        if size is None or not 0 < size <= 32:
            raise FormatError(f"DWARF: base type {name!r} has an impossible size of {size} bytes")
        if encoding == ATE_FLOAT:
            return FloatType(name, size)
        if encoding == ATE_COMPLEX:
            return ArrayType(FloatType("float" if size == 8 else "double", size // 2), 2)
        kind = Kind.BOOL if encoding == ATE_BOOLEAN else Kind.INT
        if name in ("char", "signed char", "unsigned char"):
            kind = Kind.CHAR
        return IntType(name, size, encoding in (ATE_SIGNED, ATE_SIGNED_CHAR), kind)

    def _complete(self, kind: Kind, name: str | None) -> CType:
        """Return the complete type that a declaration means; an incomplete one when the file has none."""
        if name:
            found = self.find(kind.value, name)
            if found is not None:
                return found
        return StructType(name, None, (), kind)

    def _members(self, unit: Unit, owner: Die, size: int) -> Sequence[Member]:
        found: list[Member] = []
        for die in self.units.children(unit, owner):
            if die.tag not in (f.MEMBER, f.INHERITANCE) or die.has(f.AT_EXTERNAL):
                continue
            if die.has(f.AT_DECLARATION):
                continue  # a static member of a class: it lies elsewhere
            if len(found) >= MAX_PARTS:
                raise FormatError(f"DWARF: the structure at 0x{owner.offset:x} has too many members")
            place = self.units.reference(unit, die, f.AT_TYPE)
            if place is not None:
                self._shapes.check_nesting(owner.offset, size, place)
            bit, width = member_place(self.units, die, lambda die=die: self._type_of(unit, die))  # type: ignore[misc]
            name = None if die.tag == f.INHERITANCE else self.units.text(unit, die)
            found.append(Member(name, self._type_of(unit, die), bit, width))
        return found

    def _enum(self, unit: Unit, die: Die, name: str | None, size: int | None) -> CType:
        if die.has(f.AT_DECLARATION) and name:
            for place in self.index.find("enum", name):
                return self.by_offset(place)
        if size is not None and not 0 < size <= 16:
            raise FormatError(f"DWARF: enum {name} has an impossible size of {size} bytes")
        width = size or 4
        under = self._type_of(unit, die).strip() if die.has(f.AT_TYPE) else None
        if isinstance(under, IntType):
            signed = under.signed
        else:
            signed = any((one.values.get(f.AT_CONST_VALUE) or (0, 0))[0] == f.F_SDATA and
                         (self.units.number(one, f.AT_CONST_VALUE) or 0) < 0 for one in self.units.children(unit, die))

        def values() -> Sequence[Enumerator]:
            rows: list[Enumerator] = []
            for one in self.units.children(unit, die):
                if one.tag == f.ENUMERATOR and len(rows) < MAX_PARTS:
                    number = (self.units.number(one, f.AT_CONST_VALUE) or 0) & ((1 << 8 * width) - 1)
                    if signed and number >> (8 * width - 1):
                        number -= 1 << 8 * width
                    rows.append(Enumerator(self.units.text(unit, one) or "", number))
            return rows

        return EnumType(name, width, signed, values)

    def _function(self, unit: Unit, die: Die) -> CType:
        parameters: list[tuple[str, Callable[[], CType]]] = []
        variadic = False
        for one in self.units.children(unit, die):
            if one.tag == f.FORMAL and len(parameters) < MAX_PARTS:
                parameters.append((self.units.text(unit, one) or "", self._lazy(unit, one)))
            variadic = variadic or one.tag == f.UNSPECIFIED_PARAMETERS
        return FunctionType(self._lazy(unit, die), parameters, variadic)

    # -- what BTF tells besides ------------------------------------------------------------------------------------

    def percpu(self) -> dict[str, tuple[int, CType]]:
        """Return nothing: DWARF does not tell which variables are per-CPU; symbols do."""
        return {}
