"""``::watch``, ``::snapshot`` and ``::diff`` on what moves by itself: a process, and a guest's memory file."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.running import commands, kshell, rows
from tests.guest.oracle import Oracle
from tests.guest.qemu import RunningGuest
from tests.programs import compiled
from tests.target.test_qemu import place

pytest_plugins = ["tests.guest.fixtures"]
Child = subprocess.Popen[bytes]


@pytest.fixture
def child() -> Iterator[Child]:
    """Threads that count, each two numbers of which the first is never behind the second."""
    program = compiled("-O1", "-g", "-pthread", name="still", sources=("still.c",))
    with subprocess.Popen([str(program), "count"], stdout=subprocess.PIPE) as made:
        assert made.stdout is not None and made.stdout.readline() == b"ready\n"
        yield made
        made.kill()


def rounds(text: str) -> list[list[str]]:
    """Return the lines of each round, without its head."""
    parts = re.split(r"^\S+  round \d+, every .*$", text, flags=re.M)[1:]
    return [[line for line in part.splitlines() if line.strip()] for part in parts]


def test_a_process_is_watched(child: Child) -> None:
    told = kshell("-e", "::watch -n 0.2 -c 3 '::echo same; counters/4J'", "-p", str(child.pid)).stdout
    found = rounds(told)
    assert len(found) == 3 and all(len(lines) == 3 for lines in found)
    assert not any(line.startswith("*") for line in found[0])
    for lines in found[1:]:
        assert [line[0] for line in lines] == [" ", " ", "*"], "the numbers have changed, and nothing else"


def test_rounds_are_of_one_instant_with_pause(child: Child) -> None:
    told = kshell("--pause", "-e", "::watch -n 0.05 -c 20 counters/8J", "-p", str(child.pid)).stdout
    before: list[int] = [0] * 8
    for lines in rounds(told):
        numbers = [int(word, 16) for line in lines for word in line.replace("counters:", "").replace("*", "").split()
                   if not word.endswith(":")]
        assert len(numbers) == 8 and numbers != before, "it ran in between"
        assert all(first - second in (0, 1) for first, second in zip(numbers[::2], numbers[1::2], strict=True))
        before = numbers
    assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0] != "t"


def test_what_has_changed_in_a_process(child: Child) -> None:
    found = rows(*commands("counters::snapshot all", "counters::snapshot -l 0t64 bytes", "signals::snapshot still",
                           "! sleep 0.2", "::diff all", "::diff bytes", "::diff still"), "-p", str(child.pid))
    changed = [row["member"] for row in found]
    assert changed == [*(f"[{number}]" for number in range(8)), "+0x0", "+0x10", "+0x20", "+0x30"]
    assert all(int(row["new"], 0) > int(row["old"], 0) for row in found[:8])


def test_what_we_write_is_a_change(child: Child) -> None:
    found = rows("-w", *commands("released::snapshot one", "released/Z 5", "::diff one", "::undo", "::diff one"),
                 "-p", str(child.pid))
    changes = [(row["old"], row["new"]) for row in found if "member" in row]
    assert changes == [("0", "5")], "and taken back it is none"


def test_a_process_that_ends_meanwhile(child: Child) -> None:
    words = commands("counters::snapshot all", f"! kill -9 {child.pid}; sleep 0.2", "::diff all",
                     "::watch -n 0.05 -c 2 counters/J", "::snapshot")
    done = kshell(*words, "-p", str(child.pid), status=1)
    assert done.stderr.count("process is gone") + done.stderr.count("has ended") + done.stderr.count("zombie") >= 1
    assert "all" in done.stdout.splitlines()[-1], "what was kept is there"


def test_a_dump_is_of_a_kernel(child: Child, tmp_path: Path) -> None:
    done = kshell("-e", f"::snapshot -f {tmp_path / 'dump'}", "-p", str(child.pid), status=1)
    assert "no kernel here" in done.stderr and not (tmp_path / "dump").exists()


@pytest.mark.guest
def test_a_memory_file(live_guest: RunningGuest, tmp_path: Path) -> None:
    teller = Oracle(live_guest.oracle_folder).part("teller")  # type: ignore[arg-type]
    text = f"{teller['text']:x}"
    ram, dump = place(live_guest, "ram"), tmp_path / "dump"
    found = rounds(kshell("-e", "::watch -n 0.3 -c 3 '::echo same; jiffies/J; panic_timeout/X'", ram).stdout)
    assert len(found) == 3
    for lines in found[1:]:
        marks = {line[2:].split(":")[0].strip(): line[0] for line in lines if len(line.split()) != 1}
        assert marks == {"jiffies": "*", "panic_timeout": " "}, lines
    changed = rows(*commands("::walk proc | ::snapshot all", "jiffies::snapshot -l 8 j",
                             "panic_timeout::snapshot p int",
                             "! sleep 0.5", "::diff j", "::diff p", "::diff all"), ram)
    members = [row["member"] for row in changed]
    assert members[0] == "+0x0" and "" not in members
    assert any(member.endswith("se.sum_exec_runtime") for member in members), "the teller ran meanwhile"
    written = rows("-w", *commands("::getu teller", f"{text}::snapshot -l 10 t", f"{text}::uwrite -z by-file",
                                   "::diff t", "::undo", "::diff t"), ram)
    assert [row["member"] for row in written if "member" in row] == ["+0x0"]
    kshell("-e", f"::snapshot -f {dump}", ram)
    assert f" {teller['pid']} " in kshell("-e", "::ps teller", str(dump)).stdout


@pytest.mark.guest
def test_two_looks_at_a_memory_file(live_guest: RunningGuest) -> None:
    """What another session writes is there with the next question: nothing is kept."""
    teller = Oracle(live_guest.oracle_folder).part("teller")  # type: ignore[arg-type]
    ram, number = place(live_guest, "ram"), f"{teller['number']:x}"
    with subprocess.Popen([sys.executable, "-m", "kshell", "-q", ram], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as first:
        assert first.stdin is not None and first.stdout is not None
        print("::getu teller\n", f"{number}::snapshot -l 8 n\n", f"{number}/J\n", file=first.stdin, flush=True)
        before = _number(first)
        kshell("-w", *commands("::getu teller", f"{number}/Z {before + 0x77:x}"), place(live_guest, "qmp"))
        try:
            print(f"::diff n\n{number}/J\n", file=first.stdin, flush=True)
            assert _number(first) == before + 0x77
        finally:
            kshell("-w", *commands("::getu teller", f"{number}/Z {before:x}"), place(live_guest, "qmp"))
        time.sleep(0.1)
        first.communicate()


def _number(shell: subprocess.Popen[str]) -> int:
    """Return what ``/J`` shows next."""
    assert shell.stdout is not None
    for line in shell.stdout:
        found = re.fullmatch(r"\S+:\s+([0-9a-f]+)\s*", line)
        if found:
            return int(found[1], 16)
    raise AssertionError("it has ended")
