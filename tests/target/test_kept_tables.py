"""The types of a kernel in a compressed dump: decompressed once, then kept for that file, and checked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.memory.kdump import Kdump
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.target.vmcoreinfo import Vmcoreinfo
from tests.guest.image import GuestImage


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("KSHELL_CACHE", "")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes each read of a dump asked for."""
    sizes: list[int] = []
    plain = Kdump.read_upto

    def read_upto(self: Kdump, address: int, size: int) -> object:
        sizes.append(size)
        return plain(self, address, size)

    monkeypatch.setattr(Kdump, "read_upto", read_upto)
    yield sizes


def task(target: Target) -> str:
    return str(target.type("struct task_struct").size) + target.findings["types"]


def test_the_types_are_decompressed_once(guest_61: GuestImage, loaded: list[int], tmp_path: Path) -> None:
    counts, told = [], []
    for _ in range(2):
        loaded.clear()
        with open_target(str(guest_61.folder / "kdump.zlib")) as target:
            told.append(task(target))
        counts.append(sum(loaded))
    assert told[0] == told[1]
    assert counts[0] > (4 << 20)
    assert counts[1] < (1 << 20)
    with open_target(str(guest_61.elf)) as target:
        assert task(target) == told[0]
    loaded.clear()  # what one file says is not believed of another
    shutil.copy(guest_61.folder / "kdump.zlib", tmp_path / "other")
    with open_target(str(tmp_path / "other")) as target:
        assert task(target) == told[0]
    assert sum(loaded) > (4 << 20)


def test_a_private_copy_is_read_as_it_is(guest_61: GuestImage) -> None:
    path = str(guest_61.folder / "kdump.zlib")
    with open_target(path) as target:
        task(target)
    with open_target(path, mode="c") as target:
        target.kernel.write(target.symbol("__start_BTF").address, b"none")
        assert len(list(target.types.sources)) == 0
        assert "none: not BTF" in target.findings["types"]


def test_a_build_id_is_hexadecimal() -> None:
    for text, expected in (("a1" * 20, "a1" * 20), ("0" * 40, None), ("../" * 13 + "x", None), ("a1" * 19, None)):
        assert Vmcoreinfo(f"OSRELEASE=6.1\nBUILD-ID={text}\n".encode()).build_id == expected
