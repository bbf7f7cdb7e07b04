"""libkvm.md section 8, items 1 to 20: opening and closing. What each stands on: test_contract_items.py."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kshell import kvm
from kshell.kvm import (
    Kvm,
    OpenError,
    kvm_aread,
    kvm_close,
    kvm_getcmd,
    kvm_geterr,
    kvm_getproc,
    kvm_getu,
    kvm_kread,
    kvm_kwrite,
    kvm_namelist,
    kvm_nextproc,
    kvm_nlist,
    kvm_open,
    kvm_setproc,
)
from tests.guest.image import GuestImage
from tests.kvm.elf_files import ELF_HEADER, namelist
from tests.kvm.fixture_m import Image, K, U, open_m
from tests.kvm.labs import Lab

pytest_plugins = ["tests.guest.fixtures"]


#: Some systems have a /nonexistent, the home of nobody.
NOWHERE = "/nonexistent/kshell/vmcore"


def failure(
    capsys: pytest.CaptureFixture[str], path: str | None, names: str | None = None, flag: int = os.O_RDONLY,
) -> str:
    """Open what cannot be opened; return the one line on stderr without its prefix."""
    assert kvm_open(names, path, None, flag, "prog") is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("prog: ")
    return lines[0][6:]


@pytest.fixture
def held(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Return a function that tells what this process has open, and which temporary files it has made."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    def look() -> set[str]:
        found = {path.name for path in folder.iterdir()}
        for entry in Path("/proc/self/fd").iterdir():
            try:
                found.add(f"{entry.name} {entry.readlink()}")
            except OSError:
                continue        # the one that this listing used
        return found

    return look


def test_item_01_missing_file_silently(capfd: pytest.CaptureFixture[str]) -> None:
    assert kvm_open(None, NOWHERE, None, os.O_RDONLY, None) is None
    assert capfd.readouterr() == ("", "")


def test_item_02_missing_file_with_errstr(capfd: pytest.CaptureFixture[str]) -> None:
    assert NOWHERE in failure(capfd, NOWHERE)


@pytest.mark.parametrize("flag", [os.O_WRONLY, os.O_RDWR | os.O_CREAT, 7])
def test_item_03_illegal_flag(flag: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert f"{flag:#x}" in failure(capfd, NOWHERE, flag=flag)


@pytest.mark.parametrize("text", ["hello world\n", "x = 1\n" * 1000])
def test_item_04_text_file(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_text(text)
    assert "not a kernel core file" in failure(capfd, str(path))


@pytest.mark.parametrize("size", [0, 1, 4, 16, 63])
def test_item_05_cut_inside_the_header(size: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut"
    path.write_bytes(ELF_HEADER[:size])
    assert "header" in failure(capfd, str(path))
    with pytest.raises(OpenError) as caught:
        kvm.open(path)
    assert caught.value.kind == "header"


def test_item_05_every_cut_of_a_real_header(guest_61: GuestImage, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    whole = guest_61.elf.open("rb").read(4096)
    for size in (0, 1, 15, 63, 64, 100, 119, 120, 500, 4095):
        path.write_bytes(whole[:size])
        with pytest.raises(OpenError):
            kvm.open(path)


def test_item_06_bad_magic(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "magic"
    path.write_bytes(b"\x7fELG" + ELF_HEADER[4:] + bytes(4096))
    assert "0x7f454c47" in failure(capfd, str(path))


def test_item_07_versions(guest_61: GuestImage, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    head = bytearray(guest_61.elf.open("rb").read(1 << 16))
    for place, value in ((6, 2), (20, 9)):
        changed = bytearray(head)
        changed[place] = value
        path = tmp_path / "version"
        path.write_bytes(changed)
        message = failure(capfd, str(path))
        assert f"version {value}" in message
        assert "version 1" in message


def test_item_08_word_size(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "narrow"
    head = bytearray(ELF_HEADER)
    head[4] = 1
    path.write_bytes(head + bytes(4096))
    message = failure(capfd, str(path))
    assert "32-bit" in message
    assert "64-bit" in message


def test_item_09_symbols_of_the_dump_itself(guest: GuestImage) -> None:
    with kvm.open(guest.elf) as kd:
        assert kvm_namelist(kd) == str(guest.elf)
        for name in ("init_task", "linux_banner", "schedule"):
            assert kd.symbol(name).address == guest.oracle.symbol(name)


def test_item_10_namelist_that_is_not_there(
    guest_61: GuestImage, tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:
    assert NOWHERE in failure(capfd, str(guest_61.elf), NOWHERE)
    text = tmp_path / "text"
    text.write_text("no symbols here\n")
    assert str(text) in failure(capfd, str(guest_61.elf), str(text))


@pytest.mark.parametrize("names, missing", [(["init_task", "schedule"], "init_mm"), (["init_mm"], "init_task")])
def test_item_11_namelist_without_the_anchor(
    names: list[str], missing: str, guest_61: GuestImage, tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(namelist(names))
    assert missing in failure(capfd, str(guest_61.elf), str(path))
    path.write_text("".join(f"ffffffff81000000 D {name}\n" for name in names))
    assert missing in failure(capfd, str(guest_61.elf), str(path))


def test_item_11_stripped_namelist(guest_61: GuestImage, capfd: pytest.CaptureFixture[str]) -> None:
    assert "init_mm" in failure(capfd, str(guest_61.elf), str(guest_61.victim))


def test_item_11_namelist_of_the_kernel(guest: GuestImage, tmp_path: Path) -> None:
    """A System.map as the build wrote it: link addresses, and a name that the dump does not have."""
    with kvm.open(guest.elf) as kd:
        moved = kvm.kvm_kerndisp(kd)
    path = tmp_path / "System.map"
    kernel = [line for line in guest.oracle.kallsyms() if line.module is None]
    rows = [f"{line.address - moved:016x} {line.kind} {line.name}" for line in kernel if line.address >= 1 << 63]
    path.write_text("\n".join([*rows, f"{guest.oracle.symbol('linux_banner') - moved:016x} D only_in_the_map", ""]))
    with kvm.open(guest.elf, path) as kd:
        assert kvm_namelist(kd) == str(path)
        assert kd.symbol("only_in_the_map").address == guest.oracle.symbol("linux_banner")
        assert kd.kread(kd.symbol("only_in_the_map").address, 13) == b"Linux version"


def test_item_11_namelist_of_the_running_system(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(namelist(["init_mm", "init_task"]))
    with pytest.raises(OpenError):      # of another kernel, or nothing to compare it with: never ignored
        kvm.open(None, path)


def test_item_12_swapfile_changes_nothing(guest_61: GuestImage) -> None:
    kd = kvm_open(None, str(guest_61.elf), NOWHERE, os.O_RDONLY, None)
    assert kd is not None
    kvm_close(kd)


def test_item_13_failed_opens_leave_nothing(
    guest_61: GuestImage, tmp_path: Path, held: Callable[[], set[str]],
) -> None:
    text, cut, alien = tmp_path / "text", tmp_path / "cut", tmp_path / "vmlinux"
    text.write_text("hello")
    cut.write_bytes(guest_61.elf.open("rb").read(1 << 20))
    alien.write_bytes(namelist(["main"]))
    before = held()
    for path, names in ((str(text), None), (str(cut), None), (NOWHERE, None), (str(guest_61.elf), str(alien)),
                        (str(guest_61.elf), NOWHERE), (str(guest_61.victim), None), (str(tmp_path), None)):
        assert kvm_open(names, path) is None
    assert held() == before


def test_item_14_kvm_debug(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KVM_DEBUG", "1")
    assert kvm_open(None, NOWHERE) is None
    assert capfd.readouterr().err.startswith("KVM_DEBUG: ")


def test_item_15_open_error() -> None:
    with pytest.raises(OpenError) as caught:
        kvm.open(NOWHERE)
    assert caught.value.kind == "missing"
    assert caught.value.filename == NOWHERE
    assert isinstance(caught.value, OSError)
    assert caught.value.errno


def test_item_16_two_handles(lab: Lab) -> None:
    with lab.open("r") as one, lab.open("r") as two:
        kvm_getu(one, one.proc(lab.pid))
        assert one.uread(lab.u, 8) == lab.user(0, 8)
        with pytest.raises(kvm.NoProcessError):
            two.uread(lab.u, 8)
        kvm_getu(two, two.proc(lab.other[0]))
        assert one.uread(lab.other[1], 8) == lab.other[2]
        assert two.uread(lab.other[1], 8) == lab.other[3]
        first = kvm_nextproc(one)
        second = kvm_nextproc(one)
        other_first = kvm_nextproc(two)
        assert first and second and other_first
        assert first.pid == other_first.pid != second.pid
        with pytest.raises(ValueError, match="another handle"):
            two.getu(first)


def test_item_17_close_twice(lab: Lab) -> None:
    kd = lab.open("r")
    proc = kd.proc(lab.pid)
    assert kvm_close(kd) == 0
    assert kvm_close(kd) == 0
    buffer = bytearray(8)
    calls: list[Callable[[], object]] = [
        lambda: kvm_kread(kd, lab.k, buffer), lambda: kvm_kwrite(kd, lab.k, b"x"), lambda: kvm_setproc(kd),
        lambda: kvm_nextproc(kd), lambda: kvm_getproc(kd, lab.pid), lambda: kvm_getu(kd, proc),
        lambda: kvm_getcmd(kd, proc, None, [], []), lambda: kvm_nlist(kd, []), lambda: kvm_geterr(kd),
        lambda: kvm_namelist(kd), lambda: kvm_kread(kd, lab.k, buffer, 0), lambda: kd.kread(lab.k, 8),
        lambda: list(kd.procs()), lambda: kd.symbol("init_mm"), lambda: kd.vtop(lab.k), lambda: proc.read(lab.u, 8),
        lambda: kvm.kvm_kerndisp(kd), lambda: kvm.kvm_physaddr(kd, kvm.KAS, lab.k),
        lambda: kvm.kvm_walk_pages(kd, lambda page, arg: 1), lambda: kvm_aread(kd, lab.k, buffer, 8, kvm.KAS),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()


def test_item_18_with_block(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError), lab.open("r") as kd:
        raise ZeroDivisionError
    assert kd.closed


@pytest.mark.parametrize("mode", ["r", "c"])
def test_item_19_close_leaves_nothing(mode: str, guest_61: GuestImage, held: Callable[[], set[str]]) -> None:
    before = held()
    kd = kvm.open(guest_61.elf, mode=mode)
    assert kd.kread(kd.symbol("linux_banner").address, 13) == b"Linux version"
    assert [proc.pid for proc in kd.procs()][:2] == [0, 1]
    assert held() != before
    kd.close()
    assert held() == before


def test_item_20_snapshots_survive(lab: Lab) -> None:
    kd = lab.open("r")
    proc = kd.proc(lab.pid)
    user = kvm_getu(kd, proc)
    arg: list[str] = []
    env: list[str] = []
    assert kvm_getcmd(kd, proc, user, arg, env) == 0
    kvm_close(kd)
    assert (arg, env) == (lab.argv, lab.environ)
    assert (proc.pid, proc.comm != "", proc.state, proc.is_kernel) == (lab.pid, True, proc.state, False)
    assert user is not None
    assert user.arg_end > user.arg_start
    assert repr(proc)


def test_open_takes_only_its_modes() -> None:
    with pytest.raises(ValueError, match="mode"):
        kvm.open(NOWHERE, mode="w")
    with pytest.raises(TypeError):
        kvm_open(None, b"x")  # type: ignore[arg-type]


def test_the_line_on_stderr_stays_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert failure(capfd, str(tmp_path / "a\nb\x1b[2J"))


def test_directory_device_and_pipe(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert failure(capfd, str(tmp_path))
    assert failure(capfd, "/dev/null")
    os.mkfifo(tmp_path / "pipe", stat.S_IRUSR | stat.S_IWUSR)
    assert failure(capfd, str(tmp_path / "pipe"))       # and does not wait for a writer


def test_handles_over_one_image_share_it() -> None:
    image = Image()
    with open_m("r+", image) as one, open_m("r", image) as two:
        one.kwrite(K, b"shared")
        assert two.kread(K, 6) == b"shared"
        assert isinstance(two, Kvm)
        assert U
