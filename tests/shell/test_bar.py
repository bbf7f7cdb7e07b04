"""The bar that tells how far long work is: late, on one line, and gone before anything else is written."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator

import pytest

from kshell.console import Console
from kshell.output import Output, Text
from kshell.session import Session
from kshell.shell.bar import Bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_quick_work_has_no_bar_and_slow_work_tells_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str],
) -> None:
    bar = Bar(shown=True, after=0.5)
    for done in (10, 20):
        bar.show("searching", done, 100)
        clock[0] += 0.2
    assert capsys.readouterr().err == ""
    clock[0] += 0.6
    bar.show("searching", 50, 100)
    assert capsys.readouterr().err == f"\rsearching [{'#' * 15}{'.' * 15}]  50%  1 s left"
    bar.show("", 100, 100)
    wiped = capsys.readouterr().err
    assert wiped.startswith("\r ") and wiped.endswith(" \r")
    bar.show("searching", 1, 100)  # the same work again begins anew
    assert capsys.readouterr().err == ""


def test_no_bar_where_there_is_no_terminal(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(shown=False)
    bar.show("searching", 1, 2)
    bar.show("", 2, 2)
    assert capsys.readouterr().err == ""


def test_the_bar_is_wiped_before_a_row_is_written(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = Bar(shown=True)
    console = Console(Session(), screen, screen)
    console.wipe = bar.clear

    def found() -> Iterator[Output]:
        bar.show("searching", 1, 2)
        yield Text("a hit")

    console.show(found())
    before, _, after = screen.getvalue().rpartition("\r")
    assert "50%" in before and after == "a hit\n"
