"""``::stacks`` of processes and cores: threads whose stacks are alike, once; filters by function, library, state."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import compiled
from tests.target.asking import ask

Child = subprocess.Popen[bytes]
MANY = 300


def unlimited() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("threads")


@pytest.fixture(scope="module")
def child(folder: Path) -> Iterator[Child]:
    program = compiled("-O1", "-g", "-pthread", name="still", sources=("still.c",))
    with subprocess.Popen([str(program), "many"], stdout=subprocess.PIPE, cwd=folder) as made:
        assert made.stdout is not None and made.stdout.readline() == b"ready\n"
        settle(made.pid)
        yield made
        made.kill()


def settle(pid: int) -> None:
    """Wait until all threads sleep."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        states = [one.read_text().rpartition(") ")[2][0] for one in Path(f"/proc/{pid}/task").glob("*/stat")]
        if states == ["S"] * (MANY + 1):
            return
        time.sleep(0.02)
    raise AssertionError("the threads do not settle")


def groups(target: str | Path, text: str) -> list[dict[str, Any]]:
    told = ask(target, text, json=True)
    assert not told.errors
    return [json.loads(line) for line in told.out.splitlines()]


def functions(group: dict[str, Any]) -> list[str | None]:
    return [frame["symbol"] for frame in group["frames"]]


def test_threads_that_are_alike_are_one_group(child: Child) -> None:
    target = f"pid:{child.pid}"
    every = groups(target, "::stacks -a")
    assert [group["count"] for group in every] == [MANY, 1]
    tids = {int(name) for name in os.listdir(f"/proc/{child.pid}/task")}
    assert {tid for group in every for tid in group["tids"]} == tids
    assert every[1]["tids"] == [child.pid] and "main" in functions(every[1])
    assert "waiting" in functions(every[0]) and "pause" in functions(every[0])
    assert {(group["state"], group["sobj"], group["end"]) for group in every} == {("interruptible", "SIGNAL", None)}


def test_filters(child: Child) -> None:
    target = f"pid:{child.pid}"
    for words, counts in (
        ("-c waiting", [MANY]), ("-C waiting", [1]), ("-c main", [1]), ("-c pause -m libc", [MANY, 1]), ("-M libc", []),
        ("-m a.out -c main", [1]), ("-s signal", [MANY, 1]), ("-S signal", []), ("-s mutex", []), ("-i", []),
        ("-t S", [MANY, 1]), ("-t running", []), ("-t still", [MANY, 1]), ("-T 'st*'", []),
    ):
        assert [group["count"] for group in groups(target, f"::stacks {words}")] == counts, words
    (main,) = groups(target, "::stacks -c main")
    offset = next(frame["offset"] for frame in main["frames"] if frame["symbol"] == "main")
    assert len(groups(target, f"::stacks -c main+0x{offset:x}")) == 1
    assert len(groups(target, f"::stacks -c main+0x{offset + 1:x}")) == 0
    assert len(groups(target, f"::stacks -c main+0-0x{offset:x}")) == 1


def test_ids_of_threads_in_pipes(child: Child) -> None:
    target = f"pid:{child.pid}"
    assert [group["count"] for group in groups(target, "::stacks -c waiting | ::stacks")] == [MANY]
    assert [group["tid"] for group in groups(target, f"0t{child.pid}::stacks")] == [child.pid]
    told = ask(target, "::stacks -c main | ::stack; 0t1::stacks; ::stacks -m nothing; ::stacks -s work")
    assert "main+" in told.out and "waiting" not in told.out
    assert "no thread 1" in told.err and "no object nothing" in told.err and "nothing waits for work" in told.err


def test_as_text(child: Child) -> None:
    lines = ask(f"pid:{child.pid}", "::stacks -l").out.splitlines()
    assert lines[0].split() == ["THREAD", "STATE", "SOBJ", "COUNT"]
    assert lines[1].split()[1:] == ["interruptible", "SIGNAL", str(MANY)]
    assert any(line.strip().startswith("waiting+") and "still.c:" in line for line in lines)


def test_a_thread_that_does_not_stop_has_a_line(folder: Path) -> None:
    program = compiled("-O1", "-g", "-pthread", name="still", sources=("still.c",))
    with subprocess.Popen([str(program), "vfork"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None and parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        try:
            until = time.monotonic() + 10
            while "D" not in Path(f"/proc/{parent.pid}/stat").read_text().rpartition(") ")[2][:1]:
                assert time.monotonic() < until
                time.sleep(0.01)
            for command in ("::stacks", "::stack -a"):
                said = ask(f"pid:{parent.pid}", command)
                assert "sleeps in the kernel and cannot be interrupted" in said.out and not said.errors
            parent.stdin.write(b"x")
            parent.stdin.flush()
            assert parent.stdout.readline() == b"both\n"
        finally:
            parent.kill()


def test_a_core(folder: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip(f"cores go elsewhere here (kernel.core_pattern is {pattern})")
    program = compiled("-O1", "-g", "-pthread", name="still", sources=("still.c",))
    try:
        made = subprocess.Popen([str(program), "many"], stdout=subprocess.PIPE, cwd=folder, preexec_fn=unlimited)
    except subprocess.SubprocessError:
        pytest.skip("the limit of cores cannot be raised here")
    with made:
        assert made.stdout is not None and made.stdout.readline() == b"ready\n"
        settle(made.pid)
        made.send_signal(signal.SIGABRT)
    core = next(folder.glob("core*"), None)
    if core is None:
        pytest.skip("this machine's kernel writes no core")
    every = groups(core, "::stacks -a")
    # of a core's threads only the one that was hit has a state
    assert sorted(group["count"] for group in every) == [1, MANY] and "waiting" in functions(every[0])
    assert len(groups(core, "::stacks -c main")) == 1
