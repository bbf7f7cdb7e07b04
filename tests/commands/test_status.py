"""``::status`` on a real panicked kernel: what it was built as, when and why it crashed, and which pages a dump has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kshell.errors import Reason
from kshell.memory.kdump import open_kdump
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec
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


@pytest.mark.parametrize("name, panic, trouble", [
    ("null", "Fatal exception", "BUG: kernel NULL pointer dereference, address: 0000000000000028"),
    ("softlockup", "softlockup: hung tasks", "watchdog: BUG: soft lockup - CPU#"),
])
def test_why_it_crashed(name: str, panic: str, trouble: str) -> None:
    told = status(have(named_spec(name)).folder / "elf")
    assert told["panic_message"] == panic and told["trouble"].startswith(trouble)


def test_what_was_found_where(guest_kdump: GuestImage) -> None:
    told = status(guest_kdump.folder / "makedumpfile.flat")
    assert "flattened kdump-compressed dump (x86_64, zlib)" in told["image"] and told["header"] == "version 6"
    assert told["dump_level"].startswith("31 (leaves out pages of zeroes, page cache, ")
    assert re.fullmatch(r"\d+ records, index (from the cache|made in one pass)", told["flattened"])
    assert re.fullmatch(r"ORC in the image, \d{6} entries", told["stack_tables"])
    assert told["symbols"].endswith("(kallsyms in the image)") and told["types"] == "BTF in the image"
    assert {"btf", "kallsyms"} <= {word.split()[0] for word in told["caches"].split(", ")}
    assert re.fullmatch(r"in \d+\.\d\d s", told["opened"])
    assert told["cpus"] == "2" and told["pages_excluded"].endswith("by dump level 31")
    assert told["kernels"].startswith("1 (this one): 6.1")


def test_every_read_error_tells_its_reason_apart(guest_kdump: GuestImage, tmp_path: Path) -> None:
    """One page left out, one outside RAM, one past the end of a cut file, and a virtual address without mapping."""
    thin, cut = guest_kdump.folder / "makedumpfile.zlib", tmp_path / "cut"
    with open_kdump(str(thin)) as dump:
        excluded = next(r.start for r in dump.ranges() if r.reason is Reason.EXCLUDED)
        held = [at for r in dump.ranges() if r.held for at in range(r.start, r.end, 4096)]
        places = [row.offset for row in dump.pages.descriptors(0, len(held))]
        last = held[places.index(max(places))]
    cut.write_bytes(thin.read_bytes()[: -1 << 20])
    for path, command, why in (
        (thin, f"{excluded:x}\\X", "page excluded from the dump (makedumpfile dump level 31)"),
        (thin, "ffff00000000\\X", "outside RAM"),
        (cut, f"{last:x}\\X", "the file ends early (its bytes are past the end of the file; "),
        (thin, "ffffffffff000000/X", "no mapping for address"),
    ):
        words = [sys.executable, "-m", "kshell", str(path), "-e", command]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 1 and why in done.stderr, done.stderr
        assert not done.stdout.partition(":")[2].strip()  # the address is shown, and no value
