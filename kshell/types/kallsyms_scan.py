"""kallsyms found in a kernel's memory when nothing tells where it is: by the shape of its tables.

Kernel source: scripts/kallsyms.c writes the tables, in one of two orders, each label aligned to 8 bytes:

- before 6.4 (404bad70fcf7): offsets, relative_base, num_syms, names, markers, [seqs_of_names], token_table, token_index
- since: num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names

The start is ``kallsyms_token_table``: its tokens for the ten digits stand alone, one behind the other. Everything
else is found from there, and checked by what :mod:`kshell.types.kallsyms` checks. Imports numpy.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, KshellError, Reason
from kshell.memory.model import Memory
from kshell.types.kallsyms import LOW, MAX_NAMES, MAX_SYMBOLS, TOKENS, Encoding, Kallsyms, load_kallsyms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
FIRST_DIGIT = ord("0")
MAX_TABLE = 1 << 16  # of tokens; their index has 16 bits
MAX_HITS = 64  # places with ten digits in a row that are looked at
MARKED = 256  # names from one marker to the next
MIN_STEP, MAX_STEP = 0x200, 0x20000  # bytes from one marker to the next
BLOCK = 1 << 17  # numbers that are looked at together
MIN_MARKERS = 4  # a kernel has more than a thousand symbols


class Run(NamedTuple):
    """Bytes of the kernel image that follow each other: the first is at the virtual address ``start``."""

    start: int
    data: bytes


class Found(NamedTuple):
    """A table and where it is: ``places`` are the addresses of its labels, ``kallsyms_names`` and so on."""

    table: Kallsyms
    places: dict[str, int]


def scan_kallsyms(runs: Sequence[Run], image: tuple[int, int] | None = None) -> Found:
    """Find the kernel's symbols in its image.

    :param runs: the image's mapped bytes, ascending; those of its constants are enough
    :param image: where it starts and ends; None: where *runs* do
    :raises FormatError: no table is there, or the one that is there is damaged
    """
    lowest = min((run.start for run in runs), default=0)
    highest = max((run.start + len(run.data) for run in runs), default=0)
    lowest, highest = image or (lowest, highest)
    problem = "no token table (a kernel without CONFIG_KALLSYMS?)"
    for run in runs:
        for table, index in _token_tables(run.data):
            problem = "its names are not before its tokens"
            try:
                for places in _layouts(run, table, index):
                    try:
                        found = load_kallsyms(_Bytes(run), places.get)
                    except KshellError as error:
                        problem = str(error)
                        continue
                    if _plausible(found, lowest, highest):
                        return Found(found, places)
                    problem = "its addresses are not those of this image"
            except FormatError as error:
                problem = str(error)
    raise FormatError(f"kallsyms is not found in the kernel image: {problem}")


class _Bytes(Memory):
    """A run as a memory, for :func:`load_kallsyms`."""

    space = "kernel"

    def __init__(self, run: Run) -> None:
        self.run = run

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        at = address - self.run.start
        found = self.run.data[at : at + size] if at >= 0 else b""
        if len(found) == size:
            return found, None
        return found, Fault(address + len(found), size, Reason.NOT_MAPPED, partial=found, space=self.space,
                            detail="a table of kallsyms leaves the kernel image")


def _token_tables(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (offset of a token table, offset of its index) of every place that is both."""
    at = -1
    for _ in range(MAX_HITS):
        at = data.find(DIGITS, at + 1)
        if at < 0:
            return
        ends: list[int] = []  # offsets of the tokens' ends, from the digit 0 on
        end = at - 1
        while len(ends) < TOKENS - FIRST_DIGIT:
            end = data.find(b"\0", end + 1, at + MAX_TABLE)
            if end < 0:
                break
            ends.append(end)
        if len(ends) < TOKENS - FIRST_DIGIT:
            continue
        starts = [at, *(end + 1 for end in ends[:-1])]
        index = -(-(ends[-1] + 1) // 8) * 8
        numbers = struct.unpack_from(f"<{TOKENS}H", data, index) if index + 2 * TOKENS <= len(data) else ()
        if not numbers or numbers[0] != 0:
            continue
        table = at - numbers[FIRST_DIGIT]
        if table >= 0 and list(numbers[FIRST_DIGIT:]) == [start - table for start in starts]:
            yield table, index


def _layouts(run: Run, table: int, index: int) -> Iterator[dict[str, int]]:
    """Yield the labels' addresses in every order that the tables around the token table may have."""
    for names, count in _names(run.data, table):
        fixed = {"names": names, "num_syms": names - 8, "token_table": table, "token_index": index}
        wide = -(-4 * count // 8) * 8
        behind = index + 2 * TOKENS
        candidates = (
            {"relative_base": names - 16, "offsets": names - 16 - wide},  # before 6.4
            {"offsets": behind, "relative_base": behind + wide},  # since 6.4
            {"addresses": names - 8 - 8 * count},
            {"addresses": behind},
            {"offsets": behind},  # since 7.0
        )
        for places in candidates:
            if all(0 <= at < len(run.data) for at in places.values()):
                yield {f"kallsyms_{name}": run.start + at for name, at in (fixed | places).items()}


def _names(data: bytes, table: int) -> Iterator[tuple[int, int]]:
    """Yield (offset of ``kallsyms_names``, number of names): what markers before the token table fit."""
    import numpy as np

    low = max(table - MAX_NAMES, 0) // 8 * 8 + table % 8
    for code, width in (("<u4", 4), ("<u8", 8)):
        numbers = np.frombuffer(data, code, (table - low) // width, low)
        if len(numbers) < 2:
            continue
        rising = np.empty(len(numbers) - 1, bool)
        starts: list[NDArray[np.intp]] = []
        for at in range(0, len(rising), BLOCK):  # a block at a time: all at once take ten times the image's size
            block = numbers[at : at + BLOCK + 1]
            step = np.diff(block)  # a fall is a step of nearly 2 to the 32nd or 64th
            rising[at : at + BLOCK] = here = (step >= MIN_STEP) & (step <= MAX_STEP)
            starts.append(np.flatnonzero((block[:-1] == 0) & here) + at)
        # a table of markers starts with 0 and goes on rising, up to the first place that does not
        firsts = np.concatenate(starts)
        falls = np.append(np.flatnonzero(rising[:-1] & ~rising[1:]) + 1, len(rising))
        lengths = falls[np.searchsorted(falls, firsts, side="right")] - firsts + 1
        for which in np.argsort(-lengths, kind="stable")[:4].tolist():
            first, length = int(firsts[which]), int(lengths[which])
            if length >= MIN_MARKERS:
                yield from _before(data, low + first * width, numbers[first : first + length].tolist())


def _before(data: bytes, markers: int, values: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (names, count) of the places before the markers where a count stands that goes with their number.

    What follows the markers may look like more of them, so the last one is where the count says.
    """
    for length in range(len(values), max(len(values) - 3, MIN_MARKERS - 1), -1):
        newest = markers - values[length - 1]
        for names in range(newest - newest % 8, max(newest - MAX_STEP, 7), -8):
            count = int.from_bytes(data[names - 8 : names], "little")
            if MARKED * (length - 1) < count <= MARKED * length and count <= MAX_SYMBOLS:
                yield names, count


def _plausible(table: Kallsyms, lowest: int, highest: int) -> bool:
    """Whether ``_stext`` or ``_text`` is in the image, and addresses rise."""
    witness = [number for name in ("_stext", "_text") for number in table.names.find(name)]
    if not any(lowest <= table.address(number) < highest for number in witness):
        return False
    if table.encoding is Encoding.PLACE_RELATIVE and any(table.values[number] >= 0 for number in witness):
        return False  # the text lies before the tables: these are offsets to something else
    step = max(len(table) // 1024, 1)
    found = [table.address(number) for number in range(0, len(table), step)]
    inside = sum(address < LOW or lowest <= address for address in found)
    return found == sorted(found) and inside == len(found)
