"""What ``::watch`` marks, and its rounds in a pipe and on a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kshell.watching import Piece, compare
from tests.shell.terminal import Terminal


def marked(before: list[str] | None, now: list[str]) -> list[list[str]]:
    return [[piece.text for piece in line if piece.changed] for line in compare(before, now)]


def test_words_that_differ_are_marked() -> None:
    assert marked(None, ["a 1"]) == [[]]
    assert marked(["S 1 init", "S 2 x"], ["S 1 init", "R 2 x"]) == [[], ["R"]]
    assert marked(["jiffies: 10"], ["jiffies: 12"]) == [["12"]]
    assert marked(["a 1", "b 2"], ["b 2", "a 1"]) == [[], []]  # moved, not changed
    assert marked(["a 1"], ["a 1", "c 5 6"]) == [[], ["c 5 6"]]
    assert compare(["a  1"], ["a  2"]) == [[Piece("a", False), Piece("  ", False), Piece("2", True)]]


def kshell(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "kshell", "-n", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_rounds_follow_each_other_in_a_pipe() -> None:
    done = kshell("-e", "0>x; ::watch -n 0.05 -c 3 '<x+1>x; <x=D; ::echo same'")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line for line in lines if "round" in line and "every 0.05 s: <x+1>x" in line] == [
        line for line in lines if "round" in line]
    shown = [line.split() for line in lines if line and "round" not in line]
    assert shown == [["1"], ["same"], ["*", "2"], ["same"], ["*", "3"], ["same"]]


@pytest.mark.parametrize("line, told", [
    ("::watch", "which command"), ("::watch -n 0 1=X", "0.05 to 86400"), ("::watch -n x 1=X", "a number of seconds"),
    ("::watch -c 1 1=X | ::count", "stands alone"),
])
def test_wrong_use(line: str, told: str) -> None:
    assert told in kshell("-e", line, status=1).stderr


def test_an_error_in_a_round_is_shown_and_the_rounds_go_on() -> None:
    done = kshell("-e", "::watch -n 0.05 -c 2 nonsense=X")
    assert done.stdout.count("kshell: failed to dereference symbol") == 2


def test_on_a_terminal_one_screen_and_ctrl_c(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "-n")
    try:
        terminal.prompt()
        terminal.enter("::watch -n 0.1 '<_=X; ::time'")
        terminal.wait("round 3, every 0.1 s")
        terminal.type("\x03")
        terminal.prompt()
    finally:
        terminal.child.close(force=True)
