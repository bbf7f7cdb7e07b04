"""The code of one process, by its memory alone: unwind tables and names of the program and its libraries.

Which file is mapped where is told by the mappings; the rest by the headers of the files where they are mapped: the
unwind tables by PT_GNU_EH_FRAME, names by the dynamic section. A process and a core have their files too
(:mod:`kshell.target.loaded`), which know more names and other tables.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.memory.bytes import ByteMemory
from kshell.types.dynamic import read_dynamic_symbols
from kshell.types.elffile import SHT_NOBITS
from kshell.types.model import Symbol
from kshell.types.objsyms import ObjectSymbols
from kshell.unwind.abi import X86_64, Abi
from kshell.unwind.cfi import Entries, Fde
from kshell.unwind.frametable import (
    FrameTable,
    Loaded,
    ScannedTable,
    SortedTable,
    find_frames,
    loaded_at,
)
from kshell.unwind.user import UserCode

if TYPE_CHECKING:
    from kshell.memory.model import Memory
    from kshell.target.loaded import LoadObject

VSYSCALL = range(0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000)


class Region(NamedTuple):
    """A mapping of the process."""

    start: int
    end: int
    permissions: str
    offset: int
    name: str


class Image(NamedTuple):
    """A file in memory.

    :ivar loaded: what its headers tell, or why that cannot be read
    :ivar tables: its unwind tables, the one that knows most first; or why they cannot be read
    """

    start: int
    name: str
    loaded: Loaded | KshellError
    tables: Sequence[FrameTable | KshellError]
    symbols: ObjectSymbols | None


class Program:
    """The code of a process with its *memory*, in which *regions* are mapped.

    :param objects: gives the object of an address where the files are known (a process or core); None: where not
    """

    def __init__(
        self, memory: Memory, regions: Sequence[Region], objects: Callable[[int], LoadObject | None] | None = None,
    ) -> None:
        self.memory, self.regions = memory, sorted(regions)
        self._objects = objects
        self._images: dict[int, Image] = {}
        self._entries: dict[int, Fde | None] = {}

    def region_at(self, address: int) -> Region | None:
        """Return the mapping that holds *address*."""
        at = bisect_right(self.regions, address, key=lambda one: one.start) - 1
        return self.regions[at] if at >= 0 and address < self.regions[at].end else None

    def code(self, abi: Abi = X86_64) -> UserCode:
        """Return what :func:`kshell.unwind.user.walk_user` must know of code for a machine."""
        return UserCode(self.find, self.is_text, self._stack_end, abi)

    def is_text(self, address: int) -> bool:
        """Whether *address* is of code."""
        found = self.region_at(address)
        return "x" in found.permissions if found is not None else address in VSYSCALL

    def _stack_end(self, address: int) -> int:
        found = self.region_at(address)
        return found.end if found is not None else 0

    def find(self, address: int) -> Fde | None:
        """Return the entry of the unwind tables for *address*, None when there is none.

        :raises KshellError: the tables that should tell are damaged or cannot be read
        """
        if address not in self._entries:
            self._entries[address] = self._find(address)
        return self._entries[address]

    def _find(self, address: int) -> Fde | None:
        image = self.image_at(address)
        if image is None or not self.is_text(address):
            return None
        problem: KshellError | None = None
        for table in image.tables:
            if isinstance(table, KshellError):
                problem = problem or table
                continue
            try:
                found = table.find(address)
            except KshellError as error:
                problem = problem or error
                continue
            if found is not None:
                return found
        if problem is not None:
            raise FormatError(f"the unwind table of {os.path.basename(image.name)} cannot be read: {problem}")
        return None

    # -- files in memory -------------------------------------------------------------------------------------------

    def image_at(self, address: int) -> Image | None:
        """Return the file that is mapped at *address*; None: memory that is of none."""
        found = self.region_at(address)
        if found is None or not found.name or (found.name[0] == "[" and found.name != "[vdso]"):
            return None
        at = self.regions.index(found)
        while at and self.regions[at].offset and self.regions[at].name == found.name:
            at -= 1  # to where it begins: gaps and other mappings may lie between
            while at and self.regions[at].name != found.name:
                at -= 1
        head = self.regions[at]
        if head.name != found.name or (head.offset and found.name != "[vdso]"):
            head = found
        if head.start not in self._images:
            self._images[head.start] = self._image(head, address)
        return self._images[head.start]

    def _image(self, head: Region, address: int) -> Image:
        tables: list[FrameTable | KshellError] = []
        loaded: Loaded | KshellError
        symbols: ObjectSymbols | None = None
        try:
            loaded = loaded_at(self.memory, head.start)
            if loaded.frames:
                tables.append(SortedTable(self.memory, loaded.frames, loaded.word))
            else:
                tables += self._unheaded(head, loaded)
        except KshellError as error:
            loaded = error
            tables.append(error)
        own = self._objects(address) if self._objects is not None else None
        if own is not None:
            tables = [*tables, _FileTables(own)]
        elif isinstance(loaded, Loaded):
            told = loaded
            symbols = ObjectSymbols(head.start, told.end, lambda: self._names(head.name, told))
        return Image(head.start, head.name, loaded, tables, symbols)

    def _unheaded(self, head: Region, loaded: Loaded) -> list[FrameTable | KshellError]:
        """Return the ``.eh_frame`` of a program without a sorted table, as static ones are."""
        for one in self.regions:
            if head.start <= one.start < loaded.end and one.name == head.name and "r" in one.permissions:
                found = find_frames(self.memory, one.start, one.end, loaded.word)
                if found is not None:
                    return [found]
        return []

    def _names(self, name: str, loaded: Loaded) -> list[Symbol]:
        with suppress(KshellError):  # then addresses have the name of the file
            return read_dynamic_symbols(self.memory, loaded.dynamic, loaded.bias, os.path.basename(name), loaded.word)
        return []

    def symbolize(self, address: int) -> tuple[Symbol, int] | None:
        """Return the function at *address* and the offset in it, or the file and the offset in that; None: neither.

        By what the dynamic section tells; a file that has none, or no such function, stands for a symbol of its own.
        """
        image = self.image_at(address)
        if image is None:
            return None
        found = image.symbols.at(address) if image.symbols is not None else None
        if found is None:
            end = image.loaded.end if isinstance(image.loaded, Loaded) else address + 1
            found = Symbol(os.path.basename(image.name), image.start, end - image.start, "t", None)
        return found, address - found.address


class _FileTables:
    """The unwind tables of a file that its memory does not lead to: unsorted ones, .debug_frame; read when asked."""

    def __init__(self, found: LoadObject) -> None:
        self._found = found
        self._tables: list[ScannedTable] | None = None

    def find(self, address: int) -> Fde | None:
        if self._tables is None:
            self._tables = list(self._read())
        return next((entry for table in self._tables if (entry := table.find(address)) is not None), None)

    def _read(self) -> Iterator[ScannedTable]:
        for file in dict.fromkeys((self._found.elf, self._found.debug)):
            for name in (".eh_frame", ".debug_frame"):
                section = file.section(name) if file is not None else None
                if section is None or file is None or section.type == SHT_NOBITS:
                    continue
                memory = ByteMemory(file.content(section), section.address)
                entries = Entries(memory, section.address, debug=name == ".debug_frame", word=file.bits // 8)
                yield ScannedTable(entries, section.address, section.size, self._found.bias)
