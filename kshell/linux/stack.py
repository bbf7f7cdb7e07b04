"""One kernel stack: of tasks that sleep, of tasks on a CPU, from registers, and from an address on a stack.

Kernel source: ``struct inactive_task_frame`` in arch/x86/include/asm/switch_to.h, ``__switch_to_asm`` in
arch/x86/entry/entry_64.S, ``task_stack_page`` and ``task_pt_regs``. A task that sleeps has its stack pointer in
``thread.sp``; one on a CPU has it in that CPU's registers, which only some targets have.

What cannot be followed is told by the stack, not raised. :mod:`kshell.linux.stacks` has all of this and many at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.linux.cpus import CpuState, cpu_stacks, cpu_states, panicking_cpu, thread_size
from kshell.linux.kernel import require_kernel
from kshell.linux.stack_owner import stack_owner
from kshell.linux.tasks import find_task, task_type
from kshell.linux.unwinding import Unwinding, unwinding
from kshell.types.model import StructType
from kshell.unwind.model import CALL, EXACT, USER, Frame, StackRange, Trace
from kshell.unwind.walk import read_pt_regs, return_addresses, walk

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.types.model import Symbol

#: ``*end_of_stack(task)``, the lowest word of an intact stack (include/uapi/linux/magic.h)
STACK_END_MAGIC = 0x57AC_6E9D
#: where ``struct inactive_task_frame`` has bp and ret_addr since 4.9 (0100301bfdf5) on 64 bits
FRAME_BP, FRAME_RETURN, FRAME_SIZE = 40, 48, 56
#: :attr:`Frame.stack` of frames of user code
USER_STACK = "user"
#: what it holds, in order
SAVED = ("r15", "r14", "r13", "r12", "rbx", "rbp", "rip")


class Stack(NamedTuple):
    """The trace of one task or CPU.

    :ivar task: the ``task_struct``, 0 when it is of no task that is known
    :ivar cpu: the CPU whose registers it begins with, None for a task that sleeps
    :ivar frames: the innermost first; a :class:`kshell.unwind.model.Frame` each
    :ivar end: "" when the last frame is the outermost or user code; else what could not be followed, or why there is
        no frame at all
    :ivar tid: the thread, of a process or core that is the target; None: a kernel's
    :ivar names: gives the names of user code in a kernel's task
    """

    task: int
    cpu: int | None
    frames: tuple[Frame, ...]
    end: str = ""
    tid: int | None = None
    names: Callable[[int], tuple[Symbol, int] | None] | None = None

    @property
    def complete(self) -> bool:
        """Whether every frame is reliable and the last one is the outermost."""
        return not self.end and all(frame.reliable for frame in self.frames)

    def symbolize(self, target: Target, frame: Frame) -> tuple[Symbol, int] | None:
        """Return the function of *frame* and the offset of its program counter in it, None when it is in none."""
        if self.tid is None and frame.stack != USER_STACK:
            return symbolize(target, frame)
        names = target.symbolize if self.names is None else self.names
        # a handler of a signal returns to the beginning of a function that has not called it
        found = names(frame.lookup) or names(frame.pc)
        return None if found is None else (found[0], frame.pc - found[0].address)


class Layout(NamedTuple):
    """Where this kernel keeps what a trace begins with."""

    size: int
    bp: int
    ret_addr: int
    frame_size: int


def layout_of(target: Target) -> Layout:
    kind = target.types.get("struct inactive_task_frame")
    bare = kind.strip() if kind is not None else None
    if isinstance(bare, StructType) and bare.has("ret_addr") and bare.size:
        return Layout(thread_size(target), bare.member("bp").offset, bare.member("ret_addr").offset, bare.size)
    return Layout(thread_size(target), FRAME_BP, FRAME_RETURN, FRAME_SIZE)


# -- one stack ---------------------------------------------------------------------------------------------------------


def task_stack(target: Target, address: int) -> Stack:
    """Return the kernel stack of the task whose ``task_struct`` is at *address*, wherever it is.

    What cannot be followed is told by the stack's ``end``; a task on a CPU without registers has no frames.

    :raises KshellError: the task cannot be read
    """
    require_kernel(target)
    return stack_of_task(target, address, unwinding(target), layout_of(target), cpu_states(target))


def stack_of_task(
    target: Target, address: int, known: Unwinding, layout: Layout, cpus: Mapping[int, CpuState],
) -> Stack:
    task = target.value(task_type(target), address)
    base, sp = task.integer("stack"), task.integer("thread.sp")
    for state in cpus.values():
        if state.task == address:
            return _of_registers(target, known, state, base, layout)
    return _asleep(target, known, address, base, sp, layout)


def _asleep(target: Target, known: Unwinding, address: int, base: int, sp: int, layout: Layout) -> Stack:
    if not base:
        return Stack(address, None, (), "it has no stack any more: it has exited")
    if not base <= sp <= base + layout.size - layout.frame_size:
        return Stack(address, None, (),
                     f"its saved stack pointer 0x{sp:x} is not on its stack, 0x{base:x} to 0x{base + layout.size:x}")
    try:
        frame = target.kernel.read(sp, layout.frame_size)
    except KshellError as error:
        return Stack(address, None, (), f"cannot read the stack: {error}")
    bp, pc = (struct.unpack_from("<Q", frame, at)[0] for at in (layout.bp, layout.ret_addr))
    start = Frame(pc, sp + layout.frame_size, bp, first_kind(known, pc))
    trace = walk(target.kernel, known.code(address), start, [StackRange("task", base, base + layout.size)])
    return Stack(address, None, *trace)


def first_kind(known: Unwinding, pc: int) -> str:
    """Return the kind of a task's first frame: a new task starts at a function, which nothing has called."""
    found = known.symbolize(pc) if pc >> 63 else None
    return EXACT if found is not None and found[1] == 0 else CALL


def _of_registers(target: Target, known: Unwinding, state: CpuState, base: int, layout: Layout) -> Stack:
    values = state.registers
    if not values:
        why = f"it runs on CPU {state.number}, and the target has no registers of it"
        return Stack(state.task, state.number, (), why)
    ranges = [StackRange("task", base, base + layout.size)] if base else []
    trace = _registers_trace(target, known, values, state.task, [*ranges, *cpu_stacks(target, state.number)])
    return Stack(state.task, state.number, *trace)


def _registers_trace(
    target: Target, known: Unwinding, values: Mapping[str, int], task: int, ranges: Sequence[StackRange],
) -> Trace:
    missing = [name for name in ("rip", "rsp") if name not in values]
    if missing:
        return Trace((), f"{' and '.join(missing)} not known")
    kind = USER if values.get("cs", 0) & 3 == 3 else EXACT
    start = Frame(values["rip"], values["rsp"], values.get("rbp"), kind, registers=values)
    return walk(target.kernel, known.code(task), start, ranges)


def task_registers(target: Target, address: int) -> tuple[dict[str, int], int | None]:
    """Return the registers of the task at *address*, as far as they are known, and the CPU it is on.

    Of one that sleeps they are those that it will go on with: what a function must preserve, and where it is.

    :raises KshellError: the task or its stack cannot be read, or it is on a CPU whose registers are not known
    """
    require_kernel(target)
    for state in cpu_states(target).values():
        if state.task == address:
            if not state.registers:
                raise KshellError(f"it runs on CPU {state.number}, and the target has no registers of it")
            return dict(state.registers), state.number
    stack = task_stack(target, address)
    if not stack.frames:
        raise KshellError(f"task 0x{address:x} has no registers: {stack.end}")
    first, layout = stack.frames[0], layout_of(target)
    frame = target.kernel.read(first.sp - layout.frame_size, layout.frame_size)
    values = struct.unpack_from("<7Q", frame, layout.ret_addr - 48)  # r15 to bp, and ret_addr
    return dict(zip(SAVED, values, strict=True)) | {"rsp": first.sp}, None


def cpu_stack(target: Target, cpu: int) -> Stack:
    """Return the stack of what *cpu* was doing, from its registers.

    :raises KshellError: there is no such CPU
    """
    require_kernel(target)
    states = cpu_states(target)
    state = states.get(cpu)
    if state is None:
        raise KshellError(f"no CPU {cpu} is online", hint=f"there are {', '.join(map(str, states)) or 'none'}")
    base = 0
    if state.task:
        with suppress(KshellError):  # a damaged task costs the name of its stack, not the trace
            base = target.value(task_type(target), state.task).integer("stack")
    return _of_registers(target, unwinding(target), state, base, layout_of(target))


def panic_stack(target: Target) -> Stack | None:
    """Return the stack of the CPU that panicked, None when none did."""
    cpu = panicking_cpu(target)
    return None if cpu is None else cpu_stack(target, cpu)


def registers_stack(target: Target, values: Mapping[str, int], task: int = 0) -> Stack:
    """Return the stack that a set of registers leads to: at least rip and rsp, by lower-case name.

    :param task: the task it is of, where that is known
    """
    require_kernel(target)
    ranges = _ranges_around(target, values.get("rsp", 0), task)
    return Stack(task, None, *_registers_trace(target, unwinding(target), values, task, ranges))


def pt_regs_stack(target: Target, address: int, task: int = 0) -> Stack:
    """Return the stack that the ``struct pt_regs`` at *address* leads to.

    :raises Fault: it cannot be read
    :raises FormatError: what is there is no set of registers
    """
    values = read_pt_regs(target.kernel, address)
    if not is_pt_regs(values):
        raise FormatError(f"0x{address:x} is no struct pt_regs: cs 0x{values['cs']:x}, rflags 0x{values['rflags']:x}")
    found = registers_stack(target, values, task)
    return found._replace(frames=tuple(
        frame._replace(regs=address) if not number else frame for number, frame in enumerate(found.frames)))


def is_pt_regs(values: Mapping[str, int]) -> bool:
    """Whether registers look like ones that were saved: selectors Linux uses, and the flag that is always set."""
    return values["cs"] & 0xFFFF in (0x10, 0x23, 0x33) and values["rflags"] & 2 == 2 and values["rflags"] < 1 << 22


def pointer_stack(target: Target, address: int) -> Stack:
    """Return the stack from an *address* on it: a saved registers' place, a saved frame pointer, or any in a frame.

    On the stack of a task that can be followed it is that task's, without the frames below the address. Elsewhere it
    begins with the frame pointer that is there, or with the next return address above.

    :raises KshellError: no return address is there
    """
    require_kernel(target)
    known = unwinding(target)
    code, kernel = known.code(), target.kernel
    with suppress(KshellError):  # the end of a stack: no room for registers
        values = read_pt_regs(kernel, address)
        if is_pt_regs(values) and (values["cs"] & 3 == 3 or known.is_text(values["rip"])):
            return pt_regs_stack(target, address)
    with suppress(KshellError):  # damaged tasks cost this road only
        owner = stack_owner(target, address)
        whole = task_stack(target, owner) if owner else Stack(0, None, ())
        first = next((number for number, frame in enumerate(whole.frames) if frame.sp > address), None)
        if first and whole.frames[first].kind != USER:  # 0: it is below what is in use
            return whole._replace(frames=whole.frames[first:])
    ranges = _ranges_around(target, address, 0)
    pair = struct.unpack("<2Q", kernel.read(address, 16))
    if address < pair[0] < address + (64 << 10) and code.is_text(pair[1] - 1):
        start = Frame(pair[1], address + 16, pair[0])
    else:
        end = next((one.end for one in ranges if one.start <= address < one.end), address + 4096)
        found = next(return_addresses(kernel, code, address, end), None)
        if found is None:
            raise KshellError(f"no return address on the stack from 0x{address:x} to 0x{end:x}")
        start = Frame(found[1], found[0] + 8, None)
    return Stack(0, None, *walk(kernel, code, start, ranges))


def is_task(target: Target, address: int) -> bool:
    """Whether a ``task_struct`` is at *address*: its stack has the magic at its end, or its pid leads to it."""
    kernel = target.kernel
    try:
        task = target.value(task_type(target), address)
        base = task.integer("stack")
        if base >= target.arch.kernel_half and base % thread_size(target) == 0:
            if base <= task.integer("thread.sp") <= base + thread_size(target):
                return True
            if kernel.u32(base) == STACK_END_MAGIC:
                return True
        return find_task(target, task.integer("pid")) == address
    except KshellError:
        return False


def any_stack(target: Target, address: int) -> Stack:
    """Return the stack of a task, of saved registers, or from an address on a stack on: whatever *address* is of.

    :raises KshellError: it is of none of them
    """
    require_kernel(target)
    return task_stack(target, address) if is_task(target, address) else pointer_stack(target, address)


def _ranges_around(target: Target, address: int, task: int) -> list[StackRange]:
    """Return the stacks that a trace from *address* on may be on: the task's, those of the CPU whose it is in."""
    layout = layout_of(target)
    found: list[StackRange] = []
    if task:
        base = target.value(task_type(target), task).integer("stack")
        found.append(StackRange("task", base, base + layout.size))
    try:
        cpus = target.cpu_numbers("online")
    except KshellError:
        cpus = []
    for cpu in cpus:
        stacks = cpu_stacks(target, cpu)
        if any(one.start <= address < one.end for one in stacks):
            return found + stacks
    if not task and address >= target.arch.kernel_half:
        # a task's stack begins at a multiple of its size, in vmalloc and in the direct map
        base = address & -layout.size
        found.append(StackRange("task", base, base + layout.size))
    return found


# -- names -------------------------------------------------------------------------------------------------------------


def symbolize(target: Target, frame: Frame) -> tuple[Symbol, int] | None:
    """Return the function of *frame* and the offset of its program counter in it, None when it is in none.

    A return address is looked up by the call before it: behind a call that never returns another function begins.
    """
    if frame.kind == USER or frame.pc < target.arch.kernel_half:
        return None
    found = unwinding(target).symbolize(frame.lookup)
    return None if found is None else (found[0], frame.pc - found[0].address)


def function(target: Target, frame: Frame) -> str:
    """Return the name of the function of *frame*, "" when it is in none."""
    found = symbolize(target, frame)
    return found[0].name if found is not None else ""
