"""Work spread over threads: results in order, failures told, nothing left running."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.memory import threads
from kshell.memory.pread import TURN, preadv_large
from kshell.memory.threads import at_once, stream


@pytest.fixture(autouse=True, params=[1, 2, 5])
def _cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: request.param)


def square(number: int) -> int:
    return number * number


def fails_at_7(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number


def test_results_are_in_order() -> None:
    assert list(stream(square, range(1000))) == [n * n for n in range(1000)]
    assert list(stream(square, [])) == []


def test_a_failure_is_the_callers_and_ends_the_others() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="seven"):
        list(stream(fails_at_7, range(100)))
    assert threading.active_count() == before


def test_a_stream_begins_few_jobs_ahead_and_ends_with_its_reader() -> None:
    before, asked = threading.active_count(), []

    def jobs() -> Iterator[int]:
        for number in range(1000):
            asked.append(number)
            yield number

    reader = stream(square, jobs())
    assert next(reader) == 0
    reader.close()  # type: ignore[attr-defined]
    assert len(asked) <= 2 * threads.cores() + 1
    assert threading.active_count() == before


def test_jobs_at_once_are_all_done_or_end_with_the_first_failure() -> None:
    done: list[int] = []
    at_once(done.append, range(1000), 4)
    assert sorted(done) == list(range(1000))
    at_once(done.append, range(0), 4)
    before = threading.active_count()
    with pytest.raises(ValueError, match="seven"):
        at_once(fails_at_7, range(100_000), 4)
    assert threading.active_count() == before


@pytest.mark.parametrize("size", [TURN * 9 + 5, TURN * 5 + 1, TURN * 2, 3, 0])
def test_a_large_read_ends_where_the_file_does(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before" + random.Random(size).randbytes(size))
    buffer = bytearray(TURN * 9 + 5)
    with path.open("rb") as file:
        assert preadv_large(file.fileno(), memoryview(buffer), 6) == size
        assert buffer[:size] == path.read_bytes()[6:]
    assert preadv_large(-1, memoryview(buffer), 0) == 0
