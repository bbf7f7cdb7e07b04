"""The command line: -e, -f, standard input, exit statuses, closed pipes. Runs the real program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KSHELL = [sys.executable, "-m", "kshell"]


def run(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*KSHELL, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **(env or {})})
    assert "Traceback" not in done.stderr
    return done


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_calculator() -> None:
    done = run("-n", "-e", "2+3=X")
    assert (lines(done.stdout), done.stderr, done.returncode) == (["5"], "", 0)


def test_several_e() -> None:
    assert lines(run("-n", "-e", "2>x", "-e", "<x+1=X; <x+2=X").stdout) == ["3", "4"]


@pytest.mark.parametrize("arguments, status", [
    (("-n", "-e", "1=X"), 0),
    (("-n", "-e", "1=X; ::nosuch"), 1),        # does not parse
    (("-n", "-e", "1/X; 1=X"), 0),             # the last one was fine
    (("-n", "-e", "1=X; 1/X"), 1),             # the last one failed
    (("-n", "-e", "nosuch=X"), 1),
    (("-n", "--stop-on-error", "-e", "1/X; 1=X"), 1),
    (("-n", "-w"), 2), (("-w", "--cow", "-n"), 2), (("--nosuch",), 2), (("-e", "1=X", "-f", "x"), 2),
    (("-n", "-f", "/nonexistent"), 1),
    (("/nonexistent/dump", "-e", "1=X"), 1),
    (("--version",), 0), (("-h",), 0),
])
def test_exit_status(arguments: tuple[str, ...], status: int) -> None:
    done = run(*arguments)
    assert done.returncode == status, done
    assert bool(done.stderr) == (status != 0 or "1/X" in " ".join(arguments))


def test_a_bug_at_the_opening_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import kshell.target.open\n\ndef broken(*_):\n    raise ZeroDivisionError('as by a crafted dump')\n\n"
        "kshell.target.open.open_target = broken\n")
    where = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "XDG_STATE_HOME": str(tmp_path)}
    done = run("/dev/null", "-e", "1=X", env=where)
    assert done.returncode == 1
    assert done.stderr.startswith("kshell: bug in kshell: ZeroDivisionError: as by a crafted dump\n        trace kept")


def test_stdin() -> None:
    done = run("-n", stdin="1=X\n::nosuch; 2=X\n\n3=X // comment\n4+=X; 5=X\n6=X")
    assert lines(done.stdout) == ["1", "2", "3", "5", "6"], "goes on after errors, and the last line needs no newline"
    assert done.returncode == 0
    assert "(stdin):2: kshell: invalid command '::nosuch'" in done.stderr


def test_stdin_stops_on_error_when_asked() -> None:
    done = run("-n", "--stop-on-error", stdin="1=X\n::nosuch\n2=X\n")
    assert (lines(done.stdout), done.returncode) == (["1"], 1)


def test_lines_are_obeyed_as_they_come() -> None:
    child = subprocess.Popen([*KSHELL, "-n"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    for number in range(1, 4):
        child.stdin.write(f"{number}=X\n")
        child.stdin.flush()
        assert child.stdout.readline().strip() == str(number)
    child.stdin.close()
    assert child.wait(10) == 0
    child.stdout.close()


def test_script(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env kshell\n1=X\n::nosuch\n2=X")
    done = run("-n", "-f", str(script))
    assert (lines(done.stdout), done.returncode) == (["1", "2"], 1)
    assert f"{script}:3: kshell: " in done.stderr
    script.write_text("1=X\n")
    assert run("-n", "-f", str(script)).returncode == 0


def test_no_prompt_and_no_echo_without_a_terminal() -> None:
    assert run("-n", stdin="1=X\n").stdout.strip() == "1"


def test_json() -> None:
    done = run("-n", "--json", "-e", "1=X; ::nosuch")
    assert done.stdout == '{"text": "                1               "}\n'
    assert done.stderr.startswith('{"error": "invalid command')


def test_json_goes_into_shell_commands_too() -> None:
    done = run("-n", "--json", "-e", "1=X ! tr a-z A-Z", "-e", "! echo as it is")
    assert done.stdout == '{"TEXT": "                1               "}\nas it is\n'


def test_a_closed_pipe_is_quiet() -> None:
    line = f"{' '.join(KSHELL)} -n -e '1,100000=Xn' | head -n 1"
    done = subprocess.run(["/bin/bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert (lines(done.stdout), done.stderr, done.returncode) == (["1"], "", 0)


def test_a_closed_pipe_for_errors_is_quiet_too() -> None:
    line = f"{' '.join(KSHELL)} -n -e '::echo a; ! sleep 0.5' -e '::nosuch' 2>&1 | head -n 1"
    done = subprocess.run(["/bin/bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert (lines(done.stdout), done.stderr, done.returncode) == (["a"], "", 0)


def test_convert_without_images(tmp_path: Path) -> None:
    done = subprocess.run([*KSHELL, "convert"], capture_output=True, text=True, check=False, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and "kshell convert IN OUT" in done.stderr


def test_a_full_disk_is_an_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    done = subprocess.run(f"{' '.join(KSHELL)} -n -e 1=X > /dev/full", shell=True, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_shell_escape_keeps_the_order() -> None:
    assert lines(run("-n", "-e", "1=X; ! echo two; 3=X ! cat").stdout) == ["1", "two", "3"]


def test_a_shell_command_does_not_eat_the_script() -> None:
    assert lines(run("-n", stdin="! cat\n1=X\n").stdout) == ["1"]


def test_interrupt() -> None:
    command = [*KSHELL, "-n", "-e", "! 'echo started; exec sleep 30'"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in errors


def test_a_shell_command_may_handle_the_interrupt() -> None:
    command = [*KSHELL, "-n", "-e", "! 'trap \"echo caught; exit 0\" INT; echo started; sleep 2 & wait'; 5=X"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    time.sleep(0.2)
    os.killpg(child.pid, signal.SIGINT)
    output, errors = child.communicate(timeout=40)
    assert (lines(output), errors, child.returncode) == (["caught", "5"], "", 0)


def test_nothing_from_the_current_directory(tmp_path: Path) -> None:
    for name in ("click.py", "kshell.py", "json.py", ".kshellrc"):
        (tmp_path / name).write_text("print('evil')\n")
    done = subprocess.run([str(Path(sys.executable).with_name("kshell")), "-n", "-e", "1=X"], capture_output=True,
                          text=True, check=False, cwd=tmp_path)
    assert "evil" not in done.stdout + done.stderr
    assert lines(done.stdout) == ["1"]
