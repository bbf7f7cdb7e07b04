"""libkvm.md section 8 on the running system: items 62 to 66 over a child process, and what goes with them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell import kvm
from kshell.errors import Fault
from kshell.kvm import Kvm, ProcessGoneError, kvm_aread, kvm_getproc, kvm_getu, kvm_kread, kvm_uread, kvm_uwrite
from tests.kvm.fixture_m import K
from tests.kvm.labs import Child, child_process, select

P = 4096
FILLER = 0xA5
HERE = os.getpid()


@pytest.fixture
def live() -> Iterator[Kvm]:
    with kvm.open() as handle:
        yield handle


def test_item_62_of_a_live_process(child: Child) -> None:
    with kvm.open(mode="r+") as kd, kvm.open(mode="c") as private:
        select(kd, child.pid)
        select(private, child.pid)
        assert kvm_uwrite(private, child.u, b"private") == 7
        assert private.uread(child.u, 7) == b"private"
        assert kvm_uwrite(kd, child.u + P - 2, b"abcd") == 4
        assert kvm_uwrite(kd, child.u + 2 * P - 2, b"wxyz") == 2
        assert kvm_uwrite(kd, child.u + 2 * P, b"wxyz") == -1
        with kvm.open() as other:
            proc = other.proc(child.pid)
            assert proc.read(child.u + P - 2, 4) == b"abcd"
            assert proc.read(child.u + 2 * P - 2, 2) == b"wx"
            assert proc.read(child.u, 2) == bytes([3, 10])
            assert kvm_uwrite(other, child.u, b"x") == -1


def test_item_63_gone(live: Kvm, child: Child) -> None:
    select(live, child.pid)
    proc = live.proc(child.pid)
    assert live.uread(child.u, 2) == bytes([3, 10])
    child.end()
    assert kvm_uread(live, child.u, bytearray(8)) == -1
    assert live.errno == errno.ESRCH
    with pytest.raises(ProcessGoneError) as caught:
        proc.read(child.u, 8)
    assert caught.value.pid == child.pid
    assert kvm_getu(live, proc) is None
    assert live.errno == errno.ESRCH


def test_item_63_a_zombie_too(live: Kvm, child: Child) -> None:
    select(live, child.pid)
    child.process.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert kvm_uread(live, child.u, bytearray(8)) == -1
    assert live.errno == errno.ESRCH
    assert live.proc(child.pid).state == "Z"


def reuse(pid: int) -> subprocess.Popen[bytes] | None:
    """Start a process that gets the number *pid*; None when the system does not let us choose."""
    try:
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
    except OSError:
        return None
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    if process.pid == pid:
        return process
    process.kill()
    process.wait()
    return None


def test_item_64_a_reused_pid(live: Kvm, child: Child) -> None:
    select(live, child.pid)
    old = live.proc(child.pid)
    child.end()
    new = next((process for process in (reuse(child.pid) for _ in range(20)) if process), None)
    if new is None:
        pytest.skip("this system does not let a test choose a pid (/proc/sys/kernel/ns_last_pid)")
    try:
        fresh = live.proc(child.pid)
        start = fresh.user().arg_start
        assert kvm_uread(live, start, bytearray(1)) == -1
        assert live.errno == errno.ESRCH
        with pytest.raises(ProcessGoneError):
            old.read(start, 1)
        with pytest.raises(ProcessGoneError):
            live.getu(old)
        assert fresh.read(start, 1)
    finally:
        new.kill()
        new.communicate()


def test_item_64_identity_is_start_time(live: Kvm, child: Child) -> None:
    """Where pids cannot be chosen: a record of a process that started at another time is another process."""
    proc = live.proc(child.pid)
    stranger = kvm.Proc(live, proc.facts._replace(start=proc.facts.start - 1))
    assert kvm_getu(live, stranger) is None
    assert live.errno == errno.ESRCH
    assert kvm_aread(live, child.u, bytearray(8), 8, stranger) == -1
    assert live.errno == errno.ESRCH


def test_item_65_the_hole_of_a_live_process(live: Kvm, child: Child) -> None:
    select(live, child.pid)
    b = bytearray([FILLER] * 16)
    assert kvm_uread(live, child.u + 2 * P, b, 1) == -1
    assert live.errno == errno.EFAULT
    assert kvm_uread(live, child.u + 2 * P - 8, b, 16) == 8
    assert b == bytes((7 * i + 3) & 255 for i in range(2 * P - 8, 2 * P)) + bytes([FILLER] * 8)
    assert kvm_uread(live, child.u, bytearray(4 * P)) == 2 * P
    assert live.uread(child.u + 3 * P, 4) == bytes(4)


def test_a_process_that_execs_is_still_the_same(live: Kvm) -> None:
    """The original reads the new image too (libkvm.md 2.7); its descriptor, opened before, would say "gone"."""
    process = subprocess.Popen(["sh", "-c", "read line; exec sleep 600"], stdin=subprocess.PIPE)
    try:
        select(live, process.pid)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 20
        while live.proc(process.pid).comm != "sleep":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        start = live.proc(process.pid).user().arg_start
        assert live.uread(start, 6) == b"sleep\0"
        assert live.proc(process.pid).argv() == ["sleep", "600"]
    finally:
        process.kill()
        process.communicate()


UNTRACEABLE = """
import os, sys
from kshell import kvm
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with kvm.open() as kd:
    proc = kvm.kvm_getproc(kd, int(sys.argv[1]))
    print(kvm.kvm_getu(kd, proc), kd.errno, kvm.kvm_aread(kd, 4096, bytearray(8), 8, proc), kd.errno)
"""


def _others_may_import() -> bool:
    """Whether another user reaches the checkout and the Python that runs: not below a closed /root."""
    places = [Path(kvm.__file__).resolve(), Path(sys.executable).parent.resolve()]
    return all(parent.stat().st_mode & 0o001 for place in places for parent in place.parents)


@pytest.mark.skipif(os.geteuid() != 0 or not _others_may_import(),
                    reason="root alone can become somebody who may not trace us, and that one must reach the checkout")
def test_item_66_not_permitted() -> None:
    words = [sys.executable, "-c", UNTRACEABLE, str(HERE)]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, cwd=os.getcwd()).stdout.split()
    assert answer[0] == "None"
    assert int(answer[1]) in (errno.EACCES, errno.EPERM)
    assert answer[2] == "-1"
    assert int(answer[3]) in (errno.EACCES, errno.EPERM)


def test_a_live_system_lists_itself(live: Kvm) -> None:
    procs = {proc.pid: proc for proc in live.procs()}
    assert procs[HERE].comm
    assert procs[1].ppid == 0
    assert not procs[HERE].is_kernel
    assert live.proc(HERE).argv()
    with child_process("one", "zwei\u00e9", environ={"HOME": "/", "A": "B=C"}) as found:
        proc = live.proc(found.pid)
        assert proc.argv()[-2:] == ["one", "zwei\u00e9"]
        assert proc.environ() == {"HOME": "/", "A": "B=C"}
        assert proc.ppid == HERE


def test_a_threads_number_is_no_process(live: Kvm) -> None:
    numbers: list[int] = []
    done = threading.Event()

    def body() -> None:
        numbers.append(threading.get_native_id())
        done.wait()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        while not numbers:
            time.sleep(0.001)
        assert kvm_getproc(live, numbers[0]) is None
    finally:
        done.set()
        thread.join()


def test_a_live_system_without_kernel_memory_says_so(live: Kvm) -> None:
    kernel = live.backend.kernel
    _, fault = kernel.read_upto(K, 8)
    if not isinstance(fault, Fault) or fault.reason.name != "UNSUPPORTED":
        pytest.skip("this system shows its kernel memory")
    assert kvm_kread(live, K, bytearray(8)) == -1
    assert live.errno == errno.EOPNOTSUPP
    assert "kcore" in kvm.kvm_geterr(live)
