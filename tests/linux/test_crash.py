"""Why a kernel died: three staged panics and a kdump, and the log's words when nothing else is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.linux import crash, crash_report, faulting, oops, printk
from kshell.linux.printk import Record
from kshell.linux.stacks import symbolize
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask, objects
from tests.guest.image import GuestImage
from tests.linux.conftest import Guest


@pytest.fixture
def null(guest_null: GuestImage) -> Iterator[Target]:
    with open_target(str(guest_null.elf), mode="c") as target:
        yield target


def place(target: Target, found: crash.Crash) -> tuple[str, int]:
    assert found.frame is not None
    where = symbolize(target, found.frame)
    assert where is not None
    return where[0].name, where[1]


def test_null(null: Target, guest_null: GuestImage) -> None:
    found = crash.read_crash(null)
    assert found.reason == "Fatal exception" and found.failure is not None and found.failure.kind == "null"
    assert place(null, found) == ("price_of", 5) and found.interrupted
    assert (found.trap, found.error_code, found.fault) == (14, 0, 0x28)
    assert crash.access(0) == "read of a page that is not present, from kernel mode"
    assert found.task is not None and found.task.comm == "init"
    # The registers on the stack are those that the kernel printed.
    assert found.log is not None and found.log.function == "disaster`price_of+0x5"
    shared = {name: value for name, value in found.log.registers.items() if name in found.registers}
    assert len(shared) >= 17
    assert shared == {name: found.registers[name] for name in shared}
    console = guest_null.console.read_text(errors="replace")
    assert f"RBP: {found.registers['rbp']:016x}" in console
    facts = crash_report.describe(null, found)
    assert facts["instruction"].startswith("movq") and "0x28(%rax)" in facts["instruction"]
    (operand,) = facts["operands"]
    assert operand["address"] == "0x28" and operand["registers"] == {"rax": "0x0"}
    assert operand["means"] == ["NULL plus 0x28: a member at that offset of a structure that is not there"]
    assert [line for line in facts["code"] if line.startswith("=>")] == [facts["code"][1]]
    assert [word[0] for word in facts["taints"]] == ["D", "O", "E"]


def test_overflow(guest_overflow: GuestImage) -> None:
    with open_target(str(guest_overflow.elf)) as target:
        found = crash.read_crash(target)
        assert found.failure is not None and found.failure.kind == "overflow"
        assert found.recursion is not None and found.recursion[1] > 40
        where = symbolize(target, found.recursion[0])
        assert where is not None and where[0].name == "count_down"
        assert found.fault is not None and found.task is not None
        assert "the guard page" in next(faulting.meaning(target, found.fault, found.task.address))
        assert "kernel stack overflow in disaster`count_down" in crash_report.verdict(target, found)
        assert "times)" in ask(target, "::panic")


def test_softlockup(guest_softlockup: GuestImage) -> None:
    with open_target(str(guest_softlockup.elf)) as target:
        found = crash.read_crash(target)
        assert found.reason == "softlockup: hung tasks" and place(target, found)[0] == "wait_for_device"
        assert found.task is not None and found.task.comm == "poller" and found.trap == -1
        (facts,) = objects(target, "::panic -v")
        assert "device_ready" in str(facts.get("operands", "")) + " ".join(facts["code"])
        assert "poll_device" in crash_report.verdict(target, found)


def test_a_kdump(guest_kdump: GuestImage) -> None:
    for name in ("vmcore", "makedumpfile.zlib"):
        with open_target(str(guest_kdump.folder / name)) as target:
            found = crash.read_crash(target)
            assert found.reason == "sysrq triggered crash" and not found.interrupted and not found.problems
            assert place(target, found)[0] == "sysrq_handle_crash"


def test_a_kernel_that_lives(guest: Guest) -> None:
    found = crash.read_crash(guest.target)
    assert not found.happened and found.problems == ()
    assert ask(guest.target, "::panic") == "this kernel did not panic, and its log tells of no failure\n"


def test_a_stack_full_of_a_leaves_the_log_and_says_so(null: Target) -> None:
    whole = crash.read_crash(null)
    assert whole.stack is not None and whole.frame is not None
    low = whole.stack.frames[0].sp
    null.kernel.write(low, b"A" * (whole.frame.sp + 64 - low))
    found = crash.read_crash(null)
    assert found.log is not None and found.log.function == "disaster`price_of+0x5"
    assert found.reason == "Fatal exception" and found.fault == 0x28
    shown = ask(null, "::panic")
    assert "where:     disaster`price_of+0x5 (from the log)" in shown
    assert "NULL dereference in disaster`price_of+0x5" in crash_report.verdict(null, found)


def test_without_a_log(null: Target) -> None:
    null.kernel.write(null.symbol("prb").address, bytes(8))
    found = crash.read_crash(null)
    assert found.problems and found.problems[0].startswith("log: ")
    assert place(null, found) == ("price_of", 5)
    assert "problems" in objects(null, "::panic")[0]


def event(text: str) -> str:
    record = Record(0, 0, 1, 0, "", text)
    found = oops.events([record])
    return found[0].kind if found else ""


@pytest.mark.parametrize("text, kind", [
    ("BUG: kernel NULL pointer dereference, address: 0000000000000018", "null"),
    ("BUG: unable to handle page fault for address: ffffffffc0001000", "fault"),
    ("BUG: unable to handle kernel paging request at ffffffffc0001000", "fault"),
    ("BUG: stack guard page was hit at 00000000fc0d118f (stack is 1..2)", "overflow"),
    ("BUG: TASK stack guard page was hit at 00000000fc0d118f (stack is 1..2)", "overflow"),
    ("general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]", "protection"),
    ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [x:1]", "softlockup"),
    ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 3", "hardlockup"),
    ("kernel BUG at mm/slub.c:305!", "bug"), ("BUG kmalloc-64 (Tainted: G): Redzone overwritten", "slab"),
    ("list_del corruption. prev->next should be 1, but was 2", "slab"),
    ("BUG: scheduling while atomic: swapper/0/0/0x00000100", "sleeping"),
    ("INFO: task kworker/0:1:12 blocked for more than 120 seconds.", "hungtask"),
    ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "stall"),
    ("Out of memory: Killed process 12 (x)", "oom"), ("Oops: 0002 [#1] PREEMPT SMP", "oops"),
    ("WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2", "warning"), ("usb 1-1: new device", ""),
])
def test_kinds_of_failure(text: str, kind: str) -> None:
    assert event(text) == kind


def test_operands_and_what_addresses_mean(null: Target) -> None:
    registers = {"rax": 0x1000, "rbx": 3}
    found = list(faulting.operands("movq -0x8(%rax,%rbx,4), %rcx", registers, 0))
    assert [(one.text, one.address) for one in found] == [("-0x8(%rax,%rbx,4)", 0x1004)]
    assert [one.address for one in faulting.operands("movl 0x10(%rip), %eax", {}, 0x2000)] == [0x2010]
    assert list(faulting.operands("movq 8(%r9), %rcx", registers, 0)) == []
    assert list(faulting.operands("movq %gs:8(%rax), %rcx", registers, 0)) == []

    def means(address: int) -> str:
        return next(faulting.meaning(null, address), "")

    assert means(0) == "NULL" and means(0x6B6B6B6B6B6B6B6B).startswith("freed slab")
    assert "LIST_POISON1" in means(0xDEAD000000000108) and "not canonical" in means(0x0041_0000_4141_4141)
    assert "init_task" in means(null.symbol("init_task").address)
    assert means(0x7F00_0000_1000) == "an address of user memory"


def test_the_printed_registers_stop_at_the_user_s(null: Target) -> None:
    records = list(printk.iter_records(null))
    failure = oops.first_failure(oops.events(records))
    assert failure is not None
    assert oops.printed(null, records, failure).registers["rsp"] >> 63
