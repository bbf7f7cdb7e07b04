"""Following stacks made by hand: by ORC and by frame pointers, over interrupts, and into every kind of damage."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest

from kshell.unwind import many, orc
from kshell.unwind.model import CALL, EXACT, USER, Frame, StackRange
from kshell.unwind.orc import Entry
from kshell.unwind.walk import MAX_FRAMES, MAX_GUESSES, PT_REGS, Code, call_target, follows_call, walk
from tests.fake_target import Bytes

TEXT, TEXT_END = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8101_0000
STACK = 0xFFFF_C900_0000_0000
SIZE = 0x4000
TOP = STACK + SIZE
IRQ = 0xFFFF_C900_0010_0000
PLAIN = Entry(orc.CALL, orc.SP, 16, orc.NONE, 0, False)  # one word of its own, then the return address
END = Entry(orc.END, orc.NONE, 0, orc.NONE, 0, False)
TASK = StackRange("task", STACK, TOP)


class Machine(Bytes):
    """Stacks and code in one memory: functions of 256 bytes, each with one entry."""

    def __init__(self, entries: dict[int, Entry], words: dict[int, int]) -> None:
        self.entries = entries
        self.parts = {STACK: bytearray(SIZE), IRQ: bytearray(SIZE), TEXT: bytearray(TEXT_END - TEXT)}
        self.space = "kernel"
        for start in range(TEXT, TEXT_END, 16):  # every 16 bytes a call, so that its end can be a return address
            self.put(start + 11, b"\xe8" + struct.pack("<i", -16))
        for address, word in words.items():
            self.put(address, struct.pack("<Q", word % (1 << 64)))

    def put(self, address: int, data: bytes) -> None:
        for start, part in self.parts.items():
            if start <= address < start + len(part):
                part[address - start : address - start + len(data)] = data

    def read_upto(self, address: int, size: int):  # type: ignore[no-untyped-def]
        for start, part in self.parts.items():
            if start <= address < start + len(part):
                return Bytes("kernel", start, bytes(part)).read_upto(address, size)
        return Bytes("kernel", 0, b"").read_upto(address, size)

    def find(self, address: int) -> Entry | None:
        return self.entries.get(address & -256)

    def is_text(self, address: int) -> bool:
        return TEXT <= address < TEXT_END

    def code(self, has_orc: bool = True) -> Code:
        return Code(self.find, self.is_text, has_orc)


def at(function: int, offset: int = 0x10) -> int:
    return TEXT + 256 * function + offset


def entries(*given: Entry) -> dict[int, Entry]:
    return {TEXT + 256 * number: entry for number, entry in enumerate(given)}


def pcs(frames: Sequence[Frame]) -> list[int]:
    return [frame.pc for frame in frames]


def registers(**given: int) -> bytes:
    return struct.pack("<21Q", *(given.get(name, 0) for name in PT_REGS))


def test_calls_to_the_outermost() -> None:
    sp = TOP - 0x100
    machine = Machine(entries(PLAIN, PLAIN, END), {sp + 8: at(1), sp + 24: at(2)})
    trace = walk(machine, machine.code(), Frame(at(0), sp, None), [TASK])
    assert pcs(trace.frames) == [at(0), at(1), at(2)]
    assert [frame.sp for frame in trace.frames] == [sp, sp + 16, sp + 32]
    assert trace.end == "" and all(frame.reliable and frame.stack == "task" for frame in trace.frames)


def test_frame_pointer_of_an_entry() -> None:
    """A frame counted from rbp, and rbp restored from below the return address, as compilers do for alloca."""
    sp, bp = TOP - 0x200, TOP - 0x100
    by_bp = Entry(orc.CALL, orc.BP, 16, orc.PREV_SP, -16, False)
    machine = Machine(entries(by_bp, by_bp, END), {bp: bp + 0x40, bp + 8: at(1), bp + 0x40: 7, bp + 0x48: at(2)})
    trace = walk(machine, machine.code(), Frame(at(0), sp, bp), [TASK])
    assert pcs(trace.frames) == [at(0), at(1), at(2)]
    assert [frame.bp for frame in trace.frames] == [bp, bp + 0x40, 7]


def test_a_return_address_behind_a_call_that_never_returns() -> None:
    """It is the next function's first address; the call before it is what counts."""
    sp = TOP - 0x100
    machine = Machine(entries(PLAIN, END), {sp + 8: at(2, 0)})
    trace = walk(machine, machine.code(), Frame(at(0), sp, None), [TASK])
    assert pcs(trace.frames) == [at(0), at(2, 0)] and trace.end == ""


def test_interrupt_on_its_own_stack_and_user_registers() -> None:
    irq, sp, regs, user = IRQ + SIZE - 0x80, TOP - 0x300, TOP - 0x200, TOP - 168
    hop = Entry(orc.CALL, orc.SP_INDIRECT, 8, orc.NONE, 0, False)  # the old stack pointer is on top of the new stack
    saved = Entry(orc.REGS, orc.SP, 0, orc.NONE, 0, True)
    entry = Entry(orc.REGS, orc.SP, 0, orc.NONE, 0, False)
    machine = Machine(entries(PLAIN, hop, saved, PLAIN, entry), {
        irq + 8: at(1), irq + 16: regs - 8, regs - 8: at(2), sp: 0})
    machine.put(regs, registers(rip=at(3), rsp=TOP - 0xC0, cs=0x10, rflags=2, rbp=0x1234))
    machine.put(TOP - 0xC0 + 8, struct.pack("<Q", at(4)))
    machine.put(TOP - 0xC0 + 16, registers(rip=0x401000, rsp=0x7FFF_0000, cs=0x33, rflags=2, rbp=5))
    stacks = [TASK, StackRange("irq", IRQ, IRQ + SIZE)]
    trace = walk(machine, machine.code(), Frame(at(0), irq, None, EXACT), stacks)
    assert pcs(trace.frames) == [at(0), at(1), at(2), at(3), at(4), 0x401000]
    assert [frame.stack for frame in trace.frames] == ["irq", "irq", "task", "task", "task", ""]
    assert [frame.kind for frame in trace.frames] == [EXACT, CALL, CALL, EXACT, CALL, USER]
    assert trace.frames[3].regs == regs and trace.frames[3].registers["rbp"] == 0x1234
    assert trace.frames[-1].registers["rsp"] == 0x7FFF_0000 and trace.end == ""
    assert user  # the place of a task's user registers


def test_five_words_of_an_interrupt() -> None:
    partial = Entry(orc.PARTIAL, orc.SP, 8, orc.NONE, 0, True)
    sp = TOP - 0x100
    machine = Machine(entries(partial, END), {sp + 8: at(1), sp + 16: 0x10, sp + 24: 2, sp + 32: TOP - 0x40})
    trace = walk(machine, machine.code(), Frame(at(0), sp, 9, EXACT), [TASK])
    assert pcs(trace.frames) == [at(0), at(1)] and trace.frames[1].sp == TOP - 0x40 and trace.frames[1].bp == 9


@pytest.mark.parametrize("pc", [0, 0x41, 0xFFFF_8880_0000_1000])
def test_call_through_a_wild_pointer(pc: int) -> None:
    sp = TOP - 0x100
    machine = Machine(entries(END), {sp: at(0)})
    trace = walk(machine, machine.code(), Frame(pc, sp, None, EXACT), [TASK])
    assert pcs(trace.frames) == [pc, at(0)] and trace.end == ""


def test_frame_pointers_without_orc() -> None:
    bp = TOP - 0x100
    machine = Machine({}, {bp: bp + 0x20, bp + 8: at(1), bp + 0x20: 0, bp + 0x28: at(2)})
    trace = walk(machine, machine.code(has_orc=False), Frame(at(0), bp - 0x40, bp), [TASK])
    assert pcs(trace.frames) == [at(0), at(1), at(2)]
    assert trace.end == "" and all(frame.reliable for frame in trace.frames)


def test_frame_pointer_that_marks_saved_registers() -> None:
    bp = TOP - 0x200
    machine = Machine({}, {bp: TOP - 168 + 1, bp + 8: at(1)})
    machine.put(TOP - 168, registers(rip=0x401000, cs=0x33, rsp=0x7FFF_0000, rflags=2))
    trace = walk(machine, machine.code(has_orc=False), Frame(at(0), bp - 0x40, bp), [TASK])
    assert pcs(trace.frames) == [at(0), at(1), 0x401000] and trace.frames[-1].kind == USER


def test_code_without_an_entry_is_passed_by_its_frame_pointer_but_not_trusted() -> None:
    bp = TOP - 0x100
    machine = Machine({TEXT + 256: END}, {bp: 0, bp + 8: at(1)})
    trace = walk(machine, machine.code(), Frame(at(0), bp - 0x20, bp), [TASK])
    assert [(frame.pc, frame.reliable) for frame in trace.frames] == [(at(0), True), (at(1), False)]
    assert trace.end == ""


def test_overwritten_stack_shows_what_is_left() -> None:
    sp = TOP - 0x400
    words = {sp + 8 * number: 0x4141_4141_4141_4141 for number in range(64)}
    machine = Machine(entries(PLAIN), {**words, TOP - 0x100: at(3), TOP - 0xF0: at(4), TOP - 0xE8: at(5, 3)})
    trace = walk(machine, machine.code(), Frame(at(0), sp, None), [TASK])
    assert [(frame.pc, frame.reliable) for frame in trace.frames] == [
        (at(0), True), (0x4141_4141_4141_4141, False), (at(3), False), (at(4), False)]
    assert trace.end == "0x4141414141414141 is not in the kernel's code"


def test_a_stack_that_goes_round_ends() -> None:
    sp = TOP - 0x400
    by_bp = Entry(orc.CALL, orc.BP, 16, orc.PREV_SP, -16, False)
    machine = Machine(entries(by_bp), {sp: sp, sp + 8: at(0)})
    trace = walk(machine, machine.code(), Frame(at(0), sp, sp), [TASK])
    assert "goes back" in trace.end and len(trace.frames) < 8


def test_two_stacks_that_lead_to_each_other_end() -> None:
    here, there = TOP - 0x100, IRQ + SIZE - 0x100
    hop = Entry(orc.CALL, orc.SP_INDIRECT, 16, orc.NONE, 0, False)
    words = {here: there, there + 8: at(0), there + 16: here, here + 8: at(0), here + 16: there}
    machine = Machine(entries(hop), words)
    stacks = [TASK, StackRange("irq", IRQ, IRQ + SIZE)]
    trace = walk(machine, machine.code(), Frame(at(0), here, None), stacks)
    assert trace.end and len(trace.frames) < 8


def test_endless_frames_end() -> None:
    still = Entry(orc.CALL, orc.SP, 8, orc.NONE, 0, False)
    machine = Machine(entries(still), {STACK + 8 * number: at(0) for number in range(SIZE // 8)})
    trace = walk(machine, machine.code(), Frame(at(0), STACK, None), [TASK])
    assert trace.end == f"more than {MAX_FRAMES} frames" and len(trace.frames) == MAX_FRAMES


def test_guesses_are_bounded() -> None:
    machine = Machine({}, {STACK + 8 * number: at(1) for number in range(SIZE // 8)})
    trace = walk(machine, machine.code(), Frame(at(0), STACK, None), [TASK])
    assert len(trace.frames) == 1 + MAX_GUESSES and not any(frame.reliable for frame in trace.frames[1:])


@pytest.mark.parametrize("sp", [TOP - 4, 0x1234, TOP + 0x100000, (1 << 64) - 8])
def test_stack_pointers_that_lead_nowhere(sp: int) -> None:
    machine = Machine(entries(PLAIN, END), {})
    trace = walk(machine, machine.code(), Frame(at(0), sp, None), [TASK])
    assert trace.end and len(trace.frames) <= 2


def test_missing_registers_are_told() -> None:
    by_r13 = Entry(orc.CALL, orc.R13, 8, orc.NONE, 0, False)
    machine = Machine(entries(by_r13), {})
    assert "r13, which is not known" in walk(machine, machine.code(), Frame(at(0), STACK, None), [TASK]).end
    by_bp = Entry(orc.CALL, orc.BP, 8, orc.NONE, 0, False)
    machine = Machine(entries(by_bp), {})
    assert "not" in walk(machine, machine.code(), Frame(at(0), STACK, None), [TASK]).end


def test_a_function_without_hints_is_left_by_its_prologue() -> None:
    """As __crash_kexec: push rbp, push rbx, sub $0x20, rsp; its caller calls it directly."""
    sp = TOP - 0x100
    words = {sp + 0x20: 1, sp + 0x28: 0x77, sp + 0x30: at(1, 0x20)}
    machine = Machine(entries(Entry(orc.UNDEFINED, orc.NONE, 0, orc.NONE, 0, False), END), words)
    machine.put(at(0, 0), b"\x55\x53\x48\x83\xec\x20\x90")
    machine.put(at(1, 0x1B), b"\xe8" + struct.pack("<i", at(0, 0) - at(1, 0x20)))
    code = machine.code()._replace(function=lambda address: address & -256)
    trace = walk(machine, code, Frame(at(0, 7), sp, 5, EXACT), [TASK])
    assert [(frame.pc, frame.bp, frame.reliable) for frame in trace.frames] == [
        (at(0, 7), 5, True), (at(1, 0x20), 0x77, True)]
    machine.put(at(0, 0), b"\x90" * 7)  # not where it says: looked for, and marked
    trace = walk(machine, code, Frame(at(0, 7), sp, 5, EXACT), [TASK])
    assert [(frame.pc, frame.reliable) for frame in trace.frames] == [(at(0, 7), True), (at(1, 0x20), False)]


def test_replaced_return_addresses_are_put_back() -> None:
    sp = TOP - 0x100
    machine = Machine(entries(PLAIN, END), {sp + 8: at(9)})
    real = {(at(9), sp + 8): at(1)}
    code = machine.code()._replace(real_return=lambda found, place: real.get((found, place), found))
    assert pcs(walk(machine, code, Frame(at(0), sp, None), [TASK]).frames) == [at(0), at(1)]


def test_calls_are_seen_in_the_bytes() -> None:
    machine = Machine({}, {})
    machine.put(TEXT, bytes(64))
    for code in (b"\xe8\1\2\3\4", b"\xff\xd0", b"\xff\x50\x08", b"\xff\x14\x25\0\0\0\0", b"\xff\x15\0\0\0\0"):
        machine.put(TEXT + 16, bytes(16))
        machine.put(TEXT + 32 - len(code), code)
        assert follows_call(machine, TEXT + 32), code.hex()
    machine.put(TEXT + 16, bytes(16))
    assert not follows_call(machine, TEXT + 32)
    assert call_target(machine, TEXT + 32) is None


def test_many_in_lock_step_are_as_one_by_one() -> None:
    by_bp = Entry(orc.CALL, orc.BP, 16, orc.PREV_SP, -16, False)
    machine = Machine(entries(PLAIN, by_bp, END), {})
    starts = []
    for number in range(40):
        sp = STACK + 0x200 + 0x80 * number
        machine.put(sp + 8, struct.pack("<Q", at(1)))
        machine.put(sp + 0x20, struct.pack("<QQ", 3, at(2) if number % 3 else 0x4141))
        starts.append((at(0), sp, sp + 0x20))
    pc_column, sp_column, bp_column = np.array(starts, np.uint64).T
    begin = many.Starts(pc_column, sp_column, bp_column, np.full(40, TOP, np.uint64))
    steps = many.unwind(machine, machine.find, frozenset(), begin)
    for number, (pc, sp, bp) in enumerate(starts):
        depth = int(steps.depth[number])
        frames = walk(machine, machine.code(), Frame(pc, sp, bp), [TASK]).frames
        assert steps.pc[number, :depth].tolist() == pcs(frames)[:depth]
        assert steps.sp[number, :depth].tolist() == [frame.sp for frame in frames][:depth]
        assert bool(steps.left[number]) == (number % 3 == 0)
        assert depth == 3


def test_in_lock_step_a_stack_that_goes_back_is_left_to_others() -> None:
    by_bp = Entry(orc.CALL, orc.BP, 16, orc.PREV_SP, -16, False)
    sp = TOP - 0x400
    machine = Machine(entries(by_bp), {sp: sp, sp + 8: at(0)})
    column = np.array([sp], np.uint64)
    begin = many.Starts(np.array([at(0)], np.uint64), column, column, np.array([TOP], np.uint64))
    steps = many.unwind(machine, machine.find, frozenset(), begin)
    assert steps.left.tolist() == [True] and steps.depth.tolist() == [2]
