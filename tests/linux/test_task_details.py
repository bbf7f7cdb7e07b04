"""Everything about tasks beside /proc: times, memory, ids in namespaces, signals, groups, open files, run queues."""

from __future__ import annotations

import re

import pytest

from kshell.errors import FormatError, KshellError
from kshell.linux import cpu_facts, creds, files, sched, signals, task_details, task_rows, tasks
from kshell.target.open import open_target
from tests.commands.asking import ask, objects
from tests.guest.image import GuestImage
from tests.linux.conftest import Guest, told_processes
from tests.linux.test_oracle import OBSERVER, stat

#: nanoseconds of a tick as /proc/PID/stat counts them: USER_HZ is 100
TICK = 10_000_000


def status(guest: Guest, pid: int, name: str) -> str:
    found = re.search(rf"^{name}:[\t ]*(.*)$", guest.oracle.text(f"proc/{pid}/status"), re.MULTILINE)
    assert found is not None
    return found[1].strip()


def test_times_memory_and_namespaces(guest: Guest) -> None:
    every = [task for task in told_processes(guest) if task.comm != OBSERVER]
    addresses = [task.address for task in every]
    now, moving = task_details.now(guest.target), 0
    own = task_details.times(guest.target, addresses)
    rows = zip(
        every, task_details.placed(guest.target, addresses), task_details.process_times(guest.target, addresses),
        task_details.memory(guest.target, [task.mm for task in every]),
        task_details.namespace_pids(guest.target, addresses), own, strict=True)
    for task, place, time, size, pids, alone in rows:
        fields = [int(word) for word in stat(guest, f"proc/{task.pid}")[1:]]
        user, system, priority, nice, started = fields[10], fields[11], fields[14], fields[15], fields[18]
        assert isinstance(place.prio, int) and isinstance(time.started, int) and isinstance(time.last_ran, int)
        assert (place.prio - 100, place.nice) == (priority, nice)
        assert time.started // TICK == started
        assert 0 <= time.last_ran <= now
        assert (size.virtual, size.resident) == (fields[19], fields[20] * 4096)
        assert pids == [int(word) for word in status(guest, task.pid, "NSpid").split()]
        kinds = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
        switches = tuple(int(status(guest, task.pid, kind)) for kind in kinds)  # of the main thread alone
        assert isinstance(time.user, int) and isinstance(time.system, int)
        if (time.user // TICK, time.system // TICK, alone.switches) != (user, system, switches):
            assert task.is_kernel_thread  # woken between the collector's look and the dump
            moving += 1
    assert moving < len(every) / 4
    spaces = task_details.namespace_pids(guest.target, addresses)
    assert any(isinstance(pids, list) and len(pids) == 2 for pids in spaces)


def test_threads_add_up(guest: Guest) -> None:
    (leader,) = tasks.tasks_by_name(guest.target, "threads")
    (total,) = task_details.process_times(guest.target, [leader.address])
    parts = task_details.times(guest.target, tasks.thread_addresses(guest.target, leader.address))
    assert len(parts) == 4
    for whole, each in ((sum(total.switches), [sum(one.switches) for one in parts]),  # type: ignore[arg-type]
                        (total.user + total.system, [one.user + one.system for one in parts])):  # type: ignore[operator]
        assert whole == sum(each)


def test_signals_groups_and_capabilities(guest: Guest) -> None:
    for task in told_processes(guest):
        value = tasks.task_value(guest.target, task.address)
        found = signals.signals(guest.target, value)
        told = [int(status(guest, task.pid, name), 16) for name in ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")]
        assert [found.pending, found.shared, found.blocked, found.ignored, found.caught] == told
        assert creds.groups(value) == [int(word) for word in status(guest, task.pid, "Groups").split()]
    assert creds.capability_names(0) == "none" and creds.capability_names((1 << 41) - 1) == "all"
    assert creds.capability_names(1 << 12 | 1 << 50) == "NET_ADMIN 0x4000000000000"
    assert creds.capability_names((1 << 41) - 1 - (1 << 13)) == "all but NET_RAW"


def test_open_files_and_places(guest: Guest) -> None:
    checked = 0
    for task in told_processes(guest):
        told = dict(line.split(" -> ", 1) for line in guest.oracle.text(f"proc/{task.pid}/links").splitlines())
        value = tasks.task_value(guest.target, task.address)
        found = {str(one.fd): one.path for one in files.open_files(guest.target, task.address)}
        found |= {name: path for name, path in files.places(guest.target, value) if name != "root"}
        if task.comm != OBSERVER:
            assert found == told
            checked += len(found)
    assert checked > 100
    (victim,) = tasks.tasks_by_name(guest.target, "victim")
    kinds = {str(one.path): one.type for one in files.open_files(guest.target, victim.address)}
    assert kinds["/dev/console"] == "CHR" and kinds["/run/shared-file"] == "REG"
    assert files.flag_names(0o2100002) == "RDWR|LARGEFILE|CLOEXEC"
    assert files.flag_names(1 << 30 | 1) == "WRONLY|010000000000"


def test_idle_run_queues_and_cpus(guest: Guest) -> None:
    for queue in sched.run_queues(guest.target):
        assert queue.current == queue.idle and not queue.damage
        assert queue.running == len(queue.queued) <= 1  # a task may have been woken up just then
        model = cpu_facts.model(guest.target, queue.cpu)
        told = guest.oracle.text("proc/cpuinfo")
        assert model.split(" (")[0] in told and f"microcode\t: {model.rpartition(' ')[2][:-1]}" in told
    first = f"{int(sched.load_averages(guest.target)[0] * 100) / 100:.2f}"
    assert float(first) == pytest.approx(float(guest.oracle.text("proc/loadavg").split()[0]), abs=0.25)


def test_a_busy_run_queue_is_what_the_tasks_say(guest_softlockup: GuestImage) -> None:
    with open_target(str(guest_softlockup.elf)) as target:
        every = list(tasks.iter_threads(target))
        placed = task_details.placed(target, [task.address for task in every])
        told = {(place.cpu, task.address) for task, place in zip(every, placed, strict=True) if place.queued}
        queues = list(sched.run_queues(target))
        assert {(queue.cpu, one.address) for queue in queues for one in queue.queued} == told
        assert [queue.running for queue in queues] == [len(queue.queued) for queue in queues]
        names = {task.address: task.comm for task in every}
        kinds = {names[one.address]: one.queue for queue in queues for one in queue.queued}
        (cpu,) = [queue.cpu for queue in queues for one in queue.queued if names[one.address] == "poller"]
        assert kinds["poller"] == "cfs" and kinds[f"migration/{cpu}"] == "stop"
        assert int(ask(target, "::walk runq | ::print comm ! grep -c comm")) == len(told)
        rows = objects(target, "::runq")
        assert next(row["comm"] for row in rows if row["class"] == "current") == "poller"


def test_ps_options(guest: Guest) -> None:
    target = guest.target
    every = objects(target, "::ps")
    kernel, user = objects(target, "::ps -k"), objects(target, "::ps -u")
    assert sorted(row["pid"] for row in kernel + user) == sorted(row["pid"] for row in every)
    assert {row["comm"] for row in objects(target, "::ps -s Z")} == {"undead"}
    cpus = [objects(target, f"::ps -c {cpu}") for cpu in (0, 1)]
    assert sorted(row["pid"] for rows in cpus for row in rows) == sorted(row["pid"] for row in every)
    wide = objects(target, "::ps -l -m -n -C")
    assert [row["pid"] for row in wide] == [row["pid"] for row in every]
    (inner,) = [row for row in wide if row["comm"] == "inner-init"]
    assert inner["nspid"].split()[1] == "1" and inner["policy"] == "NORMAL"
    (plain,) = [row for row in wide if row["comm"] == "user"]
    assert (plain["uid"] == 1000 and plain["caps"] == "0x0") or plain["caps"] == 0
    threads = objects(target, "::ps -T -l")
    assert {row["comm"] for row in threads} >= {"thread-1", "thread-2", "thread-3"}
    assert "leave nothing" in ask(target, "::ps -k -u") and "the states are" in ask(target, "::ps -s Q")
    assert objects(target, "::ps -A") == []  # both CPUs are idle


def test_one_task_from_all_sides(guest: Guest) -> None:
    target = guest.target
    (one,) = objects(target, "::task victim")
    assert one["comm"] == "victim" and one["exe"] == "/parts/victim" and one["open_files"] == 4
    (dead,) = objects(target, "::task undead")
    assert dead["state"].startswith("Z") and dead["memory"] == "none any more"
    assert {row["comm"] for row in objects(target, "::thread threads")} == {
        "threads", "thread-1", "thread-2", "thread-3"}
    assert objects(target, "::cred user")[0]["euid"] == 1000
    rows = {row["name"]: row for row in objects(target, "::sig 1")}
    assert rows["QUIT"]["action"] == "ignore" and rows["INT"]["action"] == "caught"
    assert len(objects(target, "::sig -a 1")) == 64
    assert objects(target, "::uptime")[0]["tasks"] == len(list(tasks.iter_threads(target)))


def test_damage_costs_what_it_hits(guest_null: GuestImage) -> None:
    with open_target(str(guest_null.elf), mode="c") as target:
        (victim,) = tasks.tasks_by_name(target, "victim")
        value = tasks.task_value(target, victim.address)
        table = target.value("struct files_struct", value.integer("files"))["fdt"].deref()
        target.kernel.write(table.integer("fd"), (0xDEAD0000).to_bytes(8, "little"))
        found = list(files.open_files(target, victim.address))
        assert isinstance(found[0].path, KshellError) and found[1].path == "/dev/console"
        target.kernel.write(table["max_fds"].address, (0x7FFF_FFFF).to_bytes(4, "little"))
        with pytest.raises(FormatError, match="damaged"):
            list(files.open_files(target, victim.address))
        queue = next(iter(sched.run_queues(target)))
        head = target.value("struct rq", queue.address)["cfs_tasks"].address
        target.kernel.write(head, (0x10).to_bytes(8, "little"))
        assert next(iter(sched.run_queues(target))).damage
        target.kernel.write(value["real_cred"].address, (0x10).to_bytes(8, "little"))
        assert "no mapping for address" in ask(target, "::cred victim")
        assert "credentials" in ask(target, "::task victim")


def test_durations() -> None:
    second = task_rows.NS
    assert [task_rows.duration(count * second) for count in (1, 59, 60, 723, 18001, 1_051_200)] == [
        "1.00s", "59.00s", "1:00", "12:03", "5:00:01", "12d 4h"]
    assert task_details.adjusted(0, 0, 50) == (50, 0) and task_details.adjusted(3, 1, 100) == (75, 25)
