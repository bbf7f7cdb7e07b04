"""Stacks of user code: of the threads of a process or core, and of a kernel's tasks, in their own memory.

A task that is in the kernel has left its user registers at the top of its kernel stack (``task_pt_regs`` in
arch/x86/include/asm/processor.h); one that runs in user mode has them in its CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux import processes
from kshell.linux.kept import kept
from kshell.linux.page_cache import CachedFiles
from kshell.linux.programs import Program, Region
from kshell.linux.stack import USER_STACK, Stack, is_pt_regs, layout_of, task_stack
from kshell.linux.stacks import Group
from kshell.linux.tasks import read_task, task_type
from kshell.linux.userland import require_user
from kshell.unwind.abi import I386, X86_64
from kshell.unwind.model import USER
from kshell.unwind.user import walk_user
from kshell.unwind.walk import PT_REGS_FORMAT, read_pt_regs

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.target.user import Thread
    from kshell.unwind.model import Frame

#: cs of code of 32 bits (arch/x86/include/asm/segment.h)
CS32 = 0x23

def own_program(target: Target) -> Program:
    """Return the code of the process or core that is the target, kept while it stands still."""
    from kshell.target.user import UserTarget

    assert isinstance(target, UserTarget)
    moment = -1 if target.control is None else target.control.moment
    if target.live and not target.facts.standing:
        target.kept.pop("program", None)
    return kept(target, "program", lambda _: Program(
        target.kernel, [Region(*mapping) for mapping in target.facts.mappings()], target.object_at), moment)


def thread_stack(target: Target, tid: int | None) -> Stack:
    """Return the stack of the thread *tid* of a process or core, None: of the one that matters.

    A process should stand still meanwhile (:meth:`kshell.target.control.Control.standing`).

    :raises KshellError: there is no such thread, or its registers cannot be read
    """
    thread, registers = require_user(target).registers(tid)
    return Stack(0, None, *_walk(own_program(target), registers), tid=thread)


def threads_stacks(target: Target, tids: Sequence[int] | None) -> list[tuple[Thread, Stack]]:
    """Return threads of a process or core and their stacks, None: of all; it should stand still meanwhile.

    One whose registers cannot be had has no frames, and an ``end`` that says why.

    :raises KshellError: there is no thread with one of these *tids*, or none at all
    """
    facts = require_user(target)
    every = {one.tid: one for one in facts.threads()}
    if not every:
        facts.registers(None)  # says why
    found: list[tuple[Thread, Stack]] = []
    for tid in every if tids is None else dict.fromkeys(tids):
        if tid not in every:
            raise KshellError(f"there is no thread {tid}", hint="::threads lists them")
        try:
            found.append((every[tid], thread_stack(target, tid)))
        except KshellError as error:
            found.append((every[tid], Stack(0, None, (), str(error), tid=tid)))
    return found


def alike(found: Sequence[Stack], labels: Sequence[str]) -> list[Group]:
    """Return the groups of threads' stacks that are alike, as :meth:`kshell.linux.stacks.Stacks.groups` does of tasks.

    Their ``tasks`` are the ids of threads.

    :param labels: one for each stack; stacks of different labels are not put together
    """
    groups: dict[tuple[object, ...], Group] = {}
    for stack, label in zip(found, labels, strict=True):
        assert stack.tid is not None
        key = label, stack.end.partition("0x")[0], *(frame.pc for frame in stack.frames)
        groups.setdefault(key, Group(stack, [], label)).tasks.append(stack.tid)
    return sorted(groups.values(), key=lambda group: -len(group.tasks))


def _walk(program: Program, registers: Mapping[str, int]) -> tuple[tuple[Frame, ...], str]:
    abi = I386 if registers.get("cs") == CS32 else X86_64
    if abi is I386 and "rip" in registers:  # as the kernel has them of a program of 32 bits
        registers = {f"e{name[1:]}": value & 0xFFFF_FFFF for name, value in registers.items() if name[0] == "r"}
    frames, end = walk_user(program.memory, program.code(abi), registers)
    return tuple(frame._replace(stack=USER_STACK) for frame in frames), end


def task_program(target: Target, address: int) -> Program:
    """Return the code of the process of the ``task_struct`` at *address*.

    :raises NoUserSpaceError: it has no user memory
    """
    task = read_task(target, address)
    memory, vmas = processes.user_memory(target, task), list(processes.vmas(target, task))
    regions = []
    for vma in vmas:
        name = vma.name if isinstance(vma.name, str) else ""
        regions.append(Region(vma.start, vma.end, vma.permissions, vma.offset, name))
    return Program(memory if target.host else CachedFiles(target, memory, vmas), regions)


def user_frames(target: Target, address: int, registers: Mapping[str, int]) -> Stack:
    """Return the stack of the user code that the task at *address* is in, with its *registers*.

    :raises NoUserSpaceError: it has no user memory
    """
    program = task_program(target, address)
    return Stack(address, None, *_walk(program, registers), names=program.symbolize)


def with_user_frames(target: Target, stack: Stack) -> Stack:
    """Return a task's kernel stack, with the frames of user code behind it.

    :raises KshellError: it is of no task, or of one without user memory, or its user registers are not known
    """
    if not stack.task:
        raise KshellError("whose user code it is is not known: this stack is of no task")
    program = task_program(target, stack.task)
    inside = [frame for frame in stack.frames if frame.kind != USER]
    last = stack.frames[-1] if len(inside) < len(stack.frames) else None
    registers = last.registers if last is not None else user_registers(target, stack.task)
    frames, end = _walk(program, registers)
    joined = "; ".join(part for part in (stack.end, end) if part)
    return stack._replace(frames=(*inside, *frames), end=joined, names=program.symbolize)


def user_registers(target: Target, address: int) -> Mapping[str, int]:
    """Return the registers that user code will go on with, of a task that is in the kernel.

    :raises KshellError: they are not where they should be
    """
    stack = task_stack(target, address)
    if stack.frames and stack.frames[-1].kind == USER and stack.frames[-1].registers:
        return stack.frames[-1].registers
    task = target.value(task_type(target), address)
    place = task.integer("stack") + layout_of(target).size - PT_REGS_FORMAT.size
    found = read_pt_regs(target.kernel, place)
    if not is_pt_regs(found) or found["cs"] & 3 != 3:
        raise KshellError(f"no user registers are at the top of its kernel stack, 0x{place:x}")
    return found
