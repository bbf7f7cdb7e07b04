"""What mdb calls by another name, on a real dump: compared with the guest's own /proc, and with the other name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask, objects
from tests.guest.image import GuestImage

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def target(guest_61: GuestImage) -> Iterator[Target]:
    with open_target(str(guest_61.elf)) as opened:
        yield opened


def test_12_1_pmap_counts_the_pages_that_pagemap_counts(target: Target, guest_61: GuestImage) -> None:
    pid = guest_61.oracle.victim()["pid"]
    present = guest_61.oracle.pagemap(pid)
    maps = [line for line in guest_61.oracle.maps(pid) if line.start < 1 << 63]
    rows = objects(target, f"::pmap {pid}")
    assert [int(row["base"], 16) for row in rows] == [line.start for line in maps]
    for row, line in zip(rows, maps, strict=True):
        assert row["size"] == f"{line.end - line.start >> 10}k" and row["perm"] == line.permissions
        if line.name not in ("[vvar]", "[vdso]"):
            held = sum(line.start <= address < line.end and entry >> 63 for address, entry in present.items())
            assert row["res"] == f"{held << 2}k", line
    assert ask(target, f"::pmap -q {pid} | ::count").split() == [str(len(maps))]
    assert "is a kernel thread" in ask(target, "::pmap 2")


def test_12_1_threadlist_has_every_thread(target: Target, guest_61: GuestImage) -> None:
    assert sorted(row["tid"] for row in objects(target, "::threadlist")) == sorted(
        one.pid for one in guest_61.oracle.threads())


def test_12_1_fd(target: Target) -> None:
    for row in objects(target, "::pgrep -x victim | ::pfiles"):
        assert ask(target, f"::pgrep -x victim | ::fd {row['fd']}").split() == [row["file"]]


def test_12_2_cpustack_and_cpuregs_are_those_of_c(target: Target) -> None:
    assert ask(target, "::cpustack -c 1") == ask(target, "::stack -c 1")
    assert ask(target, "::cpuregs -c 1") == ask(target, "::regs -c 1")


def test_12_1_page_num2pp(target: Target) -> None:
    assert ask(target, "100::page_num2pp").split() == ask(target, "100::page -f | ::map .").split()[:1]
    assert "memory ends with page" in ask(target, "ffffffff::page_num2pp")


def test_12_1_panicinfo(guest_null: GuestImage) -> None:
    with open_target(str(guest_null.elf)) as target:
        lines = dict(line.split(None, 1) for line in ask(target, "::panicinfo").splitlines())
        assert lines["cpu"] == "0" and lines["message"] == "Fatal exception"
        assert ask(target, f"{lines['thread']}::print struct task_struct comm").strip()
        assert {"rip", "rsp", "rax"} <= set(lines)


def test_12_1_cpuinfo_of_one_and_with_what_waits(target: Target, guest_softlockup: GuestImage) -> None:
    assert len(objects(target, "::cpuinfo")) == 2
    (one,) = objects(target, "1::cpuinfo")
    assert one["cpu"] == 1 and objects(target, f"{one['runq']}::cpuinfo") == [one]
    assert ask(target, "::cpuinfo -v | ::cpuinfo") == ask(target, "::cpuinfo")
    assert "no run queue of a CPU 0x63" in ask(target, "63::cpuinfo")
    with open_target(str(guest_softlockup.elf)) as busy:
        waiting = {row["pid"] for row in objects(busy, "::runq") if row["class"] != "current"}
        assert waiting and waiting == {row["pid"] for row in objects(busy, "::cpuinfo -v") if "class" in row}
