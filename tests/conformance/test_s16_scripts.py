"""mdb-language.md section 16, 11.1 and 17: files of commands, their arguments, exit statuses, the startup file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kshell import scripts
from tests.conformance.run import Case, Machine, cases, check

KSHELL = [sys.executable, "-m", "kshell"]
TOP = Path(__file__).parents[2]


def kshell(*arguments: str, stdin: str = "", cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    done = subprocess.run(
        [*KSHELL, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(TOP), **env})
    assert "Traceback" not in done.stderr
    return done


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files of commands that call one another."""
    (tmp_path / "more").mkdir()
    for name, text in {
        "calls": "::echo a\n$<<more/inner 7\n::echo b\n",
        "replaced": "::echo a\n$<more/inner 7; ::echo same line\n::echo never\n",
        "leaves": "::echo a\n$<; ::echo same line\n::echo never\n",
        "more/inner": "::echo inner; <1=D\n$<<beside",
        "more/beside": "::echo beside\n",
        "shows": ".=J; <1=D; <2=D; <9=D\n",
        "self": "$<<self; $<<self\n$<<self\n",
        "forever": "$<forever\n",
        "counts": "<x+1>x; ,#(<x==5)&1$<counts\n",
        "wrong": "1=X\nnosuch=X; 2=X\n  ::bad | ::map . ; 3=X\n::echo 'a\n4=X",
        "exits": "1=X\n::quit\n2=X\n",
        "comment": "#!/usr/bin/env -S kshell -n -f\n1=X\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


# -- $< and $<< -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, out", [
    ("calls", "a inner 7 beside b"),       # 11.1: $<< returns; names start at the folder of the file
    ("replaced", "a inner 7 beside"),      # 11.1: $< does not
    ("leaves", "a"),                       # 11.1: $< alone leaves
    ("comment", "1"),
    ("exits", "1"),
], ids=lambda text: f"11.1-{text}")
def test_11_1_files(folder: Path, name: str, out: str) -> None:
    assert Machine(target=False).run(f"$<<{folder}/{name}").words == out


def test_11_1_at_the_prompt_replacing_returns(folder: Path) -> None:
    assert Machine(target=False).run(f"$<{folder}/replaced; ::echo on").words == "a inner 7 beside on"


def test_11_1_on_standard_input_replacing_returns(folder: Path) -> None:
    assert words(kshell("-n", stdin=f"$<{folder}/comment\n::echo on").stdout) == "1 on"


def test_11_1_in_a_file_of_f_it_does_not(folder: Path) -> None:
    assert words(kshell("-n", "-f", str(folder / "replaced")).stdout) == "a inner 7 beside"


def test_11_1_count_goes_to_variable_9_and_0_skips(folder: Path) -> None:
    machine = Machine(target=False)
    assert machine.run(f"10,3$<{folder}/shows").words == "10 0 0 3"
    assert machine.run(f"10$<<{folder}/shows").words == "10 0 0 1"
    said = machine.run("20,0$<nosuchfile; .=J")
    assert (said.words, said.err) == ("20", ""), "dot moves, nothing is looked for"


def test_11_1_a_loop_of_files_that_replace_one_another(folder: Path) -> None:
    machine = Machine(target=False)
    assert machine.run(f"0>x; $<{folder}/counts; <x=D").words == "5"


def test_11_1_once_for_each_value_of_a_pipe(folder: Path) -> None:
    (folder / "one").write_text(".=J\n")
    assert Machine(target=False).run(f"::echo 5 ! \"printf '5\\\\n6\\\\n'\" | $<{folder}/one").words == "5 6"


@cases(
    Case("11.1-output-is-no-input", "$<<nosuch | ::map .", error="$<<: macro files cannot be used as input to a "
         "pipeline"),
    Case("11.1-input-stack-is-empty", "$<", error="$<: input stack is empty"),
    Case("11.1-file-not-found", "$<nosuchfile",
         error='$<: failed to open "nosuchfile": No such file or directory'),
    Case("11.1-a-folder", "$<<.", error='$<<: failed to open ".": Is a directory'),
    Case("11.1-a-device-without-lines", "$</dev/zero",
         error="$<: /dev/zero: a line of more than 4 MiB"),
    Case("16-arguments-are-expressions", "$</dev/null nosuch",
         error='$<: argument 1 ("nosuch"): failed to dereference symbol: unknown symbol name'),
    Case("16-eight-arguments", "$</dev/null 1 2 3 4 5 6 7 8 9",
         error="$<: a file takes at most 8 arguments, not 9"),
    Case("17-count-zero", "5,0$<x"),
)
def test_11_1_errors(case: Case) -> None:
    check(case)


def test_11_1_not_found_names_the_help() -> None:
    assert "see ::help '$<'" in Machine().run("$<nosuchfile").err


def test_16_arguments_belong_to_the_file(folder: Path) -> None:
    machine = Machine(target=False)
    said = machine.run(f"5>1; 6>8; $<<{folder}/shows 0t10 2+3; <1=D; <8=D")
    assert said.words == "6 10 5 1 5 6", "the variables are what they were when the file has ended"
    assert machine.run(f"$<<{folder}/shows").words == "6 5 0 1", "without arguments they stay"


def test_16_recursion_is_bounded(folder: Path) -> None:
    said = Machine(target=False).run(f"$<<{folder}/self; ::echo on")
    assert "commands are nested more than 32 deep" in said.errors[0]
    assert len(said.errors) < 10
    assert said.words == "on"


def test_16_files_that_replace_one_another_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "MAX_FOLLOWED", 2000)
    said = Machine(target=False).run(f"$<{folder}/forever")
    assert said.errors == ["2000 files have taken each other's place: does $< ever end?"]


def test_16_eval_in_eval_is_bounded() -> None:
    machine = Machine(target=False)
    machine.session.nesting = 31
    assert machine.run("::eval '1=X'").words == "1"
    assert machine.run("::eval \"::eval '1=X'\"").errors == ["commands are nested more than 32 deep"]
    assert machine.session.nesting == 31


# -- errors in files --------------------------------------------------------------------------------------------------


def test_15_errors_name_file_and_line(folder: Path) -> None:
    done = kshell("-n", "-f", "wrong", cwd=folder)
    assert words(done.stdout) == "1 2 3 4"
    assert done.returncode == 1
    assert done.stderr == (
        "  nosuch=X; 2=X\n"
        "  ^^^^^^\n"
        "wrong:2: kshell: failed to dereference symbol: unknown symbol name\n"
        "    ::bad | ::map . ; 3=X\n"
        "    ^^^^^\n"
        "wrong:3: kshell: invalid command '::bad': unknown dcmd name\n"
        "  ::echo 'a\n"
        "         ^^\n"
        "wrong:4: kshell: syntax error: ' unmatched\n")


def test_15_errors_of_dcmds_name_file_and_line() -> None:
    told = kshell("-n", stdin="1=X\n::walk nosuch\n").stderr
    assert told == ("(stdin):2: kshell: ::walk: failed to perform walk: unknown walk name\n"
                    "        ::walkers lists them\n")


def test_15_place_in_json(folder: Path) -> None:
    assert '"place": "wrong:2"' in kshell("-n", "--json", "-f", "wrong", cwd=folder).stderr


def test_7_5_the_rest_of_the_line_is_obeyed_in_a_file_and_dropped_in_a_string() -> None:
    machine = Machine(target=False)
    assert machine.run("nosuch=X; 2=X\n3=X", "script").words == "2 3"
    assert machine.run("nosuch=X; 2=X", "string").words == ""
    assert machine.run("nosuch=X; 2=X", "terminal").words == ""


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, stdin, status", [
    (("-e", "1=X"), "", 0),
    (("-e", "::bad; 1=X"), "", 1),                   # 16: a parse error drops the rest
    (("-e", "::walk nosuch; 1=X"), "", 0),           # 16: the last dcmd was fine
    (("-e", "1=X; ::walk nosuch"), "", 1),           # 16: it was not
    (("-e", "::walk nosuch; "), "", 1),
    ((), "::bad\n", 0),                              # 16: stdin, also after errors
    ((), "1=X", 0),                                  # 16: the end of the input ends the last line
    (("--stop-on-error",), "::walk nosuch\n1=X\n", 1),  # strict
    (("--stop-on-error", "-e", "::walk nosuch; 1=X"), "", 1),
    (("-f", "-"), "::bad\n1=X\n", 1),
    (("-f", "-"), "1=X\n", 0),
    (("-f", "/nosuch/file"), "", 1),
    (("--nosuch",), "", 2),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else None)
def test_16_exit_status(arguments: tuple[str, ...], stdin: str, status: int) -> None:
    done = kshell("-n", *arguments, stdin=stdin)
    assert done.returncode == status
    if "--stop-on-error" in arguments:
        assert done.stdout == ""


def test_16_arguments_behind_two_dashes(folder: Path) -> None:
    done = kshell("-n", "-f", str(folder / "shows"), "--", "0t12", "3*4")
    assert (words(done.stdout), done.stderr) == ("0 12 12 0", "")


@pytest.mark.parametrize("arguments, said, status", [
    (("-f", "/dev/null", "--", "nosuch"), 'argument 1 ("nosuch")', 1),
    (("-f", "/dev/null", "--", *"123456789"), "at most 8 arguments", 1),
    (("-e", "1=X", "--", "a", "b", "c"), "only a script (-f) has arguments", 2),
])
def test_16_wrong_arguments(arguments: tuple[str, ...], said: str, status: int) -> None:
    done = kshell(*(("-n",) if "-f" in arguments else ()), *arguments)
    assert said in done.stderr
    assert done.returncode == status


def test_16_two_dashes_before_a_target_that_begins_with_one() -> None:
    assert "-nosuch-dump" in kshell("-e", "1=X", "--", "-nosuch-dump").stderr


def test_16_as_an_interpreter(folder: Path) -> None:
    script = folder / "tool"
    (folder / "kshell").write_text(f"#!/bin/sh\nexec {sys.executable} -m kshell \"$@\"\n")
    (folder / "kshell").chmod(0o755)
    script.write_text("#!/usr/bin/env -S kshell -n -f\n<1+1=D\n")
    script.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run([str(script), "--", "0t41"], capture_output=True, text=True, check=False, timeout=60,
                          env={**os.environ, "PATH": path, "PYTHONPATH": str(TOP)})
    assert (words(done.stdout), done.stderr, done.returncode) == ("42", "", 0)


def test_16_options_of_the_session(folder: Path) -> None:
    (folder / "more" / "greeting.py").write_text(
        'from kshell.api import dcmd\n@dcmd("hello")\ndef hello(session):\n    """Greet."""\n    yield "hi"\n')
    done = kshell("-n", "-o", "repeatlast,array_mem_limit=7", "+o", "pager", "-o", "ignoreeof", "-s", "16", "-P", "q>",
                  "-I", f"/x:{folder}/more", "-L", f"{folder}/more", "-e", "::set", "-e", "$<beside", "-e",
                  "::load greeting; ::hello")
    assert (done.stderr, done.returncode) == ("", 0)
    shown = words(done.stdout)
    for part in (f"macro path : /x:{folder}/more module path : {folder}/more symbol matching distance : 16",
                 "prompt : 'q>' array_mem_limit : 7", "ignoreeof : on pager : off repeatlast : on", "beside", "hi"):
        assert part in shown


@pytest.mark.parametrize(("option", "said"), [
    (("-o", "nosuch"), "invalid debugger option -- nosuch"),
    (("+o", "array_mem_limit"), "option requires an argument -- array_mem_limit"),
    (("-I", "/a/%z"), "%z: no token of a path"), (("-s", "x"), "is not a valid integer"),
])
def test_16_wrong_options_of_the_session(option: tuple[str, str], said: str) -> None:
    done = kshell("-n", *option, "-e", "1=X")
    assert said in done.stderr
    assert (done.stdout, done.returncode) == ("", 2)


# -- the startup file -------------------------------------------------------------------------------------------------


def startup(folder: Path, text: str) -> Path:
    place = folder / "config" / "kshell"
    place.mkdir(parents=True)
    (place / "startup").write_text(text)
    return place


def test_16_startup_file_of_the_configuration_folder(folder: Path) -> None:
    place = startup(folder, "0t42>answer\n10>.\n::bad\n")
    done = kshell("-n", "-e", ".=J; <answer=D", XDG_CONFIG_HOME=str(folder / "config"))
    assert words(done.stdout) == "0 42"
    assert done.returncode == 0, "its errors are told and change nothing else"
    assert f"{place}/startup:3: kshell: invalid command '::bad'" in done.stderr
    done = kshell("-S", "-n", "-e", "<answer=D", XDG_CONFIG_HOME=str(folder / "config"))
    assert (done.stdout, done.returncode) == ("", 1)


def test_16_startup_file_never_of_the_current_folder(folder: Path) -> None:
    for name in ("startup", ".kshellrc", ".mdbrc", "kshell/startup"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("::echo bad\n")
    assert kshell("-n", "-e", "1=X", cwd=folder, XDG_CONFIG_HOME="").stdout.split() == ["1"]
    assert kshell("-n", "-e", "1=X", cwd=folder, XDG_CONFIG_HOME=".").stdout.split() == ["1"]


def test_16_startup_file_that_others_may_write(folder: Path) -> None:
    place = startup(folder, "::echo bad\n")
    (place / "startup").chmod(0o666)
    done = kshell("-n", "-e", "1=X", XDG_CONFIG_HOME=str(folder / "config"))
    assert done.stdout.split() == ["1"]
    assert "is not obeyed" in done.stderr
    assert "may be written by everybody" in done.stderr


# -- ::log, ::cat, interrupts -----------------------------------------------------------------------------------------


def test_11_1_log(folder: Path) -> None:
    log = folder / "log"
    machine = Machine(target=False)
    assert machine.run("::log").out == "no log is active\n"
    assert machine.run(f"$> {log}").out == f'logging to "{log}"\n'
    assert machine.run("::log").out == f'logging to "{log}" is currently enabled\n'
    machine.run("1=X; nosuch=X")
    machine.run("$>")
    machine.run("2=X")
    text = log.read_text()
    assert "1" in text.split()
    assert "unknown symbol name" in text
    assert "2" not in text.split()
    assert machine.run("::log 'a\0b'").errors == ['::log: cannot log to "a\\x00b": embedded null byte']
    assert machine.run("::log -d").errors == ["::log: no log is active"]


def test_11_1_cat(folder: Path) -> None:
    (folder / "values").write_text("10\n10+8\n0t20\n")
    machine = Machine(target=False)
    assert machine.run(f"::cat {folder}/values").out == "10\n10+8\n0t20\n"
    assert machine.run(f"::cat {folder}/values {folder}/values | ::map .+1 | ::count").words == "6"
    (folder / "values").write_bytes(b"\x1b[31mred\xff\n")
    assert machine.run(f"::cat {folder}/values").out == "\\x1b[31mred\\xff\n"
    assert machine.run("::cat /nosuch").errors == ["::cat: failed to open /nosuch: No such file or directory"]
    assert machine.run("::cat").errors[0] == "::cat: file is missing"


@pytest.mark.parametrize("line", [
    ",7fffffffffffffff::eval 0", "$</dev/zero; ,7fffffffffffffff=X", "! 'sleep 100' | ::map .",
    "::echo 1 ! 'sleep 100' | ::map .", "!< sleep 100", ",7fffffffffffffff::echo x ! sleep 100",
    ",7fffffffffffffff::echo 1 | ::count",
])
def test_16_interrupt_aborts(line: str) -> None:
    child = subprocess.Popen([*KSHELL, "-n", "-e", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             start_new_session=True)
    assert child.stdout is not None
    time.sleep(1)
    os.killpg(child.pid, signal.SIGINT)
    try:
        child.communicate(timeout=20)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 130
