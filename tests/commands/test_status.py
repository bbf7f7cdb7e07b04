"""``::status`` on a real panicked kernel: what it was built as, when and why it crashed, and which pages a dump has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.image import GuestImage
from tests.target import tiny


@pytest.mark.parametrize("time", ["9" * 30, "-1" + "0" * 25, "soon", "9" * 5000])
def test_a_crash_at_an_impossible_time_is_told(time: str, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(tiny.image(CRASHTIME=time))
    assert status(path)["crashed"].startswith("at an impossible time: " + time[:40])


def status(path: Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-m", "kshell", "--json", str(path), "-e", "::status -v"],
                          capture_output=True, text=True, timeout=120)
    assert not done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    return told


def pages(text: str) -> int:
    found = re.match(r"[\d,]+", text)
    assert found is not None
    return int(found[0].replace(",", ""))


def test_a_panicked_kernel_in_two_formats(guest_kdump: GuestImage) -> None:
    whole, thin = status(guest_kdump.vmcore), status(guest_kdump.folder / "makedumpfile.zlib")
    for told in (whole, thin):
        assert bytes.fromhex(told["build_id"]) in guest_kdump.oracle.content("/sys/kernel/notes")
        assert told["crashed"][:16] == told["date"][:16]  # the same minute
        assert told["panic_message"] == "sysrq triggered crash"
    assert "pages_excluded" not in whole
    assert pages(thin["pages_held"]) + pages(thin["pages_excluded"]) == pages(whole["pages_held"])
    assert 0 < pages(thin["pages_held"]) < pages(whole["pages_held"]) / 2
