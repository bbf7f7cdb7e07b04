"""The index of a file's DWARF: names of types, functions and variables to entries. One quick pass, kept in the cache.

Only entries at the top of a unit, and in namespaces, are looked at: DW_AT_sibling leads from one to the next, past
members, parameters and bodies of functions. Of types and functions the first complete one of each name is kept, of
variables all, for statics of several files share names. ``.debug_pubnames``, ``.debug_names`` and ``.gdb_index`` are
not used: they leave out what is not global, or what kind of type a name is, and few files have them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from kshell import cache
from kshell.errors import FormatError
from kshell.types import dwarf_forms as f
from kshell.types.dwarf_forms import Abbrev, uleb
from kshell.types.dwarf_units import Progress, Unit, Units
from kshell.types.names_table import NamesTable

CACHE_VERSION = 1
WORTH_KEEPING = 1 << 20  # bytes of .debug_info from which on the index is kept on disk
SPACES = ("", "struct", "union", "enum", "func", "var")
FUNCTION, VARIABLE, NAMESPACE = 4, 5, 6
KINDS = {
    f.BASE: 0, f.TYPEDEF: 0, f.UNSPECIFIED: 0, f.STRUCT: 1, f.CLASS: 1, f.UNION: 2, f.ENUM: 3,
    f.SUBPROGRAM: FUNCTION, f.VARIABLE: VARIABLE, f.NAMESPACE: NAMESPACE,
}
MAX_DEPTH = 64
SHIFT = 48  # a key is (kind << SHIFT) + offset of the name in .debug_str
Space = tuple[NamesTable, Sequence[int]]


class Index(NamedTuple):
    """For each of SPACES a table of names, and where the entry of each is in ``.debug_info``."""

    spaces: dict[str, Space]

    def find(self, space: str, name: str) -> list[int]:
        """Return where the entries called *name* are, in the order of the file."""
        table, places = self.spaces[space]
        return [places[number] for number in table.find(name)]


class _Plan(NamedTuple):
    """How an entry of one abbreviation is passed over.

    :ivar kind: of KINDS, -1 for one that is not kept
    :ivar size: of its attributes; with ``variable`` those before the one whose size is its own
    :ivar variable: form of that one, 0 for none, -1 for several: read it whole
    :ivar rest: bytes behind it
    :ivar name: where the offset of its name lies, -1: none, or it is not there that plainly
    :ivar sibling: where DW_AT_sibling lies, counted from the end when ``variable``; -1: none
    """

    kind: int
    size: int
    variable: int
    rest: int
    name: int
    sibling: int
    children: bool


def build_index(units: Units, key: str | None, progress: Progress | None = None) -> Index:
    """Return the index of *units*, from the cache when it is there.

    :param key: of the content; None: it cannot be known again
    """
    keep = key is not None and units.size >= WORTH_KEEPING
    if keep and key is not None:
        found = _load(key)
        if found is not None:
            return found
    index = _Pass(units, progress).run()
    if keep and key is not None:
        parts: list[bytes] = []
        for space in SPACES:
            table, places = index.spaces[space]
            packed = table.pack()
            parts += [*packed, bytes(-sum(map(len, packed)) % 8), array("Q", places).tobytes()]
        cache.store("dwarf", key, CACHE_VERSION, *parts)
    return index


def _load(key: str) -> Index | None:
    data = cache.load("dwarf", key, CACHE_VERSION)
    if data is None:
        return None
    spaces: dict[str, Space] = {}
    try:
        for space in SPACES:
            before = len(data)
            table, data = NamesTable.unpack(data)
            data = data[-(before - len(data)) % 8 :]
            spaces[space] = table, data[: 8 * len(table)].cast("Q")
            data = data[8 * len(table) :]
    except (ValueError, TypeError):
        return None
    return Index(spaces)


class _Pass:
    """One pass over all units."""

    def __init__(self, units: Units, progress: Progress | None) -> None:
        self.units, self.progress = units, progress
        self.seen: dict[int, int] = {}           # key -> offset, of types and functions
        self.named: dict[tuple[int, bytes], int] = {}  # those whose names are not in .debug_str, or have a prefix
        self.variables = array("Q"), array("Q")        # offsets of the names in .debug_str, of the entries
        self.others: list[tuple[bytes, int]] = []
        self.plans: dict[tuple[Abbrev, int, int, int], _Plan] = {}

    def run(self) -> Index:
        units, done = self.units, 0
        for unit in units.units:
            if self.progress is not None and unit.start - done > 1 << 23:
                done = unit.start
                self.progress(f"reading the names in {units.source.path}", done, units.size)
            try:
                self._unit(unit)
            except (FormatError, IndexError, KeyError, ValueError) as error:  # KeyError: no such abbreviation
                units.damage = units.damage or f"the unit at 0x{unit.start:x} of .debug_info: {error}"
        if self.progress is not None:
            self.progress("", units.size, units.size)
        return self._index()

    def _index(self) -> Index:
        strings = self.units.section(".debug_str")

        def text(offset: int) -> bytes:
            end = strings.find(b"\0", offset)
            return strings[offset:end] if end >= 0 else b""

        spaces: dict[str, Space] = {}
        for kind, space in enumerate(SPACES):  # one after the other: all names at once are a lot of memory
            if kind == VARIABLE:
                named, places = self.variables
                names, more = [text(name) for name in named], self.others
            else:
                mine = [key for key in self.seen if key >> SHIFT == kind]
                names = [text(key & (1 << SHIFT) - 1) for key in mine]
                places = array("Q", map(self.seen.__getitem__, mine))
                more = [(name, offset) for (of, name), offset in self.named.items() if of == kind]
            if more:
                names += [name for name, _ in more]
                places.extend(offset for _, offset in more)
                order = sorted(range(len(names)), key=places.__getitem__)
                names, places = [names[number] for number in order], array("Q", [places[number] for number in order])
            spaces[space] = NamesTable.of(names), places
        return Index(spaces)

    def _unit(self, unit: Unit) -> None:
        units = self.units
        data = units._pread(unit.end - unit.start, unit.start)
        table = units.abbreviations.table(unit.abbrev)
        plans = {code: self._plan(abbrev, unit) for code, abbrev in table.items()}
        root = units.die(unit, unit.first)
        if not root.children:
            return
        at, end, start = root.end - unit.start, len(data), unit.start
        seen, depth, prefixes, wide = self.seen, 0, [b""], unit.offset_size
        variable_name, variable_place = self.variables[0].append, self.variables[1].append
        nested: list[int] = []  # depths at which namespaces opened
        while at < end:
            body = at + 1
            code = data[at]
            if code >= 0x80:
                code, body = uleb(data, at)
            if not code:
                if nested and nested[-1] == depth:
                    nested.pop()
                    prefixes.pop()
                depth -= 1
                if depth < 0:
                    return
                at = body
                continue
            kind, size, variable, rest, name, sibling, children = plans[code]
            if variable < 0:
                at, depth = self._whole(unit, at, kind, depth, prefixes, nested)
                continue
            stop = body + size
            if variable:
                value = stop
                stop = f.skip(data, stop, variable, unit.address_size, wide, unit.version) + rest
            if kind >= 0 and kind != NAMESPACE and depth == len(nested):
                if name >= 0:
                    text = int.from_bytes(data[body + name : body + name + wide], "little")
                    if kind == VARIABLE and not nested:
                        variable_name(text)
                        variable_place(start + at)
                    elif not nested:
                        key = (kind << SHIFT) + text
                        if key not in seen:
                            seen[key] = start + at
                    else:
                        self._keep(unit, at, kind, prefixes)
                elif variable == f.F_STRING and not nested:
                    self._named(kind, data[value : stop - rest - 1], start + at)
                else:
                    self._keep(unit, at, kind, prefixes)
            if not children:
                at = stop
            elif kind == NAMESPACE and depth == len(nested):
                depth = self._open(unit, at, depth, prefixes, nested)
                at = stop
            elif sibling >= 0:
                place = (stop if variable else body) + (sibling - rest if variable else sibling)
                beyond = int.from_bytes(data[place : place + 4], "little")
                if beyond < stop:
                    raise FormatError(f"DWARF: the entry at 0x{start + at:x} is followed by one before it")
                at = beyond
            else:
                depth += 1
                at = stop

    def _whole(
        self, unit: Unit, at: int, kind: int, depth: int, prefixes: list[bytes], nested: list[int],
    ) -> tuple[int, int]:
        """Pass over an entry that has to be read whole; return where the next one is and its depth."""
        die = self.units.die(unit, unit.start + at)
        if kind >= 0 and depth == len(nested):
            self._keep(unit, at, kind, prefixes)
        if die.children and kind == NAMESPACE and depth == len(nested):
            return die.end - unit.start, self._open(unit, at, depth, prefixes, nested)
        if not die.children:
            return die.end - unit.start, depth
        if die.has(f.AT_SIBLING):
            return self.units.after(unit, die) - unit.start, depth
        return die.end - unit.start, depth + 1

    def _open(self, unit: Unit, at: int, depth: int, prefixes: list[bytes], nested: list[int]) -> int:
        if depth >= MAX_DEPTH:
            raise FormatError("DWARF: namespaces are nested too deep")
        die = self.units.die(unit, unit.start + at)
        name = self.units.text_bytes(unit, *die.values[f.AT_NAME]) if die.has(f.AT_NAME) else b"(anonymous namespace)"
        prefixes.append(prefixes[-1] + (name or b"") + b"::")
        nested.append(depth + 1)
        return depth + 1

    def _named(self, kind: int, name: bytes, offset: int) -> None:
        if kind == VARIABLE:
            self.others.append((name, offset))
        elif name:
            self.named.setdefault((kind, name), offset)

    def _keep(self, unit: Unit, at: int, kind: int, prefixes: list[bytes]) -> None:
        """Read the entry at *at* for its name; a variable may have it from the declaration that it completes."""
        if kind == NAMESPACE:
            return
        units = self.units
        die = units.die(unit, unit.start + at)
        home, named = unit, die
        if not die.has(f.AT_NAME) and die.has(f.AT_SPECIFICATION):
            place = units.reference(unit, die, f.AT_SPECIFICATION)
            if place is not None:
                home = units.unit_of(place)
                named = units.die(home, place)
        for attribute, prefix in ((f.AT_NAME, prefixes[-1]), (f.AT_LINKAGE_NAME, b"")):  # symbols have the latter
            name = units.text_bytes(home, *named.values[attribute]) if named.has(attribute) else None
            if name:
                self._named(kind, prefix + name, unit.start + at)

    def _plan(self, abbrev: Abbrev, unit: Unit) -> _Plan:
        key = abbrev, unit.address_size, unit.offset_size, unit.version
        found = self.plans.get(key)
        if found is None:
            found = self.plans[key] = _plan(abbrev, unit)
        return found


def _plan(abbrev: Abbrev, unit: Unit) -> _Plan:
    kind = KINDS.get(abbrev.tag, -1)
    names = {attribute for attribute, _, _ in abbrev.attributes}
    if f.AT_DECLARATION in names and kind != NAMESPACE:
        kind = -1
    if kind == VARIABLE and not names & {f.AT_LOCATION, f.AT_CONST_VALUE}:
        kind = -1
    if kind == FUNCTION and f.AT_NAME not in names:
        kind = -1
    size = rest = 0
    variable = -1 if kind == VARIABLE and f.AT_LINKAGE_NAME in names else 0
    name = sibling = -1
    for attribute, form, _ in abbrev.attributes if not variable else ():
        width = f.FIXED.get(form)
        if width is not None and width < 0:
            small = width == -1 or (form == f.F_REF_ADDR and unit.version < 3)
            width = unit.address_size if small else unit.offset_size
        if width is None:
            plain = attribute == f.AT_NAME if form == f.F_STRING else attribute != f.AT_NAME
            if variable or not plain or form == f.F_INDIRECT or sibling >= 0:
                variable = -1
                break
            variable = form
            continue
        if attribute == f.AT_NAME:
            if form != f.F_STRP or variable:
                variable = -1
                break
            name = size
        elif attribute == f.AT_SIBLING:
            if form != f.F_REF4:
                variable = -1
                break
            sibling = rest if variable else size
        if variable:
            rest += width
        else:
            size += width
    return _Plan(kind, size, variable, rest, name, sibling, abbrev.children)
