"""Call frame information: how the caller's registers are found, for every instruction of a program.

DWARF 5 standard 6.4 (the tables and their instructions); Linux Standard Base core 10.6 (``.eh_frame``, which is loaded
with the program, and pointers by DW_EH_PE); GNU: ``S`` in an augmentation marks the return from a signal handler. Bytes
are read where they lie: in a process, a dump of its memory, or a section of a file.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError
from kshell.types.dwarf_forms import sleb, uleb

if TYPE_CHECKING:
    from kshell.memory.model import Memory

TOP = 1 << 64
MAX_ENTRY = 1 << 20
MAX_ROWS = 1 << 16
OMIT = 0xFF
#: DW_EH_PE: bytes and sign of the formats that have a fixed size
SIZES = {0x00: (8, False), 0x02: (2, False), 0x03: (4, False), 0x04: (8, False), 0x0A: (2, True), 0x0B: (4, True),
         0x0C: (8, True)}
PCREL, TEXTREL, DATAREL, FUNCREL, ALIGNED, INDIRECT = 0x10, 0x20, 0x30, 0x40, 0x50, 0x80
#: kinds of rules: how a register of the caller is found
UNDEFINED, SAME, OFFSET, VAL_OFFSET, REGISTER, EXPRESSION, VAL_EXPRESSION = range(7)
#: (kind, number): what is added to the frame's address, or the register's number; or (kind, an expression)
Rule = tuple[int, int | bytes]
#: (register, offset) whose sum is the frame's address, or the expression that computes it
Base = tuple[int, int] | bytes


class Cie(NamedTuple):
    """What the entries of many functions have in common. ``signal``: they are returned to from a signal's handler."""

    code_align: int
    data_align: int
    return_register: int
    encoding: int
    augmented: bool
    signal: bool
    program: bytes


class Fde(NamedTuple):
    """The entry of the code ``start <= address < end``."""

    cie: Cie
    start: int
    end: int
    program: bytes


class Row(NamedTuple):
    """How the caller is found from one instruction: the address of the frame, and a rule for each register."""

    base: Base
    rules: dict[int, Rule]


def pointer(
    memory: Memory | None, data: bytes, at: int, encoding: int, address: int, table: int = 0, word: int = 8,
) -> tuple[int, int]:
    """Return the pointer at *at* of *data*, and where it ends.

    :param encoding: of it (DW_EH_PE); OMIT: there is none, 0
    :param address: of data's first byte; :param table: what DATAREL counts from
    :param memory: where INDIRECT looks; :param word: bytes of an address
    :raises FormatError: an encoding that makes no sense, or the data ends
    """
    if encoding == OMIT:
        return 0, at
    if encoding & 0x70 == ALIGNED:
        at += -(address + at) % word
    form, start = encoding & 0x0F, at
    if form == 1:
        value, at = uleb(data, at)
    elif form == 9:
        value, at = sleb(data, at)
    elif form in SIZES:
        size, signed = SIZES[form] if form else (word, False)
        at += size
        if at > len(data):
            raise FormatError("a pointer of the unwind table is cut")
        value = int.from_bytes(data[start:at], "little", signed=signed)
    else:
        raise FormatError(f"a pointer of the unwind table has an unknown encoding 0x{encoding:x}")
    how = encoding & 0x70
    if how == PCREL and value:
        value += address + start
    elif how == DATAREL and value:
        value += table
    elif how not in (0, ALIGNED, PCREL, DATAREL):
        raise FormatError(f"a pointer of the unwind table has an encoding that x86 has not: 0x{encoding:x}")
    value %= 1 << 8 * word
    if encoding & INDIRECT and value:
        if memory is None:
            raise FormatError("a pointer of the unwind table leads to another one")
        value = int.from_bytes(memory.read(value, word), "little")
    return value, at


class Entries:
    """The entries of one ``.eh_frame``, or ``.debug_frame``, by their addresses.

    :param debug: it is a ``.debug_frame``; *start* is where it begins, which its entries count from
    :param word: bytes of an address
    """

    def __init__(self, memory: Memory, start: int = 0, *, debug: bool = False, word: int = 8) -> None:
        self.memory, self.start, self.debug, self.word = memory, start, debug, word
        self._cies: dict[int, Cie] = {}

    def content(self, address: int) -> tuple[int, bytes]:
        """Return where the entry at *address* goes on behind its length, and its bytes from there; none at the end.

        :raises FormatError: it has an impossible length
        :raises Fault: it cannot be read
        """
        length = self.memory.u32(address)
        begin = address + 4
        if length == 0xFFFF_FFFF:
            length, begin = self.memory.u64(begin), begin + 8
        if length > MAX_ENTRY:
            raise FormatError(f"the unwind table has an entry of {length} bytes at 0x{address:x}")
        return begin, self.memory.read(begin, length)

    def entry(self, address: int) -> Fde | None:
        """Return the entry at *address*; None when it is none of code, or the end."""
        begin, data = self.content(address)
        wide = self.debug and begin - address == 12  # in .eh_frame this stays a word of 4 bytes
        size = 8 if wide else 4
        if len(data) < size:
            return None
        told = int.from_bytes(data[:size], "little")
        if told == ((1 << 8 * size) - 1 if self.debug else 0):
            return None  # a CIE
        cie = self._cie((self.start + told if self.debug else begin - told) % TOP)
        start, at = pointer(self.memory, data, size, cie.encoding, begin, word=self.word)
        length, at = pointer(None, data, at, cie.encoding & 0x0F, begin, word=self.word)
        if cie.augmented:
            skip, at = uleb(data, at)
            at += skip
        return Fde(cie, start, (start + length) % TOP, data[at:])

    def _cie(self, address: int) -> Cie:
        if address not in self._cies:
            try:
                self._cies[address] = self._read_cie(address)
            except IndexError as error:
                raise FormatError(f"the entry of an unwind table at 0x{address:x} is cut") from error
        return self._cies[address]

    def _read_cie(self, address: int) -> Cie:
        begin, data = self.content(address)
        at = 8 if self.debug and begin - address == 12 else 4
        if len(data) < at + 2 or data[at] not in (1, 3, 4):
            raise FormatError(f"no entry of an unwind table that can be read is at 0x{address:x}")
        version, end = data[at], data.find(b"\0", at + 1)
        augmentation = data[at + 1 : end].decode("latin-1") if end >= 0 else "?"
        at = end + 1
        if augmentation.startswith("eh"):
            at, augmentation = at + self.word, augmentation[2:]
        if version == 4:
            at += 2  # sizes of addresses and segments
        code_align, at = uleb(data, at)
        data_align, at = sleb(data, at)
        if version == 1:
            register, at = data[at], at + 1
        else:
            register, at = uleb(data, at)
        encoding, augmented = 0, augmentation.startswith("z")
        if augmented:
            size, at = uleb(data, at)
            encoding = self._augmentation(augmentation[1:], data, at, begin)
            at += size
        elif augmentation:
            raise FormatError(f"an unwind table with an unknown augmentation {augmentation!r}")
        return Cie(code_align, data_align, register, encoding, augmented, "S" in augmentation, data[at:])

    def _augmentation(self, letters: str, data: bytes, at: int, begin: int) -> int:
        """Return the encoding of pointers that the augmentation tells; unknown letters end it, for its size is told."""
        encoding = 0
        for letter in letters:
            if letter == "R":
                encoding, at = data[at], at + 1
            elif letter == "P":
                _, at = pointer(None, data, at + 1, data[at] & ~INDIRECT, begin, word=self.word)
            elif letter == "L":
                at += 1
            elif letter not in "SBG":
                break
        return encoding


@lru_cache(maxsize=4096)
def row_at(fde: Fde, pc: int) -> Row:
    """Return how the caller is found from the instruction at *pc*.

    :raises FormatError: the entry is damaged
    """
    machine = _Machine(fde, pc)
    machine.run(fde.cie.program)
    machine.initial = dict(machine.rules)
    machine.run(fde.program)
    if machine.base is None:
        raise FormatError(f"the unwind table tells of no frame at 0x{pc:x}")
    return Row(machine.base, machine.rules)


class _Machine:
    """The rules while the instructions of an entry are obeyed, up to those of one address."""

    def __init__(self, fde: Fde, pc: int) -> None:
        self.cie, self.at, self.pc = fde.cie, fde.start, pc
        self.base: Base | None = None
        self.rules: dict[int, Rule] = {}
        self.initial: dict[int, Rule] = {}
        self.kept: list[tuple[Base | None, dict[int, Rule]]] = []

    def run(self, program: bytes) -> None:
        """Obey *program* until it is at an address behind the one that is wanted."""
        at = count = 0
        try:
            while at < len(program) and self.at <= self.pc:
                count += 1
                if count > MAX_ROWS:
                    raise FormatError("an entry of the unwind table that does not end")
                at = self._one(program, at)
        except IndexError as error:
            raise FormatError("an entry of the unwind table is cut") from error

    def _advance(self, units: int) -> None:
        self.at += units * self.cie.code_align

    def _one(self, program: bytes, at: int) -> int:
        op, low = program[at] & 0xC0, program[at] & 0x3F
        at += 1
        if op == 0x40:  # DW_CFA_advance_loc
            self._advance(low)
        elif op == 0x80:  # DW_CFA_offset
            value, at = uleb(program, at)
            self.rules[low] = OFFSET, value * self.cie.data_align
        elif op == 0xC0:  # DW_CFA_restore
            self._restore(low)
        elif low in (2, 3, 4):  # DW_CFA_advance_loc1, 2, 4
            size = 1 << (low - 2)
            self._advance(int.from_bytes(program[at : at + size], "little"))
            at += size
        elif low in (0x0F, 0x10, 0x16):
            at = self._expression(low, program, at)
        elif low == 1:  # DW_CFA_set_loc
            raise FormatError("the unwind table sets an address, which compilers for x86 do not")
        else:
            at = self._other(low, program, at)
        return at

    def _restore(self, register: int) -> None:
        if register in self.initial:
            self.rules[register] = self.initial[register]
        else:
            self.rules.pop(register, None)

    def _expression(self, op: int, program: bytes, at: int) -> int:
        register = -1
        if op != 0x0F:
            register, at = uleb(program, at)
        size, at = uleb(program, at)
        found = program[at : at + size]
        if op == 0x0F:  # DW_CFA_def_cfa_expression
            self.base = found
        else:  # DW_CFA_expression, DW_CFA_val_expression
            self.rules[register] = EXPRESSION if op == 0x10 else VAL_EXPRESSION, found
        return at + size

    def _other(self, op: int, program: bytes, at: int) -> int:
        align = self.cie.data_align
        if op == 0:  # DW_CFA_nop
            return at
        if op == 0x0A:  # DW_CFA_remember_state
            self.kept.append((self.base, dict(self.rules)))
            return at
        if op == 0x0B:  # DW_CFA_restore_state
            self.base, self.rules = self.kept.pop()
            return at
        start = at
        number, at = uleb(program, start)
        if op in (0x0E, 0x2E):  # DW_CFA_def_cfa_offset, DW_CFA_GNU_args_size
            if op == 0x0E:
                self.base = self._register(), number
        elif op == 0x13:  # DW_CFA_def_cfa_offset_sf
            number, at = sleb(program, start)
            self.base = self._register(), number * align
        elif op == 0x0D:  # DW_CFA_def_cfa_register
            self.base = number, self.base[1] if isinstance(self.base, tuple) else 0
        elif op == 6:  # DW_CFA_restore_extended
            self._restore(number)
        elif op in (7, 8):  # DW_CFA_undefined, DW_CFA_same_value
            self.rules[number] = UNDEFINED if op == 7 else SAME, 0
        else:
            at = self._pair(op, number, program, at)
        return at

    def _pair(self, op: int, register: int, program: bytes, at: int) -> int:
        align = self.cie.data_align
        signed, start = op in (0x11, 0x12, 0x15), at
        value, at = sleb(program, start) if signed else uleb(program, start)
        if op in (0x05, 0x11):  # DW_CFA_offset_extended, _sf
            self.rules[register] = OFFSET, value * align
        elif op == 0x09:  # DW_CFA_register
            self.rules[register] = REGISTER, value
        elif op in (0x0C, 0x12):  # DW_CFA_def_cfa, _sf
            self.base = register, value * align if signed else value
        elif op in (0x14, 0x15):  # DW_CFA_val_offset, _sf
            self.rules[register] = VAL_OFFSET, value * align
        elif op == 0x2F:  # DW_CFA_GNU_negative_offset_extended
            self.rules[register] = OFFSET, -value * align
        else:
            raise FormatError(f"the unwind table has an unknown instruction 0x{op:x}")
        return at

    def _register(self) -> int:
        if not isinstance(self.base, tuple):
            raise FormatError("the unwind table moves a frame that it has not told of")
        return self.base[0]
