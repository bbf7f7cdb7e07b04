"""``::stack``, ``::stacks`` and their filters on a real kernel: what the transcripts cannot pin to one build."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from typing import Any

import pytest

from kshell.builtin import make_registry
from kshell.console import Console
from kshell.linux import cpus, stacks, tasks
from kshell.session import Session
from kshell.shell.scripted import run_text
from tests.linux.conftest import Guest

pytestmark = pytest.mark.guest


def run(guest: Guest, line: str) -> list[dict[str, Any]]:
    """Return the JSON objects that a command line prints; it must not fail."""
    session = Session(guest.target, make_registry(lambda _: None, plugins=False))
    out, err = io.StringIO(), io.StringIO()
    run_text(session, Console(session, out, err, json=True), line, string=True, recover=False)
    assert not session.failed, err.getvalue()
    return [json.loads(text) for text in out.getvalue().splitlines()]


def test_rows_of_a_stack(guest: Guest) -> None:
    rows = run(guest, "::pid2proc 1 | ::stack")
    address = tasks.find_task(guest.target, 1)
    stack = stacks.task_stack(guest.target, address)
    assert [row["frame"] for row in rows] == list(range(len(stack.frames)))
    assert [int(row["pc"], 16) for row in rows] == [frame.pc for frame in stack.frames]
    assert {row["task"] for row in rows} == {f"0x{address:x}"} and all(row["reliable"] for row in rows)
    for row in rows[:-1]:
        symbol = guest.target.symbol(row["symbol"])
        assert symbol.address + row["offset"] == int(row["pc"], 16) and row["module"] is None
    assert (rows[-1]["kind"], rows[-1]["symbol"]) == ("user", None)


def test_rows_into_a_pipe_are_program_counters(guest: Guest) -> None:
    told = [int(row["addr"], 16) for row in run(guest, "::pid2proc 1 | ::stack | ::map .")]
    assert told == [frame.pc for frame in stacks.task_stack(guest.target, tasks.find_task(guest.target, 1)).frames]


def tasks_of(groups: list[dict[str, Any]]) -> set[int]:
    return {int(task, 16) for group in groups for task in group["tasks"]}


def test_filters(guest: Guest) -> None:
    every = run(guest, "::stacks -a")
    assert sum(group["count"] for group in every) == len(tasks_of(every)) == len(stacks.every_task(guest.target))
    assert [group["count"] for group in every] == sorted((group["count"] for group in every), reverse=True)

    def has(group: dict[str, Any], name: str) -> bool:
        return any(frame["symbol"] == name for frame in group["frames"])

    kthreads = run(guest, "::stacks -a -c kthread")
    assert tasks_of(kthreads) == tasks_of([group for group in every if has(group, "kthread")])
    others = run(guest, "::stacks -a -C kthread")
    assert tasks_of(kthreads) | tasks_of(others) == tasks_of(every) and not tasks_of(kthreads) & tasks_of(others)
    both = run(guest, "::stacks -c kthread | ::stacks -a -c worker_thread")
    assert both and all(has(group, "worker_thread") and has(group, "kthread") for group in both)
    sleeping = run(guest, "::stacks -a -t S")
    assert {group["state"] for group in sleeping} == {"interruptible"}
    assert tasks_of(sleeping) == tasks_of(run(guest, "::stacks -a -t interruptible"))
    named = tasks_of(run(guest, "::stacks -a -t sleeper"))
    assert len(named) == 3 and tasks_of(run(guest, "::stacks -a -T sleeper")) == tasks_of(every) - named


def test_places_in_a_function(guest: Guest) -> None:
    frame = next(frame for group in run(guest, "::stacks -c do_wait") for frame in group["frames"]
                 if frame["symbol"] == "do_wait")
    offset = frame["offset"]
    for place in (f"do_wait+0x{offset:x}", f"do_wait+{offset:x}", f"do_wait+0x{offset - 1:x}-0x{offset + 1:x}",
                  frame["pc"], "do_wait"):
        assert len(run(guest, f"::stacks -c {place}")) == 1, place
    assert run(guest, f"::stacks -c do_wait+0x{offset + 1:x}-0x{offset + 2:x}") == []
    assert len(run(guest, "::stacks -c do_wait -c kthreadd")) == 2


def test_context_is_whose_stack_is_shown(guest: Guest) -> None:
    victim = guest.oracle.victim()["pid"]
    rows = run(guest, f"::getu {victim}; ::stack")
    assert {row["task"] for row in rows if "task" in row} == {f"0x{tasks.find_task(guest.target, victim):x}"}


def test_sizes_and_registers(guest: Guest) -> None:
    rows = run(guest, "::pid2proc 1 | ::stack -v")
    frames = [row for row in rows if "pc" in row]
    for row, following in pairwise(frames[:-1]):
        assert int(row["sp"], 16) + row["size"] == int(following["sp"], 16)
    saved = next(row for row in rows if "registers" in row)
    assert int(saved["cs"], 16) == 0x33 and saved["rip"] == f"0x{int(frames[-1]['pc'], 16):x}"


def test_registers_of_tasks(guest: Guest) -> None:
    """Those of one that sleeps are what __switch_to_asm has saved; those of one on a CPU are the CPU's."""
    target = guest.target
    address = tasks.find_task(target, guest.oracle.victim()["pid"])
    row, = run(guest, f"0x{address:x}::regs")
    stack = stacks.task_stack(target, address)
    first = stack.frames[0]
    assert (int(row["rip"], 16), int(row["rsp"], 16), int(row["rbp"], 16)) == (first.pc, first.sp, first.bp)
    assert row["cpu"] is None and len([name for name in row if name.startswith("r")]) == 8
    assert target.kernel.u64(first.sp - 56 + 24) == int(row["r12"], 16)
    for number, state in cpus.cpu_states(target).items():
        row, = run(guest, f"0x{state.task:x}::regs")
        assert row["cpu"] == number and int(row["rip"], 16) == state.registers["rip"]
    user = stack.frames[-1]
    row, = run(guest, f"0x{user.regs:x}::regs")
    assert int(row["rip"], 16) == user.pc and row["cs"] == "0x33"


def test_chosen_cpu_is_whose_stack_is_shown(guest: Guest) -> None:
    for number, state in cpus.cpu_states(guest.target).items():
        rows = run(guest, f"::cpu {number}; ::stack")
        assert {row["task"] for row in rows if "frame" in row} == {f"0x{state.task:x}"}


def test_a_command_at_the_stack_pointer(guest: Guest) -> None:
    stack = stacks.task_stack(guest.target, tasks.find_task(guest.target, 1))
    row, = run(guest, "::pid2proc 1 | ::findstack '::map .'")
    assert int(row["addr"], 16) == stack.frames[0].sp
