"""Work spread over threads: results in order, failures told, nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from kshell.memory import threads
from kshell.memory.threads import stream


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
