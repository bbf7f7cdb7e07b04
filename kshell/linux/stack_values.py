"""Threads whose kernel stack holds a value, and in the frame of which function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.linux.cpus import thread_size
from kshell.linux.kernel import require_kernel
from kshell.linux.stack import layout_of
from kshell.linux.stacks import function, stacks
from kshell.linux.task_stacks import stack_bases

if TYPE_CHECKING:
    from kshell.target.target import Target


class Place(NamedTuple):
    """A place on a stack that holds the value.

    :ivar address: a multiple of 8
    :ivar where: the function whose frame it is in; "saved registers" of a task that sleeps; "below the stack pointer"
        for what calls that have returned left behind; "" where the stack cannot be followed
    """

    address: int
    where: str


class Holder(NamedTuple):
    """A thread whose stack holds the value: its ``task_struct``, and every place."""

    task: int
    places: list[Place]


def holders(target: Target, value: int) -> Iterator[Holder]:
    """Yield the threads, idle tasks too, whose kernel stack holds *value* in an aligned word; by address of the stack.

    What of a stack cannot be read is left out.
    """
    require_kernel(target)
    size, needle = thread_size(target), value.to_bytes(8, "little")
    found: dict[int, list[int]] = {}
    for base, task in sorted(stack_bases(target).items()):
        data, _fault = target.kernel.read_upto(base, size)
        at = data.find(needle)
        while at >= 0:
            if not at & 7:
                found.setdefault(task, []).append(base + at)
            at = data.find(needle, at + 1)
    for task, stack in zip(found, stacks(target, list(found)), strict=True):
        sps = [(frame.sp, function(target, frame)) for frame in stack.frames if frame.stack == "task"]
        saved = layout_of(target).frame_size if stack.cpu is None else 0
        yield Holder(task, [Place(place, _where(sps, saved, place)) for place in found[task]])


def _where(frames: list[tuple[int, str]], saved: int, place: int) -> str:
    """Return the function in whose frame *place* is; *frames* are (stack pointer, function), the innermost first.

    A task that sleeps has the registers of its innermost function below that one's frame, in *saved* bytes.
    """
    if not frames:
        return ""
    if place < frames[0][0]:
        return "saved registers" if place >= frames[0][0] - saved else "below the stack pointer"
    return [name for sp, name in frames if sp <= place][-1]
