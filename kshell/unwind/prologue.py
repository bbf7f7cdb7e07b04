"""The frame of a function that has no unwind hints, by the instructions it begins with. Imports capstone.

``STACK_FRAME_NON_STANDARD`` takes a function out of ORC; ``__crash_kexec``, where most dumps of a panic begin, is one
(kernel/kexec_core.c). The pushes and the subtraction at its start tell where it was called from.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kshell.memory.model import Memory

MAX_INSTRUCTIONS = 64
_PUSH = re.compile(r"push\s+%([re]\w+)$")
_SUB = re.compile(r"sub[ql]?\s+\$(0x[0-9a-f]+|\d+), %[re]sp$")
_ADD = re.compile(r"add[ql]?\s+\$-(0x[0-9a-f]+|\d+), %[re]sp$")
_STOP = ("j", "call", "ret", "leave", "pop", "int3", ".byte", "???")


class Prologue(NamedTuple):
    """What a function does to its stack before anything else.

    :ivar depth: bytes between the stack pointer and the return address afterwards
    :ivar bp: bytes between the return address and where the frame pointer was saved below it; 0: it was not
    """

    depth: int
    bp: int


def read_prologue(memory: Memory, start: int, pc: int, arch: str = "x86_64") -> Prologue:
    """Return what the instructions from *start* on do, up to the first that leaves the straight line, or to *pc*."""
    from kshell.arch.disassembler import Disassembler

    disassembler = Disassembler(arch, lambda address: None, lambda offset: None)
    depth = bp = 0
    for number, one in enumerate(disassembler.run(memory, start, pc)):
        if number >= MAX_INSTRUCTIONS or one.text.startswith(_STOP):
            break
        push, sub = _PUSH.match(one.text), _SUB.match(one.text) or _ADD.match(one.text)
        if push is not None:
            depth += 8 if arch == "x86_64" else 4
            if push[1] in ("rbp", "ebp") and not bp:
                bp = depth
        elif sub is not None:
            depth += int(sub[1], 0)
    return Prologue(depth, bp)
