"""Source lines: from an address to file and line, with the functions that were inlined there. As ``addr2line -i`` says.

The unit is found by ``.debug_aranges``, or by what units say of themselves; only that unit is read.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from kshell.errors import FormatError
from kshell.types import dwarf_forms as f
from kshell.types.dwarf_ranges import ranges_of, read_aranges
from kshell.types.dwarf_units import Die, Unit, Units
from kshell.types.line_program import Program

KEPT = 16  # programs
MAX_DEPTH = 256
MAX_FUNCTIONS = 1 << 20
Function = tuple[int, int, int]  # start, end, offset of the entry


class SourceLine(NamedTuple):
    """One place in the source.

    :ivar function: its name, "" when it is not told
    :ivar file: path as the compiler was given it, joined to the folder it ran in
    :ivar line: 0 when the compiler could not say
    :ivar inlined: whether the function was inlined into that of the next one
    """

    function: str
    file: str
    line: int
    inlined: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Lines:
    """The line numbers of one file's DWARF. Addresses are those that it was linked at."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self._table: list[tuple[int, int, int]] | None = None
        self._starts: list[int] = []
        self._covered = False
        self._programs: dict[int, Program] = {}
        self._functions: dict[int, list[Function]] = {}

    def at(self, address: int) -> list[SourceLine]:
        """Return the place of *address*, the innermost inlined function first, its function last; [] if none is told.

        :raises FormatError: the DWARF is damaged there
        """
        unit = self.unit_at(address)
        if unit is None:
            return []
        program = self.program(unit)
        found = program.at(address) if program is not None else None
        chain = self._chain(unit, address)
        if found is None and not chain:
            return []
        path, line = found if found is not None else ("?", 0)
        lines: list[SourceLine] = []
        for number, die in enumerate(reversed(chain)):
            inlined = number < len(chain) - 1
            lines.append(SourceLine(self._name(unit, die), path, line, inlined))
            if inlined:
                call = self.units.number(die, f.AT_CALL_FILE)
                path = program.files.get(call if call is not None else -1, "?") if program is not None else "?"
                line = self.units.number(die, f.AT_CALL_LINE) or 0
        return lines or [SourceLine("", path, line)]

    def unit_at(self, address: int) -> Unit | None:
        """Return the unit whose code is at *address*, or None."""
        if self._table is None:
            self._table = read_aranges(self.units)
            self._starts = [start for start, _, _ in self._table]
        for again in (False, True):
            at = bisect_right(self._starts, address)
            for start, end, unit in reversed(self._table[max(at - 4, 0) : at]):
                if start <= address < end:
                    by_start = {one.start: one for one in self.units.units} if again else None
                    if by_start is not None:
                        return by_start.get(unit)
                    return next((one for one in self.units.units if one.start == unit), None)
            if again or self._covered:
                return None
            self._cover()
        return None

    def _cover(self) -> None:
        """Add the units that ``.debug_aranges`` leaves out."""
        assert self._table is not None
        self._covered = True
        told = {unit for _, _, unit in self._table}
        for unit in self.units.units:
            if unit.start not in told:
                try:
                    found = list(ranges_of(self.units, unit, self.units.root(unit)))
                except FormatError:
                    continue
                self._table += [(start, end, unit.start) for start, end in found]
        self._table.sort()
        self._starts = [start for start, _, _ in self._table]

    def program(self, unit: Unit) -> Program | None:
        """Return the line number program of *unit*, or None when it has none."""
        found = self._programs.get(unit.start)
        if found is None:
            units = self.units
            root = units.root(unit)
            offset = units.number(root, f.AT_STMT_LIST)
            if offset is None:
                return None
            folder, name = units.text(unit, root, f.AT_COMP_DIR) or "", units.text(unit, root) or ""
            if len(self._programs) >= KEPT:
                self._programs.clear()
            found = self._programs[unit.start] = Program(
                units.section(".debug_line"), offset, folder,
                lambda form, value: units.text_bytes(unit, form, value), unit.address_size, name)
        return found

    # -- functions -------------------------------------------------------------------------------------------------

    def _chain(self, unit: Unit, address: int) -> list[Die]:
        """Return the entries of the function at *address* and of those inlined there, the outermost first."""
        functions = self._functions.get(unit.start)
        if functions is None:
            functions = self._functions[unit.start] = self._functions_of(unit)
        at = bisect_right(functions, (address, 1 << 64, 0)) - 1
        if at < 0 or address >= functions[at][1]:
            return []
        die = self.units.die(unit, functions[at][2])
        chain = [die]
        for _ in range(MAX_DEPTH):
            inner = self._inner(unit, die, address)
            if inner is None:
                break
            die = inner
            if die.tag == f.INLINED:
                chain.append(die)
        return chain

    def _inner(self, unit: Unit, parent: Die, address: int) -> Die | None:
        """Return the block or inlined function right below *parent* that covers *address*."""
        for die in self.units.children(unit, parent):
            if die.tag in (f.INLINED, f.LEXICAL) and any(
                    start <= address < end for start, end in ranges_of(self.units, unit, die)):
                return die
        return None

    def _functions_of(self, unit: Unit) -> list[Function]:
        found: list[Function] = []
        todo = [self.units.root(unit)]
        while todo and len(found) < MAX_FUNCTIONS:
            for die in self.units.children(unit, todo.pop()):
                if die.tag == f.SUBPROGRAM:
                    found += [(start, end, die.offset) for start, end in ranges_of(self.units, unit, die)]
                elif die.tag in (f.NAMESPACE, f.STRUCT, f.CLASS) and die.children and len(todo) < MAX_DEPTH:
                    todo.append(die)
        found.sort()
        return found

    def _name(self, unit: Unit, die: Die) -> str:
        """Return the name of a function's entry, or of the one that it is an instance of."""
        for _ in range(8):
            name = self.units.text(unit, die)
            if name is not None:
                return name
            for attribute in (f.AT_ABSTRACT_ORIGIN, f.AT_SPECIFICATION):
                place = self.units.reference(unit, die, attribute)
                if place is not None:
                    unit = self.units.unit_of(place)
                    die = self.units.die(unit, place)
                    break
            else:
                break
        return ""
