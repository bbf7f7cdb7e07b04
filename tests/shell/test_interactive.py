"""The prompt on a real pty: banner, editing, completion, errors with carets, interrupts, history, pager."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.session import Session
from kshell.shell.banner import banner
from tests.fake_target import fake_target
from tests.shell.terminal import Terminal

DEMO = [sys.executable, "-m", "tests.shell.demo_session"]
LESS = pytest.mark.skipif(shutil.which("less") is None, reason="no less")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path, program=DEMO)
    made.prompt()
    yield made
    made.child.close(force=True)


def test_calculator_on_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "-n")
    terminal.wait("no target: a calculator")
    terminal.prompt()
    terminal.enter("2+3=X")
    terminal.wait("                5")
    terminal.type("\x04")
    assert terminal.status() == 0


def test_quiet_has_no_banner(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "-n", "-q")
    terminal.prompt()
    assert "calculator" not in terminal.text
    terminal.child.close(force=True)


def test_banner_is_short(terminal: Terminal) -> None:
    shown = [line for line in terminal.lines if line]
    assert shown[0].startswith("kshell 0")
    assert "fake memory" in shown[0]
    assert "6.1.0-fake" in terminal.text
    assert next(at for at, line in enumerate(terminal.lines) if line.startswith(">")) <= 8


def test_banner_of_long_findings_fits_eight_lines() -> None:
    session = Session(fake_target())
    for fact in ("kernel", "symbols", "types", "missing"):
        session.target.findings[fact] = "a long story " * 40 + "\x1b[2J"
    lines = list(banner(session, 60))
    assert len(lines) == 8
    assert all(len(line) <= 60 or line.startswith(("kshell", " next")) for line in lines)
    assert "\x1b" not in "".join(lines)


def test_table_error_and_caret(terminal: Terminal) -> None:
    terminal.enter("::rows")
    terminal.wait("0000000000000002 row 2")
    terminal.enter("1=X; ::rosw")
    terminal.wait("did you mean ::rows?")
    caret = next(at for at, line in enumerate(terminal.lines) if "^^^^^^" in line)
    line = next(line for line in terminal.lines if "::rosw" in line)
    assert terminal.lines[caret].index("^") == line.index("::rosw")
    terminal.enter("::bug")
    terminal.wait("bug in kshell or its module testing: RuntimeError: oops")
    terminal.enter("7=X")
    terminal.wait("                7")


def test_control_c_clears_the_line_and_control_d_leaves(terminal: Terminal) -> None:
    terminal.type("::nosuch thing")
    terminal.wait("::nosuch thing")
    terminal.type("\x03")
    terminal.enter("5=X")
    terminal.wait("                5")
    assert "unknown" not in terminal.text
    terminal.type("\x04")
    assert terminal.status() == 0


def test_control_c_stops_a_command_and_keeps_what_it_printed(terminal: Terminal) -> None:
    terminal.enter("::endless")
    terminal.wait("started", 5)
    terminal.type("\x03")
    terminal.wait("kshell: stopped")
    terminal.enter("5=X")
    terminal.wait("                5")


def test_a_shell_command_that_has_seen_enough_stops_the_dcmd(terminal: Terminal) -> None:
    terminal.enter("::endless ! head -n 3")
    terminal.wait("started\n.\n.\n>")


@LESS
def test_control_c_stops_the_pager_too(terminal: Terminal) -> None:
    terminal.enter("::endless")
    terminal.wait("\n:")  # less waits for a key, and the dcmd goes on
    terminal.type("\x03")
    terminal.type("q")
    terminal.wait("kshell: stopped")
    terminal.enter("5=X")
    terminal.wait("                5")


def test_quit(terminal: Terminal) -> None:
    terminal.enter("::quit")
    assert terminal.status() == 0


def test_prompt_tells_the_context_and_writing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, program=[*DEMO, "-w"])
    terminal.prompt("!")
    terminal.enter("::enter")
    terminal.prompt("pid 4211!")
    terminal.child.close(force=True)


def test_completion_of_dcmds(terminal: Terminal) -> None:
    terminal.type("::en\t")
    terminal.wait("::endless")
    terminal.wait("Never end")
    terminal.wait("::enter")


@pytest.mark.parametrize("typed, offered", [
    ("::walk nu\t", "::walk numbers"), ("init_\t", "init_task"), ("10::print struct task\t", "struct task_struct"),
    ("::rows -\t", "-a"),
])
def test_completion_of_arguments(terminal: Terminal, typed: str, offered: str) -> None:
    terminal.type(typed)
    terminal.wait(offered)


def test_toolbar_shows_the_signature(terminal: Terminal) -> None:
    terminal.type("::rows ")
    terminal.wait("[,count]::rows [-a]")


def test_history_survives_and_is_private(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, program=DEMO)
    terminal.prompt()
    terminal.enter("1234=X")
    terminal.wait("                1234")
    terminal.enter(" 777=X")
    terminal.wait("                777")
    terminal.type("\x04")
    assert terminal.status() == 0
    file = tmp_path / ".local" / "state" / "kshell" / "history"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "1234=X" in file.read_text()
    assert "777" not in file.read_text(), "a line that begins with a blank is not kept"
    again = Terminal(tmp_path, program=DEMO)
    again.prompt()
    again.type("\x1b[A")
    again.wait("> 1234=X")
    again.child.close(force=True)


@LESS
def test_long_output_goes_through_the_pager(terminal: Terminal) -> None:
    terminal.enter(",0t100::rows")
    terminal.wait("row 21")
    assert "row 99" not in terminal.text
    terminal.type("q")
    terminal.enter("5=X")
    terminal.wait("                5")


@pytest.mark.skipif(shutil.which("more") is None, reason="no more")
def test_without_less_there_is_more(tmp_path: Path) -> None:
    (tmp_path / "more").symlink_to(str(shutil.which("more")))
    terminal = Terminal(tmp_path, program=DEMO, PATH=str(tmp_path), PAGER="")
    terminal.prompt()
    terminal.enter(",0t100::rows")
    terminal.wait("--More--")
    assert "row 99" not in terminal.text
    terminal.type("q")
    terminal.enter("5=X")
    terminal.wait("                5")
    terminal.child.close(force=True)


def test_quitting_the_pager_stops_the_command(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, program=DEMO, PAGER="head -n 2")
    terminal.prompt()
    terminal.enter(",0t100000000::rows")
    terminal.wait("row 0")
    terminal.enter("5=X")
    terminal.wait("                5")
    terminal.child.close(force=True)


def test_shell_commands_have_the_terminal(terminal: Terminal) -> None:
    terminal.enter("! test -t 0 && test -t 1 && echo both are terminals")
    terminal.wait("\nboth are terminals")
