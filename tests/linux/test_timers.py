"""Pending timers beside /proc/timer_list, and beside the stacks of the tasks that they will wake."""

from __future__ import annotations

import re

import pytest

from kshell.errors import FormatError, KshellError
from kshell.linux import clock, stacks, tasks, timers
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec

pytestmark = pytest.mark.guest


@pytest.fixture(params=["6.1", "6.12", "5.10"])
def image(request: pytest.FixtureRequest) -> GuestImage:
    return have(named_spec(request.param))


def name(target: Target, address: int) -> str:
    found = target.symbolize(address)
    return found[0].name if found is not None and found[1] == 0 else ""


def told(text: str) -> set[tuple[int, str, str, int]]:
    """Return (CPU, clock, function, when it expires) of each timer in /proc/timer_list."""
    found, cpu, base = set(), -1, ""
    for line in text.splitlines():
        if match := re.match(r"cpu: (\d+)", line):
            cpu = int(match[1])
        elif match := re.match(r"\s+\.get_time:\s+ktime_get_?(\w*)", line):
            base = {"": "mono", "boottime": "boot", "clocktai": "tai"}.get(match[1], match[1])
        elif match := re.match(r" #\d+: <\w+>, (\w+)", line):
            function = match[1]
        elif match := re.match(r" # expires at \d+-(\d+) nsecs", line):
            found.add((cpu, base, function, int(match[1])))
    return found


def test_high_resolution_timers_are_those_of_timer_list(image: GuestImage) -> None:
    wanted = told(image.oracle.text("proc/timer_list"))
    with open_target(str(image.elf)) as target:
        now = clock.read_clock(target).monotonic
        found = set()
        for timer in timers.high_timers(target):
            assert isinstance(timer.left, int)
            found.add((timer.cpu, timer.base.split("/")[0], name(target, timer.function), timer.left + now))
    # what ticks has gone on since then; a sleep of a million seconds has not
    assert {one[:3] for one in wanted if one[2] == "watchdog_timer_fn"} <= {one[:3] for one in found}
    long = {one for one in wanted if one[3] > 10**14}
    assert long and long <= found


def test_timers_that_wake_a_task_wake_one_that_sleeps_with_a_timeout(image: GuestImage) -> None:
    with open_target(str(image.elf)) as target:
        every = [*timers.wheel_timers(target), *timers.high_timers(target)]
        purposes = timers.Purposes(target)
        sleepers = [task.address for task in tasks.iter_threads(target) if task.state in "SD"]
        slept = {
            address: {stacks.function(target, frame) for frame in stack.frames}
            for address, stack in zip(sleepers, stacks.stacks(target, sleepers), strict=True)}
        woken = {(task, timer.high) for timer in every if (task := purposes.task(timer))}
        assert all("schedule_timeout" in slept[task] for task, high in woken if not high and task in slept)
        named = {task.comm for task in tasks.read_tasks(target, [task for task, high in woken if not high])}
        assert "khungtaskd" in named  # it sleeps for two minutes
        assert {task for task, names in slept.items() if "do_nanosleep" in names} <= {
            task for task, high in woken if high}
        assert any(high for _task, high in woken)


def test_the_wheel_of_each_cpu(image: GuestImage) -> None:
    with open_target(str(image.elf)) as target:
        assert timers.ticks_per_second(target) == 250  # Debian's kernels
        every = list(timers.wheel_timers(target))
        purposes = timers.Purposes(target)
        works = {name(target, function) for timer in every if (function := purposes.work(timer))}
        assert {timer.cpu for timer in every} == set(target.cpu_numbers())
        assert "wakeup_dirtytime_writeback" in works  # every twelve hours
        for timer in every:
            assert name(target, timer.function), timer
            # a deferrable timer waits until its CPU is not idle; none waits longer than the wheel holds, 12 days
            assert isinstance(timer.left, int) and -60 * clock.NS < timer.left < 13 * 86400 * clock.NS
            node = target.value("struct timer_list", timer.address)
            assert node.integer("flags") & 0x3FFFF == timer.cpu
            assert target.value("unsigned long", node.integer("entry.pprev")).integer() == timer.address


@pytest.mark.parametrize(("mult", "shift"), [(0, 8), (0xFFFF_FFFF, 0), (1, 31), (1, 32)])
def test_a_damaged_clock_source_tells_no_ticks(mult: int, shift: int, guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        source = target.value("struct clocksource", target.address_of("clocksource_jiffies"))
        for member, number in (("mult", mult), ("shift", shift)):
            place = source[member].address
            assert place is not None
            target.kernel.write(place, number.to_bytes(4, "little"))
        with pytest.raises(FormatError, match="the clock source jiffies is damaged"):
            timers.ticks_per_second(target)
        assert all(isinstance(one.left, KshellError) for one in timers.wheel_timers(target))
