"""What unwinding yields: frames, and how a trace ended."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

NO_REGISTERS: Mapping[str, int] = MappingProxyType({})

#: how a frame's program counter came to be
CALL, EXACT, USER = "call", "exact", "user"


class StackRange(NamedTuple):
    """A stack of the kernel: ``start <= address < end``; ``name`` is "task", "irq", "NMI", ..."""

    name: str
    start: int
    end: int


class Frame(NamedTuple):
    """One frame, the innermost first in a trace.

    :ivar pc: program counter: the address to return to (kind "call"), or that of the next instruction ("exact": a
        CPU's register or an interrupted function's), or a user address ("user"), with which a trace ends
    :ivar sp: the stack pointer at *pc*; the next frame's minus this is the size of the frame
    :ivar bp: the frame-pointer register at *pc*, None when unknown
    :ivar reliable: False: found by looking for return addresses on the stack, or behind something that was guessed
    :ivar stack: the name of the stack that *sp* is in, "" when it is in none that is known
    :ivar regs: the address of the ``struct pt_regs`` that this frame was restored from, 0: none
    :ivar registers: all that are known, by lower-case name, for frames with saved registers; else empty
    """

    pc: int
    sp: int
    bp: int | None
    kind: str = CALL
    reliable: bool = True
    stack: str = ""
    regs: int = 0
    registers: Mapping[str, int] = NO_REGISTERS

    @property
    def lookup(self) -> int:
        """The address to look up: inside the call for a return address, which may be the next function's."""
        return self.pc - 1 if self.kind == CALL and self.pc else self.pc


class Trace(NamedTuple):
    """The frames of one stack, and why they end.

    :ivar end: "" when the last one is the outermost; else what could not be followed
    """

    frames: tuple[Frame, ...]
    end: str = ""
