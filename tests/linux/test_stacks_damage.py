"""Stacks that were overwritten, tasks half made, tables damaged, return addresses replaced: on a private copy."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Iterator

import pytest

from kshell.builtin import make_registry
from kshell.console import Console
from kshell.errors import KshellError
from kshell.linux import stacks, tasks
from kshell.linux.cpus import thread_size
from kshell.linux.stack_depth import depths
from kshell.linux.stacks import Stack
from kshell.linux.unwinding import unwinding
from kshell.session import Session
from kshell.shell.scripted import run_text
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.fixtures import have
from tests.guest.oracle import Oracle
from tests.guest.spec import named_spec

pytestmark = pytest.mark.guest


@pytest.fixture(params=["6.1", "6.12"])
def copy(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Oracle]]:
    """A kernel whose memory a test may change."""
    image = have(named_spec(str(request.param)))
    with open_target(str(image.elf), mode="c") as target:
        yield target, image.oracle


class Victim:
    """The sleeping victim: its task, its stack."""

    def __init__(self, target: Target, oracle: Oracle) -> None:
        self.target = target
        self.task = tasks.find_task(target, oracle.victim()["pid"])
        value = target.value("struct task_struct", self.task)
        self.base, self.sp = value.integer("stack"), value.integer("thread.sp")
        self.top = self.base + thread_size(target)
        self.whole = stacks.task_stack(target, self.task)

    def set(self, member: str, value: int) -> None:
        place = self.target.value("struct task_struct", self.task)[member].address
        self.target.kernel.write(place, struct.pack("<Q", value))

    def put(self, address: int, *words: int) -> None:
        self.target.kernel.write(address, struct.pack(f"<{len(words)}Q", *words))

    def now(self) -> Stack:
        """Return the stack as it is now, followed alone and among many, which must agree."""
        alone = stacks.task_stack(self.target, self.task)
        every = stacks.every_task(self.target)
        started = time.monotonic()
        assert stacks.stacks(self.target, every)[every.index(self.task)] == alone
        assert time.monotonic() - started < 5
        return alone


def test_overwritten_from_the_innermost_frame_on(copy: tuple[Target, Oracle]) -> None:
    victim = Victim(*copy)
    copy[0].kernel.write(victim.sp, b"A" * (victim.whole.frames[2].sp - victim.sp))
    stack = victim.now()
    assert stack.frames[0].pc == 0x4141_4141_4141_4141
    assert stack.end == "0x4141414141414141 is not in the kernel's code"
    guessed = [frame.pc for frame in stack.frames[1:]]
    assert guessed == [frame.pc for frame in victim.whole.frames[3:]]  # what was not overwritten, to be doubted
    assert not any(frame.reliable for frame in stack.frames)


def test_overwritten_in_the_middle(copy: tuple[Target, Oracle]) -> None:
    victim = Victim(*copy)
    place = victim.whole.frames[2].sp
    copy[0].kernel.write(place, b"A" * (victim.whole.frames[3].sp - place))
    stack = victim.now()
    assert [frame.pc for frame in stack.frames[:3]] == [frame.pc for frame in victim.whole.frames[:3]]
    assert all(frame.reliable for frame in stack.frames[:3]) and stack.end
    assert not stack.complete


def test_overwritten_as_a_whole(copy: tuple[Target, Oracle]) -> None:
    victim = Victim(*copy)
    copy[0].kernel.write(victim.base, b"A" * (victim.top - victim.base))
    stack = victim.now()
    assert [frame.pc for frame in stack.frames] == [0x4141_4141_4141_4141] and stack.end
    depth, = depths(copy[0], [victim.task])
    assert depth.intact is False and depth.magic == 0x4141_4141 and depth.deepest == depth.size - 8


@pytest.mark.parametrize("sp", [0, 0x4141_4141_4141_4141, 1 << 63, (1 << 64) - 8])
def test_stack_pointer_that_is_none(copy: tuple[Target, Oracle], sp: int) -> None:
    victim = Victim(*copy)
    place = copy[0].value("struct task_struct", victim.task)["thread"]["sp"].address
    copy[0].kernel.write(place, struct.pack("<Q", sp))
    stack = victim.now()
    assert stack.frames == () and f"0x{sp:x} is not on its stack" in stack.end


def test_frames_that_lead_back(copy: tuple[Target, Oracle]) -> None:
    """The frame pointer of do_syscall_64's frame points below it."""
    victim = Victim(*copy)
    victim.put(victim.sp + 40, victim.base + 64)  # bp of struct inactive_task_frame
    stack = victim.now()
    assert stack.end and len(stack.frames) < 70


@pytest.mark.parametrize("base", [0x4141_4141_4141_4000, 0xFFFF_8000_0000_0000])
def test_a_stack_that_is_not_mapped(copy: tuple[Target, Oracle], base: int) -> None:
    victim = Victim(*copy)
    victim.set("stack", base)
    stack = victim.now()
    assert stack.frames == () and stack.end


def test_orc_table_out_of_order(copy: tuple[Target, Oracle]) -> None:
    victim = Victim(*copy)
    table = unwinding(copy[0]).kernel
    assert table is not None
    copy[0].kernel.write(table.ips + 4 * (table.count // 2), bytes([0x55, 0xAA]) * 0x4000)
    stack = victim.now()
    assert [frame.pc for frame in stack.frames[:1]] == [frame.pc for frame in victim.whole.frames[:1]]
    for frame in stack.frames[1:]:
        assert frame.pc in {whole.pc for whole in victim.whole.frames} or not frame.reliable


def test_orc_entries_of_noise(copy: tuple[Target, Oracle]) -> None:
    victim = Victim(*copy)
    table = unwinding(copy[0]).kernel
    assert table is not None
    copy[0].kernel.write(table.entries, bytes([0xFF, 0x7F, 0x0B]) * (2 * table.count))
    stack = victim.now()
    assert stack.frames[0].pc == victim.whole.frames[0].pc and "ORC entr" in stack.end
    guessed = [frame.pc for frame in stack.frames[1:]]
    assert {frame.pc for frame in victim.whole.frames[1:-1]} <= set(guessed)
    assert not any(frame.reliable for frame in stack.frames[1:])


def test_return_address_replaced_by_a_kretprobe(copy: tuple[Target, Oracle]) -> None:
    victim = Victim(*copy)
    target = copy[0]
    trampoline = target.symbol("arch_rethook_trampoline").address
    place, real = victim.whole.frames[3].sp - 8, victim.whole.frames[3].pc
    victim.put(place, trampoline)
    stack = victim.now()
    assert "a tracer has replaced a return address (arch_rethook_trampoline)" in stack.end
    node = victim.base + 0x100  # far below what is in use
    victim.put(node, 0, 0, 0, 0, real, place)  # rcu, llist, rethook, ret_addr, frame
    victim.set("rethooks", node + 16)
    assert victim.now() == victim.whole


def test_return_address_replaced_by_the_graph_tracer(copy: tuple[Target, Oracle]) -> None:
    victim = Victim(*copy)
    place, real = victim.whole.frames[2].sp - 8, victim.whole.frames[2].pc
    victim.put(place, copy[0].symbol("return_to_handler").address)
    kept = victim.base + 0x200
    victim.put(kept, 1, 2, 3, 4, real, 6, 7, place)  # two records: ret, func, calltime, retp
    victim.set("ret_stack", kept)
    assert victim.now() == victim.whole


def test_a_new_task_has_one_frame(copy: tuple[Target, Oracle]) -> None:
    """One that has never run begins at ret_from_fork, which nothing has called."""
    victim = Victim(*copy)
    target = copy[0]
    symbol = target.symbols.get("ret_from_fork_asm") or target.symbol("ret_from_fork")
    victim.put(victim.sp + 48, symbol.address)
    stack = victim.now()
    assert stacks.function(target, stack.frames[0]) == symbol.name and stack.end == ""
    assert len(stack.frames) <= 2


def test_filtered_dump_has_all_stacks() -> None:
    """makedumpfile -d 31 leaves out user pages, cache and free pages: kernel stacks are all there."""
    image = have(named_spec("kdump"))
    with open_target(str(image.vmcore)) as whole:
        every = stacks.every_task(whole)
        wanted = list(stacks.stacks(whole, every))
    with open_target(str(image.folder / "makedumpfile.zlib")) as target:
        assert stacks.every_task(target) == every
        assert list(stacks.stacks(target, every)) == wanted
        assert stacks.panic_stack(target) in wanted


def test_user_code_does_not_tell_groups_apart(copy: tuple[Target, Oracle]) -> None:
    victim = Victim(*copy)

    def group() -> set[int]:
        every = stacks.every_task(copy[0])
        return next(set(group.tasks) for group in stacks.stacks(copy[0], every).groups() if victim.task in group.tasks)

    before = group()
    assert len(before) > 5
    victim.put(victim.whole.frames[-1].regs + 128, 0x401234)
    assert victim.now().frames[-1].pc == 0x401234
    assert group() == before


def test_a_damaged_list_of_tasks_is_followed_from_its_other_end(copy: tuple[Target, Oracle]) -> None:
    target = copy[0]
    every = stacks.every_task(target)
    victim = Victim(*copy)
    place = target.value("struct task_struct", victim.task)["tasks"].address
    target.kernel.write(place, struct.pack("<Q", 0x4141_4141_4141_4141))
    with pytest.raises(KshellError) as caught:
        stacks.every_task(target)
    found = caught.value.visited  # type: ignore[attr-defined]
    assert found == every
    assert stacks.stack_owner(target, victim.sp) == victim.task

    session = Session(target, make_registry(lambda _: None, plugins=False))
    out, err = io.StringIO(), io.StringIO()
    run_text(session, Console(session, out, err, json=True), "::stacks -a", string=True, recover=False)
    groups = [json.loads(line) for line in out.getvalue().splitlines()]
    assert sorted(int(task, 16) for group in groups for task in group["tasks"]) == sorted(found)
    assert "0x4141414141414141" in err.getvalue() and session.failed
