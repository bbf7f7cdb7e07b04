"""Following a stack of user code: by the program's unwind tables, by frame pointers where there are none, by guessing.

DWARF 5 standard 6.4.4; System V ABI for x86-64 3.4 (registers that survive a call), 6.2 (the outermost frame's return
address is undefined). What differs between machines is in :mod:`kshell.unwind.abi`. In one stack the stack pointer only
grows, and the frames are counted: no trace is endless.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.unwind import cfi
from kshell.unwind.abi import X86_64, Abi, SignalFrame, saved_registers
from kshell.unwind.expression import evaluate
from kshell.unwind.model import CALL, EXACT, Frame, Trace
from kshell.unwind.walk import call_target, follows_call

if TYPE_CHECKING:
    from kshell.memory.model import Memory
    from kshell.unwind.cfi import Fde

MAX_FRAMES = 10_000
MAX_GUESSES, MAX_TRIES, MAX_SCAN = 64, 16, 64 << 10
MAX_FUNCTION, MAX_SLOTS, PAGE = 1 << 16, 64, 4096


class Broken(KshellError):
    """A frame that has no way on."""


class UserCode(NamedTuple):
    """What an unwinder must know of a program.

    :ivar find: the entry of the unwind tables for an address, None when there is none; raises where they are damaged
    :ivar is_text: whether an address is of code
    :ivar stack_end: the end of the mapping that a stack pointer is in, 0: in none
    :ivar abi: the machine
    """

    find: Callable[[int], Fde | None]
    is_text: Callable[[int], bool]
    stack_end: Callable[[int], int]
    abi: Abi = X86_64

    def word(self, memory: Memory, address: int) -> int:
        """Return the word at *address*. :raises Fault: it cannot be read"""
        return int.from_bytes(memory.read(address, self.abi.word), "little")


class _Step(NamedTuple):
    """The state of the caller; ``registers`` by DWARF number, those that are known."""

    registers: dict[int, int]
    kind: str = CALL
    guessed: bool = False
    elsewhere: bool = False  # it may be on any other stack


def walk_user(memory: Memory, code: UserCode, registers: Mapping[str, int], *, limit: int = MAX_FRAMES) -> Trace:
    """Return the trace that begins with *registers*, by lower-case name: program counter and stack pointer at
    least.
    """
    abi = code.abi
    known = {number: registers[name] for number, name in enumerate(abi.registers) if name in registers}
    missing = [abi.registers[number] for number in (abi.pc, abi.sp) if number not in known]
    if missing:
        return Trace((), f"{' and '.join(missing)} not known")
    trace = _follow(memory, code, _Step(known, EXACT), limit)
    if not trace.end or len(trace.frames) >= limit:
        return trace
    return _broken(memory, code, trace, limit)


def _follow(memory: Memory, code: UserCode, step: _Step, limit: int, reliable: bool = True) -> Trace:
    frames: list[Frame] = []
    abi = code.abi
    names = abi.registers
    while True:
        pc, sp = step.registers[abi.pc], step.registers[abi.sp]
        if frames and not step.elsewhere and sp <= frames[-1].sp:
            return Trace(tuple(frames), f"the stack goes back, from 0x{frames[-1].sp:x} to 0x{sp:x}")
        reliable = reliable and not step.guessed
        named = {names[number]: value for number, value in sorted(step.registers.items())} if step.kind == EXACT else {}
        frames.append(Frame(pc, sp, step.registers.get(abi.bp), step.kind, reliable, "", 0, named))
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
    pc = step.registers[code.abi.pc]
    lookup = pc if step.kind == EXACT else pc - 1
    problem = ""
    try:
        entry = code.find(lookup)
    except KshellError as error:
        entry, problem = None, str(error)
    if entry is not None and pc < entry.end:
        return _by_table(memory, code, entry, lookup, step)
    # the code behind: what a handler returns to may be a function's first instruction, that nothing has called
    saved = _signal_frame(memory, code.abi, step) if code.is_text(pc) else None
    if saved is not None:
        return saved
    if entry is not None:
        return _by_table(memory, code, entry, lookup, step)
    if not code.is_text(lookup):
        if step.kind == EXACT:
            return _pop(memory, code, step)  # a call through a wild pointer: it has just pushed where it came from
        if not pc:
            return None
        raise Broken(f"0x{pc:x} is not in the program's code")
    return _by_prologue(memory, code, step) or _by_frame_pointer(memory, code, step, problem)


def _by_table(memory: Memory, code: UserCode, entry: Fde, lookup: int, step: _Step) -> _Step | None:
    row = cfi.row_at(entry, lookup)
    known, abi = step.registers, code.abi

    def register(number: int) -> int:
        if number not in known:
            name = abi.registers[number] if number < len(abi.registers) else f"register {number}"
            raise Broken(f"the frame at 0x{known[abi.pc]:x} is counted from {name}, which is not known")
        return known[number]

    if isinstance(row.base, tuple):
        frame = (register(row.base[0]) + row.base[1]) % abi.top
    else:
        frame = evaluate(row.base, memory, register, word=abi.word)
    found = {number: value for number, value in known.items() if number not in (abi.sp, abi.pc)}
    found[abi.sp] = frame
    for number, (kind, what) in row.rules.items():
        if kind == cfi.SAME:
            continue
        found.pop(number, None)
        if kind != cfi.UNDEFINED:
            found[number] = _recovered(memory, code, kind, what, frame, register)
    pc = found.pop(entry.cie.return_register, 0)
    if row.rules.get(entry.cie.return_register, (cfi.UNDEFINED, 0))[0] == cfi.UNDEFINED or not pc:
        return None
    found[abi.pc] = pc
    signal = entry.cie.signal
    return _Step(found, EXACT if signal else CALL, elsewhere=signal)


def _recovered(
    memory: Memory, code: UserCode, kind: int, what: int | bytes, frame: int, register: Callable[[int], int],
) -> int:
    """Return what a register was in the caller."""
    if isinstance(what, bytes):
        place = evaluate(what, memory, register, frame, word=code.abi.word)
        return code.word(memory, place) if kind == cfi.EXPRESSION else place
    if kind == cfi.REGISTER:
        return register(what)
    place = (frame + what) % code.abi.top
    return code.word(memory, place) if kind == cfi.OFFSET else place


def _signal_frame(memory: Memory, abi: Abi, step: _Step) -> _Step | None:
    """Return what a signal has interrupted, when the code is that which returns from its handler; else None."""
    found = _signal_return(memory, abi, step.registers[abi.pc])
    if found is None:
        return None
    place = step.registers[abi.sp] + found.context
    return _Step(saved_registers(abi, memory.read(place, abi.word * len(abi.saved))), EXACT, elsewhere=True)


def _signal_return(memory: Memory, abi: Abi, pc: int) -> SignalFrame | None:
    """Return the frame to which the code at *pc* returns from a signal's handler, None when it is other code."""
    data, _ = memory.read_upto(pc, max(len(one.code) for one in abi.signals))
    return next((one for one in abi.signals if data.startswith(one.code)), None)


def _pop(memory: Memory, code: UserCode, step: _Step) -> _Step:
    abi = code.abi
    sp = step.registers[abi.sp]
    pc = code.word(memory, sp)
    if not code.is_text(pc - 1):
        raise Broken(f"0x{step.registers[abi.pc]:x} is not code, and was not called: no return address is on the stack")
    return _Step({**step.registers, abi.pc: pc, abi.sp: (sp + abi.word) % abi.top})


def _by_prologue(memory: Memory, code: UserCode, step: _Step) -> _Step | None:
    """Return the caller by what the function has pushed, None when that cannot be told.

    The return address is behind a direct call of a function whose first instructions put just so much on the stack.
    """
    from kshell.unwind.prologue import read_prologue

    abi = code.abi
    size, pc, sp = abi.word, step.registers[abi.pc], step.registers[abi.sp]
    for number, word in enumerate(_words(memory, abi, sp, size * MAX_SLOTS)):
        start = _call_target(memory, abi, word) if word > PAGE and code.is_text(word - 1) else None
        if start is None or not start <= pc < start + MAX_FUNCTION:
            continue
        depth, saved = read_prologue(memory, start, pc, abi.arch)
        if depth != number * size:
            continue
        place = sp + depth
        found = {abi.pc: word, abi.sp: place + size}
        if saved:
            found[abi.bp] = code.word(memory, place - saved)
        elif abi.bp in step.registers:
            found[abi.bp] = step.registers[abi.bp]
        return _Step(found)
    return None


def _by_frame_pointer(memory: Memory, code: UserCode, step: _Step, problem: str) -> _Step | None:
    """Return the caller by the saved frame pointer and the return address above it, if they make sense.

    They are to be relied on where the return address is behind a direct call of a function that begins by setting the
    frame pointer, and is in that function.

    :param problem: why the unwind table that should tell cannot be read, "": it does not tell of this code
    :raises Broken: they do not
    """
    abi = code.abi
    why = problem or f"no unwind table tells of 0x{step.registers[abi.pc]:x}"
    bp, sp = step.registers.get(abi.bp), step.registers[abi.sp]
    if bp is None:
        raise Broken(why)
    if not bp and step.kind == CALL and not problem:
        return None  # psABI 3.4.1: the outermost frame has none
    if bp % abi.word or not sp <= bp < code.stack_end(sp) - abi.word:
        raise Broken(why)
    saved, pc = struct.unpack(f"<2{abi.code}", memory.read(bp, 2 * abi.word))
    if not pc and not saved:
        return None
    following = {abi.bp: saved, abi.sp: bp + 2 * abi.word, abi.pc: pc}
    if code.is_text(pc) and _signal_return(memory, abi, pc) is not None:
        return _Step(following)
    if not code.is_text(pc - 1) or not follows_call(memory, pc):
        raise Broken(why)
    return _Step(following, guessed=not _calls(memory, abi, pc, step.registers[abi.pc]))


def _calls(memory: Memory, abi: Abi, address: int, pc: int) -> bool:
    """Whether a direct call before *address* is of the function that *pc* is in, behind its setting of rbp."""
    start = _call_target(memory, abi, address)
    if start is None or not start < pc < start + MAX_FUNCTION:
        return False
    data, _ = memory.read_upto(start, len(abi.endbr) + len(abi.prologue))
    skip = len(abi.endbr) if data.startswith(abi.endbr) else 0
    return data[skip:].startswith(abi.prologue) and pc >= start + skip + len(abi.prologue)


def _call_target(memory: Memory, abi: Abi, address: int) -> int | None:
    found = call_target(memory, address)
    return None if found is None else found % abi.top


def _words(memory: Memory, abi: Abi, start: int, size: int) -> Iterator[int]:
    """Yield the words of *size* bytes from *start* on, up to what cannot be read."""
    data, _ = memory.read_upto(start, size)
    return (word for (word,) in struct.iter_unpack(f"<{abi.code}", data[: len(data) // abi.word * abi.word]))


def _broken(memory: Memory, code: UserCode, trace: Trace, limit: int) -> Trace:
    """Return the trace, and behind it what the rest of the stack may have been, as unreliable frames.

    The first return address from which on all can be followed to the end is taken up; if there is none, all words that
    look like return addresses are told.
    """
    sp = trace.frames[-1].sp
    found = list(islice(_return_addresses(memory, code, sp, code.stack_end(sp)), MAX_GUESSES))
    for place, pc in found[:MAX_TRIES]:
        step = _Step({code.abi.pc: pc, code.abi.sp: place + code.abi.word}, guessed=True)
        rest = _follow(memory, code, step, limit, False)
        if not rest.end and len(rest.frames) > 1:
            return Trace((*trace.frames, *rest.frames), trace.end)
    guesses = (Frame(pc, place + code.abi.word, None, CALL, False) for place, pc in found)
    return Trace((*trace.frames, *guesses), trace.end)


def _return_addresses(memory: Memory, code: UserCode, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (where, value) of the words from *start* on that are addresses behind a call."""
    size = code.abi.word
    start = -(-start // size) * size
    for number, word in enumerate(_words(memory, code.abi, start, max(min(end - start, MAX_SCAN), 0) // size * size)):
        if word > PAGE and code.is_text(word - 1) and follows_call(memory, word):
            yield start + number * size, word
