"""What kshell.linux says of real kernels, beside what the guests themselves said: /proc, /sys, /dev/kmsg."""

from __future__ import annotations

import re

from kshell.linux import arguments, clock, memory_map, mm, modules, percpu, printk, slab, tasks, uts, whatis
from kshell.linux.tasks import Task
from tests.linux.conftest import Guest, told_processes

#: what wrote the oracle's files; its own state, memory and children are those of the moment
OBSERVER = "collect"


def by_pid(guest: Guest) -> dict[int, Task]:
    return {task.pid: task for task in tasks.iter_processes(guest.target)}


def stat(guest: Guest, folder: str) -> list[str]:
    """Return the fields of a stat file behind the comm: state, ppid, pgrp, session, ..."""
    return guest.oracle.text(f"{folder}/stat").rpartition(") ")[2].split()


def same_name(comm: str, told: str) -> bool:
    """Whether /proc's name of a thread is *comm*, or what it adds: a worker's queue, a name longer than a comm."""
    return told == comm or (told.startswith(comm) and (len(comm) == 15 or comm.startswith("kworker/")))


# -- tasks ------------------------------------------------------------------------------------------------------------


def test_processes(guest: Guest) -> None:
    found = by_pid(guest)
    assert sorted(task.pid for task in told_processes(guest)) == guest.oracle.pids()
    for line in guest.oracle.processes():
        task = found[line.pid]
        fields = stat(guest, f"proc/{line.pid}")
        assert same_name(task.comm, line.comm)
        assert (task.tgid, task.ppid) == (line.tgid, line.ppid)
        assert (task.pgrp, task.sid, task.flags) == (int(fields[2]), int(fields[3]), int(fields[6]))
        assert task.uid == line.uid
        if line.comm != OBSERVER:
            # A kernel thread may have been woken between its line and the dump.
            assert task.state == line.state or (task.is_kernel_thread and {task.state, line.state} <= set("RSI"))


def test_every_state_that_the_guest_makes_is_seen(guest: Guest) -> None:
    assert {"S", "Z", "T", "I"} <= {task.state for task in tasks.iter_processes(guest.target)}


def test_threads(guest: Guest) -> None:
    found = {task.pid: task for task in tasks.iter_threads(guest.target)}
    wanted = {line.pid: line for line in guest.oracle.threads()}
    assert set(wanted) <= set(found)
    told = {task.pid for task in told_processes(guest)}
    assert {task.tgid for pid, task in found.items() if pid not in wanted and task.tgid in told} <= {
        line.pid for line in guest.oracle.processes() if line.state == "Z"}  # a zombie keeps no folder of threads
    for pid, line in wanted.items():
        assert found[pid].tgid == line.tgid and same_name(found[pid].comm, line.comm)
    assert any(line.pid != line.tgid for line in wanted.values())


def test_find_by_pid(guest: Guest) -> None:
    for task in list(tasks.iter_threads(guest.target)):
        assert tasks.find_task(guest.target, task.pid) == task.address
    for pid in (0, -1, 4_000_000, 1 << 40):
        assert tasks.find_task(guest.target, pid) == 0


def test_current_tasks(guest: Guest) -> None:
    current = dict(tasks.iter_current(guest.target))
    assert sorted(current) == guest.target.cpu_numbers("online")
    for cpu, address in current.items():
        task = tasks.read_task(guest.target, address)
        assert task.pid or task.comm == f"swapper/{cpu}"


def test_arguments_and_environment(guest: Guest) -> None:
    for task in told_processes(guest):
        pid = task.pid
        if task.comm == OBSERVER:
            continue
        for name, found in (("cmdline", arguments.cmdline), ("environ", arguments.environ)):
            if guest.oracle.path(f"proc/{pid}/{name}").exists():  # a kernel thread's environ cannot be read there
                assert found(guest.target, task) == guest.oracle.content(f"proc/{pid}/{name}")


def test_maps(guest: Guest) -> None:
    compared = 0
    for pid, task in by_pid(guest).items():
        if task.comm == OBSERVER or not task.mm:
            continue
        found = [
            (v.start, v.end, v.permissions, v.offset, f"{v.device[0]:02x}:{v.device[1]:02x}", v.inode, v.name)
            for v in mm.iter_vmas(guest.target, task.mm)]
        wanted = [
            (m.start, m.end, m.permissions, m.offset, m.device, m.inode, m.name) for m in guest.oracle.maps(pid)]
        assert found == wanted, task.comm
        compared += len(found)
    assert compared > 50


# -- the rest of the kernel -------------------------------------------------------------------------------------------


def test_modules(guest: Guest) -> None:
    found = list(modules.iter_modules(guest.target))
    wanted = guest.oracle.modules()
    assert [m.name for m in found] == [m.name for m in wanted]
    for module, line in zip(found, wanted, strict=True):
        assert (module.size, module.base, module.state) == (line.size, line.address, line.state)
        assert (module.references, module.used_by) == (line.references, line.used_by)
        value = guest.target.value("struct module", module.address)
        sections = {section.name: section.address for section in modules.sections(guest.target, value)}
        # The guest's shell keeps no files whose names begin with a dot.
        assert guest.oracle.sections(module.name).items() <= sections.items()
        assert sections[".text"] == module.base


def escaped(text: str) -> str:
    """Return *text* as /dev/kmsg shows it."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in data)


def test_log(guest: Guest) -> None:
    found = {record.seq: record for record in printk.iter_records(guest.target)}
    wanted = guest.oracle.dmesg()
    assert len(wanted) > 100
    for line in wanted:
        record = found[line.sequence]
        assert isinstance(record.text, str)
        assert escaped(record.text) == line.text
        assert (record.facility << 3 | record.level, record.timestamp // 1000) == (line.priority, line.microseconds)


def test_log_needs_neither_types_nor_symbols(guest: Guest, monkeypatch: object) -> None:
    from kshell.target.open import open_target

    with open_target(str(guest.image.elf)) as target:
        target.make_symbols = target.make_types = None
        assert len(list(printk.iter_records(target))) >= len(guest.oracle.dmesg())


def test_uname(guest: Guest) -> None:
    names = uts.uname(guest.target)
    version = guest.oracle.text("proc/version")
    assert names.release == guest.oracle.release
    assert version.startswith(f"{names.sysname} version {names.release} ")
    assert version.strip().endswith(names.version)
    assert names.machine == "x86_64"


def test_clock(guest: Guest) -> None:
    uptime = float(guest.oracle.text("proc/uptime").split()[0])
    found = clock.read_clock(guest.target)
    assert 0 <= found.uptime / clock.NS - uptime < 30
    assert abs(found.monotonic - found.uptime) < clock.NS
    assert found.boot_time > 0


def test_slab_caches(guest: Guest) -> None:
    lines = [line.split() for line in guest.oracle.text("proc/slabinfo").splitlines()[2:]]
    found = {cache.name: cache for cache in slab.iter_caches(guest.target)}
    assert [words[0] for words in lines] == list(found)
    for words in lines:
        cache = found[words[0]]
        assert cache.size == int(words[3])
        assert isinstance(cache.objects, int)
        assert cache.objects % int(words[4]) == 0 and cache.objects >= 0


def test_vmalloc_areas(guest: Guest) -> None:
    # The guest hashes the addresses; sizes and callers are told. Areas come and go with what collected this.
    lines = guest.oracle.text("proc/vmallocinfo").splitlines()
    wanted = [(int(m[1]), m[2]) for line in lines if (m := re.match(r"\S+ +(\d+) (\w+)\+0x", line))]
    areas = list(memory_map.iter_vmalloc(guest.target))
    assert [area.start for area in areas] == sorted(area.start for area in areas)
    names = [guest.target.symbolize(area.caller) if area.caller else None for area in areas]
    found = [(area.end - area.start, name[0].name) for area, name in zip(areas, names, strict=True) if name]
    left = [pair for pair in wanted if pair not in found]
    assert len(wanted) > 50
    assert len(left) <= 5, left


def test_regions(guest: Guest) -> None:
    found = memory_map.regions(guest.target)
    assert [r.kind for r in found if r.kind in ("direct", "vmalloc", "vmemmap", "text", "modules")] == [
        "direct", "vmalloc", "vmemmap", "text", "modules"]
    for name, kind in (("_stext", "text"), ("init_task", "data")):
        region = memory_map.region_of(guest.target, guest.target.symbol(name).address)
        assert region is not None and region.kind == kind
    for module in modules.iter_modules(guest.target):
        region = memory_map.region_of(guest.target, module.base)
        assert region is not None and region.kind == "modules"
    for task in tasks.iter_processes(guest.target):
        region = memory_map.region_of(guest.target, task.address)
        assert region is not None and region.kind == "direct"


def test_percpu(guest: Guest) -> None:
    for cpu in guest.target.cpu_numbers("online"):
        assert guest.target.percpu("runqueues", cpu).integer("cpu") == cpu
    assert [area.cpu for area in percpu.areas(guest.target)] == guest.target.cpu_numbers("possible")
    init = tasks.task_value(guest.target, tasks.find_task(guest.target, 1))
    assert percpu.cpumask(guest.target, init["cpus_mask"]) == guest.target.cpu_numbers("possible")
    idle = tasks.task_value(guest.target, guest.target.symbol("init_task").address)
    assert percpu.cpumask(guest.target, idle["cpus_mask"]) == [0]


def test_whatis(guest: Guest) -> None:
    target = guest.target
    init = tasks.find_task(target, 1)
    stack = tasks.task_value(target, init).integer("stack")
    current = dict(tasks.iter_current(target))
    runqueue = target.symbol("runqueues").address + target.percpu_base(1)
    module = next(modules.iter_modules(target))
    victim = tasks.read_task(target, tasks.find_task(target, guest.oracle.victim()["pid"]))
    questions = {
        target.symbol("schedule").address + 4: ("symbol", "schedule+0x4, in vmlinux's text"),
        init + 16: ("task", "in struct task_struct of thread 1 (init)"),
        stack + 100: ("stack", "in the stack of thread 1 (init)"),
        runqueue % (1 << 64): ("percpu", "of CPU 1, in its per-CPU area"),
        module.address: ("symbol", f"in module {module.name}"),
    }
    assert len(current) == len(target.cpu_numbers("online"))
    for address, (kind, text) in questions.items():
        answers = list(whatis.whatis(target, address))
        assert any(answer.kind == kind and text in answer.text for answer in answers), (hex(address), answers)
        assert all(answer.start + answer.offset == address or answer.kind == "symbol" for answer in answers)
    greeting = guest.oracle.victim()["greeting"]
    answer, page = whatis.whatis(target, greeting, victim.mm, "victim")
    assert answer.kind == "vma" and "/victim" in answer.text and page.kind == "page"
    assert list(whatis.whatis(target, 0x1000, victim.mm, "victim")) == []
