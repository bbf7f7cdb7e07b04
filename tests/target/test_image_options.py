"""What may be said of an image (map, parts, kernel, raw) is said to ``kshell convert`` and ``kshell.kvm`` as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from kshell import kvm
from kshell.errors import OpenError
from kshell.target.formats import Options
from kshell.target.open import open_target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec
from tests.shell.test_batch import run
from tests.target.test_formats import by_map, makedumpfile, pages

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def processes() -> list[tuple[int, str]]:
    with kvm.open(have(named_spec("6.1")).elf) as kd:
        return [(one.pid, one.comm) for one in kd.procs()]


def held(path: Path) -> int:
    with open_target(str(path)) as target:
        return sum(one.end - one.start for one in target.physical.ranges() if one.held)


def test_parts_that_lie_elsewhere(tmp_path: Path, processes: list[tuple[int, str]]) -> None:
    make = makedumpfile("-l", "--splitblock-size", "64", "--split", outputs=("a", "b", "c"))
    path = make(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    others = [(tmp_path / name).rename(tmp_path / "elsewhere" / name) for name in ("a", "b")]
    with kvm.open(path, parts=others) as kd:
        assert [(one.pid, one.comm) for one in kd.procs()] == processes
    alone = run("convert", "-q", "-c", "none", str(path), str(tmp_path / "some"))  # its kernel may be in the others
    assert alone.returncode == 1 or held(tmp_path / "some") < held(have(named_spec("6.1")).elf) // 2
    words = [word for other in others for word in ("--part", str(other))]
    done = run("convert", "-q", *words, str(path), str(tmp_path / "whole"))
    assert (done.returncode, done.stderr) == (0, "")
    with kvm.open(tmp_path / "whole") as kd:
        assert [(one.pid, one.comm) for one in kd.procs()] == processes


def test_raw_memory_with_a_map(tmp_path: Path, processes: list[tuple[int, str]]) -> None:
    path = by_map(pages)(tmp_path)
    with kvm.open(path, map=tmp_path / "map") as kd:
        assert [(one.pid, one.comm) for one in kd.procs()] == processes
    done = run("convert", "-q", "-c", "none", "--map", str(tmp_path / "map"), str(path), str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")
    assert held(tmp_path / "out") == sum(len(data) for _, data in pages())
    with kvm.open(tmp_path / "out") as kd:
        assert [(one.pid, one.comm) for one in kd.procs()] == processes


def test_raw_memory_that_begins_later_or_looks_like_something_else(tmp_path: Path) -> None:
    guest, path = have(named_spec("6.1")), tmp_path / "image"
    with guest.raw.open("rb") as whole, path.open("wb") as file:
        whole.seek(0x10_0000)
        file.write(b"\x7fELF\2\1\1" + whole.read()[7:])
    with kvm.open(path, phys_base=0x10_0000) as kd, kvm.open(guest.elf) as elf:
        task = kd.symbol("init_task")
        assert task == elf.symbol("init_task")
        assert kd.kread(task.address, 8000) == elf.kread(task.address, 8000)
    for words, start in (([], None), (["--raw"], None), (["--phys-base", "100000"], 0x10_0000)):
        out = tmp_path / "out"
        done = run("convert", "-q", "--force", "-c", "none", *words, str(path), str(out))
        assert done.returncode == (0 if start else 1), done.stderr
        if start:
            with open_target(str(out)) as target:
                assert next(iter(target.physical.ranges())).start == start


def test_the_second_kernel(tmp_path: Path) -> None:
    two: GuestImage = have(named_spec("two"))
    out = tmp_path / "out"
    done = run("convert", "-q", "-c", "none", "--kernel", "2", str(two.elf), str(out))
    assert (done.returncode, done.stderr) == (0, "")
    addresses = []
    for path, number in ((two.elf, None), (two.elf, 2), (out, None)):
        with kvm.open(path, kernel=number) as kd:
            addresses.append(kd.symbol("init_task").address)
    assert addresses[0] != addresses[1] == addresses[2]


def test_what_does_not_go_together(tmp_path: Path) -> None:
    elf = have(named_spec("6.1")).elf
    with pytest.raises(OpenError, match="no part of a split dump, and other parts are named"):
        kvm.open(elf, parts=[elf])
    with pytest.raises(OpenError, match="no kernel 7 in it"):
        kvm.open(elf, kernel=7)
    with pytest.raises(ValueError, match="not the running system"):
        kvm.open(raw=True)
    with open_target(str(elf)) as target, pytest.raises(TypeError, match="not a Target"):
        kvm.open(target, kernel=1)
    for options in (Options(raw=True), Options(parts=("a",)), Options(kernel=1)):
        with pytest.raises(OpenError, match="are of a file"):
            open_target("gdb:localhost:1", options=options)
    done = run("convert", "--phys-base", "x", str(elf), str(tmp_path / "out"))
    assert done.returncode == 2 and "is no address" in done.stderr
