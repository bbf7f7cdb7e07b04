"""Locks of a kernel that is deadlocked on purpose: every kind, the circle, and what damage costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.linux import lock_rows, locks, tasks
from kshell.linux.convert import convert
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask, objects
from tests.guest.image import GuestImage
from tests.linux.conftest import Guest

#: waiter -> (kind, lock, owner, caller)
STAGED = {
    "abba-left": ("mutex", "right_lock", "abba-right", "take_left_then_right"),
    "abba-right": ("mutex", "left_lock", "abba-left", "take_right_then_left"),
    "abba-bystander": ("mutex", "left_lock", "abba-left", "bystander"),
    "abba-reader": ("rwsem", "ledger_lock", "abba-left", "read_ledger"),
    "abba-writer": ("rwsem", "ledger_lock", "abba-left", "write_ledger"),
    "abba-ticket": ("semaphore", "tickets", "", "play"),  # its function ends in a jump to down()
    "abba-rank": ("rt_mutex", "ranked_lock", "abba-left", "wait_for_rank"),
    "abba-never": ("completion", "never", "", "play"),
}


@pytest.fixture
def target(guest_abba: GuestImage) -> Iterator[Target]:
    with open_target(str(guest_abba.elf), mode="c") as opened:
        yield opened


def told(target: Target) -> dict[str, tuple[str, str, str, str]]:
    names = lock_rows.Names(target)
    found = {}
    for wait in locks.waits(target):
        assert wait.lock is not None, wait.problem
        lock, caller = names.lock(wait.lock.address), names.caller(wait.caller)
        owner = names.owner(wait).split(" (")[0]
        found[wait.task.comm] = (
            wait.kind, lock.removeprefix("disaster`"), owner, caller.removeprefix("disaster`").split("+")[0])
    return found


def test_every_kind_of_lock(target: Target) -> None:
    assert told(target) == STAGED
    wants = {wait.task.comm: wait.wants for wait in locks.waits(target) if wait.wants}
    assert wants == {"abba-reader": "read", "abba-writer": "write"}


def test_the_circle_is_found_and_drawn(target: Target) -> None:
    (circle,) = locks.deadlocks(list(locks.waits(target)))
    assert [wait.task.comm for wait in circle] == ["abba-left", "abba-right"]
    shown = ask(target, "::locks -d")
    assert shown.startswith("deadlock: 2 tasks wait for each other\n+-> abba-left (")
    for word in ("take_left_then_right", "take_right_then_left", "disaster`left_lock", "disaster`right_lock"):
        assert word in shown
    (data,) = objects(target, "::locks -d")
    assert [one["name"] for one in data["deadlock"]] == ["disaster`right_lock", "disaster`left_lock"]


def test_a_lock_and_a_task_by_address(target: Target) -> None:
    left = target.symbol("left_lock").address
    assert {row["comm"] for row in objects(target, f"0x{left:x}::locks")} == {"abba-right", "abba-bystander"}
    assert ask(target, f"0x{left:x}::walk lock_waiters | ::print comm").count("abba-") == 2
    assert {row["comm"] for row in objects(target, "::locks abba-rank")} == {"abba-rank"}
    assert ask(target, "::walk blocked ! wc -l").strip() == str(len(STAGED))


def test_a_dump_of_kernel_pages_only_says_the_same(guest_abba: GuestImage, tmp_path: Path) -> None:
    thin = tmp_path / "thin"
    with open_target(str(guest_abba.elf)) as whole:
        convert(whole, str(thin), level=31)
    with open_target(str(thin)) as target:
        assert told(target) == STAGED
        assert len(locks.deadlocks(list(locks.waits(target)))) == 1


def test_damage_costs_the_lock_that_it_hits(target: Target) -> None:
    every = {wait.task.comm: wait for wait in locks.waits(target)}
    left, right = target.symbol("left_lock").address, target.symbol("right_lock").address
    owner = target.value("struct mutex", right)["owner.counter"].address
    target.kernel.write(owner, (0xFFFF_8000_DEAD_0001).to_bytes(8, "little"))
    names = {wait.task.comm: wait for wait in locks.waits(target)}
    lock = names["abba-left"].lock
    assert lock is not None and lock.owner == 0 and "is no task" in lock.note
    assert locks.deadlocks(list(names.values())) == []
    waiter = every["abba-bystander"].waiter
    target.kernel.write(waiter, waiter.to_bytes(8, "little"))  # its list leads to itself
    names = {wait.task.comm: wait for wait in locks.waits(target)}
    assert names["abba-bystander"].lock is None and "no mutex_waiter" in names["abba-bystander"].problem
    assert names["abba-writer"].lock is not None
    assert "no mutex_waiter" in ask(target, "::locks abba-bystander")
    assert left


def test_circles_of_one_and_of_three_and_chains_that_lead_into_one(target: Target) -> None:
    (circle,) = locks.deadlocks(list(locks.waits(target)))
    one = circle[0]
    assert one.lock is not None

    def wait(number: int, owner: int) -> locks.Wait:
        assert one.lock is not None
        return one._replace(
            task=one.task._replace(address=number), lock=one.lock._replace(owner=owner))

    found = locks.deadlocks([wait(1, 1), wait(2, 3), wait(3, 4), wait(4, 2), wait(5, 2), wait(6, 9), wait(7, 6)])
    assert [[each.task.address for each in circle] for circle in found] == [[1], [2, 3, 4]]
    assert "waits for itself" in next(lock_rows.Names(target).drawing([wait(1, 1)]))


def test_a_list_without_its_lock_is_damage(target: Target) -> None:
    """The head of the list overwritten: the waiters point at each other only."""
    head = target.value("struct mutex", target.symbol("left_lock").address)["wait_list"].address
    first, last = (int.from_bytes(target.kernel.read(head + at, 8), "little") for at in (0, 8))
    target.kernel.write(last, first.to_bytes(8, "little"))
    target.kernel.write(first + 8, last.to_bytes(8, "little"))
    found = {wait.task.comm: wait for wait in locks.waits(target)}
    assert "0 heads" in found["abba-right"].problem and found["abba-left"].lock is not None


def test_an_idle_kernel_waits_for_no_lock(guest: Guest) -> None:
    assert list(locks.waits(guest.target)) == []
    every = locks.waits(guest.target, list(locks.blocked_tasks(guest.target, every=True)))
    assert all(wait.kind in ("completion", "rwsem", "mutex") for wait in every)
    assert tasks.task_by_pid(guest.target, 1).state == "S"
