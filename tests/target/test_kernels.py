"""Two kernels in one image: a guest that died, dumped while its crash kernel ran."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kshell.errors import OpenError
from kshell.linux.tasks import iter_processes
from kshell.target import kernels
from kshell.target.formats import Options
from kshell.target.open import open_target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec
from tests.target.stripped import strip


@pytest.fixture(scope="module")
def two(index_cache: Path) -> GuestImage:
    return have(named_spec("two"))


def names(path: Path, **options: int) -> set[str]:
    with open_target(str(path), options=Options(**options)) as target:  # type: ignore[arg-type]
        return {task.comm for task in iter_processes(target)}


@pytest.mark.parametrize("file", ["elf", "raw"])
def test_the_dead_kernel_is_chosen_and_the_other_can_be(two: GuestImage, file: str) -> None:
    path = two.folder / file
    assert "victim" in names(path) and "dd" not in names(path)
    with open_target(str(path)) as target:
        assert {p.pid for p in two.oracle.processes() if p.comm == "victim"} == {
            task.pid for task in iter_processes(target) if task.comm == "victim"}
        assert target.survey is not None
        told = sorted(map(str, target.survey(lambda what, done, total: None)), key=lambda line: "crash kernel" in line)
        assert re.match(r"[12] \(this one\): 6\.1", told[0]) and "crash kernel" not in told[0]
        assert re.match(r"[12]: 6\.1", told[1]) and "a crash kernel, VMCOREINFO at physical 0x" in told[1]
    crash = int(told[1][0])
    assert "victim" not in names(path, kernel=crash) and "init" in names(path, kernel=crash)
    with pytest.raises(OpenError, match="no kernel 3 in it: there are 2") as caught:
        names(path, kernel=3)
    assert "crash kernel" in str(caught.value.hint)


def test_status_lists_them(two: GuestImage) -> None:
    command = [sys.executable, "-m", "kshell", "--json", "--kernel", "2", "-e", "::status", str(two.folder / "raw")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)["kernels"]
    assert "2 (this one): 6.1" in told and "--kernel chooses" in told


def test_what_was_found_is_kept(two: GuestImage, monkeypatch: pytest.MonkeyPatch) -> None:
    path = two.folder / "raw"
    words: list[str] = []
    options = Options(kernel=2, progress=lambda what, done, total: words.append(what))
    with open_target(str(path), options=options):
        pass
    words.clear()

    def look_again(*arguments: object) -> None:
        raise AssertionError("the memory was looked at again")

    monkeypatch.setattr(kernels, "find_vmcoreinfo", look_again)
    with open_target(str(path), options=options) as target:
        assert "kernels" in target.findings and not words


@pytest.mark.parametrize("registers, how", [(True, "CR3 of CPU [01]"), (False, "the looks of their top table")])
def test_the_dead_one_is_found_without_vmcoreinfo_too(
    two: GuestImage, tmp_path: Path, registers: bool, how: str
) -> None:
    """One CPU runs the crash kernel (the one that panicked), the other was halted in the dead one."""
    bare = strip(two.elf, tmp_path / "bare", registers=registers)
    words: set[str] = set()
    with open_target(str(bare), options=Options(progress=lambda what, done, total: words.add(what))) as target:
        assert "victim" in {task.comm for task in iter_processes(target)}
        assert re.search(how, target.findings["kernel"])
        assert target.survey is not None
        found = [one for one in target.survey(lambda *_: None) if isinstance(one, kernels.Kernel)]
        assert sorted((one.chosen, one.is_crash_kernel) for one in found) == [(False, True), (True, False)]
        # which one is met first is KASLR's choice; when it is the dead one, nobody looks on before it is asked for
        told = target.findings.get("kernels", "")
        assert told == "" if found[0].chosen else "1: 6.1" in told and "2 (this one)" in told
    assert words == {"looking for the kernel", *(() if registers else ("looking for page tables",))}
