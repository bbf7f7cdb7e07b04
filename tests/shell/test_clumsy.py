"""What a clumsy or hostile user does: wrong words, closed streams, an image that goes, names from other shells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kshell.builtin import make_registry
from kshell.commands import _index
from kshell.errors import Fault, Reason
from tests.guest.image import GuestImage
from tests.shell.terminal import Terminal
from tests.shell.test_batch import KSHELL, lines, run
from tests.shell_session import Shell

pytest_plugins = ["tests.guest.fixtures"]


# -- streams and surroundings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("closed", "status", "said"), [
    ("<&-", 0, ""), (">&-", 1, "kshell: cannot write the output: Bad file descriptor\n"), ("2>&-", 0, ""),
    ("<&- >&- 2>&-", 1, ""),
])
def test_closed_standard_streams(closed: str, status: int, said: str) -> None:
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *KSHELL, "-n", "-e", "1=X"], capture_output=True,
                          text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (status, said)


def test_commands_of_a_closed_stdin() -> None:
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *KSHELL, "-n"], capture_output=True, text=True,
                          check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_empty_target_is_not_the_running_system() -> None:
    done = run("", "-e", "1=X")
    assert done.returncode == 2
    assert "TARGET is empty" in done.stderr


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path, guest_61: GuestImage) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG")}
    home = tmp_path / "none"
    done = subprocess.run([*KSHELL, "-e", "init_task::print pid", str(guest_61.elf)], capture_output=True, text=True,
                          check=False, timeout=60, env={**kept, "HOME": str(home)})
    assert done.stdout == "pid = 0\n"
    assert not home.exists()


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("typed", "meant"), [("ps", "::ps"), ("help", "::help"), ("exit", "::quit")])
def test_a_dcmd_without_its_colons_is_recognised(typed: str, meant: str) -> None:
    assert f'did you mean "{meant}"?' in run("-n", "-e", typed).stderr


def test_words_of_other_shells_at_the_prompt(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "-n", PAGER="cat")
    terminal.prompt()
    terminal.enter("?")
    terminal.wait("::kwrite")  # the last group: the overview is longer than the screen
    terminal.enter("exit")
    assert terminal.status() == 0


def test_hints_in_json_keep_their_lines() -> None:
    error = json.loads(run("-n", "--json", "-e", "::vtop").stderr)
    assert error["hint"].count("\n") == 1


def test_faults_count_in_english() -> None:
    assert str(Fault(16, 1, Reason.NOT_MAPPED)).startswith("cannot read 1 byte at address 0x10")
    assert str(Fault(0, 0, Reason.PERMISSION, space="user")) == "cannot read user memory: not permitted"
    assert str(Fault(0, 0, Reason.PERMISSION)) == "cannot read memory: not permitted"


def test_head_takes_a_bare_number() -> None:
    done = run("-n", "-e", "5,3::map .+1 | ::head 2", "-e", "5,3::map .+1 | ::head -1")
    assert lines(done.stdout) == ["6", "6", "6"]
    assert "-NUM" in run("-n", "-e", "5::map . | ::head x").stderr


def test_print_of_no_value() -> None:
    shell = Shell()
    shell.session.registry.add_index("kshell.commands", _index.DCMDS, _index.WALKERS)
    shell.run("::print -i int")
    assert "the value is missing" in shell.err


def test_a_dcmd_that_two_threads_find_at_once() -> None:
    registry = make_registry(lambda _: None, plugins=False)
    (entry,) = (each for each in registry.dcmds() if each.name == "print")
    found = registry.find_dcmd("print")
    # The status line's thread: it took the entry from the table before the completer's thread put it back, filled.
    assert registry._load(registry._dcmds, entry) is found


def test_the_running_system(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            where = next(line for line in Path(f"/proc/{child.pid}/maps").read_text().splitlines() if "[stack]" in line)
            base = where.split("-")[0]
            context = f"::getu {child.pid}"
            done = run("-e", context, "-e", f"{base}::whatis; {base}::uread 10")
            assert f"in [stack] [{base}," in done.stdout
            written = run("-w", "-e", f"{context}; {base}::uwrite -s hi; {base}/s; ::undo; {base}/B")
            assert written.returncode == 0, written.stderr
            assert [line.split()[-1] for line in written.stdout.splitlines()] == ["69", "hi", "00", "0"]
        finally:
            child.kill()


def test_a_write_that_w_cannot_help_does_not_ask_for_w() -> None:
    if Path("/proc/kcore").exists():
        pytest.skip("the running kernel can be read")
    done = run("-w", "-e", "ffffffff81000000::kwrite 41")
    assert "not available in this target" in done.stderr
    assert "start kshell with -w" not in done.stderr


# -- on a dump --------------------------------------------------------------------------------------------------------


@pytest.mark.guest
def test_null_in_a_path_is_the_dcmds_error(guest_61: GuestImage) -> None:
    done = run("-e", "init_task::print mm->pgd", "-e", "::ps kthreadd init | ::print mm->pgd", str(guest_61.elf))
    first, hint, *_ = done.stderr.splitlines()
    assert first == ("kshell: ::print: cannot read 8 bytes at kernel address 0x48: "
                     "no mapping for address (not a kernel address)")
    assert hint.strip() == "a small number: NULL and the offset of a member?"
    assert done.stdout.startswith("mm->pgd = 0xffff"), "the other values of the pipe are shown"


@pytest.mark.guest
def test_list_refuses_a_list_head(guest_61: GuestImage) -> None:
    done = run("-e", "init_task::list struct task_struct tasks", str(guest_61.elf))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("kshell: ::list: tasks is a struct list_head, no pointer\n"
                           "        HEAD::walk list walks list_heads\n")


@pytest.mark.guest
def test_vtop_says_why(guest_61: GuestImage) -> None:
    done = run("-e", "ffff888000000000::vtop", str(guest_61.elf))
    assert done.stderr == "kshell: ::vtop: failed to get physical mapping: no mapping for address\n"


@pytest.mark.guest
def test_whatis_of_neighbouring_tasks(guest_61: GuestImage) -> None:
    rows = [json.loads(row) for row in run("--json", "-e", "::ps -T", str(guest_61.elf)).stdout.splitlines()]
    answers = run("-e", "::walk thread | ::whatis", str(guest_61.elf)).stdout.splitlines()
    named = {answer.split()[0]: answer for answer in answers}
    for row in rows:
        assert f"is in struct task_struct of thread {row['tid']} (" in named[row["addr"].removeprefix("0x")]


@pytest.mark.guest
def test_the_start_of_a_dump_says_copy_it_again(guest_61: GuestImage, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    with open(guest_61.elf, "rb") as dump:
        cut.write_bytes(dump.read(1000))
    done = run("-e", "::ps", str(cut))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].strip() == "copy the dump again"


@pytest.mark.guest
def test_quit_leaves_a_dump_that_shrank(guest_61: GuestImage, tmp_path: Path) -> None:
    copy = tmp_path / "dump"
    shutil.copy(guest_61.elf, copy)
    terminal = Terminal(tmp_path, str(copy), XDG_CACHE_HOME=str(tmp_path / "cache"))
    terminal.prompt()
    os.truncate(copy, 1 << 20)
    terminal.enter("::ps")
    terminal.wait("became shorter")
    terminal.enter("::quit")
    assert terminal.status() == 0
