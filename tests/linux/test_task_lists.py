"""A list of tasks that is damaged, or not all in the dump: what is there is found, and the rest is told."""

from __future__ import annotations

import re

import pytest

from kshell.errors import Fault, KshellError
from kshell.linux import tasks
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.value import Vector
from tests.commands.asking import ask
from tests.guest.image import GuestImage

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest
NOWHERE = 0x4141_4141_4141_4140


def readable(target: Target, addresses: list[int]) -> set[int]:
    """Return those of *addresses* of which the dump has what every task must tell."""
    kind = tasks.task_type(target)
    rows = zip(addresses, *Vector(target, kind, addresses).columns(
        "pid", "tgid", "flags", "__state", "exit_state", "comm", "mm", "tasks.prev", "group_leader"), strict=True)
    return {row[0] for row in rows if not any(isinstance(cell, Fault) for cell in row)}


def test_makedumpfile_took_pages_of_tasks_for_user_memory(guest_kdump_612: GuestImage) -> None:
    """Debian's makedumpfile 1.7.2 does so with slabs of Linux 6.12: of 95 processes 3 are not in the dump."""
    with open_target(str(guest_kdump_612.folder / "vmcore")) as whole:
        processes = [task.address for task in tasks.iter_processes(whole)]
        threads = [task.address for task in tasks.iter_threads(whole)]
        lists = {line: ask(whole, line) for line in ("::taskq", "::netstat", "::sonode", "::taskq_entry")}
    with open_target(str(guest_kdump_612.folder / "makedumpfile.zlib")) as target:
        for every, found in ((processes, tasks.iter_processes(target)), (threads, tasks.iter_threads(target))):
            there = readable(target, every)
            assert 0.9 * len(every) < len(there) < len(every)
            known, problem = tasks.so_far(found)
            assert len(known) == len({task.address for task in known})
            assert there <= {task.address for task in known} <= set(every)
            assert isinstance(problem, Fault) and "were found by other ways; there may be more" in str(problem.hint)
        pid = next(task.pid for task in known if task.comm == "victim")
        assert tasks.task_by_pid(target, pid).comm == "victim"
        for line in ("::ps", "::ps -T", "::ps -l", "::thread", "::threadlist", "::ptree",
                     "::walk thread | ::print task_struct comm"):
            assert "victim" in ask(target, line), line
        assert f"{len(known)} tasks" in ask(target, "::uptime") and "pause" in ask(target, "::stacks")
        assert "there may be more" in ask(target, "::locks")
        # of the other lists too what is there is shown, and that it is not all
        for line, row, told in (("::taskq", "events", "lists"), ("::netstat", "", "chains"),
                                ("::sonode", "netlink", "chains"), ("::taskq_entry", "", "lists")):
            answer = ask(target, line)
            assert row in answer and (answer == lists[line] or f"{told} cannot be read" in answer), answer
        status = ask(target, "::status -v")
        assert re.search(r"module types: BTF of [1-9] modules; not all: .*, and \d more like it", status)


@pytest.mark.parametrize("leads_to", [NOWHERE, 0])
@pytest.mark.parametrize(("forward", "backward"), [(20, 40), (40, 20), (20, 20), (20, 21), (0, 50), (20, None)])
def test_a_list_that_is_damaged_in_two_places(
    guest_61: GuestImage, forward: int, backward: int | None, leads_to: int,
) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        before = [task.address for task in tasks.iter_processes(target)]
        threads = {task.address for task in tasks.iter_threads(target)}
        for number, member in ((forward, "next"), (backward, "prev")):
            if number is not None:
                place = target.value("struct task_struct", before[number])["tasks"][member].address
                assert place is not None
                target.kernel.write(place, leads_to.to_bytes(8, "little"))
        known, problem = tasks.so_far(tasks.iter_processes(target))
        assert [task.address for task in known if task.address in before] == [task.address for task in known]
        assert {task.address for task in known} == set(before)
        assert isinstance(problem, KshellError) and "other" in str(problem.hint)
        assert {task.address for task in tasks.so_far(tasks.iter_threads(target))[0]} == threads


def test_a_list_of_threads_that_is_damaged(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        every = [task.address for task in tasks.iter_threads(target)]
        (leader,) = tasks.tasks_by_name(target, "threads")
        own = tasks.thread_addresses(target, leader.address)
        place = target.value("struct task_struct", own[1])["thread_node"]["next"].address
        assert place is not None and len(own) == 4
        target.kernel.write(place, NOWHERE.to_bytes(8, "little"))
        with pytest.raises(Fault) as caught:
            tasks.thread_addresses(target, leader.address)
        assert caught.value.visited[:2] == own[:2]
        known, problem = tasks.so_far(tasks.iter_threads(target))
        assert {task.address for task in known} == set(every) and problem is not None
