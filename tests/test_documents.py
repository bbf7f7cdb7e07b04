"""Every example in README.md and docs/ is run on a real dump; pages and tables made from the registry are fresh.

A ``console`` block is a transcript: ``$`` commands and what they print. ``vmcore`` stands for the 6.1 guest's dump,
``two.raw``, ``bare.elf``, ``crash.kdump`` and ``stripped`` for others (OTHERS), ``./rec`` for the program of
tests/programs, ``/run/vm.qmp`` and ``/dev/shm/vm`` for a running guest's QMP socket and memory file.
Addresses, sizes and times differ from boot to boot, so runs of hex digits and numbers are compared by their kind only;
a line ``...`` stands for any lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.qemu import RunningGuest
from tests.guest.spec import named_spec
from tests.programs import compiled
from tests.target.stripped import strip

TOP = Path(__file__).parent.parent
#: what stands in docs/ for the QMP socket and for the memory file of the running guest
LIVE = ("/run/vm.qmp", "/run/vm.gdb", "/dev/shm/vm")
#: other images in docs/, with their guest and file
OTHERS = {"two.raw": ("two", "raw"), "bare.elf": ("novmcoreinfo", "elf"),
          "crash.kdump": ("kdump", "makedumpfile.zlib"),
          **{f"{name}.dump": (name, "elf") for name in ("null", "abba", "leak", "overflow", "softlockup")}}
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]


def transcripts(page: Path) -> list[tuple[str, list[str]]]:
    """Return (command, expected lines) of each command in the page's console blocks."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


CASES = [pytest.param(command, expected, id=f"{page.stem}-{number}")
         for page in PAGES for number, (command, expected) in enumerate(transcripts(page))]


def kind(line: str) -> str:
    """Return *line* with what differs between boots replaced: addresses, numbers, dates, blanks at the end."""
    line = re.sub(r"\d{4}-\d\d-\d\d", "DATE", line)
    line = re.sub(r"\b(0x)?(?=[0-9a-f]*\d)[0-9a-f]+\b", "N", line)
    line = re.sub(r"\b[0-9a-f]{8,}\b|\b\d+(?=s\b)", "N", line)
    line = re.sub(r"QEMU N(\.N)*", "QEMU N", line)
    return re.sub(r"\s+", " ", line).rstrip()


def matches(expected: list[str], actual: list[str]) -> bool:
    """Whether *actual* is what the transcript shows; ``...`` alone is any lines, at the end of a line any text."""
    if not expected:
        return not actual
    if expected[0].strip() == "...":
        return any(matches(expected[1:], actual[skip:]) for skip in range(len(actual) + 1))
    if not actual:
        return False
    first, found = kind(expected[0]), kind(actual[0])
    same = found.startswith(first.removesuffix("...").rstrip()) if first.endswith("...") else first == found
    return same and matches(expected[1:], actual[1:])


@pytest.mark.parametrize(("command", "expected"), CASES)
def test_every_transcript_is_what_kshell_prints(
    command: str, expected: list[str], guest_61: GuestImage, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    line = re.sub(r"\bvmcore\b", str(guest_61.elf), command)
    places: dict[str, str] = {}
    for written, (name, file) in OTHERS.items():
        if written in command:
            places[written] = str(have(named_spec(name)).folder / file)
    if "stripped" in command.split():
        places["stripped"] = str(strip(guest_61.elf, tmp_path / "without", registers=False))
    if any(place in command for place in LIVE):
        guest: RunningGuest = request.getfixturevalue("live_guest")
        places |= dict(zip(LIVE, (str(guest.qmp_socket), str(guest.gdb_socket), str(guest.memory_file)), strict=True))
    for written, real in places.items():
        line = line.replace(written, real)
    if "./rec" in command:
        shutil.copy(compiled("-g", "-O1"), tmp_path / "rec")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                          env={**os.environ, "PATH": path}, check=False, cwd=tmp_path)
    text = done.stdout.replace(str(guest_61.elf), "vmcore")
    for written, real in places.items():
        text = text.replace(real, written)
    actual = text.splitlines()
    assert matches(expected, actual), f"$ {command}\n{done.stdout}"


def test_a_transcript_that_is_wrong_is_noticed() -> None:
    assert matches(["a 0xffff888000000000 b", "...", "end"], ["a 0xffff8880deadbeef b", "x", "end"])
    assert not matches(["a 10 b"], ["a 10 c"])
    assert not matches(["a"], ["a", "b"])
    assert not matches(["a", "b"], ["a"])


def test_there_are_transcripts() -> None:
    assert len(CASES) > 10


@pytest.mark.parametrize("module", ["kshell.index", "kshell.docgen"])
def test_what_is_made_from_the_registry_is_fresh(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_in_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (TOP / "README.md").read_text()):
        assert (TOP / link).exists(), link


def test_the_python_example_of_the_readme_runs(guest_61: GuestImage) -> None:
    code = re.search(r"```python\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    assert code is not None
    text = code.group(1).replace('"vmcore"', repr(str(guest_61.elf)))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{guest_61.oracle.victim()['pid']} ")
