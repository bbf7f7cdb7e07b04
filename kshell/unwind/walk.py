"""Following one stack of x86-64, frame by frame: by ORC, by frame pointers where there is none, by guessing at last.

Kernel source: ``unwind_next_frame`` in arch/x86/kernel/unwind_orc.c and unwind_frame.c, ``struct pt_regs`` in
arch/x86/include/asm/ptrace.h, ``unwind_recover_ret_addr`` in arch/x86/include/asm/unwind.h. As there, a stack is left
only for one not visited before, and in each the stack pointer only grows: no trace is endless.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, KshellError
from kshell.unwind import orc
from kshell.unwind.model import CALL, EXACT, NO_REGISTERS, USER, Frame, StackRange, Trace
from kshell.unwind.orc import Entry

if TYPE_CHECKING:
    from kshell.memory.model import Memory

WORD = 8
TOP = 1 << 64
#: where code lies that is in no table: BPF programs and the like, in reach of the kernel's own
GENERATED = 0xFFFF_FFFF_8000_0000
#: frames after which a trace is given up: a stack of 16 KiB has room for twice as many calls at most
MAX_FRAMES = 1024
#: guessed frames that are shown behind damage
MAX_GUESSES = 64
#: of them, how many are tried as the beginning of the rest
MAX_TRIES = 16
#: bytes that are looked through for them
MAX_SCAN = 64 << 10
PT_REGS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs rflags rsp ss".split()
PT_REGS_FORMAT = struct.Struct(f"<{len(PT_REGS)}Q")
IRET = ("rip", "cs", "rflags", "rsp", "ss")
IRET_FORMAT = struct.Struct(f"<{len(IRET)}Q")
USER_MODE = 3  # of the code segment: the privilege level
#: what ORC's registers are called in :class:`Frame`
NAMES = {orc.DX: "rdx", orc.DI: "rdi", orc.R10: "r10", orc.R13: "r13", orc.AX: "rax"}


class Broken(KshellError):
    """A frame that has no way on."""


class Code(NamedTuple):
    """What an unwinder must know of the kernel's code.

    :ivar find: the ORC entry of an address, None when there is none; may raise
    :ivar is_text: whether an address is in the kernel's or a module's code
    :ivar has_orc: False: a kernel without ORC tables, built with frame pointers, which then are to be trusted
    :ivar function: the start of the function that an address is in, 0 when it is in none
    :ivar real_return: (what was found as a return address, where) to what it stands for: tracers replace them
    """

    find: Callable[[int], Entry | None]
    is_text: Callable[[int], bool]
    has_orc: bool = True
    function: Callable[[int], int] = lambda address: 0
    real_return: Callable[[int, int], int] = lambda found, place: found


class _Step(NamedTuple):
    """The state of the caller."""

    pc: int
    sp: int
    bp: int | None
    kind: str = CALL
    regs: int = 0
    registers: Mapping[str, int] = NO_REGISTERS
    guessed: bool = False


def read_pt_regs(memory: Memory, address: int) -> dict[str, int]:
    """Return the registers of the ``struct pt_regs`` at *address*.

    :raises Fault: it cannot be read
    """
    return dict(zip(PT_REGS, PT_REGS_FORMAT.unpack(memory.read(address, PT_REGS_FORMAT.size)), strict=True))


def walk(
    memory: Memory, code: Code, start: Frame, stacks: Sequence[StackRange] = (), *, limit: int = MAX_FRAMES,
) -> Trace:
    """Return the trace that begins with *start*.

    :param start: the innermost frame: pc, sp, bp, kind, registers and reliable count
    :param stacks: the stacks it may be on: the task's and, for a task on a CPU, that CPU's
    """
    trace = _follow(memory, code, start, stacks, limit)
    if not trace.end or len(trace.frames) >= limit:
        return trace
    return _broken(memory, code, list(trace.frames), trace.end, stacks)


def _follow(memory: Memory, code: Code, start: Frame, stacks: Sequence[StackRange], limit: int) -> Trace:
    """Return the trace up to where it ends or cannot be followed."""
    frames: list[Frame] = []
    step = _Step(start.pc, start.sp, start.bp, start.kind, start.regs, start.registers)
    reliable = start.reliable
    visited: set[StackRange] = set()
    current: StackRange | None = None
    lowest = 0  # the stack pointer must be above it
    while True:
        if step.kind == USER:
            frames.append(Frame(step.pc, step.sp, step.bp, USER, reliable, "", step.regs, step.registers))
            return Trace(tuple(frames))
        found = next((one for one in stacks if one.start <= step.sp <= one.end), None)
        if frames and (problem := _misplaced(step.sp, found, current, visited, lowest)):
            return Trace(tuple(frames), problem)
        if found is not None:
            visited.add(found)
        current, lowest = found, step.sp
        reliable = reliable and not step.guessed and (step.kind != CALL or code.is_text(step.pc - 1))
        frames.append(Frame(step.pc, step.sp, step.bp, step.kind, reliable, found.name if found else "", step.regs,
                            step.registers))
        if len(frames) >= limit:
            return Trace(tuple(frames), f"more than {limit} frames")
        try:
            following = _next(memory, code, frames[-1], current)
        except Fault as fault:
            return Trace(tuple(frames), f"cannot read the stack: {fault}")
        except (Broken, FormatError) as error:
            return Trace(tuple(frames), str(error))
        if following is None:
            return Trace(tuple(frames))
        step = following


def _misplaced(
    sp: int, found: StackRange | None, current: StackRange | None, visited: set[StackRange], lowest: int,
) -> str:
    """Return why a caller's stack pointer cannot be right, "" when it may be."""
    if sp % WORD:
        return f"the stack pointer 0x{sp:x} is not aligned"
    if found is current:
        return "" if sp > lowest else f"the stack goes back, from 0x{lowest:x} to 0x{sp:x}"
    if found in visited:
        assert found is not None
        return f"it comes back to the {found.name} stack, at 0x{sp:x}"
    return ""


def _next(memory: Memory, code: Code, frame: Frame, stack: StackRange | None) -> _Step | None:
    """Return the caller of *frame*, None when it is the outermost."""
    exact = frame.kind == EXACT
    if not code.is_text(frame.lookup):
        if exact and not code.find(frame.lookup):
            return _pop(memory, code, frame)  # a call through NULL or a wild pointer: it has just pushed its return
        if not frame.pc and stack is not None and frame.sp > stack.end - 2 * WORD:
            return None  # the zero that some kernels leave above the outermost frame
        entry = code.find(frame.lookup)
        if entry is None:
            why = f"0x{frame.pc:x} is not in the kernel's code"
            if frame.pc < GENERATED:
                raise Broken(why)
            return _by_frame_pointer(memory, code, frame, stack, why)
    else:
        entry = code.find(frame.lookup) if code.has_orc else None
        if entry is None:
            return _by_frame_pointer(memory, code, frame, stack, f"no ORC entry for 0x{frame.pc:x}")
    if entry.kind == orc.END:
        return None
    if entry.kind == orc.UNDEFINED:
        return _unhinted(memory, code, frame, stack)
    guessed = entry.base == orc.BP and frame.bp is None
    cfa = _frame_by_caller(memory, code, frame, stack) if guessed else _frame_address(memory, frame, entry)
    if entry.kind == orc.REGS:
        return _from_registers(cfa, read_pt_regs(memory, cfa), frame.bp, entry.signal)
    if entry.kind == orc.PARTIAL:
        registers = dict(zip(IRET, IRET_FORMAT.unpack(memory.read(cfa, IRET_FORMAT.size)), strict=True))
        return _from_registers(cfa, registers, frame.bp, entry.signal)
    if entry.bp == orc.PREV_SP:
        bp: int | None = memory.u64((cfa + entry.bp_offset) % TOP)
    elif entry.bp == orc.BP and frame.bp is not None:
        bp = memory.u64((frame.bp + entry.bp_offset) % TOP)
    else:
        bp = frame.bp if entry.bp == orc.NONE else None
    place = (cfa - WORD) % TOP
    pc = code.real_return(memory.u64(place), place)
    return _Step(pc, cfa, bp, EXACT if entry.signal else CALL, guessed=guessed)


def _unhinted(memory: Memory, code: Code, frame: Frame, stack: StackRange | None) -> _Step:
    """Return the caller of a function that has no unwind hints: by its first instructions, or else by who calls it.

    Only a return address behind a direct call of this very function is taken for its caller's; one that is not where
    its first instructions say is not to be relied on.
    """
    from kshell.unwind.prologue import read_prologue

    why = f"the code at 0x{frame.pc:x} has no unwind hint"
    start = code.function(frame.lookup)
    if not start:
        raise Broken(why)
    depth, saved = read_prologue(memory, start, frame.lookup)
    place = (frame.sp + depth) % TOP
    sure = _calls(memory, place, start)
    if not sure:
        place = _caller(memory, code, frame, start, stack)
        if not place:
            raise Broken(why)
    bp = memory.u64(place - saved) if saved else frame.bp
    return _Step(memory.u64(place), place + WORD, bp, guessed=not sure)


def _frame_by_caller(memory: Memory, code: Code, frame: Frame, stack: StackRange | None) -> int:
    """Return what the frame pointer, which is not known, would tell: it is above a call of this very function."""
    start = code.function(frame.lookup)
    place = _caller(memory, code, frame, start, stack) if start else 0
    if not place:
        raise Broken(f"the frame at 0x{frame.pc:x} is counted from rbp, which is not known")
    return place + WORD


def _caller(memory: Memory, code: Code, frame: Frame, start: int, stack: StackRange | None) -> int:
    """Return where on the rest of the stack the first return address behind a call of *start* is, 0 for nowhere."""
    end = stack.end if stack is not None else 0
    found = return_addresses(memory, code, frame.sp, end)
    return next((place for place, pc in found if call_target(memory, pc) == start), 0)


def _calls(memory: Memory, place: int, start: int) -> bool:
    """Whether the return address at *place* is behind a direct call of the function at *start*."""
    data, fault = memory.read_upto(place, WORD)
    return fault is None and call_target(memory, int.from_bytes(data, "little")) == start


def _frame_address(memory: Memory, frame: Frame, entry: Entry) -> int:
    """Return the address that *entry* counts the caller's frame from: the stack pointer before the call."""
    if entry.base == orc.SP:
        return (frame.sp + entry.offset) % TOP
    if entry.base == orc.BP:
        return (_bp(frame) + entry.offset) % TOP
    if entry.base == orc.SP_INDIRECT:
        # Since 5.12 (87ccc826bf1c "x86/unwind/orc: Change REG_SP_INDIRECT") the offset is added behind, for calls
        # across stacks that objtool found; before, hints for saved registers used it the other way.
        if entry.kind == orc.CALL:
            return (memory.u64(frame.sp) + entry.offset) % TOP
        return memory.u64((frame.sp + entry.offset) % TOP)
    if entry.base == orc.BP_INDIRECT:
        return memory.u64((_bp(frame) + entry.offset) % TOP)
    name = NAMES.get(entry.base)
    if name is None:
        raise Broken(f"the ORC entry of 0x{frame.pc:x} counts from nothing")
    value = frame.registers.get(name)
    if value is None:
        raise Broken(f"the frame at 0x{frame.pc:x} is counted from {name}, which is not known")
    return (value + entry.offset) % TOP


def _bp(frame: Frame) -> int:
    if frame.bp is None:
        raise Broken(f"the frame at 0x{frame.pc:x} is counted from rbp, which is not known")
    return frame.bp


def _from_registers(address: int, registers: Mapping[str, int], bp: int | None, signal: bool) -> _Step:
    kind = USER if registers["cs"] & USER_MODE == USER_MODE else EXACT if signal else CALL
    return _Step(registers["rip"], registers["rsp"], registers.get("rbp", bp), kind, address, registers)


def _pop(memory: Memory, code: Code, frame: Frame) -> _Step:
    found = memory.u64(frame.sp)
    pc = code.real_return(found, frame.sp)
    if not code.is_text(pc - 1):
        raise Broken(f"0x{frame.pc:x} is not code, and was not called: no return address on the stack, but 0x{found:x}")
    return _Step(pc, (frame.sp + WORD) % TOP, frame.bp)


def _by_frame_pointer(memory: Memory, code: Code, frame: Frame, stack: StackRange | None, why: str) -> _Step | None:
    """Return the caller by the saved frame pointer and the return address above it, if both make sense."""
    bp = frame.bp
    if bp is None:
        raise Broken(why)
    inside = stack is None or stack.start <= bp <= stack.end
    if not code.has_orc and not bp:
        return None  # the outermost frame has none
    if inside and bp & 1 and bp - 1 >= frame.sp:
        # ENCODE_FRAME_POINTER: entry code marks saved registers by the lowest bit
        return _from_registers(bp - 1, read_pt_regs(memory, bp - 1), None, True)._replace(guessed=code.has_orc)
    if not inside or bp % WORD or bp < frame.sp:
        raise Broken(why)
    place = bp + WORD
    pc = code.real_return(memory.u64(place), place)
    if not code.is_text(pc - 1):
        if not code.has_orc and stack is not None and place + WORD > stack.end - PT_REGS_FORMAT.size - 2 * WORD:
            return None
        raise Broken(why)
    return _Step(pc, place + WORD, memory.u64(bp), guessed=code.has_orc)


def _broken(
    memory: Memory, code: Code, frames: list[Frame], why: str, stacks: Sequence[StackRange],
) -> Trace:
    """Return the trace, and behind it what the rest of the stack may have been, as unreliable frames.

    The first return address from which on all can be followed to the end is taken up; if there is none, all words that
    look like return addresses are told.
    """
    last = frames[-1]
    found = next((one for one in stacks if one.start <= last.sp <= one.end), None)
    if found is None:
        return Trace(tuple(frames), why)
    guesses = [Frame(pc, place + WORD, None, CALL, False, found.name)
               for place, pc in islice(return_addresses(memory, code, last.sp, found.end), MAX_GUESSES)]
    for guess in guesses[:MAX_TRIES]:
        trace = _follow(memory, code, guess, stacks, MAX_FRAMES)
        if not trace.end and len(trace.frames) > 1:
            return Trace((*frames, *trace.frames), why)
    return Trace((*frames, *guesses), why)


def return_addresses(memory: Memory, code: Code, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (where, value) of the words from *start* on that are addresses behind a call; what is unreadable is passed.

    :param end: exclusive; no more than MAX_SCAN bytes are looked at
    """
    start = -(-start // WORD) * WORD
    data, _ = memory.read_upto(start, max(min(end - start, MAX_SCAN), 0) // WORD * WORD)
    words = struct.unpack(f"<{len(data) // WORD}Q", data[: len(data) // WORD * WORD])
    for number, word in enumerate(words):
        if word > GENERATED and code.is_text(word - 1) and follows_call(memory, word):
            yield start + number * WORD, word


def call_target(memory: Memory, address: int) -> int | None:
    """Return what the direct call before *address* calls, None when there is none."""
    data, fault = memory.read_upto((address - 5) % TOP, 5)
    if fault is not None or data[0] != 0xE8:
        return None
    return int((address + struct.unpack_from("<i", data, 1)[0]) % TOP)


def follows_call(memory: Memory, address: int) -> bool:
    """Whether the bytes before *address* can be a call: ``e8`` and four bytes, or ``ff /2`` of 2, 3, 6 or 7 bytes."""
    data, fault = memory.read_upto(address - 7, 7)
    if fault is not None:
        return False
    if data[2] == 0xE8:
        return True
    return any(data[7 - size] == 0xFF and data[8 - size] >> 3 & 7 == 2 for size in (2, 3, 4, 6, 7))
