"""By which rule pages were left out, against makedumpfile's own report and what ``convert`` says it left out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from kshell.linux.convert import convert
from kshell.linux.page_counts import page_counts
from kshell.linux.page_filter import CACHE, CACHE_PRIVATE, FREE, USER, ZERO, explain
from kshell.target.open import open_target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.libraries import host_command
from tests.guest.packages import bundle
from tests.guest.spec import named_spec
from tests.memory.cores import Load, core, note
from tests.target import tiny

pytestmark = pytest.mark.guest
REPORT = {"Non-private cache pages": CACHE, "Private cache pages": CACHE_PRIVATE, "User process data pages": USER,
          "Free pages": FREE}


@pytest.mark.parametrize("level", [31, 16, 10, 4])
def test_as_makedumpfile_reports(guest_kdump: GuestImage, tmp_path: Path, level: int) -> None:
    path = tmp_path / "dump"
    done = subprocess.run(
        [*host_command("makedumpfile", bundle("makedumpfile")), "-l", "-d", str(level), "--message-level", "31",
         str(guest_kdump.vmcore), str(path)], capture_output=True, text=True, check=True)
    rows = re.findall(r"([A-Z][\w -]+?) *: 0x([0-9a-f]+)$", done.stdout + done.stderr, re.MULTILINE)
    said = {name: int(number, 16) for name, number in rows}
    with open_target(str(path)) as target:
        counts, rest = explain(target, level)
        told = page_counts(target)
    assert rest == 0 and counts == {bit: said[name] for name, bit in REPORT.items() if level & bit or (
        bit == CACHE and level & CACHE_PRIVATE)}
    assert sum(counts.values()) > 0
    assert told["pages excluded"].startswith(f"{sum(counts.values()):,} (") and told["pages excluded"].endswith(
        f"by dump level {level}")
    assert all(f"{count:,} " in told["excluded by rule"] for count in counts.values())
    assert "no rule" not in told["excluded by rule"]


@pytest.mark.parametrize("name", ["6.1", "6.12"])
def test_an_elf_dump_does_not_tell_its_level(name: str, tmp_path: Path) -> None:
    with open_target(str(have(named_spec(name)).elf)) as target:
        left_out = convert(target, str(tmp_path / "out"), to="elf", level=31).left_out
    zeroes = left_out.pop(ZERO)
    with open_target(str(tmp_path / "out")) as target:
        assert explain(target, 31) == (left_out, zeroes)
        told = page_counts(target)
    assert "the format does not tell by which level" in told["pages excluded"]
    assert f"{zeroes:,} that no rule explains (pages of zeroes, perhaps)" in told["excluded by rule"]


def test_without_page_structs_it_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    notes = note("VMCOREINFO", 0, tiny.vmcoreinfo())
    path.write_bytes(core([*tiny.memory(), Load(1 << 30, b"", memsz=5 << 20)], notes))
    with open_target(str(path)) as target:
        told = page_counts(target)
    assert told["pages excluded"].startswith("1,280 (5 MiB)")
    assert told["excluded by rule"].startswith("not known: ") and "struct page" in told["excluded by rule"]
