"""Line number programs: from the bytes of ``.debug_line`` to rows of (address, file, line). DWARF 5 standard 6.2.

Versions 2 to 5. A program is run once and its rows are kept by who asks; bounded in rows and files.
"""

from __future__ import annotations

import posixpath
import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from kshell.errors import FormatError
from kshell.types import dwarf_forms as f
from kshell.types.dwarf_forms import skip, sleb, uleb

MAX_ROWS = 1 << 22
MAX_FILES = 1 << 16
LNCT_PATH, LNCT_DIRECTORY = 1, 2
(COPY, ADVANCE_PC, ADVANCE_LINE, SET_FILE, SET_COLUMN, NEGATE, BLOCK, CONST_ADD_PC, FIXED_ADVANCE_PC) = range(1, 10)
END_SEQUENCE, SET_ADDRESS, DEFINE_FILE = 1, 2, 3

#: text that a value of a form leads to
Text = Callable[[int, int | bytes], bytes | None]


class Sequence(NamedTuple):
    """A run of rows of ascending addresses, ``start <= address < end``."""

    start: int
    end: int
    addresses: list[int]
    files: list[int]
    lines: list[int]


class Program:
    """A line number program that has run.

    :ivar files: paths by the number that rows and DW_AT_call_file have
    """

    def __init__(
        self, data: bytes, offset: int, folder: str, text: Text, address_size: int = 8, name: str = "",
    ) -> None:
        """:param folder: DW_AT_comp_dir, to which paths are relative; :param name: DW_AT_name of the unit

        :raises FormatError: it is damaged
        """
        self.files: dict[int, str] = {}
        self._text, self._folder, self._address_size = text, folder, address_size
        self.sequences: list[Sequence] = []
        try:
            self._read(data, offset, name)
        except (IndexError, struct.error, ValueError) as error:
            raise FormatError(f"DWARF: the line numbers at 0x{offset:x} are cut") from error
        self.sequences.sort(key=lambda one: one.start)
        self._starts = [one.start for one in self.sequences]

    def at(self, address: int) -> tuple[str, int] | None:
        """Return (path, line) of *address*, or None."""
        where = bisect_right(self._starts, address)
        while where:  # sequences may overlap only in files that a linker has thrown functions out of: all at 0
            where -= 1
            found = self.sequences[where]
            if found.start <= address < found.end:
                row = bisect_right(found.addresses, address) - 1
                return self.files.get(found.files[row], "?"), found.lines[row]
            if where < len(self._starts) - 8:
                break
        return None

    def _read(self, data: bytes, offset: int, name: str) -> None:
        (length,), at, wide = struct.unpack_from("<I", data, offset), offset + 4, 4
        if length == 0xFFFF_FFFF:
            (length,), at, wide = struct.unpack_from("<Q", data, offset + 4), offset + 12, 8
        end = at + length
        (version,) = struct.unpack_from("<H", data, at)
        if not 2 <= version <= 5 or end > len(data):
            raise FormatError(f"DWARF: line numbers of version {version} at 0x{offset:x}, or longer than their section")
        at += 2
        if version >= 5:
            self._address_size = data[at]
            at += 2
        header = int.from_bytes(data[at : at + wide], "little")
        at += wide
        program = at + header
        minimum = data[at]
        at += 1 if version < 4 else 2
        _, base, span, opcodes = struct.unpack_from("<BbBB", data, at)
        at += 4
        lengths = data[at : at + opcodes - 1]
        at += opcodes - 1
        if version >= 5:
            self._tables(data, at, wide)
        else:
            self._old_tables(data, at, name)
        if span:
            self._run(data[:end], program, minimum, base, span, opcodes, lengths)

    # -- files -----------------------------------------------------------------------------------------------------

    def _tables(self, data: bytes, at: int, wide: int) -> None:
        tables: list[list[dict[int, tuple[int, int | bytes]]]] = []
        for _ in range(2):
            count = data[at]
            at += 1
            formats: list[tuple[int, int]] = []
            for _ in range(count):
                content, at = uleb(data, at)
                form, at = uleb(data, at)
                formats.append((content, form))
            entries, at = uleb(data, at)
            rows: list[dict[int, tuple[int, int | bytes]]] = []
            for _ in range(min(entries, MAX_FILES)):
                row: dict[int, tuple[int, int | bytes]] = {}
                for content, form in formats:
                    end = skip(data, at, form, self._address_size, wide, 5)
                    value: int | bytes = data[at:end]
                    if form == f.F_STRING:
                        value = data[at : end - 1]
                    elif form == f.F_UDATA:
                        value = uleb(data, at)[0]
                    elif form in f.FIXED and form != f.F_DATA16:
                        value = int.from_bytes(data[at:end], "little")
                    row[content] = form, value
                    at = end
                rows.append(row)
            tables.append(rows)
        folders = [self._path(row) for row in tables[0]]
        for number, row in enumerate(tables[1]):
            where = row.get(LNCT_DIRECTORY, (0, 0))[1]
            folder = folders[where] if isinstance(where, int) and where < len(folders) else ""
            first = folders[0] if folders else self._folder
            self.files[number] = posixpath.join(first, folder, self._path(row))

    def _path(self, row: dict[int, tuple[int, int | bytes]]) -> str:
        found = row.get(LNCT_PATH)
        data = self._text(*found) if found is not None else None
        return (data or b"?").decode("utf-8", "surrogateescape")

    def _old_tables(self, data: bytes, at: int, name: str) -> None:
        folders = [self._folder]
        while data[at]:
            end = data.index(0, at)
            folders.append(posixpath.join(self._folder, data[at:end].decode("utf-8", "surrogateescape")))
            at = end + 1
        at += 1
        self.files[0] = posixpath.join(self._folder, name)
        while data[at] and len(self.files) < MAX_FILES:
            end = data.index(0, at)
            path = data[at:end].decode("utf-8", "surrogateescape")
            folder, at = uleb(data, end + 1)
            _, at = uleb(data, at)
            _, at = uleb(data, at)
            self.files[len(self.files)] = posixpath.join(folders[folder] if folder < len(folders) else "", path)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _run(
        self, data: bytes, at: int, minimum: int, base: int, span: int, opcodes: int, lengths: bytes,
    ) -> None:
        address, file, line, rows = 0, 1, 1, 0
        addresses: list[int] = []
        files: list[int] = []
        lines: list[int] = []
        end = len(data)
        step = minimum * ((255 - opcodes) // span)
        while at < end:
            code = data[at]
            at += 1
            if code >= opcodes:
                code -= opcodes
                address += minimum * (code // span)
                line += base + code % span
            elif code == 0:
                size, at = uleb(data, at)
                if not size:
                    continue
                kind = data[at]
                if kind == END_SEQUENCE:
                    if addresses and address > addresses[0] and addresses == sorted(addresses):
                        self.sequences.append(Sequence(addresses[0], address, addresses, files, lines))
                    address, file, line = 0, 1, 1
                    addresses, files, lines = [], [], []
                elif kind == SET_ADDRESS:
                    address = int.from_bytes(data[at + 1 : at + size], "little")
                at += size
                continue
            elif code == ADVANCE_PC:
                value, at = uleb(data, at)
                address += minimum * value
                continue
            elif code == ADVANCE_LINE:
                value, at = sleb(data, at)
                line += value
                continue
            elif code == SET_FILE:
                file, at = uleb(data, at)
                continue
            elif code == CONST_ADD_PC:
                address += step
                continue
            elif code == FIXED_ADVANCE_PC:
                address += int.from_bytes(data[at : at + 2], "little")
                at += 2
                continue
            elif code != COPY:
                for _ in range(lengths[code - 1]):
                    _, at = uleb(data, at)
                continue
            rows += 1
            if rows > MAX_ROWS:
                raise FormatError("DWARF: line numbers without end")
            addresses.append(address)
            files.append(file)
            lines.append(line)
