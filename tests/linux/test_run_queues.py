"""Tasks that wait for a CPU: the queues beside what each task says of itself (``on_rq``, ``on_cpu``, its CPU)."""

from __future__ import annotations

import pytest

from kshell.linux import task_details, tasks
from kshell.target.open import open_target
from tests.commands.asking import ask
from tests.guest.fixtures import have
from tests.guest.spec import named_spec

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("name", ["softlockup", "6.1", "5.10"])
def test_tasks_that_wait_for_a_cpu(name: str) -> None:
    with open_target(str(have(named_spec(name)).elf)) as target:
        every = [task.address for task in tasks.iter_threads(target)]
        places = task_details.placed(target, every)
        for cpu in target.cpu_numbers():
            waiting = {address for address, place in zip(every, places, strict=True)
                       if place.queued and not place.running and place.cpu == cpu}
            assert {int(line, 16) for line in ask(target, f"0t{cpu}::walk cpu_dispq").splitlines()} == waiting
            if name == "softlockup" and cpu == 0:  # where a task polls in kernel mode, and others want to run
                assert len(waiting) >= 1
