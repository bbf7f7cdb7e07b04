"""Kernel stacks of real kernels, beside what the guests' own kernels said of them in /proc/PID/stack."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from kshell.errors import KshellError
from kshell.linux import cpus, sched, stacks, tasks
from kshell.linux.stack_depth import depths
from kshell.linux.stacks import Stack
from kshell.linux.unwinding import unwinding
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.unwind.orc import by_evidence
from tests.guest.fixtures import have
from tests.guest.oracle import Oracle
from tests.guest.spec import named_spec
from tests.linux.conftest import Guest

pytestmark = pytest.mark.guest

#: their stacks are of the moment: the one that wrote the oracle, and those that timers and work had woken since
MOVES = re.compile(r"collect|rcu_|kworker/[\du]|ksoftirqd/|kcompactd|migration/")
#: functions of the scheduler, which /proc leaves out (``in_sched_functions``) where they are innermost
SCHEDULER = ("__schedule", "schedule", "schedule_timeout", "io_schedule", "schedule_hrtimeout_range",
             "schedule_hrtimeout_range_clock", "do_nanosleep", "schedule_preempt_disabled", "preempt_schedule_common")


def lines(target: Target, stack: Stack) -> list[str]:
    """Return a stack as /proc/PID/stack writes it."""
    found = []
    for frame in stack.frames:
        if frame.kind == "user":
            break
        place = stacks.symbolize(target, frame)
        if place is None:
            found.append(f"0x{frame.pc:x}")
            continue
        symbol, offset = place
        module = f" [{symbol.module}]" if symbol.module else ""
        found.append(f"{symbol.name}+0x{offset:x}/0x{symbol.size:x}{module}")
    while found and found[0].partition("+")[0] in SCHEDULER:
        del found[0]
    return found


def check(target: Target, oracle: Oracle) -> int:
    """Compare every task that has stood still; return how many."""
    compared = 0
    for task in tasks.iter_threads(target):
        path = oracle.path(f"proc/{task.tgid}/task/{task.pid}/stack")
        if MOVES.match(task.comm) or not path.exists() or task.is_zombie:
            continue
        stack = stacks.task_stack(target, task.address)
        assert stack.complete, (task.pid, task.comm, stack.end)
        assert lines(target, stack) == oracle.stack(task.tgid, task.pid), (task.pid, task.comm)
        assert (stack.frames[-1].kind == "user") == (not task.is_kernel_thread)
        compared += 1
    return compared


def test_every_sleeping_task_as_its_kernel_says(guest: Guest) -> None:
    assert check(guest.target, guest.oracle) > 40


def test_a_kernel_of_2021() -> None:
    image = have(named_spec("5.10"))
    with open_target(str(image.elf)) as target:
        assert check(target, image.oracle) > 40


@pytest.fixture(scope="module", params=["kdump", "kdump-6.12"])
def crashed(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Oracle]]:
    """A kernel that panicked, as its crash kernel saved it."""
    image = have(named_spec(str(request.param)))
    with open_target(str(image.vmcore)) as target:
        yield target, image.oracle


def test_tasks_of_a_kernel_that_panicked(crashed: tuple[Target, Oracle]) -> None:
    assert check(*crashed) > 40


def names(target: Target, stack: Stack) -> list[str]:
    return [stacks.function(target, frame) for frame in stack.frames]


def test_the_stack_of_the_panic(crashed: tuple[Target, Oracle]) -> None:
    target, _ = crashed
    stack = stacks.panic_stack(target)
    assert stack is not None and stack.complete
    task = tasks.read_task(target, stack.task)
    assert task.comm == "collect" and stack.cpu == cpus.panicking_cpu(target)
    found = [name.partition(".")[0] for name in names(target, stack)]
    assert found == ["__crash_kexec", "panic", "sysrq_handle_crash", "__handle_sysrq", "write_sysrq_trigger",
                     "proc_reg_write", "vfs_write", "ksys_write", "do_syscall_64", "entry_SYSCALL_64_after_hwframe", ""]
    assert stack == stacks.task_stack(target, stack.task)
    user = stack.frames[-1].registers
    assert (user["orig_rax"], user["rdx"], user["cs"]) == (1, 1, 0x33)  # write(fd, "c", 1)
    assert target.user_space(task.mm).read(user["rsi"], 1) == b"c"


def test_tasks_on_a_cpu(guest: Guest) -> None:
    """QEMU stops idle CPUs where they wait, and its notes say where."""
    states = cpus.cpu_states(guest.target)
    assert sorted(states) == guest.target.cpu_numbers("online")
    for number, state in states.items():
        stack = stacks.cpu_stack(guest.target, number)
        assert stack.complete and stack.cpu == number and stack.task == state.task
        assert stack.frames[0].pc == state.registers["rip"]
        found = names(guest.target, stack)
        assert "cpu_startup_entry" in found and found[-1] in ("secondary_startup_64_no_verify", "common_startup_64")
    with pytest.raises(KshellError, match="no CPU 64"):
        stacks.cpu_stack(guest.target, 64)


def test_many_stacks_are_the_same_as_one_by_one(guest: Guest) -> None:
    target = guest.target
    every = stacks.every_task(target)
    assert len(every) > stacks.FEW and len(set(every)) == len(every)
    many = stacks.stacks(target, every)
    assert list(many) == [stacks.task_stack(target, address) for address in every]
    groups = many.groups()
    assert sorted(address for group in groups for address in group.tasks) == sorted(every)
    for group in groups:
        of_kernel = {tuple(frame.pc for frame in stacks.task_stack(target, address).frames if frame.kind != "user")
                     for address in group.tasks}
        assert len(of_kernel) == 1
    assert [len(group.tasks) for group in groups] == sorted((len(group.tasks) for group in groups), reverse=True)


def test_zombies_have_no_stack(guest: Guest) -> None:
    undead = next(task for task in tasks.iter_processes(guest.target) if task.comm == "undead")
    stack = stacks.task_stack(guest.target, undead.address)
    assert (stack.frames, stack.end) == ((), "it has no stack any more: it has exited")
    assert stacks.any_stack(guest.target, undead.address) == stack


def test_from_an_address_on_the_stack_or_saved_registers(guest: Guest) -> None:
    target = guest.target
    address = tasks.find_task(target, guest.oracle.victim()["pid"])
    whole = stacks.task_stack(target, address)
    from_sp = stacks.any_stack(target, whole.frames[1].sp - 8)
    assert [frame.pc for frame in from_sp.frames] == [frame.pc for frame in whole.frames[1:]]
    user = whole.frames[-1]
    assert stacks.any_stack(target, user.regs).frames[0] == user
    start = whole.frames[2]
    values = {"rip": start.pc, "rsp": start.sp, "rbp": start.bp or 0}
    by_registers = stacks.registers_stack(target, values, address)
    assert [frame.pc for frame in by_registers.frames] == [frame.pc for frame in whole.frames[2:]]
    assert stacks.registers_stack(target, {"rip": 1}).end == "rsp not known"
    with pytest.raises(KshellError):
        stacks.any_stack(target, target.symbol("linux_banner").address)


def test_layout_of_orc_is_also_seen_without_its_header(guest: Guest) -> None:
    table = unwinding(guest.target).kernel
    assert table is not None
    assert by_evidence(table.sample()) == table.layout == (3 if guest.name == "6.12" else 1)


def test_modules_have_tables_of_their_own(guest: Guest) -> None:
    known = unwinding(guest.target)
    symbol = guest.target.symbol("virtblk_probe", "virtio_blk")
    entry = known.find(symbol.address + symbol.size // 2)
    assert entry is not None and entry.kind == 2 and entry.offset > 8
    assert all(table.count > 0 and start < end for start, end, table in known.modules)


def test_depth_of_every_stack(guest: Guest) -> None:
    every = stacks.every_task(guest.target)
    found = list(depths(guest.target, every))
    assert [depth.task for depth in found] == every
    running = {queue.current for queue in sched.run_queues(guest.target)}
    for depth, stack in zip(found, stacks.stacks(guest.target, every), strict=True):
        if not depth.base:
            assert (stack.frames, depth.deepest, depth.intact) == ((), None, None)
            continue
        assert depth.intact and not depth.overflowed and depth.size == 16 << 10
        assert isinstance(depth.deepest, int)
        if depth.current is None:  # an interrupt had it on another stack just then
            assert depth.task in running
            continue
        assert 0 < depth.current <= depth.deepest < depth.size
        assert depth.base <= stack.frames[0].sp <= depth.base + depth.size
