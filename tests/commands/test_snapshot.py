"""``::snapshot`` and ``::diff``, on a dump's private copy and on a running guest; ``--dry-run``; writes into holes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.running import commands, kshell, rows
from tests.guest.image import GuestImage
from tests.guest.oracle import Oracle
from tests.guest.qemu import RunningGuest

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest


def test_a_number_a_struct_and_a_range(guest_61: GuestImage) -> None:
    at = guest_61.oracle.symbol("panic_timeout")
    found = rows("--cow", *commands(
        "panic_timeout::snapshot p int", "init_task::snapshot t", "panic_timeout::snapshot -l 20 r",
        "panic_timeout::write -l 4 5", "init_task::print -a comm ! true", "::diff p", "::diff r", "::diff t"),
        str(guest_61.elf))
    changes = [row for row in found if "member" in row]
    assert [(row["addr"], row["member"], row["new"]) for row in changes] == [
        (f"0x{at:x}", "", "5"), (f"0x{at:x}", "+0x0", "05000000" + changes[1]["old"][8:])]
    assert changes[0]["old"] == "0xffffffff"


def test_members_of_a_struct(guest_61: GuestImage) -> None:
    lines = kshell("-e", "init_task::print -a pid comm", str(guest_61.elf)).stdout.splitlines()
    pid, comm = (line.split()[0] for line in lines)
    found = rows("--cow", *commands("init_task::snapshot t", f"{pid}::write -l 4 77", f"{comm}::write -s new",
                                    "::diff t"), str(guest_61.elf))
    changes = {row["member"]: (row["old"], row["new"]) for row in found if "member" in row}
    assert changes == {"pid": ("0", "0x77"), "comm": ('[ "swapper/0" ]', '[ "newpper/0" ]')}


def test_of_a_running_guest(live_guest: RunningGuest, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    teller = Oracle(live_guest.oracle_folder).part("teller")  # type: ignore[arg-type]
    found = rows(*commands("::walk proc | ::snapshot all", "::snapshot", "jiffies::snapshot -l 8 j", "! sleep 0.3",
                           "::diff all", "::diff j"), f"qmp:{live_guest.qmp_socket}")
    assert sum(row.get("name") == "all" and row["size"] > 5000 for row in found) > 50
    changed = [row["member"] for row in found if "member" in row]
    assert any(member.endswith("se.sum_exec_runtime") for member in changed)  # the teller ran meanwhile
    assert "+0x0" in changed
    kshell("-e", f"::snapshot -f {dump}", f"qmp:{live_guest.qmp_socket}")
    assert live_guest.command("query-status")["running"]
    assert f" {teller['pid']} " in kshell("-e", "::ps teller", str(dump)).stdout


@pytest.mark.parametrize("line, told", [
    ("::diff nope", "no snapshot nope"), ("init_task::snapshot", "a name is needed"),
    ("init_task::snapshot -l 0 x", "0 bytes"), ("init_task::snapshot -l ffffffffff x", "at most 256 MiB"),
    ("::snapshot x", "an address is needed"), ("10::snapshot x int", "user address"),
])
def test_wrong_use(guest_61: GuestImage, line: str, told: str) -> None:
    assert told in kshell("-e", line, str(guest_61.elf), status=1).stderr


def test_a_dry_run_writes_nothing(guest_61: GuestImage) -> None:
    done = kshell("--dry-run", *commands("panic_timeout::write -l 4 7", "panic_timeout/W 9", "::writes",
                                         "panic_timeout/X"), str(guest_61.elf))
    assert "0xffffffff -> 7" in done.stdout
    assert done.stdout.split()[-1] == "ffffffff"
    assert "SPACE" not in done.stdout  # nothing to undo


def test_a_write_into_a_hole_says_how_much_was_done(guest_61: GuestImage) -> None:
    victim = guest_61.oracle.victim()
    at = f"{victim['hole'] - 4:x}"
    done = subprocess.run([sys.executable, "-m", "kshell", "-q", "--cow", *commands(
        "::getu victim", f"{at}::uwrite -s 12345678", "::writes", f"{at},4/c", "::undo", f"{at}/x"),
        str(guest_61.elf)], capture_output=True, text=True, timeout=60)
    assert "cannot write 8 bytes after 4 at user address" in done.stderr
    assert "1234" in done.stdout
    assert f"{at}" in done.stdout
