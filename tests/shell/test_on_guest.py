"""The shell on a real kernel's dump: the batch road, a private write, JSON, and names completed at a prompt."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.image import GuestImage
from tests.shell.terminal import Terminal
from tests.shell.test_batch import run

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest


@pytest.fixture
def prompt(tmp_path: Path, guest_61: GuestImage) -> Iterator[Terminal]:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    terminal = Terminal(tmp_path, str(guest_61.elf), XDG_CACHE_HOME=cache)
    terminal.prompt()
    yield terminal
    terminal.child.close(force=True)


def test_ps_needs_no_numpy(guest_61: GuestImage) -> None:
    code = ("import sys, kshell.__main__ as main\n"
            f"main.cli.main(['-e', '::ps', {str(guest_61.elf)!r}], standalone_mode=False)\n"
            "sys.stderr.write(' '.join(sys.modules))\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert " victim" in done.stdout
    assert not {"numpy", "capstone", "elftools", "pygments", "prompt_toolkit", "dataclasses", "subprocess"} & set(
        done.stderr.split())


def test_json_rows(guest_61: GuestImage) -> None:
    done = run("--json", "-e", "::ps", str(guest_61.elf))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["pid"] == 1
    assert rows[0]["comm"] == "init"
    assert rows[0]["addr"].startswith("0xffff")
    assert {"addr", "pid", "ppid", "state", "comm"} <= set(rows[0])


def test_pipes_carry_types(guest_61: GuestImage) -> None:
    done = run("-e", "::ps victim | ::print comm", "-e", "::walk proc | ::head -1 | ::print pid", str(guest_61.elf))
    assert done.stdout.splitlines() == ['comm = [ "victim" ]', "pid = 1"]


def test_writes_to_a_private_copy_and_in_place(guest_61: GuestImage, tmp_path: Path) -> None:
    copy = tmp_path / "dump"
    shutil.copy(guest_61.elf, copy)
    line = "jiffies/W 1234; jiffies/X; ::undo; jiffies/X"
    rows = run("--cow", "-e", line, str(copy)).stdout.splitlines()
    words = [row.split()[-1] for row in rows if row.startswith("jiffies: ")]
    assert words[0] == "0x1234"
    assert words[1] == "1234"
    assert words[2] not in ("1234", "0")
    assert run("-e", "jiffies/X", str(copy)).stdout.split()[-1] == words[2]
    run("-w", "-e", "jiffies/W 1234", str(copy))
    assert run("-e", "jiffies/X", str(copy)).stdout.split()[-1] == "1234"
    refused = run("-e", "jiffies/W 1", str(copy))
    assert refused.returncode == 1
    assert "not open for writing" in refused.stderr


@pytest.mark.parametrize("typed, offered", [
    ("init_tas\t", "> init_task"), ("1::sizeof struct task_st\t", "struct task_struct"),
    ("::ps | ::print struct task_struct com\t", "char [16]"), ("::walk pro\t", "::walk proc"),
    ("::getu victi\t", "::getu victim"),
])
def test_completion(prompt: Terminal, typed: str, offered: str) -> None:
    prompt.type(typed)
    prompt.wait(offered)


def test_context_in_the_prompt(prompt: Terminal) -> None:
    prompt.enter("::getu victim")
    prompt.wait("\npid ")
    prompt.enter("400000/4x")
    prompt.wait("457f")
