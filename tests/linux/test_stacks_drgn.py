"""Every task's stack beside drgn's with the kernel's full DWARF: the same program counters, in the same order.

Needs the kernel's ``-dbg`` package in the cache (``python -m tests.guest debuginfo 6.1``, large), or its answers from
an earlier run there. Names are not compared: where several symbols share an address drgn takes another than the kernel
does (``__x64_sys_pause`` for ``__do_sys_pause``), and of a function with inner labels the outermost
(``entry_SYSCALL_64`` for ``entry_SYSCALL_64_after_hwframe``). Behind the registers of user code, where kshell ends,
drgn goes on into noise.
"""

from __future__ import annotations

import pytest

from kshell.linux import stacks, tasks
from kshell.target.open import open_target
from tests.guest.answers import drgn_can_tell, drgn_stacks
from tests.guest.fixtures import have
from tests.guest.spec import named_spec

pytestmark = pytest.mark.guest

KERNEL = 1 << 63


@pytest.mark.parametrize("name", [
    "6.1", "6.12", "5.10", "kdump", "kdump-6.12", "null", "abba", "overflow", "softlockup", "big"])
def test_every_stack_is_drgns(name: str) -> None:
    if not drgn_can_tell():  # before a guest is built for nothing
        pytest.skip("no debuginfo: python -m tests.guest debuginfo")
    image = have(named_spec(name))
    dump = image.vmcore if image.spec.crash else image.elf
    answers = drgn_stacks(image, dump)
    if answers is None:
        pytest.skip(f"no debuginfo of {image.kernel_release}: python -m tests.guest debuginfo")
    assert len(answers) > 50
    different = []
    with open_target(str(dump)) as target:
        found = stacks.stacks(target, [answer.task for answer in answers])
        for answer, stack in zip(answers, found, strict=True):
            if not target.value("struct task_struct", answer.task).integer("stack"):
                # a zombie's stack is freed; drgn reads what is there now
                assert stack.frames == () and tasks.read_task(target, answer.task).is_zombie
                continue
            ours = [frame.pc for frame in stack.frames if frame.kind != "user"]
            user = next((place for place, pc in enumerate(answer.pcs) if pc < KERNEL), len(answer.pcs))
            if ours != answer.pcs[:user] or not stack.complete:
                names = [stacks.function(target, frame) for frame in stack.frames]
                different.append((answer.pid, answer.comm, stack.end, names))
            if stack.frames and stack.frames[-1].kind == "user":
                assert answer.pcs[user] == stack.frames[-1].pc
    assert different == []
