"""``::triage`` and ``kshell triage``: the verdict on each staged disaster, and sections that fail alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from kshell.linux import tasks
from kshell.linux.triage import triage
from kshell.target.open import open_target
from tests.commands.asking import ask, objects
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec

SECTIONS = ["system", "verdict", "panic", "log", "cpus", "tasks", "stacks", "locks", "memory", "processes", "slabs",
            "modules"]
#: guest -> what its verdict must say; the table of docs/triage.md
VERDICTS = {
    "null": ("NULL dereference in disaster`price_of+0x5, called by disaster`stage", "NULL plus 0x28"),
    "abba": ("deadlock: abba-left (", "take_left_then_right", "waits for mutex disaster`right_lock", "abba-right (",
             "take_right_then_left", "waits for mutex disaster`left_lock", "4 more blocked behind abba-left"),
    "leak": ("slab cache disaster_session, made by module disaster, holds 10,100 objects",
             "10,100 were allocated by disaster`open_session+"),
    "overflow": ("kernel stack overflow in disaster`count_down", "which called itself", "called by disaster`stage",
                 "the guard page"),
    "softlockup": ("soft lockup in disaster`wait_for_device", "called by disaster`poll_device", "task poller ("),
}


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kshell", "triage", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.guest
@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_names_the_culprit(name: str) -> None:
    with open_target(str(have(named_spec(name)).elf)) as target:
        sections = {section.name: section for section in triage(target)}
    assert list(sections) == SECTIONS
    assert [section.problem for section in sections.values() if section.problem] == []
    text = "\n".join(sections["verdict"].facts["findings"])
    for words in VERDICTS[name]:
        assert words in text
    assert "disaster" in sections["modules"].facts["tainting"]


@pytest.mark.parametrize("name", ["6.1", "6.12"])
@pytest.mark.guest
def test_a_healthy_kernel_gets_no_verdict(name: str) -> None:
    with open_target(str(have(named_spec(name)).elf)) as target:
        (verdict,) = [section for section in triage(target) if section.name == "verdict"]
        assert verdict.facts == {"findings": []} and "nothing stands out" in verdict.lines[0]


def test_from_the_command_line(guest_abba: GuestImage) -> None:
    done = cli(str(guest_abba.elf))
    assert done.returncode == 0 and not done.stderr
    assert [line[3:-3] for line in done.stdout.splitlines() if line.startswith("== ")] == SECTIONS
    assert "deadlock: 2 tasks wait for each other" in done.stdout
    rows = [json.loads(line) for line in cli("--json", str(guest_abba.elf)).stdout.splitlines()]
    assert [row["section"] for row in rows] == SECTIONS
    assert rows[7]["deadlocks"][0][0]["comm"] == "abba-left"
    assert sum(rows[8]["shares"].values()) <= rows[8]["total"] + (1 << 20)
    assert cli().returncode == 2 and "which dump" in cli().stderr


def test_a_gibibyte_within_three_seconds(guest_kdump: GuestImage) -> None:
    for name in ("vmcore", "makedumpfile.zlib"):
        start = time.process_time()
        with open_target(str(guest_kdump.folder / name)) as target:
            sections = list(triage(target))
        assert [section.problem for section in sections if section.problem] == []
        assert "panic (sysrq triggered crash) in sysrq_handle_crash" in sections[1].facts["findings"][0]
        assert time.process_time() - start < 3


def test_every_damage_costs_its_section_only(guest_null: GuestImage) -> None:
    with open_target(str(guest_null.elf), mode="c") as target:
        names = {"prb": "log", "slab_caches": "slabs", "modules": "modules"}
        for symbol in names:
            target.kernel.write(target.symbol(symbol).address, (0x10).to_bytes(8, "little"))
        sections = {section.name: section for section in triage(target)}
        for name in names.values():
            assert sections[name].problem, name
        for name in ("system", "cpus", "tasks", "stacks", "locks", "memory", "processes"):
            assert not sections[name].problem and sections[name].lines, name
        # without the log: what the stack and the task tell; the modules are found from the other end of their list
        (verdict, *rest) = sections["verdict"].facts["findings"]
        assert verdict.startswith("panic (the log does not tell why) in disaster`price_of+0x5, ")
        assert "called by disaster`stage" in verdict and "NULL plus 0x28" in verdict
        assert rest == [one for one in rest if one.startswith("not looked at (leaks)")]
        assert any("0x28(%rax)" in line for line in sections["panic"].lines)
        shown = ask(target, "::triage")
        assert "kshell: ::triage: slabs: " in shown and "== processes ==" in shown
        rows = {row["section"]: row for row in objects(target, "::triage") if "section" in row}
        assert rows["modules"]["problem"] and "problem" not in rows["tasks"]


def test_a_log_that_cannot_be_read_tells_of_no_peace(guest_leak: GuestImage) -> None:
    with open_target(str(guest_leak.elf), mode="c") as target:
        assert ask(target, "::panic") == "this kernel did not panic, and its log tells of no failure\n"
        target.kernel.write(target.symbol("prb").address, (0x10).to_bytes(8, "little"))
        shown = ask(target, "::panic")
        assert shown.startswith("no CPU says that it panicked, and the log that might tell more cannot be read\nlog: ")
        sections = {section.name: section for section in triage(target)}
        assert sections["verdict"].facts["findings"][0].startswith("not looked at (log: ")
        assert sections["panic"].lines[0].startswith("none: no CPU says that it panicked")


@pytest.mark.parametrize("line", ["::triage", "::panic"])
def test_a_process_has_no_panic(line: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            with open_target(f"pid:{child.pid}") as target:
                shown = ask(target, line)
        finally:
            child.kill()
    assert f"{line}: there is no kernel here: the target is a process" in shown and "did not panic" not in shown


def test_a_broken_list_of_tasks(guest_null: GuestImage) -> None:
    with open_target(str(guest_null.elf), mode="c") as target:
        whole = len(list(tasks.iter_threads(target)))
        first = target.object("init_task")["tasks"]
        second = first.integer("next")
        target.kernel.write(second, second.to_bytes(8, "little"))  # the list goes round without its head
        start = time.process_time()
        sections = {section.name: section for section in triage(target)}
        assert [section.problem for section in sections.values() if section.problem] == []
        facts = sections["tasks"].facts
        assert "loops" in facts["damage"] and "from its other end the list of tasks is whole" in facts["damage"]
        assert facts["count"] == whole
        assert time.process_time() - start < 5
