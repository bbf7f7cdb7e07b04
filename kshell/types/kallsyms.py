"""kallsyms: the kernel's own table of symbols, found by VMCOREINFO and read in every layout it has had.

Kernel source: kernel/kallsyms.c, scripts/kallsyms.c. Which layout it is decides the evidence in the tables (where the
names end, what the markers say, where ``_stext`` comes out), not the version:

- names: each a length and that many token numbers; the length one byte, since 6.1 (73bbb94466fd) one or two (ULEB128);
- markers: the offset of every 256th name, u64 or since 4.20 (80ffbaa5b1bd) u32;
- addresses: u64 each; or since 4.6 (2213e9a66bb8) s32 offsets to ``relative_base``, with absolute per-CPU symbols
  until 6.14; or since 7.0 (a081b5789255) s32 offsets to the place of the offset itself.
"""

from __future__ import annotations

import codecs
import re
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from kshell import cache
from kshell.errors import FormatError
from kshell.memory.model import Memory
from kshell.types.model import Symbol
from kshell.types.names_table import NamesTable

CACHE_VERSION = 1
MAX_SYMBOLS = 1 << 22
MAX_NAMES = 32 << 20
MAX_SYMBOL_SIZE = 4 << 20
TOKENS = 256
PAGE = 4096
MAX_TOKEN = 32  # longer ones are rare: counted before they are expanded
MAX_EXPANDED = 256 << 20
LOW = 1 << 32  # below lie absolute symbols, per-CPU offsets above all: no addresses of memory
TOP = 1 << 64


def covering(symbol: Symbol | None, address: int, rodata: tuple[int, int]) -> Symbol | None:
    """Return *symbol*, which begins at or below *address*, if it covers it; None if not.

    Sizes are guessed: they reach to the next symbol. In read-only data (from ``rodata[0]`` to ``rodata[1]``) string
    literals lie between symbols and have none, up to half a MiB of them; there a symbol reaches a page at most. Labels
    of the compiler (``.LC3``), which modules and kernels before 5.13 keep some of, name no data.
    """
    if symbol is None or address >= symbol.address + max(symbol.size, 1):
        return None
    if symbol.name.startswith(".L") and symbol.type not in "tTwW":
        return None
    return None if address - symbol.address >= PAGE and rodata[0] <= address < rodata[1] else symbol


def rodata_of(find: Callable[[str], list[Symbol]]) -> tuple[int, int]:
    """Return where the kernel's read-only data begins and ends, (0, 0) where it is not told."""
    start, end = find("__start_rodata"), find("__end_rodata")
    return (start[0].address, end[0].address) if start and end else (0, 0)


class Encoding(Enum):
    """How addresses are stored."""

    ABSOLUTE = "absolute addresses"
    BASE_RELATIVE = "offsets to a base"
    PERCPU_ABSOLUTE = "offsets to a base, per-CPU symbols absolute"
    PLACE_RELATIVE = "offsets to their own place"


def address_of(encoding: Encoding, value: int, base: int, place: int) -> int:
    """Return a symbol's address from its stored *value* (s32; u64 for ABSOLUTE), the base, and where it is stored."""
    if encoding is Encoding.ABSOLUTE:
        return value
    if encoding is Encoding.PERCPU_ABSOLUTE:
        return value if value >= 0 else (base - 1 - value) % TOP
    if encoding is Encoding.PLACE_RELATIVE:
        return (place + value) % TOP
    return (base + value % (1 << 32)) % TOP


class Kallsyms:
    """The symbols of one table, in its order, which is by address. A :class:`kshell.types.model.SymbolSource`."""

    def __init__(
        self, names: NamesTable, letters: bytes | memoryview, values: Sequence[int], encoding: Encoding,
        base: int = 0, place: int = 0, module: str | None = None,
    ) -> None:
        self.names, self.letters, self.values = names, letters, values
        self.encoding, self.base, self.place, self.module = encoding, base, place, module
        self._covered: tuple[int, int] | None = None
        #: of a table without variables, where code is: elsewhere a symbol covers its own address only
        self.code: list[tuple[int, int]] = []
        self._rodata: tuple[int, int] | None = None

    def address(self, number: int) -> int:
        """Return the address of symbol *number* in this boot."""
        return address_of(self.encoding, self.values[number], self.base, self.place + 4 * number)

    def symbol(self, number: int) -> Symbol:
        """Return symbol *number*; its size reaches to the next one of a different address, at most 4 MiB."""
        address = self.address(number)
        size = 0
        follower = number + 1
        if follower < len(self.values) and self.address(follower) == address:  # some kernels have thousands at one
            follower = bisect_right(range(len(self.values)), address, lo=follower, key=self.address)
        if follower < len(self.values):
            beyond = self.address(follower)
            # between absolute (per-CPU) and other symbols there is no memory
            same = (address >> 63) == (beyond >> 63)
            size = min(max(beyond - address, 0), MAX_SYMBOL_SIZE) if same else 0
        return Symbol(self.names.name(number), address, size, chr(self.letters[number]), self.module)

    def find(self, name: str) -> list[Symbol]:
        return [self.symbol(number) for number in self.names.find(name)]

    def covered(self) -> tuple[int, int]:
        """Return where the first symbol that lies in memory begins, and an address behind all symbols."""
        if self._covered is None:
            numbers = range(len(self.values))
            first = bisect_left(numbers, LOW, key=self.address)
            start = self.address(first) if first < len(numbers) else TOP
            self._covered = start, self.address(numbers[-1]) + MAX_SYMBOL_SIZE if numbers else 0
        return self._covered

    def lowest(self) -> int:
        """Return an address below which no symbol lies that covers memory."""
        return self.covered()[0]

    def at(self, address: int) -> Symbol | None:
        start, end = self.covered()
        if not start <= address < end:
            return None
        if self._rodata is None:
            self._rodata = rodata_of(self.find)
        found = covering(self.below(address), address, self._rodata)
        if found is None or found.address == address or not self.code:
            return found
        return found if any(first <= found.address <= address < end for first, end in self.code) else None

    def below(self, address: int, lowest: int = LOW) -> Symbol | None:
        """Return the closest symbol not above *address*, whatever its size.

        :param lowest: of smaller addresses nothing is said: they are offsets of per-CPU variables, and no address
        """
        numbers = range(len(self.values))
        position = bisect_right(numbers, address, key=self.address) - 1
        if position < 0 or address < lowest:
            return None
        first = bisect_left(numbers, self.address(position), hi=position, key=self.address)
        return self.symbol(first)  # of several at one address the kernel names the first

    def per_cpu(self, value: int) -> Symbol | None:
        """Return the symbol whose value is *value*, an offset in the per-CPU area."""
        found = self.below(value, 0) if value < LOW else None
        return found if found is not None and found.address == value else None

    def starting(self, prefix: str, limit: int) -> list[str]:
        return self.names.starting(prefix, limit)

    def __iter__(self) -> Iterator[Symbol]:
        return map(self.symbol, range(len(self.values)))

    def __len__(self) -> int:
        return len(self.values)


def load_kallsyms(space: Memory, symbol: Callable[[str], int | None]) -> Kallsyms:
    """Read the kernel's table from its memory.

    :param symbol: gives the addresses of ``kallsyms_names`` and the others, as VMCOREINFO tells them
    :raises FormatError: the table is not told of, or it is damaged; the message names the part
    :raises Fault: a part cannot be read
    """
    places = {name: symbol(f"kallsyms_{name}") for name in
              ("names", "num_syms", "token_table", "token_index", "offsets", "relative_base", "addresses")}
    needed = ("names", "num_syms", "token_table", "token_index")
    missing = [f"kallsyms_{name}" for name in needed if places[name] is None]
    if missing:
        raise FormatError(f"VMCOREINFO does not tell where {', '.join(missing)} is (Linux before 6.0)")
    names_at, table_at, index_at = places["names"] or 0, places["token_table"] or 0, places["token_index"] or 0
    count = struct.unpack("<I", space.read(places["num_syms"] or 0, 4))[0]
    if not 0 < count <= MAX_SYMBOLS:
        raise FormatError(f"kallsyms_num_syms: impossible number of symbols, {count}")
    if not 0 < table_at - names_at <= MAX_NAMES:
        raise FormatError(f"kallsyms_names: impossible size of {table_at - names_at} bytes")
    region = space.read(names_at, table_at - names_at)
    index = struct.unpack("<256H", space.read(index_at, 2 * TOKENS))
    tokens, _ = space.read_upto(table_at, min(max(index) + 512, 1 << 16))
    values, base, place = _values(space, places, count)
    names, letters = decode_names(region, count, token_list(tokens, index))
    stext = names.find("_stext")
    encoding = choose_encoding(
        values, base, place, places["relative_base"] is not None, stext[0] if stext else None, symbol("_stext"))
    return Kallsyms(names, letters, values, encoding, base, place)


def _values(space: Memory, places: dict[str, int | None], count: int) -> tuple[Sequence[int], int, int]:
    """Return (stored values, relative base, address of the first one)."""
    offsets, base = places["offsets"], places["relative_base"]
    if offsets is not None:
        values = memoryview(space.read(offsets, 4 * count)).cast("i")
        return values, struct.unpack("<Q", space.read(base, 8))[0] if base is not None else 0, offsets
    if places["addresses"] is None:
        raise FormatError("VMCOREINFO tells of neither kallsyms_offsets nor kallsyms_addresses")
    return memoryview(space.read(places["addresses"], 8 * count)).cast("Q"), 0, 0


def choose_encoding(
    values: Sequence[int], base: int, place: int, has_base: bool, stext: int | None, address: int | None,
) -> Encoding:
    """Return how *values* are stored: the way that puts ``_stext`` (symbol number *stext*) at *address*.

    :raises FormatError: no way does
    """
    wide = isinstance(values, memoryview) and values.itemsize == 8
    if wide:
        candidates = [Encoding.ABSOLUTE]
    elif has_base:
        candidates = [Encoding.PERCPU_ABSOLUTE, Encoding.BASE_RELATIVE]
    else:
        candidates = [Encoding.PLACE_RELATIVE]
    if stext is None or address is None:
        # no witness: addresses must ascend, and not all be absolute
        for encoding in candidates:
            step = max(len(values) // 1024, 1)
            found = [address_of(encoding, values[i], base, place + 4 * i) for i in range(0, len(values), step)]
            if found == sorted(found) and found[-1] >= LOW:
                return encoding
    else:
        for encoding in candidates:
            if address_of(encoding, values[stext], base, place + 4 * stext) == address:
                return encoding
    raise FormatError("kallsyms_offsets: no known encoding puts _stext where VMCOREINFO says it is")


def token_list(table: bytes | memoryview, index: Sequence[int]) -> list[bytes]:
    """Return the 256 tokens of ``kallsyms_token_table``.

    :raises FormatError: an index leads out of the table, or a token has no end
    """
    data = bytes(table)
    tokens: list[bytes] = []
    for start in index:
        end = data.find(b"\0", start)
        if start >= len(data) or end < 0:
            raise FormatError("kallsyms_token_index leads out of kallsyms_token_table")
        tokens.append(data[start:end])
    return tokens


def hop(region: bytes, count: int, wide: bool) -> list[int] | None:
    """Return where each of *count* names begins, and where the last one ends; None when they do not fit in *region*.

    :param wide: lengths of one or two bytes (ULEB128); else of one
    """
    starts: list[int] = []
    append, at = starts.append, 0
    try:
        for _ in range(count):
            append(at)
            length = region[at]
            if length < 0x80:
                at += length + 1
            elif wide:
                at += (length & 0x7F | region[at + 1] << 7) + 2
            else:
                at += length + 1
    except IndexError:
        return None
    append(at)
    return starts if at <= len(region) else None


def markers_agree(region: bytes, starts: Sequence[int]) -> bool:
    """Whether the markers that follow the names, u32 or u64, say of every 256th name what *starts* says."""
    expected = starts[:-1:256]
    end = starts[-1]
    for align in (8, 4):
        at = -(-end // align) * align
        for code, width in (("I", 4), ("Q", 8)):
            size = width * len(expected)
            if at + size <= len(region) and array(code, region[at : at + size]) == array(code, expected):
                return True
    return False


def decode_names(region: bytes, count: int, tokens: Sequence[bytes]) -> tuple[NamesTable, bytes | memoryview]:
    """Return (the names, the letter of each) of ``kallsyms_names`` and what follows it up to the token table.

    :raises FormatError: the names do not end where the markers say, or one of them is empty
    """
    key = cache.key_of(region, b"\0".join(tokens), struct.pack("<I", count))
    kept = cache.load("kallsyms", key, CACHE_VERSION)
    if kept is not None:
        try:
            table, letters = NamesTable.unpack(kept)
            if len(table) == len(letters) == count:
                return table, letters
        except (ValueError, TypeError, struct.error):
            pass  # of another shape than this version writes: decoded and written again
    wide, starts = False, None
    for wide in (True, False):
        starts = hop(region, count, wide)
        if starts is not None and markers_agree(region, starts):
            break
        starts = None
    if starts is None:
        raise FormatError("kallsyms_names: the names do not end where the markers say")
    rows = expand(region, starts, wide, tokens)
    if not all(rows):
        raise FormatError(f"kallsyms_names or kallsyms_num_syms: symbol {rows.index('')} of {count} has no letter")
    table = NamesTable.of([row[1:] for row in rows])
    kinds = "".join([row[0] for row in rows]).encode("latin-1")
    cache.store("kallsyms", key, CACHE_VERSION, *table.pack(), kinds)
    return table, kinds


def expand(region: bytes, starts: Sequence[int], wide: bool, tokens: Sequence[bytes]) -> list[str]:
    """Return letter and name of every symbol, a character for each byte (latin-1).

    All names are expanded by one call of the charmap codec, for which the lengths between them become the number of a
    token that is not used, or else of one that is rare here and is put back into its names afterwards.
    """
    data = bytearray(region[: starts[-1]])
    mark = next((token for token in range(255, -1, -1) if token not in data), None)
    rare: list[int] = []
    if mark is None:
        sample = data[: 1 << 16]
        mark = min(range(256), key=sample.count)
        lengths = set(starts)
        rare = [match.start() for match in re.finditer(re.escape(bytes((mark,))), data) if match.start() not in lengths]
    long = [start for start in starts[:-1] if data[start] & 0x80] if wide else []
    for start in starts[:-1]:
        data[start] = mark
    for start in long:
        if data[start + 1] != mark:
            data[start + 1] = mark
            rare.append(start + 1)
    rare.sort()
    wide_tokens = [token for token in range(256) if len(tokens[token]) > MAX_TOKEN and token != mark]
    if sum(data.count(token) * len(tokens[token]) for token in wide_tokens) > MAX_EXPANDED:
        raise FormatError("kallsyms_token_table: tokens of impossible length")
    mapping = {number: token.decode("latin-1") for number, token in enumerate(tokens)}
    marked, mapping[mark] = mapping[mark], "\0"  # which no token has in it
    rows = codecs.charmap_decode(bytes(data), "strict", mapping)[0].split("\0")
    second = {start + 1 for start in long}
    for number in range(len(rare) - 1, -1, -1):  # a mark that is not a start has cut a name in two
        at = rare[number]
        row = bisect_left(starts, at) + number
        rows[row : row + 2] = [rows[row] + ("" if at in second else marked) + rows[row + 1]]
    return rows[1:]


class ModuleSymbols(Kallsyms):
    """The symbols of one kernel module, from its ``mod_kallsyms``: Elf64_Sym records and their strings.

    Kernel source: ``struct mod_kallsyms`` (kernel/module/internal.h), layout_symtab() in kernel/module/kallsyms.c.
    """

    def __init__(self, module: str, symtab: bytes, strtab: bytes, letters: bytes | None) -> None:
        """:param letters: nm's letter of each symbol, since 5.2; without it ``st_info`` holds the letter

        :raises FormatError: the tables do not fit together
        """
        rows = []
        if len(symtab) % ELF_SYM.size or (letters is not None and len(letters) < len(symtab) // ELF_SYM.size):
            raise FormatError(f"{module}: its symbol table and the letters of its symbols do not fit together")
        for number, (name, info, _, section, value, size) in enumerate(ELF_SYM.iter_unpack(symtab)):
            end = strtab.find(b"\0", name)
            text = strtab[name:end] if 0 <= name < end else b""
            if text and section:
                rows.append((value, number, text, letters[number] if letters is not None else info, size))
        rows.sort()
        letter_of = bytes(row[3] for row in rows)
        super().__init__(NamesTable.of([row[2] for row in rows]), letter_of, array("Q", [row[0] for row in rows]),
                         Encoding.ABSOLUTE, module=module)
        self._sizes = [row[4] for row in rows]

    def symbol(self, number: int) -> Symbol:
        """Return symbol *number*, of the size the ELF file gave it.

        One without (a label in assembly) reaches to the next, but not into the next page: sections lie apart, and
        other modules' between them.
        """
        told = super().symbol(number)
        page = PAGE - told.address % PAGE
        size = min(self._sizes[number], MAX_SYMBOL_SIZE) or min(told.size, page)
        return told._replace(size=size)


ELF_SYM = struct.Struct("<IBBHQQ")
