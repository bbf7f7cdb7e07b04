"""Copy on write: reads, gathers and windows see the writes; what lies below does not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.errors import Fault, Reason
from kshell.memory.elfcore import open_elfcore
from kshell.memory.overlay import Overlay
from kshell.memory.segments import Piece, Segments
from tests.memory.cores import PAGE, Load, core
from tests.memory.held import Held

SIZE = 3 * PAGE


@given(st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=PAGE + 50)), max_size=6),
       st.integers(0, SIZE + 10), st.integers(0, SIZE + 10))
@settings(max_examples=150, deadline=None)
def test_it_is_a_bytearray(writes: list[tuple[int, bytes]], address: int, size: int) -> None:
    below = Held({0: bytes(range(256)) * (SIZE // 256)})
    before = below.read(0, SIZE)
    model = bytearray(before)
    memory = Overlay(below)
    for start, data in writes:
        room = SIZE - start
        if len(data) > room:
            with pytest.raises(Fault) as caught:
                memory.write(start, data)
            assert (caught.value.done, caught.value.address) == (room, SIZE)
        else:
            memory.write(start, data)
        model[start : start + len(data)] = data[:room]
    assert len(model) == SIZE
    found, fault = memory.read_upto(address, size)
    assert found == bytes(model[address : address + size])
    assert fault is None or fault.partial == found
    buffer = bytearray(size)
    memory.read_into(address, memoryview(buffer))
    assert buffer[: len(found)] == found
    rows = [*range(0, SIZE, 509), SIZE - 8, SIZE - 7]
    got = memory.gather(rows, 8)
    for number, row in enumerate(rows):
        assert bool(got.ok[number]) == (row <= SIZE - 8)
        assert not got.ok[number] or got.data[number].tobytes() == model[row : row + 8]
    window = memory.window(min(address, SIZE - 1))
    assert window is not None
    assert bytes(window.view) == model[window.start : window.end]
    assert below.read(0, SIZE) == before


def test_only_what_is_held_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(core([Load(0x1000, b"abcd", memsz=8)]))
    memory = Overlay(open_elfcore(str(path)))
    with pytest.raises(Fault) as caught:
        memory.write(0x1002, b"12345")
    assert (caught.value.reason, caught.value.done, caught.value.verb) == (Reason.EXCLUDED, 2, "write")
    assert memory.read(0x1000, 4) == b"ab12"
    with pytest.raises(Fault):
        memory.read(0x1000, 5)
    assert path.read_bytes().endswith(b"abcd")


def test_a_write_counts_for_both() -> None:
    below = Held({0: bytes(PAGE)}, writable=True)
    memory = Overlay(below)
    before = below.epoch.count
    memory.write(0, b"x")
    assert memory.epoch is below.epoch
    assert below.epoch.count > before
    assert memory.file_run(0) is None


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.booleans()), max_size=12))
@settings(max_examples=300, deadline=None)
def test_segments_are_disjoint_and_the_best_wins(rows: list[tuple[int, int, bool]]) -> None:
    pieces = [Piece(a, a + n, 1000 * i, None if held else Reason.EXCLUDED) for i, (a, n, held) in enumerate(rows)]
    segments = Segments(pieces)
    ends = [(piece.start, piece.end) for piece in segments.pieces]
    assert all(start < end for start, end in ends)
    assert all(first[1] <= second[0] for first, second in pairwise(ends))
    for address in range(65):
        over = [piece for piece in pieces if piece.start <= address < piece.end]
        best = min(over, key=lambda piece: piece.reason is not None, default=None)
        found = segments.find(address)
        assert (found is None) == (best is None)
        if found is not None and best is not None:
            assert found.reason is best.reason
            assert best.reason is not None or found.offset + address - found.start == (
                best.offset + address - best.start
            )
