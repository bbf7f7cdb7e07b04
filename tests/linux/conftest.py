"""Targets on the real kernels of the guest rig, one open for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from kshell.linux import task_details, tasks
from kshell.linux.tasks import Task
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.oracle import Oracle
from tests.guest.spec import named_spec


class Guest(NamedTuple):
    """A guest's dump, opened, and what the guest itself said."""

    name: str
    image: GuestImage
    target: Target
    oracle: Oracle


@pytest.fixture(scope="session", params=["6.1", "6.12", "la57", "nokaslr"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """Each standard guest in turn."""
    name = str(request.param)
    image = have(named_spec(name))
    with open_target(str(image.elf)) as target:
        yield Guest(name, image, target, image.oracle)


def told_processes(guest: Guest) -> list[Task]:
    """Return the processes of the dump that the oracle has too.

    Those that it has not must be kernel threads (workers) that were started while it was collected, or after.
    """
    every, told = list(tasks.iter_processes(guest.target)), set(guest.oracle.pids())
    uptime = float(guest.oracle.text("proc/uptime").split()[0])  # collected before the processes; hundredths
    late = [task for task in every if task.pid not in told]
    for task, times in zip(
            late, task_details.times(guest.target, [task.address for task in late]), strict=True):
        assert task.is_kernel_thread and isinstance(times.started, int), task
        assert times.started / 1e9 > uptime - 0.01, task
    assert len(late) <= 3
    return [task for task in every if task.pid in told]
