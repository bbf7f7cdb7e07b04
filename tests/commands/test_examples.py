"""Every example in the help of every dcmd and walker, obeyed on a real dump.

Numbers and names that differ from system to system are put in; the rest is as the user reads it.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from inspect import cleandoc
from pathlib import Path

import pytest

from kshell.builtin import make_registry
from kshell.console import Console
from kshell.linux import tasks
from kshell.session import Session
from kshell.shell.scripted import run_text
from kshell.target.open import open_target
from tests.guest.image import GuestImage

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest

#: those that need a plugin, or leave
ELSEWHERE = ("load", "unload", "quit")
#: those that stop and run a machine: tests/target/test_breakpoints.py
MACHINE = ("bp", "cont", "delete", "evset", "next", "step", "stop", "wp")
#: those that are asked of a process
PROCESS = ("auxv", "threads")
#: what is said on stderr and no complaint
REMARKS = ("stack of ",)


def examples() -> dict[str, list[str]]:
    registry = make_registry(lambda _: None, plugins=False)
    found: dict[str, list[str]] = {}
    for entry in (*registry.dcmds(), *registry.walkers()):
        if entry.alias or entry.name in ELSEWHERE:
            continue
        has = registry.has_dcmd(entry.name)
        thing = registry.find_dcmd(entry.name) if has else registry.find_walker(entry.name)
        _, _, lines = cleandoc(thing.function.__doc__ or "").partition("\nExamples:\n")
        if lines.strip():
            found[entry.name] = [line.strip() for line in lines.splitlines() if line.strip()]
    return found


@pytest.mark.parametrize("name", PROCESS)
def test_examples_for_processes(name: str) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
            time.sleep(0.01)
        with open_target(f"pid:{child.pid}") as target:
            session = Session(target, make_registry(lambda _: None, plugins=False))
            out, err = io.StringIO(), io.StringIO()
            console = Console(session, out, err, quiet=True)
            for line in examples()[name]:
                run_text(session, console, line.replace("4711", str(child.pid)), string=True, recover=False)
                assert (err.getvalue(), session.failed) == ("", False), line
            assert out.getvalue()
        child.communicate(b"\n")


@pytest.mark.parametrize(("name", "lines"), [row for row in examples().items() if row[0] not in PROCESS + MACHINE])
def test_examples_of_the_help_run(name: str, lines: list[str], guest_61: GuestImage, tmp_path: Path) -> None:
    victim = guest_61.oracle.victim()
    (tmp_path / "page").write_bytes(bytes(16))
    with open_target(str(guest_61.elf), mode="c") as target:
        task = tasks.read_task(target, tasks.find_task(target, victim["pid"]))
        stack = target.value("struct mm_struct", task.mm).integer("start_stack")
        given = {"812": str(victim["pid"]), "404010": f"{victim['greeting']:x}", "7ffd1000": f"{stack & -4096:x}",
                 "ext4": "zram", "sshd": "victim", "bash": "victim", "/tmp": str(tmp_path),
                 "ffffffff82000000": f"{target.symbol('_stext').address:x}",  # KASLR puts it anywhere
                 "::watch '": "::watch -n 0.1 -c 2 '", "-n 0.5 -c 10": "-n 0.1 -c 2"}  # they go on for long otherwise
        session = Session(target, make_registry(lambda _: None, plugins=False))
        out, err = io.StringIO(), io.StringIO()
        console = Console(session, out, err, quiet=True)  # without notes
        if "7ffd1000" in "".join(lines):
            run_text(session, console, f"::getu {victim['pid']}", string=True, recover=False)
        if name in ("undo", "writes"):
            run_text(session, console, "jiffies/W 1 2 3 4 5 6", string=True, recover=False)
        for line in lines:
            line = re.sub("|".join(given), lambda match: given[match[0]], line)
            err.seek(0)
            err.truncate()
            run_text(session, console, line, string=True, recover=False)
            said = [each for each in err.getvalue().splitlines() if not each.startswith(REMARKS)]
            assert (said, session.failed) == ([], False), line
        session.stop_log()


def test_there_are_examples() -> None:
    found = examples()
    assert len(found) > 30
    assert {"ps", "print", "getu", "kwrite", "nm", "list"} <= set(found)
