"""``::print`` of many objects shows what ``::print`` of each shows, on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.errors import Fault
from kshell.linux.tasks import iter_threads
from kshell.printer import Many, PrintOptions, Selection, format_value, pipe_value
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.image import GuestImage


@pytest.fixture(scope="module")
def target(guest_61: GuestImage) -> Iterator[Target]:
    with open_target(str(guest_61.elf)) as opened:
        yield opened


MEMBERS = [
    ("pid", "comm", "parent", "mm"), ("se.vruntime", "real_parent->comm", "cpus_mask.bits[0]"), ("mm->pgd", "pid"),
    ("sched_info", "tasks"), ("in_execve", "sched_reset_on_fork", "policy"), ("nsproxy->uts_ns->name.release",),
    ("thread_pid->numbers[0].nr", "fs->root", "cred->uid"),
]
OPTIONS = [PrintOptions(), PrintOptions(addresses=True, types=True), PrintOptions(decimal=True, plain=True),
           PrintOptions(base_types=True, holes=True, depth=1)]


def one_by_one(target: Target, address: int, selection: Selection | None, options: PrintOptions) -> list[str]:
    value = target.value("struct task_struct", address)
    try:
        return list(format_value(value, options) if selection is None else selection.lines(value, options))
    except Fault as fault:
        return [f"fault at {fault.address:#x}: {fault.reason}"]


def together(
    target: Target, addresses: list[int], selection: Selection | None, options: PrintOptions,
) -> list[list[str] | None]:
    """Return the lines of each, None where something cannot be read."""
    many = Many(target, target.type("struct task_struct"), selection, options)
    objects = many.read(addresses, target.kernel)
    return [objects.text(number, number + 1).splitlines() if good else None for number, good in enumerate(objects.good)]


def complete(lines: list[str]) -> list[str] | None:
    """Return *lines*, None if something in them could not be read."""
    return None if any("fault at" in line or "???" in line for line in lines) else lines


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("members", MEMBERS)
def test_members_are_printed_as_one_by_one(target: Target, members: tuple[str, ...], options: PrintOptions) -> None:
    tasks = [task.address for task in iter_threads(target)]
    addresses = [*tasks, 0, 0x1000, tasks[0] + 0x100000000]  # and some that cannot be read
    selection = Selection(target.type("struct task_struct"), members)
    expected = [complete(one_by_one(target, address, selection, options)) for address in addresses]
    assert together(target, addresses, selection, options) == expected
    assert len({line for lines in expected for line in lines or ()}) >= 1 and None in expected


def test_whole_objects_are_printed_as_one_by_one(target: Target) -> None:
    tasks = [task.address for task in iter_threads(target)][:6]
    expected = [one_by_one(target, address, None, PrintOptions()) for address in tasks]
    assert together(target, tasks, None, PrintOptions()) == expected
    assert min(map(len, expected)) > 300


@pytest.mark.parametrize("members", MEMBERS)
def test_pipes_get_the_same_numbers(target: Target, members: tuple[str, ...]) -> None:
    tasks = [task.address for task in iter_threads(target) if task.pid != 2]
    selection = Selection(target.type("struct task_struct"), members)
    objects = Many(target, target.type("struct task_struct"), selection).read(tasks, target.kernel)
    for number, address in enumerate(tasks):
        value = target.value("struct task_struct", address)
        for whole in (False, True):
            if objects.good[number]:
                assert objects.numbers(number, number + 1, whole) == list(selection.pipe(value, whole))
    assert any(objects.good)
    assert pipe_value(target.value("struct task_struct", tasks[0])) == tasks[0]


def test_json_is_made_of_the_bytes_in_hand(target: Target) -> None:
    tasks = [task.address for task in iter_threads(target)][:5]
    selection = Selection(target.type("struct task_struct"), ("pid", "comm", "real_parent->pid"))
    objects = Many(target, target.type("struct task_struct"), selection).read(tasks, target.kernel)
    for number, address in enumerate(tasks):
        assert selection.json(objects.value(number)) == selection.json(target.value("struct task_struct", address))


def test_runs_tell_good_from_bad(target: Target) -> None:
    tasks = [task.address for task in iter_threads(target)][:3]
    selection = Selection(target.type("struct task_struct"), ("pid",))
    objects = Many(target, target.type("struct task_struct"), selection).read([0, *tasks, 1, 2], target.kernel)
    assert list(objects.runs()) == [(0, 1, False), (1, 4, True), (4, 6, False)]


def test_names_of_dentries_are_printed_as_one_by_one(target: Target) -> None:
    from kshell.linux import slab, slub_objects

    cache = target.value("struct kmem_cache", slab.find_cache(target, "dentry").address)
    found = slub_objects.cache_objects(target, cache)
    addresses = found.address[found.allocated].tolist()[::7]
    selection = Selection(target.type("struct dentry"), ["d_name.name", "d_inode"])
    read = Many(target, target.type("struct dentry"), selection).read(addresses, target.kernel)
    lines = read.text(0, len(addresses)).splitlines()
    assert lines == [line for address in addresses for line in selection.lines(target.value("struct dentry", address))]
    assert sum('"' in line for line in lines) == len(addresses) > 1000
