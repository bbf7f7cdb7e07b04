"""``kshell convert`` as it is called: words, files, signals. Runs the real program on a real dump."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kshell.shell.convert import wants_conversion
from tests.guest.image import GuestImage
from tests.shell.test_batch import KSHELL, run


@pytest.mark.parametrize("words, wanted", [
    ("in out", True), ("-d 31 in out", True), ("in -c zstd out --force", True), ("--help", True), ("-- in out", True),
    ("in out more", True), ("", False), ("vmlinux", False), ("-e ::ps", False), ("-d 31 in", False), ("-", False),
    ("--to=elf in out", True), ("-q in", False),
    ("--raw --map m in out", True), ("--part a --part b in out", True), ("--kernel 2 vmlinux", False),
    ("-d31 -czstd in out", True), ("-e ::ps vmlinux more", False), ("-f script vmlinux -- 1", False)])
def test_the_word_is_a_command_only_with_two_operands(words: str, wanted: bool) -> None:
    assert wants_conversion(words.split()) is wanted


def test_a_dump_named_convert_is_opened(tmp_path: Path, guest_61: GuestImage) -> None:
    (tmp_path / "convert").symlink_to(guest_61.elf)
    done = subprocess.run([*KSHELL, "convert", "-e", "::status"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, check=True)
    assert "debugging crash dump convert" in done.stdout


def test_a_dump_is_converted_and_told(tmp_path: Path, guest_61: GuestImage) -> None:
    out = tmp_path / "small"
    done = run("convert", "-c", "zstd", "-d", "31", str(guest_61.elf), str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert "kdump (zstd)" in done.stdout and "of free pages" in done.stdout and "%" in done.stdout
    assert out.stat().st_size < guest_61.elf.stat().st_size // 8
    assert "dump level 31" in run("-e", "::status", str(out)).stdout
    again = run("convert", str(guest_61.elf), str(out))
    assert again.returncode == 1 and "exists" in again.stderr and "--force" in again.stderr
    itself = run("convert", "--force", str(out), str(out))
    assert itself.returncode == 1 and "the source itself" in itself.stderr
    smaller = run("convert", "-q", "--force", str(out), str(tmp_path / "again"))
    assert (smaller.returncode, smaller.stdout, smaller.stderr) == (0, "", "")
    raw = run("convert", "--to", "raw", str(out), str(tmp_path / "raw"))
    assert "reads as zeroes" in raw.stderr and "absent in the source, and here" in raw.stdout


def test_a_source_that_is_cut_is_told_of_even_quietly(tmp_path: Path, guest_61: GuestImage) -> None:
    cut, out = tmp_path / "cut", tmp_path / "out"
    with guest_61.elf.open("rb") as file:
        cut.write_bytes(file.read(guest_61.elf.stat().st_size - (1 << 20)))
    done = run("convert", "-q", "-c", "snappy", str(cut), str(out))
    assert (done.returncode, done.stdout) == (0, "") and out.exists()
    assert "is not complete" in done.stderr and "the file ends early" in done.stderr


@pytest.mark.parametrize("arguments, status, words", [
    (("convert", "nosuch", "out"), 1, "no such file"), (("convert", "-d", "32", "a", "b"), 2, "-d"),
    (("convert", "--to", "vhd", "a", "b"), 2, "--to"), (("convert", "a", "b", "c"), 2, "unexpected")])
def test_wrong_use_is_told(arguments: tuple[str, ...], status: int, words: str) -> None:
    done = run(*arguments)
    assert done.returncode == status and words in done.stderr


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, guest_61: GuestImage, number: int, status: int
) -> None:
    out = tmp_path / "folder"
    out.mkdir()
    child = subprocess.Popen([*KSHELL, "convert", "-c", "lzo", str(guest_61.elf), str(out / "out")],
                             stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size > 1 << 20 for path in out.iterdir()):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, list(out.iterdir())) == (status, [])
    assert "Traceback" not in err
