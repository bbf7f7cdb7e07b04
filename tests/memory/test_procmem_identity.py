"""Whose memory it is: a number used again, another program executed, another user's process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kshell.errors import Fault, NoProcessError, Reason
from kshell.memory.procmem import ProcessMemory

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)


def first_mapping(memory: ProcessMemory) -> int:
    return next(memory.ranges()).start


@ROOT
@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="this kernel does not let pids be chosen")
def test_a_pid_that_is_used_again_is_another_process() -> None:
    first = sleeper()
    with ProcessMemory(first.pid) as memory:
        address = first_mapping(memory)
        first.kill()
        first.wait()
        for _ in range(50):
            LAST_PID.write_text(str(first.pid - 1))
            second = sleeper()
            try:
                if second.pid != first.pid:
                    continue  # somebody else was faster
                with pytest.raises(Fault) as caught:
                    memory.read(address, 4)
                assert caught.value.reason is Reason.GONE and not caught.value.detail
                assert list(memory.ranges()) == [], "not the maps of the other one"
                with ProcessMemory(second.pid) as other:
                    assert other.read(first_mapping(other), 4) == b"\x7fELF"
                return
            finally:
                second.kill()
                second.wait()
        pytest.skip("the pid was not given again in 50 tries")


def test_a_process_that_ends_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder was found, and then there is no file in it any more."""
    child = sleeper()
    seen = os.open

    def late(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            child.kill()
            child.wait()
        return seen(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(NoProcessError, match=f"no process {child.pid}"):
        ProcessMemory(child.pid)


def test_a_process_that_executes_another_program() -> None:
    child = subprocess.Popen(["sh", "-c", "read line; exec sleep 60"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    try:
        with ProcessMemory(child.pid) as memory:
            address = first_mapping(memory)
            before = Path(f"/proc/{child.pid}/exe").resolve()
            child.stdin.write(b"\n")
            child.stdin.flush()
            while Path(f"/proc/{child.pid}/exe").resolve() == before:
                pass
            with pytest.raises(Fault) as caught:
                memory.read(address, 4)
            assert caught.value.reason is Reason.GONE and "another program" in str(caught.value)
    finally:
        child.kill()
        child.communicate()


@ROOT
def test_another_users_process_is_not_permitted() -> None:
    child = sleeper()
    script = f"""
import os
from kshell.errors import Fault, Reason
from kshell.memory.procmem import ProcessMemory
os.setgroups([]); os.setgid(12345); os.setuid(12345)
for writable in (False, True):
    try:
        ProcessMemory({child.pid}, writable)
    except Fault as fault:
        assert fault.reason is Reason.PERMISSION and fault.hint and "{child.pid}" in str(fault), fault
        print("refused")
"""
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        assert done.stdout == "refused\nrefused\n", done.stderr
    finally:
        child.kill()
        child.wait()
