"""Stacks of CPUs that were interrupted: by a page fault, a double fault, timers, panics, on the staged disasters.

drgn with full DWARF finds the same program counters on all of them (test_stacks_drgn.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from kshell.linux import cpus, stacks, tasks
from kshell.linux.stack_depth import depths
from kshell.linux.stacks import Stack
from kshell.target.control import Point
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.fixtures import have
from tests.guest.qemu import RunningGuest
from tests.guest.spec import named_spec

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def disaster() -> Iterator[Callable[[str], Target]]:
    """Opens a disaster's dump, once."""
    with ExitStack() as targets:
        yield cache(lambda name: targets.enter_context(open_target(str(have(named_spec(name)).elf))))


def places(target: Target, stack: Stack) -> list[tuple[str, str]]:
    """Return (stack, function) of each frame, without what compilers add to names, and how often a function recurs."""
    found: list[tuple[str, str]] = []
    for frame in stack.frames:
        place = frame.stack, stacks.function(target, frame).partition(".")[0] or frame.kind
        if not found or found[-1] != place:
            found.append(place)
    return found


def on(stack: str, names: str) -> list[tuple[str, str]]:
    return [(stack, name) for name in names.split()]


WRITE = "proc_reg_write vfs_write ksys_write do_syscall_64 entry_SYSCALL_64_after_hwframe"


def test_page_fault_in_a_module(disaster: Callable[[str], Target]) -> None:
    target = disaster("null")
    stack = stacks.panic_stack(target)
    assert stack is not None and stack.complete
    assert places(target, stack) == [*on(
        "task", "delay_tsc panic oops_end page_fault_oops exc_page_fault asm_exc_page_fault price_of stage"
        f" disaster_write {WRITE}"), ("", "user")]
    fault = next(frame for frame in stack.frames if stacks.function(target, frame) == "price_of")
    place = stacks.symbolize(target, fault)
    assert place is not None and place[0].module == "disaster"
    assert fault.kind == "exact" and fault.regs and fault.registers["rip"] == fault.pc
    assert fault.registers["cs"] == 0x10 and stack.frames[-1].registers["cs"] == 0x33


def test_a_stopped_cpu_shows_what_the_panic_interrupted(disaster: Callable[[str], Target]) -> None:
    target = disaster("null")
    panicking = cpus.panicking_cpu(target)
    number, = (number for number in cpus.cpu_states(target) if number != panicking)
    stack = stacks.cpu_stack(target, number)
    found = places(target, stack)
    assert stack.complete and tasks.read_task(target, stack.task).comm == f"swapper/{number}"
    assert found[:3] == on("irq", "stop_this_cpu __sysvec_reboot sysvec_reboot")
    assert ("task", "asm_sysvec_reboot") in found and ("task", "do_idle") in found


def test_timer_interrupt_over_a_task_that_never_schedules(disaster: Callable[[str], Target]) -> None:
    target = disaster("softlockup")
    stack = stacks.panic_stack(target)
    assert stack is not None and stack.complete
    assert places(target, stack) == on(
        "irq", "delay_tsc panic watchdog_timer_fn __hrtimer_run_queues hrtimer_interrupt"
        " __sysvec_apic_timer_interrupt sysvec_apic_timer_interrupt") + on(
        "task", "asm_sysvec_apic_timer_interrupt wait_for_device poll_device play kthread ret_from_fork")


def test_double_fault_at_the_end_of_a_stack(disaster: Callable[[str], Target]) -> None:
    target = disaster("overflow")
    stack = stacks.panic_stack(target)
    assert stack is not None and stack.complete
    found = places(target, stack)
    assert found[:6] == on(
        "DF", "delay_tsc panic oops_end handle_stack_overflow exc_double_fault asm_exc_double_fault")
    # where the stack ended differs from boot to boot: in snprintf() or in what that calls; a frame whose stack pointer
    # is below the stack is on none
    first = found.index(("task", "count_down"))
    below = found[6:first]
    assert not below or (below[-1][1] == "snprintf" and len(below) <= 5)
    assert "".join(where for where, _ in below) in {"task" * count for count in (len(below), len(below) - 1)}
    assert {where for where, _ in below[1:]} <= {"task"}
    assert found[first:] == [*on("task", f"count_down stage disaster_write {WRITE}"), ("", "user")]
    # where the double fault happened, the stack pointer was at the very end of the task's stack or below
    fault = next(frame for frame in stack.frames if frame.kind == "exact" and frame.regs)
    assert target.value("struct task_struct", stack.task).integer("stack") + 256 > fault.sp
    deep = [frame for frame in stack.frames if stacks.function(target, frame) == "count_down"]
    assert len(deep) > 40
    every = stacks.every_task(target)
    assert [depth.task for depth in depths(target, every) if depth.overflowed] == [stack.task]


def test_two_tasks_that_wait_for_each_other(disaster: Callable[[str], Target]) -> None:
    target = disaster("abba")
    every = stacks.every_task(target)
    groups = [group for group in stacks.stacks(target, every).groups()
              if any("mutex_lock" in stacks.function(target, frame) for frame in group.stack.frames)]
    assert groups and all(group.stack.complete for group in groups)
    letters = tasks.task_columns(target, [task for group in groups for task in group.tasks], "state")[0]
    assert "D" in letters


def test_every_task_of_the_disasters_can_be_followed(disaster: Callable[[str], Target]) -> None:
    for name in ("null", "abba", "softlockup", "overflow"):
        target = disaster(name)
        for stack in stacks.stacks(target, stacks.every_task(target)):
            assert stack.complete or not stack.frames, (name, stack.end)


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "stacks.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    exec(code[1].replace('"vmcore"', repr(str(have(named_spec("6.1")).elf))), {})
    assert "kthreadd ret_from_fork" in capsys.readouterr().out


def test_a_running_machine_that_is_stopped(live_guest: RunningGuest) -> None:
    """Registers are those of the moment, over QMP."""
    with open_target(f"qmp:{live_guest.qmp_socket}") as target:
        assert target.control is not None
        with target.control.standing():
            for number in cpus.cpu_states(target):
                stack = stacks.cpu_stack(target, number)
                assert stack.complete, stack.end
                if tasks.read_task(target, stack.task).comm.startswith("swapper/"):
                    assert ("task", "do_idle") in places(target, stack)
                else:  # a worker or a process that it was the turn of
                    assert places(target, stack)[-1][1] in ("user", "ret_from_fork", "ret_from_fork_asm")
            every = stacks.every_task(target)
            assert all(stack.complete or not stack.frames for stack in stacks.stacks(target, every))


def test_an_nmi_over_whatever_ran(live_guest: RunningGuest) -> None:
    with open_target(f"gdb:{live_guest.gdb_socket}") as target:
        control = target.control
        assert control is not None
        point = Point("execute", target.symbol("default_do_nmi").address)
        control.stop()
        control.insert(point)
        try:
            control.resume()
            live_guest.command("inject-nmi")
            stop = control.wait(30)
        finally:
            control.remove(point)
        assert stop is not None and stop.kind == "point"
        stack = stacks.cpu_stack(target, stop.cpu)
        found = places(target, stack)
        assert stack.complete, stack.end
        assert found[:3] == on("NMI", "default_do_nmi exc_nmi end_repeat_nmi")
        assert {name for name, _ in found} >= {"NMI", "task"} or stack.frames[-1].kind == "user"
        interrupted = next(frame for frame in stack.frames if frame.regs)
        assert interrupted.registers["rip"] == interrupted.pc
        control.resume()
    assert live_guest.command("query-status")["running"]
