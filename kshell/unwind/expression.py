"""DWARF expressions as unwind tables have them: where a caller's frame is, or where a register was saved.

DWARF 5 standard 2.5 (operations), 6.4.2 (of those, what unwinding may use). Addresses and numbers are of 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kshell.errors import FormatError
from kshell.types.dwarf_forms import sleb, uleb

if TYPE_CHECKING:
    from kshell.memory.model import Memory

TOP = 1 << 64
MAX_STEPS = 10_000
MAX_DEPTH = 1_000
#: constants: opcode to (bytes, whether signed)
CONSTANTS = {0x03: (8, False), 0x08: (1, False), 0x09: (1, True), 0x0A: (2, False), 0x0B: (2, True), 0x0C: (4, False),
             0x0D: (4, True), 0x0E: (8, False), 0x0F: (8, True)}
DEREF, CONSTU, CONSTS, DUP, DROP, OVER, PICK, SWAP, ROT = 0x06, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17
ABS, NEG, NOT, PLUS_UCONST, BRA, SKIP = 0x19, 0x1F, 0x20, 0x23, 0x28, 0x2F
LIT, BREG, BREGX, DEREF_SIZE, NOP = 0x30, 0x70, 0x92, 0x94, 0x96


def _signed(value: int) -> int:
    return value - TOP if value >> 63 else value


def _divide(a: int, b: int) -> int:
    """Divide as C does: towards zero, of signed numbers."""
    a, b = _signed(a), _signed(b)
    if not b:
        raise FormatError("a DWARF expression divides by zero")
    found = abs(a) // abs(b)
    return found if (a < 0) == (b < 0) else -found


def _modulo(a: int, b: int) -> int:
    if not b:
        raise FormatError("a DWARF expression divides by zero")
    return a % b


#: operations on the two numbers at the top, the upper one second
BINARY: dict[int, Callable[[int, int], int]] = {
    0x1A: lambda a, b: a & b, 0x1B: _divide, 0x1C: lambda a, b: a - b, 0x1D: _modulo, 0x1E: lambda a, b: a * b,
    0x21: lambda a, b: a | b, 0x22: lambda a, b: a + b, 0x24: lambda a, b: a << b if b < 64 else 0,
    0x25: lambda a, b: a >> b if b < 64 else 0, 0x26: lambda a, b: _signed(a) >> min(b, 63), 0x27: lambda a, b: a ^ b,
    0x29: lambda a, b: int(_signed(a) == _signed(b)), 0x2A: lambda a, b: int(_signed(a) >= _signed(b)),
    0x2B: lambda a, b: int(_signed(a) > _signed(b)), 0x2C: lambda a, b: int(_signed(a) <= _signed(b)),
    0x2D: lambda a, b: int(_signed(a) < _signed(b)), 0x2E: lambda a, b: int(_signed(a) != _signed(b)),
}


def evaluate(program: bytes, memory: Memory, register: Callable[[int], int], *start: int, word: int = 8) -> int:
    """Return what *program* leaves at the top of its stack.

    :param register: gives the value of a register by its DWARF number; raises when it is not known
    :param start: what the stack begins with: the address of the frame, for the place of a register
    :param word: bytes of an address that is read
    :raises FormatError: it is damaged, has no end, or does what unwinding has no use for
    :raises Fault: memory that it reads is not there
    """
    stack = list(start)
    try:
        _run(program, memory, register, stack, word)
        return stack[-1] % (1 << 8 * word)
    except IndexError as error:
        raise FormatError("a DWARF expression takes more from its stack than is there") from error


def _run(program: bytes, memory: Memory, register: Callable[[int], int], stack: list[int], word: int) -> None:
    at = steps = 0
    while at < len(program):
        steps += 1
        if steps > MAX_STEPS or len(stack) > MAX_DEPTH:
            raise FormatError("a DWARF expression does not end")
        op = program[at]
        at += 1
        if op in BINARY:
            upper = stack.pop()
            stack.append(BINARY[op](stack.pop(), upper) % TOP)
        elif op in CONSTANTS:
            size, signed = CONSTANTS[op]
            stack.append(int.from_bytes(program[at : at + size], "little", signed=signed) % TOP)
            at += size
        elif LIT <= op < LIT + 32:
            stack.append(op - LIT)
        elif BREG <= op < BREG + 32:
            offset, at = sleb(program, at)
            stack.append((register(op - BREG) + offset) % TOP)
        elif op == BREGX:
            number, at = uleb(program, at)
            offset, at = sleb(program, at)
            stack.append((register(number) + offset) % TOP)
        elif op in (CONSTU, PLUS_UCONST):
            value, at = uleb(program, at)
            stack.append(((stack.pop() if op == PLUS_UCONST else 0) + value) % TOP)
        elif op == CONSTS:
            value, at = sleb(program, at)
            stack.append(value % TOP)
        elif op in (BRA, SKIP):
            target = at + 2 + int.from_bytes(program[at : at + 2], "little", signed=True)
            at = target if op == SKIP or stack.pop() else at + 2
            if not 0 <= at <= len(program):
                raise FormatError("a DWARF expression branches out of itself")
        elif op == DEREF:
            stack.append(int.from_bytes(memory.read(stack.pop(), word), "little"))
        elif op == DEREF_SIZE:
            stack.append(int.from_bytes(memory.read(stack.pop(), min(program[at], 8)), "little"))
            at += 1
        else:
            at = _shuffle(op, program, at, stack)


def _shuffle(op: int, program: bytes, at: int, stack: list[int]) -> int:
    """Do what moves or changes what is on the stack; return where the next operation is."""
    if op == DUP:
        stack.append(stack[-1])
    elif op == DROP:
        stack.pop()
    elif op == OVER:
        stack.append(stack[-2])
    elif op == PICK:
        stack.append(stack[-1 - program[at]])
        at += 1
    elif op == SWAP:
        stack[-1], stack[-2] = stack[-2], stack[-1]
    elif op == ROT:
        stack[-3:] = [stack[-1], stack[-3], stack[-2]]
    elif op == ABS:
        stack[-1] = abs(_signed(stack[-1]))
    elif op == NEG:
        stack[-1] = -stack[-1] % TOP
    elif op == NOT:
        stack[-1] ^= TOP - 1
    elif op != NOP:
        raise FormatError(f"a DWARF expression has an operation that unwinding has no use for: 0x{op:x}")
    return at
