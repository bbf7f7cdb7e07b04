"""ORC: the kernel's own tables that tell, for each instruction, where the caller's frame and return address are.

Kernel source: arch/x86/include/asm/orc_types.h, arch/x86/kernel/unwind_orc.c, tools/objtool. A table is two arrays: of
32-bit offsets to the place of the offset itself (ascending addresses), and of 6-byte entries. Entries have had four
layouts, none of which names itself before 6.4; :func:`detect` goes by the header where it is known, else by evidence.

One question reads some twenty numbers (a bisection over memory); the tables are never read as a whole.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError

if TYPE_CHECKING:
    from kshell.memory.model import Memory

ENTRY = struct.Struct("<hhH")
#: more entries than any kernel has (Debian's have 400,000)
MAX_ENTRIES = 1 << 24
SAMPLE, SAMPLES = 256, 16

#: what is at an address: no hint (0), the outermost frame, a frame of a call, saved registers, an interrupt's five
UNDEFINED, END, CALL, REGS, PARTIAL = range(5)
#: registers, as ORC numbered them until 7.1
NONE, PREV_SP, DX, DI, BP, SP, R10, R13, BP_INDIRECT, SP_INDIRECT, AX = range(11)
#: since 7.1 (1735858caa4b "objtool: Rename ORC register numbers") to the numbers above
RENUMBERED = (NONE, AX, DX, SP, BP, DI, R10, R13, PREV_SP, SP_INDIRECT, BP_INDIRECT)

#: ``orc_header``, a SHA-1 over the definitions (since 6.4, b9f174c811e3 "x86/unwind/orc: Add ELF section with ORC
#: version identifier"; in stable 6.3 too), to the number of the layout
HEADERS = {
    "db84aed4103b31dd51e017f8f79783ca985c2c51": 2,
    "fe5d32bf581bd63b2ca9a5c65ba5a625eab3fe24": 3,
    "137c36ad7627c4dd55932176bb0ecdbd5041fc82": 4,
}
HEADER_SIZE = 20


class Entry(NamedTuple):
    """What the table says of an instruction, whatever the layout.

    :ivar kind: UNDEFINED, END, CALL, REGS or PARTIAL
    :ivar base: the register that the frame's address is counted from; ``offset``: bytes from there
    :ivar bp: where the caller's frame pointer is counted from: NONE (unchanged), PREV_SP or BP; ``bp_offset``
    :ivar signal: the frame was interrupted: its program counter is exact, not a return address
    """

    kind: int
    base: int
    offset: int
    bp: int
    bp_offset: int
    signal: bool


def decode(data: bytes, layout: int) -> Entry:
    """Return the meaning of a 6-byte entry in *layout* 1 (4.14), 2 (6.3), 3 (6.4) or 4 (7.1).

    :raises FormatError: a register that the layout does not have
    """
    offset, bp_offset, flags = ENTRY.unpack(data)
    base, bp = flags & 15, flags >> 4 & 15
    if base > AX or bp > AX:
        raise FormatError(f"damaged ORC entry {data.hex()}: no such register")
    if layout >= 3:
        kind, signal = flags >> 8 & 7, bool(flags >> 11 & 1)
        if kind > PARTIAL:
            raise FormatError(f"damaged ORC entry {data.hex()}: no such type")
        if layout >= 4:
            base, bp = RENUMBERED[base], RENUMBERED[bp]
        return Entry(kind, base, offset, bp, bp_offset, signal)
    # 6.3 (ffb1b4a41016 "x86/unwind/orc: Add 'signal' field to ORC metadata") gave bit 10 another meaning
    end = flags >> (10 if layout == 1 else 11) & 1
    kind = (CALL, REGS, PARTIAL, UNDEFINED)[flags >> 8 & 3]
    signal = kind in (REGS, PARTIAL) if layout == 1 else bool(flags >> 10 & 1)
    if base == NONE:
        kind = END if end else UNDEFINED
    return Entry(kind, base, offset, bp, bp_offset, signal)


def by_evidence(flags: list[int]) -> int:
    """Return the layout of a sample of entries' flags.

    Nearly all entries are of calls that count from the stack pointer: the type tells 3 and 4 from the older ones, the
    register's number 4 from 3. Layouts 1 and 2 mark the outermost frames, which have no register, with bit 10 or 11.

    :raises FormatError: no layout makes sense of it
    """
    plain = Counter((word >> 8 & 7, word & 15) for word in flags)
    if not plain:
        raise FormatError("an empty ORC table")
    (kind, base), count = plain.most_common(1)[0]
    if count * 4 > len(flags):
        if (kind, base) == (CALL, SP):
            return 3
        if (kind, base) == (CALL, RENUMBERED.index(SP)):
            return 4
        if (kind, base) == (0, SP):
            return 2 if any(word >> 11 & 1 for word in flags if word & 15 == NONE) else 1
    raise FormatError(f"no known layout of ORC entries: {count} of {len(flags)} have type {kind} and register {base}")


class OrcTable:
    """The table of the kernel or of one module, in *memory*.

    :param ips: where the array of addresses is; ``entries``: that of the entries; ``count``: of both
    :param layout: 0: found by evidence when first needed
    """

    def __init__(self, memory: Memory, ips: int, entries: int, count: int, layout: int = 0) -> None:
        if not 0 < count <= MAX_ENTRIES:
            raise FormatError(f"an ORC table of {count} entries")
        self.memory, self.ips, self.entries, self.count = memory, ips, entries, count
        self._layout = layout

    @property
    def layout(self) -> int:
        """The layout of the entries, 1 to 4.

        :raises FormatError: it is none that is known
        :raises Fault: the table cannot be read
        """
        if not self._layout:
            self._layout = by_evidence(self.sample())
        return self._layout

    def sample(self) -> list[int]:
        """Return the flags of entries from all over the table."""
        flags: list[int] = []
        for part in range(SAMPLES):
            first = self.count * part // SAMPLES
            data, fault = self.memory.read_upto(self.entries + first * 6, min(SAMPLE, self.count - first) * 6)
            if fault is not None and not data:
                continue  # a part that is missing costs its evidence only
            flags += [row[2] for row in ENTRY.iter_unpack(data[: len(data) // 6 * 6])]
        return flags

    def ip(self, number: int) -> int:
        """Return the first address that entry *number* is of."""
        place = self.ips + 4 * number
        value = self.memory.u32(place)
        return (place + value - (value >> 31 << 32)) % (1 << 64)

    def find(self, pc: int) -> Entry | None:
        """Return the entry of the instruction at *pc*, None when it lies before the table.

        :raises Fault: the table cannot be read
        :raises FormatError: it is not in order, or the entry is damaged
        """
        behind = self._behind(pc)
        return self.entry(behind - 1) if behind else None

    def entry(self, number: int) -> Entry:
        """Return entry *number*. Raises as :meth:`find`."""
        return decode(self.memory.read(self.entries + 6 * number, 6), self.layout)

    def _behind(self, pc: int) -> int:
        """Return the number of the first entry behind *pc*."""
        low, high = 0, self.count  # ip(low - 1) <= pc < ip(high)
        below, above = -1, 1 << 64
        while low < high:
            middle = (low + high) // 2
            ip = self.ip(middle)
            if not below <= ip <= above:
                raise FormatError(f"the ORC table at 0x{self.ips:x} is not in order at entry {middle}")
            if ip <= pc:
                low, below = middle + 1, ip
            else:
                high, above = middle, ip
        return low


def layout_of(header: bytes) -> int:
    """Return the layout that ``orc_header`` names, 0 for one that is not known."""
    return HEADERS.get(header.hex(), 0)
