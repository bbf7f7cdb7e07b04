"""The index of a BTF blob: where each type is, and which types have which names. One pass, kept in the disk cache.

Documentation/bpf/btf.rst; include/uapi/linux/btf.h. A type is three words (name, info, size or type) and
what its kind adds.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from itertools import compress

from kshell import cache
from kshell.errors import FormatError
from kshell.types.names_table import NamesTable

CACHE_VERSION = 2
MAGIC = 0xEB9F
HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
MAX_TYPES = 1 << 22

(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT,
 DECL_TAG, TYPE_TAG, ENUM64) = range(1, 20)

#: words after the first three: those of the kind itself, and those for each of the type's vlen
FIXED = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}

#: name spaces, by kind; a name table is kept for each
SPACES = ("", "struct", "union", "enum", "func", "section", "var")
_SPACE = {INT: "", FLOAT: "", TYPEDEF: "", STRUCT: "struct", FWD: "struct", UNION: "union", ENUM: "enum",
          ENUM64: "enum", FUNC: "func", DATASEC: "section", VAR: "var"}
FUNCTIONS = "func"
PLAIN_SPACES = tuple(space for space in SPACES if space != FUNCTIONS)

Strings = Callable[[int], bytes]
Space = tuple[NamesTable, Sequence[int]]


class Sections:
    """The header of a blob and its two sections: ``words`` of the types, and ``strings``."""

    def __init__(self, data: bytes | memoryview) -> None:
        """:raises FormatError: *data* is not BTF, or its sections lie outside it"""
        if len(data) < HEADER.size:
            raise FormatError(f"BTF of {len(data)} bytes is too short for its header")
        magic, version, _, header, type_off, type_len, str_off, str_len = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise FormatError(f"not BTF: magic 0x{magic:x} instead of 0x{MAGIC:x}")
        if version != 1:
            raise FormatError(f"BTF version {version} is not known")
        view = memoryview(data)
        types, strings = header + type_off, header + str_off
        if types + type_len > len(view) or strings + str_len > len(view) or type_len % 4 or header < HEADER.size:
            raise FormatError("the BTF header leads outside the BTF: it is cut or damaged")
        section = view[types : types + type_len]
        if type_len and (types % 4 or not section.c_contiguous):
            section = memoryview(bytes(section))
        self.words: memoryview = section.cast("B").cast("I") if type_len else memoryview(b"").cast("I")
        self.strings = view[strings : strings + str_len]


class Index:
    """``places[i]``: the word where type ``first + i`` begins; for each of SPACES a table of names and their types.

    Functions are half of all types and seldom asked for: their table is made when it is first needed.
    """

    def __init__(
        self, places: Sequence[int], spaces: dict[str, Space], functions: Callable[[Sequence[int]], Space]
    ) -> None:
        self.places, self._spaces, self._functions = places, spaces, functions

    def space(self, name: str) -> Space:
        """Return the names and types in the space *name* of SPACES."""
        found = self._spaces.get(name)
        if found is None:
            if name != FUNCTIONS:
                raise KeyError(name)
            found = self._spaces[name] = self._functions(self.places)
        return found

    def find(self, space: str, name: str) -> list[int]:
        """Return the type ids that have *name* in *space* of SPACES, ascending."""
        table, ids = self.space(space)
        return [ids[row] for row in table.find(name)]


class Steps(dict[int, int]):
    """How many words a type takes, by its info word: a few hundred of them are all that a kernel's types have."""

    def __missing__(self, info: int) -> int:
        kind = info >> 24 & 0x1F
        if not 0 < kind <= ENUM64:
            raise ValueError(kind)
        step = self[info] = 3 + FIXED.get(kind, 0) + EACH.get(kind, 0) * (info & 0xFFFF)
        return step


def build_index(
    sections: Sections, first: int, string_base: int, key: str | None, base: Strings | None = None
) -> Index:
    """Index the types, numbered from *first*; a name below *string_base* is one of the *base*'s strings.

    :param key: the cache key of the content, None to keep nothing
    :raises FormatError: a type of an unknown kind, or one that does not fit in its section
    """
    def functions(places: Sequence[int]) -> Space:
        kept = _load("btf-functions", key, (FUNCTIONS,))
        if kept is None:
            kept = _named(sections, places, first, string_base, base, (FUNC,))
            _store("btf-functions", key, kept)
        return kept[1][FUNCTIONS]

    kept = _load("btf", key, PLAIN_SPACES)
    if kept is None:
        places = _places(sections, first)
        kept = _named(sections, places, first, string_base, base, tuple(kind for kind in _SPACE if kind != FUNC))
        _store("btf", key, kept)
    return Index(*kept, functions)


def _infos(sections: Sections) -> array[int]:
    """Return the words from the second on, so that a type's place is the place of its info here."""
    return array("I", bytes(sections.words.cast("B")[4:]))


def _space_of(info: int) -> str:
    """Return the name space of a type; of a forward declaration the kind flag tells which."""
    kind = info >> 24 & 0x1F
    return ("union" if info >> 31 else "struct") if kind == FWD else _SPACE[kind]


def _places(sections: Sections, first: int) -> array[int]:
    """Return the word where each type begins."""
    infos = _infos(sections)
    end = len(sections.words)
    places: list[int] = []
    append, steps, at = places.append, Steps(), 0
    try:
        while True:  # left by the IndexError behind the last type; a step is three words or more
            info = infos[at]
            append(at)
            at += steps[info]
    except ValueError as error:
        raise FormatError(f"BTF type {first + len(places) - 1} is of the unknown kind {error}") from None
    except IndexError:
        if at != end:
            what = f"BTF type {first + len(places) - 1}"
            raise FormatError(f"{what} does not fit in the type section: it is cut or damaged") from None
    if len(places) > MAX_TYPES:
        raise FormatError(f"BTF of {len(places)} types")
    return array("I", places)


def _named(
    sections: Sections, places: Sequence[int], first: int, string_base: int, base: Strings | None, kinds: Sequence[int]
) -> tuple[Sequence[int], dict[str, Space]]:
    """Return the places and, for the name spaces of *kinds*, the named types."""
    words, strings = sections.words, bytes(sections.strings)
    infos = list(map(_infos(sections).__getitem__, places))
    space_of = {info: _space_of(info) for info in set(infos) if info >> 24 & 0x1F in kinds}
    names: dict[str, list[bytes]] = {space: [] for space in (PLAIN_SPACES if FUNC not in kinds else (FUNCTIONS,))}
    ids: dict[str, list[int]] = {space: [] for space in names}
    find = strings.index
    try:
        for number in compress(range(len(infos)), map(space_of.__contains__, infos)):
            name = words[places[number]]
            if name >= string_base:
                at = name - string_base
                text = strings[at : find(b"\0", at)]
            else:
                assert base is not None  # only then string_base is not 0
                text = base(name)
            if text:
                space = space_of[infos[number]]
                names[space].append(text)
                ids[space].append(first + number)
    except ValueError:
        raise FormatError(f"BTF string 0x{name:x} leads outside the string section") from None
    return places, {space: (NamesTable.of(names[space]), array("I", ids[space])) for space in names}


def _store(kind: str, key: str | None, kept: tuple[Sequence[int], dict[str, Space]]) -> None:
    if key is None:
        return
    places, spaces = kept
    parts = [struct.pack("<Q", 0 if FUNCTIONS in spaces else len(places))]
    parts += [b"" if FUNCTIONS in spaces else array("I", places).tobytes()]
    for table, ids in spaces.values():
        packed = b"".join(table.pack())
        parts += [packed, bytes(-len(packed) % 4), array("I", ids).tobytes()]
    cache.store(kind, key, CACHE_VERSION, *parts)


def _load(kind: str, key: str | None, names: Sequence[str]) -> tuple[Sequence[int], dict[str, Space]] | None:
    data = None if key is None else cache.load(kind, key, CACHE_VERSION)
    if data is None:
        return None
    try:
        (count,) = struct.unpack_from("<Q", data)
        if len(data) < 8 + 4 * count:
            return None
        places, rest = data[8 : 8 + 4 * count].cast("I"), data[8 + 4 * count :]
        spaces: dict[str, Space] = {}
        for name in names:
            table, after = NamesTable.unpack(rest)
            at = len(rest) - len(after)
            at += -at % 4  # the names before are any number of bytes
            ids = rest[at : at + 4 * len(table)].cast("I")
            if len(ids) != len(table):
                return None
            spaces[name] = (table, ids)
            rest = rest[at + 4 * len(table) :]
    except (ValueError, TypeError, struct.error):
        return None  # of another shape than this version writes: indexed and written again
    return (places, spaces) if not rest else None
