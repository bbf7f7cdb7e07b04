"""Kernel stacks, one (:func:`task_stack`, :func:`cpu_stack`, ...) or many (:func:`stacks`).

Many are followed at once, and grouped without being looked at one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

from kshell.errors import KshellError
from kshell.linux.cpus import CpuState, cpu_states
from kshell.linux.kernel import require_kernel
from kshell.linux.stack import (
    Layout,
    Stack,
    any_stack,
    cpu_stack,
    first_kind,
    function,
    is_pt_regs,
    is_task,
    layout_of,
    panic_stack,
    pointer_stack,
    pt_regs_stack,
    registers_stack,
    stack_of_task,
    symbolize,
    task_registers,
    task_stack,
)
from kshell.linux.stack_owner import every_task, stack_owner
from kshell.linux.tasks import task_type
from kshell.linux.unwinding import Unwinding, unwinding
from kshell.unwind.model import CALL, USER, Frame, StackRange
from kshell.unwind.walk import read_pt_regs, walk
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.unwind.many import Steps

__all__ = [
    "Frame", "Group", "Stack", "Stacks", "any_stack", "asked_tasks", "cpu_stack", "every_found", "every_task",
    "function", "is_pt_regs", "is_task", "panic_stack", "pointer_stack", "pt_regs_stack", "registers_stack",
    "stack_owner", "stacks", "symbolize", "task_registers", "task_stack",
]

#: fewer stacks than this are followed one by one: importing numpy takes longer
FEW = 64
#: stacks whose used parts are held at once
BLOCK = 8192


def every_found(target: Target) -> tuple[list[int], KshellError | None]:
    """Return all tasks that are found, and why others may be missing."""
    try:
        return every_task(target), None
    except KshellError as error:
        found: list[int] | None = getattr(error, "visited", None)
        if not found:
            raise
        return found, error


def asked_tasks(target: Target, address: int | None, addresses: list[int] | None) -> list[int] | None:
    """Return the tasks that an address, or many, ask for; None for all.

    :raises KshellError: the one address is of no task
    """
    if addresses is not None:
        return list(dict.fromkeys(addresses))
    if address is None:
        return None
    if not is_task(target, address):
        raise KshellError(f"0x{address:x} is not a task_struct")
    return [address]


class Group(NamedTuple):
    """Tasks whose stacks are alike: the same frames of the kernel, in the same places of the code.

    :ivar stack: of the first of them
    :ivar tasks: the ``task_struct`` of each, in the order in which they were given
    :ivar label: theirs, when labels were given
    """

    stack: Stack
    tasks: list[int]
    label: Hashable = None


class Stacks(Sequence[Stack]):
    """The stacks of many tasks; made one by one when they are looked at. See :func:`stacks`."""

    def __init__(self, parts: list[_Part]) -> None:
        self._parts = parts
        self._size = sum(len(part.tasks) for part in parts)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Stack: ...
    @overload
    def __getitem__(self, index: slice) -> list[Stack]: ...

    def __getitem__(self, index: int | slice) -> Stack | list[Stack]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._size))]
        number = index + self._size if index < 0 else index
        if not 0 <= number < self._size:
            raise IndexError(index)
        for part in self._parts:
            if number < len(part.tasks):
                return part.stack(number)
            number -= len(part.tasks)
        raise IndexError(index)

    def groups(self, labels: Sequence[Hashable] | None = None) -> list[Group]:
        """Return the groups of stacks that are alike, the largest first, in order of their first tasks among equals.

        :param labels: one for each stack; stacks of different labels are not put together
        """
        found: dict[tuple[Hashable, bytes], Group] = {}
        at = 0
        for part in self._parts:
            for number, key in enumerate(part.keys()):
                label = labels[at] if labels is not None else None
                at += 1
                group = found.get((label, key))
                if group is None:
                    found[label, key] = Group(part.stack(number), [part.tasks[number]], label)
                else:
                    group.tasks.append(part.tasks[number])
        return sorted(found.values(), key=lambda group: -len(group.tasks))


class _Part:
    """Some tasks and their stacks, each as a :class:`Stack` or as a row of *steps*."""

    def __init__(self, tasks: list[int], given: dict[int, Stack], steps: Steps | None, bases: list[int],
                 finish: _Finish | None) -> None:
        self.tasks, self._given, self._steps, self._bases, self._finish = tasks, given, steps, bases, finish

    def stack(self, number: int) -> Stack:
        found = self._given.get(number)
        if found is not None:
            return found
        assert self._steps is not None and self._finish is not None
        stack = self._finish(self.tasks[number], self._bases[number], self._steps, number)
        if self._steps.left[number]:
            self._given[number] = stack
        return stack

    def keys(self) -> Iterator[bytes]:
        """Yield for each stack bytes that are equal for stacks that are alike."""
        steps = self._steps
        if steps is not None:
            # user code is not compared
            import numpy as np

            pcs = steps.pc.copy()
            rows = np.nonzero(steps.user)[0]
            pcs[rows, steps.depth[rows] - 1] = 0
            width = pcs.shape[1] * 8
            blob = pcs.tobytes()
            left = steps.left.tolist()
        for number in range(len(self.tasks)):
            if number in self._given or steps is None or left[number]:
                stack = self.stack(number)
                pcs_of = [frame.pc for frame in stack.frames if frame.kind != USER]
                yield struct.pack(f"<{len(pcs_of)}Q", *pcs_of) + stack.end.partition("0x")[0].encode()
            else:
                yield blob[number * width : (number + 1) * width].rstrip(b"\0")


class _Finish:
    """Makes a :class:`Stack` of a row of steps, going on where they could not."""

    def __init__(self, target: Target, known: Unwinding, size: int) -> None:
        self._target, self._known, self._size = target, known, size

    def __call__(self, task: int, base: int, steps: Steps, row: int) -> Stack:
        depth = int(steps.depth[row])
        rows = (column[row, :depth].tolist() for column in (steps.pc, steps.sp, steps.bp))
        frames = [Frame(pc, sp, bp, CALL, True, "task") for pc, sp, bp in zip(*rows, strict=True)]
        end = ""
        kernel = self._target.kernel
        if steps.left[row]:
            ranges = [StackRange("task", base, base + self._size)]
            last = frames.pop()
            if not frames:
                last = last._replace(kind=first_kind(self._known, last.pc))
            trace = walk(kernel, self._known.code(task), last, ranges)
            frames += trace.frames
            end = trace.end
        elif steps.user[row]:
            regs, last = int(steps.regs[row]), frames[-1]
            frames[-1] = last._replace(kind=USER, stack="", regs=regs, registers=read_pt_regs(kernel, regs))
        return Stack(task, None, tuple(frames), end)


def stacks(target: Target, addresses: Sequence[int]) -> Stacks:
    """Return the stacks of the tasks whose ``task_struct`` are at *addresses*, in that order, followed at once.

    A task that cannot be read has a stack without frames, whose ``end`` says why.

    :raises KshellError: the target's kernel memory cannot be read at all
    """
    require_kernel(target)
    known, layout, cpus = unwinding(target), layout_of(target), cpu_states(target)
    wanted = [int(address) for address in addresses]
    if len(wanted) < FEW or known.kernel is None:
        given: dict[int, Stack] = {}
        for number, address in enumerate(wanted):
            try:
                given[number] = stack_of_task(target, address, known, layout, cpus)
            except KshellError as error:
                given[number] = Stack(address, None, (), f"cannot read the task: {error}")
        return Stacks([_Part(wanted, given, None, [], None)])
    parts = [_in_lock_step(target, wanted[first : first + BLOCK], known, layout, cpus)
             for first in range(0, len(wanted), BLOCK)]
    return Stacks(parts)


def _in_lock_step(
    target: Target, tasks: list[int], known: Unwinding, layout: Layout, cpus: Mapping[int, CpuState],
) -> _Part:
    import numpy as np

    from kshell.unwind.many import Starts, unwind

    vector = Vector(target, task_type(target), np.array(tasks, np.uint64))
    (base, base_ok), (sp, sp_ok) = vector.array("stack"), vector.array("thread.sp")
    running = {state.task: state for state in cpus.values() if state.task}
    top = base + np.uint64(layout.size)
    plain = base_ok & sp_ok & (base != 0) & (sp >= base) & (sp + np.uint64(layout.frame_size) <= top)
    if running:
        plain &= ~np.isin(vector.addresses, np.array(list(running), np.uint64))
    frames = target.kernel.gather(np.where(plain, sp, np.uint64(0)), layout.frame_size)
    plain &= frames.ok
    bp, pc = (np.ascontiguousarray(frames.data[:, at : at + 8]).view("<u8").reshape(-1)
              for at in (layout.bp, layout.ret_addr))
    start = np.where(plain, sp + np.uint64(layout.frame_size), np.uint64(0))
    steps = unwind(target.kernel, known.find, known.odd, Starts(pc, start, bp, top))
    given: dict[int, Stack] = {}
    for number in np.nonzero(~plain)[0].tolist():
        try:
            given[number] = stack_of_task(target, tasks[number], known, layout, cpus)
        except KshellError as error:
            given[number] = Stack(tasks[number], None, (), f"cannot read the task: {error}")
    return _Part(tasks, given, steps, base.tolist(), _Finish(target, known, layout.size))
