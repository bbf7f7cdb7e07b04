"""Options that tell of an image what cannot be seen in it: --raw, --phys-base, --map, --part, --kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.cache import copy_sparse
from tests.guest.image import GuestImage


def kshell(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kshell", *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("words", [
    ("--raw",), ("--phys-base", "100000"), ("--map", "x"), ("--part", "x"), ("--kernel", "1"),
])
def test_they_need_an_image(words: tuple[str, ...]) -> None:
    done = kshell(*words)
    assert done.returncode == 2 and "about TARGET, and there is none" in done.stderr


@pytest.mark.parametrize("words", [("--phys-base", "ten"), ("--kernel", "0"), ("--kernel", "x")])
def test_numbers_that_are_none(words: tuple[str, ...]) -> None:
    done = kshell(*words, "image")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_raw_memory_that_begins_elsewhere(tmp_path: Path, guest_61: GuestImage) -> None:
    """The guest's memory without its first MiB is read at its addresses when that is said, and is no kernel else."""
    path = tmp_path / "rest"
    copy_sparse(guest_61.raw, path, guest_61.raw.stat().st_size - (1 << 20), 1 << 20)
    question = ("-e", "::ps ! grep victim", "-e", "::status ! grep ^image")
    done = kshell("--phys-base", "0x100000", *question, str(path))
    assert done.returncode == 0 and " victim" in done.stdout
    assert "image: raw physical memory (from 0x100000 on), 255 MiB" in done.stdout
    done = kshell(*question, str(path))
    assert done.returncode == 1 and "read as raw physical memory it has no kernel" in done.stderr


def test_an_elf_dump_as_raw_memory_has_no_kernel(guest_61: GuestImage) -> None:
    done = kshell("--raw", "-e", "::status", str(guest_61.elf))
    assert done.returncode == 1 and "nothing tells where its kernel is" in done.stderr
