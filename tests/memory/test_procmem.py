"""User memory of a live process: a child with known pages, and what is said when it is gone."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kshell.errors import Fault, KshellError, NoProcessError, NoUserSpaceError, Reason
from kshell.memory.procmem import ProcessMemory, start_time

PAGE = mmap.PAGESIZE
CHILD = """
import ctypes, mmap, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
size = mmap.PAGESIZE
at = libc.mmap(None, 4 * size, 3, 0x22, -1, 0)
ctypes.memmove(at, bytes(range(256)) * (4 * size // 256), 4 * size)
assert libc.munmap(ctypes.c_void_p(at + 2 * size), size) == 0
assert libc.mprotect(ctypes.c_void_p(at + size), size, 1) == 0
print(at, flush=True)
sys.stdin.read()
"""


class Child(NamedTuple):
    """A process; at *address*: a page to write, one to read, none, and one more."""

    process: subprocess.Popen[str]
    address: int


@pytest.fixture
def child() -> Iterator[Child]:
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield Child(process, int(process.stdout.readline()))
    process.kill()
    process.communicate()


def test_reads_up_to_the_hole(child: Child) -> None:
    with ProcessMemory(child.process.pid) as memory:
        assert memory.read(child.address + 1, 3) == b"\1\2\3"
        data, fault = memory.read_upto(child.address + PAGE, 4 * PAGE)
        assert fault is not None
        assert (fault.reason, fault.done, fault.address) == (Reason.NOT_MAPPED, PAGE, child.address + 2 * PAGE)
        assert data == fault.partial == bytes(range(256)) * (PAGE // 256)
        assert memory.gather([child.address, child.address + 2 * PAGE - 4], 8).ok.tolist() == [True, False]
        assert memory.window(child.address) is None
        assert any(r.start <= child.address < r.end for r in memory.ranges())
        assert memory.read(0xFFFF_FFFF_FFFF_FFFF, 0) == b""


@pytest.mark.parametrize("address", [0, 1 << 62, (1 << 63) - 8, 1 << 63, (1 << 64) - 1])
def test_nothing_is_mapped_there(child: Child, address: int) -> None:
    with ProcessMemory(child.process.pid) as memory, pytest.raises(Fault) as caught:
        memory.read(address, 16)
    assert (caught.value.reason, caught.value.done) == (Reason.NOT_MAPPED, 0)


def test_writes(child: Child) -> None:
    with ProcessMemory(child.process.pid, writable=True) as memory:
        memory.write(child.address + PAGE - 2, b"WXYZ")  # over into the page that the process itself may only read
        assert memory.read(child.address + PAGE - 3, 6) == b"\xfdWXYZ\2"
        with pytest.raises(Fault) as caught:
            memory.write(child.address + 2 * PAGE - 1, b"ab")
        assert (caught.value.reason, caught.value.done) == (Reason.NOT_MAPPED, 1)
    with ProcessMemory(child.process.pid) as memory, pytest.raises(Fault) as caught:
        memory.write(child.address, b"x")
    assert caught.value.reason is Reason.READ_ONLY


def test_gone_is_said_and_no_other_process_is_read(child: Child) -> None:
    with ProcessMemory(child.process.pid, writable=True) as memory:
        assert memory.started == start_time(child.process.pid)
        child.process.kill()
        os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
        with pytest.raises(Fault) as caught:
            memory.read(child.address, 4)
        assert caught.value.reason is Reason.GONE
        with pytest.raises(Fault) as caught:
            memory.write(child.address, b"x")
        assert caught.value.reason is Reason.GONE
        with pytest.raises(NoUserSpaceError):
            ProcessMemory(child.process.pid)
        child.process.wait()
        with pytest.raises(Fault) as caught:
            memory.read(child.address, 4)
        assert caught.value.reason is Reason.GONE
    with pytest.raises(NoProcessError):
        ProcessMemory(child.process.pid)


@pytest.mark.parametrize("pid", [0, -1, 1 << 30])
def test_no_such_process(pid: int) -> None:
    with pytest.raises(KshellError):
        ProcessMemory(pid)


def test_a_kernel_thread_has_no_user_memory() -> None:
    try:
        if Path("/proc/2/comm").read_text().strip() != "kthreadd":
            pytest.skip("pid 2 is not kthreadd in this container")
    except OSError:
        pytest.skip("no pid 2 in this container")
    with pytest.raises(KshellError) as caught:
        ProcessMemory(2)
    assert isinstance(caught.value, NoUserSpaceError) or os.geteuid()
