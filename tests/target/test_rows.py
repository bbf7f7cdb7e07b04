"""Reads of many rows at once, and lists followed with their rows: against plain reads, over file-backed memory."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.arch.x86_64 import X86_64
from kshell.linux.tasks import Task, iter_processes, process_rows, read_tasks, task_columns
from kshell.memory.elfcore import ElfCore, open_elfcore
from kshell.memory.overlay import Overlay
from kshell.target.open import open_target
from kshell.target.space import AddressSpace, Linear
from tests.guest.image import GuestImage
from tests.memory.cores import Load, core

DIRECT = 0xFFFF_8880_0000_0000
MIB = 1 << 20
FIRST, SECOND = bytes(i * 7 & 255 for i in range(MIB)), bytes(i * 11 & 255 for i in range(MIB))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ElfCore:
    """Two runs of RAM with a hole of 1 MiB between them, at 0, 1 and 2 MiB."""
    path = tmp_path_factory.mktemp("rows") / "core"
    path.write_bytes(core([Load(0, FIRST), Load(2 * MIB, SECOND)]))
    return open_elfcore(str(path))


def direct(physical: ElfCore | Overlay) -> AddressSpace:
    space = AddressSpace(physical, X86_64().paging(4), 0, half=(1 << 63, 1 << 64))
    space.add_windows([Linear(DIRECT, DIRECT + 8 * MIB, 0)])
    return space


def plain(space: AddressSpace, address: int, size: int) -> bytes | None:
    data, fault = space.read_upto(address, size)
    return data if fault is None else None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4 * MIB), max_size=20), st.integers(1, 9000))
def test_rows_are_what_single_reads_are(image: ElfCore, offsets: list[int], size: int) -> None:
    space = direct(image)
    addresses = [DIRECT + offset for offset in [*offsets, MIB - 4, 2 * MIB - 4, 3 * MIB - 1]]
    assert space.read_many(addresses, size) == [plain(space, address, size) for address in addresses]


def test_rows_of_one_run_and_of_none(image: ElfCore) -> None:
    space = direct(image)
    assert space.read_many([], 8) == []
    assert space.read_many([DIRECT, DIRECT + 16], 8) == [FIRST[:8], FIRST[16:24]]
    assert space.read_many([0, DIRECT + MIB, 1 << 63], 8) == [None, None, None]


def test_rows_see_what_was_written(image: ElfCore) -> None:
    space = direct(Overlay(image))
    assert space.read_many([DIRECT + 64], 8) == [FIRST[64:72]]
    space.write(DIRECT + 66, b"xyz")
    assert space.read_many([DIRECT + 64, DIRECT + 128], 8) == [FIRST[64:66] + b"xyz" + FIRST[69:72], FIRST[128:136]]


def test_a_large_translation_ends_where_its_window_does(image: ElfCore) -> None:
    space = AddressSpace(image, X86_64().paging(4), 0, half=(1 << 63, 1 << 64))
    # two windows share 2 MiB of addresses and lead elsewhere
    space.add_windows([Linear(DIRECT, DIRECT + MIB, 0), Linear(DIRECT + MIB, DIRECT + 2 * MIB, 2 * MIB)])
    for _ in range(2):
        assert space.read(DIRECT + 100, 8) == FIRST[100:108]
        assert space.read(DIRECT + MIB + 100, 8) == SECOND[100:108]
        assert space.translate(DIRECT + MIB + 5) == 2 * MIB + 5
        assert space.read(DIRECT + MIB - 4, 8) == FIRST[-4:] + SECOND[:4]


def test_a_list_with_its_rows(tmp_path: Path) -> None:
    places = [0x1000, 0x2008, 0x5000, 0x3FF8, 0x7010]
    data = bytearray(bytes(i & 255 for i in range(0x8000)))
    for here, following in zip(places, [*places[1:], places[0]], strict=True):
        data[here : here + 8] = struct.pack("<Q", DIRECT + following)
    path = tmp_path / "core"
    path.write_bytes(core([Load(0, bytes(data))]))
    with open_elfcore(str(path)) as physical:
        space = direct(physical)
        nodes, (before, rows) = space.chase_rows(DIRECT + places[0], 0, [(-16, 8), (0, 24)])
        assert nodes == space.chase(DIRECT + places[0]) == [DIRECT + place for place in places[1:]]
        assert len(rows) == len(before) == len(nodes)
        for node, early, row in zip(nodes, before, rows, strict=True):
            assert row is None or (row, early) == (space.read(node, 24), space.read(node - 16, 8))
        assert sum(row is not None for row in rows) >= 3


@pytest.mark.parametrize("kind", ["elf", "kdump_flat"])
def test_processes_are_the_same_with_and_without_held_rows(guest_61: GuestImage, kind: str) -> None:
    with open_target(str(getattr(guest_61, kind))) as target:
        addresses, held = process_rows(target)
        assert held and all(len(one.rows) == len(addresses) > 50 and None not in one.rows[1:] for one in held)
        with_rows = task_columns(target, addresses, *Task._fields, held=held)
        assert with_rows == task_columns(target, addresses, *Task._fields)
        assert list(iter_processes(target)) == list(read_tasks(target, addresses))
