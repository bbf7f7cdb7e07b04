"""Tables of a kernel that are kept on disk: believed where the machine has them, else read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from kshell import cache
from kshell.errors import Fault, Reason
from kshell.memory.constants import LARGE, Constants
from kshell.memory.model import Memory

START = 0xFFFF_FFFF_8100_0000


class Machine(Memory):
    """One megabyte at *start*; counts the bytes that are read."""

    def __init__(self, start: int, data: bytes) -> None:
        self.start, self.data, self.count = start, data, 0

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        data = self.data[max(address - self.start, 0) :][:size]
        self.count += len(data)
        if len(data) == size:
            return data, None
        return data, Fault(address + len(data), size, Reason.NOT_MAPPED, partial=data)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("KSHELL_CACHE", "")


def test_read_once_wherever_the_kernel_is() -> None:
    data = bytes(range(256)) * 4096
    first = Machine(START, data)
    assert Constants(first, "abc", START).read(START + 10, 500_000) == data[10:500_010]
    moved = Machine(START + (32 << 20), data)
    assert Constants(moved, "abc", moved.start).view(moved.start + 10, 500_000) == data[10:500_010]
    assert 0 < moved.count < 10_000
    other = Machine(START, data)
    assert Constants(other, "abd", START).read(START + 10, 500_000) == data[10:500_010]
    assert other.count >= 500_000


@pytest.mark.parametrize("place", [10, 250_000, 500_000 + 10 - 1])
def test_another_content_is_seen(place: int) -> None:
    data = bytearray(1 << 20)
    Constants(Machine(START, bytes(data)), "abc", START).read(START + 10, 500_000)
    data[place : place + 1] = b"x"
    for _ in range(2):
        assert Constants(Machine(START, bytes(data)), "abc", START).read(START + 10, 500_000) == data[10:500_010]


def test_what_cannot_be_read_is_not_kept() -> None:
    machine = Machine(START, bytes(1 << 20))
    constants = Constants(machine, "abc", START)
    _, fault = constants.read_upto(START + (1 << 20) - LARGE, 2 * LARGE)
    assert fault is not None
    assert fault.reason is Reason.NOT_MAPPED
    machine.data += bytes(LARGE)
    assert constants.read(START + (1 << 20) - LARGE, 2 * LARGE) == bytes(2 * LARGE)
    assert constants.read(START, 100) == bytes(100)


def test_content_comes_with_its_hash() -> None:
    data = bytes(range(251)) * 4096
    for machine in (Machine(START, data), Machine(START, data)):
        content, digest = Constants(machine, "abc", START).content(START + 10, 500_000)
        assert content == data[10:500_010]
        assert digest == cache.key_of(data[10:500_010])
    assert machine.count < 10_000
    with pytest.raises(Fault):
        Constants(machine, "abc", START).content(START + len(data) - 10, 500_000)
