"""Instructions of x86-64 and i386 as text: AT&T syntax as objdump writes it, with names for addresses in operands.

capstone decodes; it is imported when it is first needed. Reference: mdb-language.md 11.5 (``::dis``), 9.3 (``i``).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.memory.model import Memory

LONGEST = 15  # bytes of an instruction
PAGE = 4096
_MASK = (1 << 64) - 1
_CHUNK = 1024
#: how far back a function is decoded from its start to find what comes before an address in it
_FAR = 1 << 16
#: capstone writes the operand size where objdump and people leave it out
_SHORT = {"callq": "call", "retq": "ret", "pushq": "push", "popq": "pop", "jmpq": "jmp", "leaveq": "leave",
          "calll": "call", "retl": "ret", "leavel": "leave"}
#: the same of 32-bit code, where other registers are pushed
_SHORT_32 = _SHORT | {"pushl": "push", "popl": "pop", "jmpl": "jmp"}
_DECIMAL = re.compile(r"\$(\d+)\b")

#: Returns the name of an address, or None.
Namer = Callable[[int], str | None]


class Instruction(NamedTuple):
    """One instruction, a byte that is none, or memory that cannot be read.

    :ivar data: its bytes; empty when they cannot be read
    :ivar text: mnemonic and operands; ``.byte 0x06`` for a byte that begins no instruction, ``??? (reason)``
    :ivar target: the address that an operand means, when it has a name
    :ivar name: that name, "" without one
    """

    address: int
    size: int
    data: bytes
    text: str
    target: int | None = None
    name: str = ""

    def __str__(self) -> str:
        return f"{self.text}  <{self.name}>" if self.name else self.text


class Disassembler:
    """Decodes the memory of one machine.

    :param arch: the name of the architecture
    :param name: of an address in an operand
    :param percpu: of an offset in the per-CPU area
    :raises KshellError: the architecture is not supported
    """

    def __init__(self, arch: str, name: Namer, percpu: Namer) -> None:
        if arch not in ("x86_64", "i386"):
            raise KshellError(f"cannot disassemble {arch} yet")
        import capstone

        self._name, self._percpu = name, percpu
        wide = arch == "x86_64"
        self._short = _SHORT if wide else _SHORT_32
        self._machine: Any = capstone.Cs(
            capstone.CS_ARCH_X86, capstone.CS_MODE_64 if wide else capstone.CS_MODE_32)
        self._machine.syntax = capstone.CS_OPT_SYNTAX_ATT
        self._machine.detail = True
        self._immediate, self._memory = capstone.CS_OP_IMM, capstone.CS_OP_MEM
        self._rip, self._gs = capstone.x86.X86_REG_RIP, capstone.x86.X86_REG_GS

    def one(self, memory: Memory, address: int) -> Instruction:
        """Return the instruction at *address*.

        :raises Fault: its bytes cannot be read
        :raises KshellError: there is none
        """
        data, fault = memory.read_upto(address, min(LONGEST, _MASK + 1 - address))
        for found in self._machine.disasm(data, address, 1):
            return self._instruction(found)
        if fault is not None:
            raise fault
        raise KshellError(f"no instruction at 0x{address:x}")

    def run(self, memory: Memory, address: int, end: int = _MASK + 1) -> Iterator[Instruction]:
        """Yield what is between *address* and *end* (exclusive; an instruction that begins before it is whole).

        After bytes that cannot be read it goes on with the next page, where it may take some instructions to find
        into step again.
        """
        while address < end:
            size = min(_CHUNK, end - address) + LONGEST
            data, fault = memory.read_upto(address, min(size, _MASK + 1 - address))
            stop = min(address + len(data) if fault is not None else address + len(data) - LONGEST, end)
            if not data and fault is not None:
                after = min((address // PAGE + 1) * PAGE, end)
                yield Instruction(address, after - address, b"", f"??? ({_reason(fault)})")
                address = after
                continue
            start, before = address, address
            for found in self._machine.disasm(data, address):
                yield self._instruction(found)
                address = found.address + found.size
                if address >= stop:
                    break
            if address == before or address < stop:
                left = data[address - start :]
                if fault is not None and len(left) < LONGEST and address + len(left) < end:
                    # The rest may be the beginning of an instruction whose end cannot be read.
                    yield Instruction(address, len(left), left, f"??? ({_reason(fault)})")
                    address += len(left)
                elif left:
                    yield Instruction(address, 1, left[:1], f".byte 0x{left[0]:02x}")
                    address += 1

    def addresses(self, memory: Memory, address: int, size: int) -> Iterator[int]:
        """Yield the numbers in operands of a function's code that may be addresses: immediate ones, the places of
        variables (relative to ``%rip`` or absolute), and of arrays that a register indexes; per-CPU offsets are none.

        Code that cannot be read or decoded ends it.
        """
        for found in self._machine.disasm(memory.read_upto(address, size)[0], address):
            for operand in found.operands:
                if operand.type == self._immediate:
                    yield operand.imm & _MASK
                elif operand.type == self._memory and operand.mem.segment != self._gs:
                    base = found.address + found.size if operand.mem.base == self._rip else 0
                    yield (base + operand.mem.disp) & _MASK

    def before(
        self, memory: Memory, address: int, count: int, start: int | None,
    ) -> tuple[list[Instruction], int]:
        """Return up to *count* instructions before *address*, and where the one after them begins.

        That is *address*, or before it if *address* is inside an instruction.

        :param start: where the function begins that *address* is in; without it a start is looked for from which
            decoding meets *address*
        """
        if start is not None and start <= address <= start + _FAR:
            found: deque[Instruction] = deque(maxlen=count)
            boundary = start
            for one in self.run(memory, start, address):
                if one.address + one.size > address:
                    break
                found.append(one)
                boundary = one.address + one.size
            return list(found), boundary
        reach = min(LONGEST * count, address)
        data, fault = memory.read_upto(address - reach, reach)
        if fault is not None:
            reach = address % PAGE
            data, fault = memory.read_upto(address - reach, reach)
            if fault is not None:
                return [], address
        for skip in range(len(data)):
            at = address - reach + skip
            sizes = [size for _, size, _, _ in self._machine.disasm_lite(data[skip:], at)]
            if sum(sizes) == reach - skip:
                return [self._instruction(one) for one in self._machine.disasm(data[skip:], at)][-count:], address
        return [], address

    def _instruction(self, found: Any) -> Instruction:
        operands = _DECIMAL.sub(_hexadecimal, found.op_str)
        text = f"{self._short.get(found.mnemonic, found.mnemonic):<6} {operands}".rstrip()
        for operand in found.operands:
            if operand.type == self._immediate:
                target, name = operand.imm & _MASK, self._name
            elif operand.type == self._memory and operand.mem.base in (0, self._rip):
                base = found.address + found.size if operand.mem.base else 0
                target = (base + operand.mem.disp) & _MASK
                name = self._percpu if operand.mem.segment == self._gs else self._name
            else:
                continue
            shown = name(target)
            if shown is not None:
                return Instruction(found.address, found.size, bytes(found.bytes), text, target, shown)
        return Instruction(found.address, found.size, bytes(found.bytes), text)


def _hexadecimal(match: re.Match[str]) -> str:
    number = int(match[1])
    return f"$0x{number:x}" if number > 9 else match[0]


def _reason(fault: Fault) -> str:
    return f"{fault.reason.value}: {fault.detail}" if fault.detail else fault.reason.value
