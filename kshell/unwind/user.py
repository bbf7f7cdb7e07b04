"""Following a stack of user code: by the program's unwind tables, by frame pointers where there are none, by guessing.

DWARF 5 standard 6.4.4; System V ABI for x86-64 3.4 (registers that survive a call), 6.2 (the outermost frame's return
address is undefined); ``struct rt_sigframe`` in arch/x86/include/asm/sigframe.h, for the return from signal handlers of
programs without tables for it. In one stack the stack pointer only grows, and the frames are counted: no trace is
endless.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.unwind import cfi
from kshell.unwind.expression import evaluate
from kshell.unwind.model import CALL, EXACT, Frame, Trace
from kshell.unwind.walk import call_target, follows_call

if TYPE_CHECKING:
    from kshell.memory.model import Memory
    from kshell.unwind.cfi import Fde

WORD = 8
TOP = 1 << 64
MAX_FRAMES = 10_000
MAX_GUESSES, MAX_TRIES, MAX_SCAN = 64, 16, 64 << 10
MAX_FUNCTION, MAX_SLOTS, PAGE = 1 << 16, 64, 4096
#: ``endbr64``; ``push %rbp; mov %rsp, %rbp``
ENDBR, PROLOGUE = b"\xf3\x0f\x1e\xfa", b"\x55\x48\x89\xe5"
#: registers by their DWARF numbers (psABI, figure 3.36)
NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
         "rip")
BP, SP, PC = 6, 7, 16
#: ``mov $15, %rax; syscall``: rt_sigreturn, in one of the ways that C libraries and Go write it
RETURNS = (b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", b"\xb8\x0f\x00\x00\x00\x0f\x05")
#: ``struct sigcontext``, behind flags, link and stack of ``struct ucontext``, which the stack pointer is at then
CONTEXT = 40
SAVED = ("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp",
         "rip")
SAVED_FORMAT = struct.Struct("<17Q")


class Broken(KshellError):
    """A frame that has no way on."""


class UserCode(NamedTuple):
    """What an unwinder must know of a program.

    :ivar find: the entry of the unwind tables for an address, None when there is none; raises where they are damaged
    :ivar is_text: whether an address is of code
    :ivar stack_end: the end of the mapping that a stack pointer is in, 0: in none
    """

    find: Callable[[int], Fde | None]
    is_text: Callable[[int], bool]
    stack_end: Callable[[int], int]


class _Step(NamedTuple):
    """The state of the caller; ``registers`` by DWARF number, those that are known."""

    registers: dict[int, int]
    kind: str = CALL
    guessed: bool = False
    elsewhere: bool = False  # it may be on any other stack


def walk_user(memory: Memory, code: UserCode, registers: Mapping[str, int], *, limit: int = MAX_FRAMES) -> Trace:
    """Return the trace that begins with *registers*, by lower-case name: rip and rsp at least."""
    known = {number: registers[name] for number, name in enumerate(NAMES) if name in registers}
    missing = [NAMES[number] for number in (PC, SP) if number not in known]
    if missing:
        return Trace((), f"{' and '.join(missing)} not known")
    trace = _follow(memory, code, _Step(known, EXACT), limit)
    if not trace.end or len(trace.frames) >= limit:
        return trace
    return _broken(memory, code, trace, limit)


def _follow(memory: Memory, code: UserCode, step: _Step, limit: int, reliable: bool = True) -> Trace:
    frames: list[Frame] = []
    while True:
        pc, sp = step.registers[PC], step.registers[SP]
        if frames and not step.elsewhere and sp <= frames[-1].sp:
            return Trace(tuple(frames), f"the stack goes back, from 0x{frames[-1].sp:x} to 0x{sp:x}")
        reliable = reliable and not step.guessed
        named = {NAMES[number]: value for number, value in sorted(step.registers.items())} if step.kind == EXACT else {}
        frames.append(Frame(pc, sp, step.registers.get(BP), step.kind, reliable, "", 0, named))
        if len(frames) >= limit:
            return Trace(tuple(frames), f"more than {limit} frames")
        try:
            following = _next(memory, code, step)
        except Fault as fault:
            return Trace(tuple(frames), f"cannot read the stack: {fault}")
        except KshellError as error:
            return Trace(tuple(frames), str(error))
        if following is None:
            return Trace(tuple(frames))
        step = following


def _next(memory: Memory, code: UserCode, step: _Step) -> _Step | None:
    """Return the caller, None when there is none."""
    pc = step.registers[PC]
    lookup = pc if step.kind == EXACT else pc - 1
    problem = ""
    try:
        entry = code.find(lookup)
    except KshellError as error:
        entry, problem = None, str(error)
    if entry is not None:
        return _by_table(memory, entry, lookup, step)
    if not code.is_text(lookup):
        if step.kind == EXACT:
            return _pop(memory, code, step)  # a call through a wild pointer: it has just pushed where it came from
        if not pc:
            return None
        raise Broken(f"0x{pc:x} is not in the program's code")
    saved = _signal_frame(memory, step)
    if saved is not None:
        return saved
    return _by_prologue(memory, code, step) or _by_frame_pointer(
        memory, code, step, problem or f"no unwind table tells of 0x{pc:x}")


def _by_table(memory: Memory, entry: Fde, lookup: int, step: _Step) -> _Step | None:
    row = cfi.row_at(entry, lookup)
    known = step.registers

    def register(number: int) -> int:
        if number not in known:
            name = NAMES[number] if number < len(NAMES) else f"register {number}"
            raise Broken(f"the frame at 0x{known[PC]:x} is counted from {name}, which is not known")
        return known[number]

    if isinstance(row.base, tuple):
        frame = (register(row.base[0]) + row.base[1]) % TOP
    else:
        frame = evaluate(row.base, memory, register)
    found = {number: value for number, value in known.items() if number not in (SP, PC)}
    found[SP] = frame
    for number, (kind, what) in row.rules.items():
        if kind == cfi.SAME:
            continue
        found.pop(number, None)
        if kind != cfi.UNDEFINED:
            found[number] = _recovered(memory, kind, what, frame, register)
    pc = found.pop(entry.cie.return_register, 0)
    if row.rules.get(entry.cie.return_register, (cfi.UNDEFINED, 0))[0] == cfi.UNDEFINED or not pc:
        return None
    found[PC] = pc
    signal = entry.cie.signal
    return _Step(found, EXACT if signal else CALL, elsewhere=signal)


def _recovered(memory: Memory, kind: int, what: int | bytes, frame: int, register: Callable[[int], int]) -> int:
    """Return what a register was in the caller."""
    if isinstance(what, bytes):
        place = evaluate(what, memory, register, frame)
        return memory.u64(place) if kind == cfi.EXPRESSION else place
    if kind == cfi.REGISTER:
        return register(what)
    place = (frame + what) % TOP
    return memory.u64(place) if kind == cfi.OFFSET else place


def _signal_frame(memory: Memory, step: _Step) -> _Step | None:
    """Return what a signal has interrupted, when the code is that which returns from its handler; else None."""
    data, _ = memory.read_upto(step.registers[PC], max(map(len, RETURNS)))
    if not data.startswith(RETURNS):
        return None
    values = SAVED_FORMAT.unpack(memory.read(step.registers[SP] + CONTEXT, SAVED_FORMAT.size))
    found = {NAMES.index(name): value for name, value in zip(SAVED, values, strict=True)}
    return _Step(found, EXACT, elsewhere=True)


def _pop(memory: Memory, code: UserCode, step: _Step) -> _Step:
    sp = step.registers[SP]
    pc = memory.u64(sp)
    if not code.is_text(pc - 1):
        raise Broken(f"0x{step.registers[PC]:x} is not code, and was not called: no return address is on the stack")
    return _Step({**step.registers, PC: pc, SP: (sp + WORD) % TOP})


def _by_prologue(memory: Memory, code: UserCode, step: _Step) -> _Step | None:
    """Return the caller by what the function has pushed, None when that cannot be told.

    The return address is behind a direct call of a function whose first instructions put just so much on the stack.
    """
    from kshell.unwind.prologue import read_prologue

    pc, sp = step.registers[PC], step.registers[SP]
    data, _ = memory.read_upto(sp, WORD * MAX_SLOTS)
    for number, (word,) in enumerate(struct.iter_unpack("<Q", data[: len(data) // WORD * WORD])):
        start = call_target(memory, word) if word > PAGE and code.is_text(word - 1) else None
        if start is None or not start <= pc < start + MAX_FUNCTION:
            continue
        depth, saved = read_prologue(memory, start, pc)
        if depth != number * WORD:
            continue
        place = sp + depth
        found = {PC: word, SP: place + WORD}
        if saved:
            found[BP] = memory.u64(place - saved)
        elif BP in step.registers:
            found[BP] = step.registers[BP]
        return _Step(found)
    return None


def _by_frame_pointer(memory: Memory, code: UserCode, step: _Step, why: str) -> _Step | None:
    """Return the caller by the saved frame pointer and the return address above it, if they make sense.

    They are to be relied on where the return address is behind a direct call of a function that begins by setting the
    frame pointer, and is in that function.

    :raises Broken: they do not
    """
    bp, sp = step.registers.get(BP), step.registers[SP]
    if bp is None:
        raise Broken(why)
    if not bp and step.kind == CALL:
        return None  # psABI 3.4.1: the outermost frame has none
    if bp % WORD or not sp <= bp < code.stack_end(sp) - WORD:
        raise Broken(why)
    saved, pc = struct.unpack("<2Q", memory.read(bp, 2 * WORD))
    if not pc and not saved:
        return None
    if not code.is_text(pc - 1) or not follows_call(memory, pc):
        raise Broken(why)
    return _Step({BP: saved, SP: bp + 2 * WORD, PC: pc}, guessed=not _calls(memory, pc, step.registers[PC]))


def _calls(memory: Memory, address: int, pc: int) -> bool:
    """Whether a direct call before *address* is of the function that *pc* is in, behind its setting of rbp."""
    start = call_target(memory, address)
    if start is None or not start < pc < start + MAX_FUNCTION:
        return False
    data, _ = memory.read_upto(start, len(ENDBR) + len(PROLOGUE))
    skip = len(ENDBR) if data.startswith(ENDBR) else 0
    return data[skip:].startswith(PROLOGUE) and pc >= start + skip + len(PROLOGUE)


def _broken(memory: Memory, code: UserCode, trace: Trace, limit: int) -> Trace:
    """Return the trace, and behind it what the rest of the stack may have been, as unreliable frames.

    The first return address from which on all can be followed to the end is taken up; if there is none, all words that
    look like return addresses are told.
    """
    sp = trace.frames[-1].sp
    found = list(islice(_return_addresses(memory, code, sp, code.stack_end(sp)), MAX_GUESSES))
    for place, pc in found[:MAX_TRIES]:
        rest = _follow(memory, code, _Step({PC: pc, SP: place + WORD}, guessed=True), limit, False)
        if not rest.end and len(rest.frames) > 1:
            return Trace((*trace.frames, *rest.frames), trace.end)
    guesses = (Frame(pc, place + WORD, None, CALL, False) for place, pc in found)
    return Trace((*trace.frames, *guesses), trace.end)


def _return_addresses(memory: Memory, code: UserCode, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (where, value) of the words from *start* on that are addresses behind a call."""
    start = -(-start // WORD) * WORD
    data, _ = memory.read_upto(start, max(min(end - start, MAX_SCAN), 0) // WORD * WORD)
    for number, (word,) in enumerate(struct.iter_unpack("<Q", data[: len(data) // WORD * WORD])):
        if word > PAGE and code.is_text(word - 1) and follows_call(memory, word):
            yield start + number * WORD, word
