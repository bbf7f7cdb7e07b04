"""What an instruction stumbled over: the addresses of its operands, and what they mean.

Instructions are taken as text in AT&T syntax, as the disassembler writes them: ``movq 0x28(%rax),%rcx``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux.tasks import task_type
from kshell.linux.whatis import whatis
from kshell.target.kernel import user_half
from kshell.target.space import AddressSpace

if TYPE_CHECKING:
    from kshell.target.target import Target

WORD = 1 << 64
#: a pointer below this is NULL and the offset of a member
NULL_REACH = 0x1_0000
#: so far below a stack a fault is still one of that stack
GUARD_REACH = 0x1_0000
OPERAND = re.compile(
    r"(?:%(?P<segment>[c-g]s):)?(?P<offset>[-+]?(?:0x[0-9a-f]+|\d+))?"
    r"\((?P<base>%\w+)?(?:,\s*(?P<index>%\w+)(?:,\s*(?P<scale>\d))?)?\)")
#: values that the kernel writes on purpose; include/linux/poison.h
POISONS = (
    (0x6B6B_6B6B_6B6B_6B6B, "freed slab memory (POISON_FREE)"), (0x5A5A_5A5A_5A5A_5A5A, "slab memory never written"),
    (0xDEAD_0000_0000_0100, "LIST_POISON1: the entry was taken off its list"),
    (0xDEAD_0000_0000_0122, "LIST_POISON2: the entry was taken off its list"),
    (0xAAAA_AAAA_AAAA_AAAA, "page poison"), (0xCCCC_CCCC_CCCC_CCCC, "freed init memory"),
    (0xBBBB_BBBB_BBBB_BBBB, "slab red zone"), (0x4141_4141_4141_4141, "the text AAAAAAAA"),
)


class Operand(NamedTuple):
    """An operand in memory: as written, the registers it is made of, and the address they make."""

    text: str
    registers: dict[str, int]
    address: int


def operands(text: str, registers: Mapping[str, int], after: int) -> Iterator[Operand]:
    """Yield the operands in memory of an instruction.

    :param registers: by lower-case name, without ``%``; operands with one that is missing are left out
    :param after: the address of the next instruction, which ``%rip`` stands for
    """
    for match in OPERAND.finditer(text):
        if match["segment"] in ("gs", "fs"):
            continue  # per-CPU or of the thread: the disassembler names it
        used: dict[str, int] = {}
        address = int(match["offset"] or "0", 0)
        for name, factor in ((match["base"], 1), (match["index"], int(match["scale"] or 1))):
            if name is None:
                continue
            register = name[1:]
            value = after if register == "rip" else registers.get(register)
            if value is None:
                break
            used[register] = value
            address += value * factor
        else:
            if used:
                yield Operand(match[0], used, address % WORD)


def meaning(target: Target, address: int, task: int = 0) -> Iterator[str]:
    """Yield what *address* means to a kernel that stumbled over it, the likeliest first; nothing when it is unknown.

    :param task: the ``task_struct`` of the task that did, 0 when that is not known
    """
    if address < NULL_REACH:
        what = "a member at that offset of a structure that is not there"
        yield f"NULL plus 0x{address:x}: {what}" if address else "NULL"
        return
    for poison, text in POISONS:
        if abs(address - poison) < NULL_REACH:
            yield f"0x{poison:x} plus 0x{address - poison:x}, {text}" if address != poison else text
            return
    half = user_half(target.arch, target.kernel) if isinstance(target.kernel, AddressSpace) else target.arch.kernel_half
    if half <= address < WORD - half:
        yield "no address at all: it is neither a user's nor the kernel's (not canonical)"
        return
    guard = below_stack(target, address, task)
    if guard:
        yield guard
        return
    if address < target.arch.kernel_half:
        yield "an address of user memory"
        return
    try:
        for answer in islice(whatis(target, address), 2):
            if answer.kind != "error":
                plus = f"0x{answer.start:x}+0x{answer.offset:x}" if answer.offset else f"0x{answer.start:x}"
                yield f"{plus}, {answer.text}"
    except KshellError as error:
        yield f"unknown: {error}"


def below_stack(target: Target, address: int, task: int) -> str:
    """Return words when *address* is a little below the kernel stack of *task*: it has overflowed; else ""."""
    if not task:
        return ""
    try:
        base = target.value(task_type(target), task).integer("stack")
    except KshellError:
        return ""
    if base - GUARD_REACH <= address < base:
        return f"0x{base - address:x} below the kernel stack at 0x{base:x}: the guard page, the stack has overflowed"
    return ""
