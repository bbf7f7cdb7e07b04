"""The contract over a process and the core of one: the items that ask for no kernel, and what is said to the others.

The child is that of fixture L (labs.py): two pages of pattern with a hole behind them. Its core is the kernel's.
"""

from __future__ import annotations

import errno
import inspect
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kshell import kvm
from kshell.errors import OpenError
from kshell.kvm import Kvm, Nlist, kvm_geterr, kvm_getproc, kvm_kread, kvm_nlist, kvm_uwrite
from tests.kvm.labs import CHILD, Lab, select
from tests.kvm.test_contract_targets import READING

P = 4096
ABSENT = 4_000_000
#: what they ask for is in no process: a kernel's memory or its symbols, kernel threads, zombies, a second process
KERNEL = ("kread", "kwrite", "lab.k", "kthread", "zombie", "lab.other", "vmlinux", "_text", "init_task", "physical",
          "kernel", "zeroes", "linux_banner", "kvm_physaddr", "lab.pids[1]", "jiffies", "init_mm")


def pattern(start: int, size: int) -> bytes:
    return bytes((7 * index + 3) & 255 for index in range(start, start + size))


def unlimited() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def child(folder: Path) -> tuple[subprocess.Popen[str], int]:
    words = [sys.executable, "-S", "-c", CHILD, "an argument", ""]
    made = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
                            preexec_fn=unlimited, env={"ONE": "1", "EMPTY": ""})
    assert made.stdout is not None
    return made, int(made.stdout.readline())


@pytest.fixture(scope="module", params=["process", "core"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("user")
    made, place = child(folder)
    argv = [sys.executable, "-S", "-c", CHILD, "an argument", ""]
    path: str = f"pid:{made.pid}"
    if request.param == "core":
        path = str(core_of(made, folder))
    copy = folder / "copy"

    def opened(mode: str) -> Kvm:
        if request.param == "core" and mode == "r+":
            shutil.copyfile(path, copy)
            return kvm.open(copy, mode=mode)
        return kvm.open(path, mode=mode)

    try:
        yield Lab(request.param, opened, "r+" if request.param == "core" else "c", 0, lambda offset, size: b"", place,
                  pattern, made.pid, (ABSENT, 0, b"", b""), ABSENT, ABSENT, ABSENT, [made.pid], argv,
                  ["ONE=1", "EMPTY="])
    finally:
        made.kill()
        made.wait()


def core_of(made: subprocess.Popen[str], folder: Path) -> Path:
    rule = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "|" in rule or "/" in rule:
        made.kill()
        pytest.skip(f"cores go elsewhere here (kernel.core_pattern is {rule})")
    made.send_signal(signal.SIGABRT)
    made.wait()
    until = time.monotonic() + 5
    while not (found := list(folder.glob("core*"))) and time.monotonic() < until:
        time.sleep(0.05)
    if not found:
        pytest.skip("this machine's kernel writes no core")
    return found[0]


def of_users(rows: list[Any]) -> list[Any]:
    """Return the items that ask for nothing of a kernel."""
    return [row for row in rows if not any(word in inspect.getsource(row.values[0]) for word in KERNEL)]


@pytest.mark.parametrize("item", of_users(READING))
def test_reading(item: Callable[..., None], lab: Lab) -> None:
    with lab.open("r") as handle:
        arguments = {"kd": handle, "lab": lab}
        item(**{key: arguments[key] for key in inspect.signature(item).parameters})


def test_items_61_to_66_writing(lab: Lab) -> None:
    """Over a page, into the hole, of nothing; written memory is read back, and only with the right mode."""
    with lab.open(lab.write_mode) as kd:
        user = select(kd, lab.pid)
        assert user.pid == lab.pid and user.comm.startswith("python")
        assert kvm_uwrite(kd, lab.u + P - 2, b"abcd") == 4 and kd.uread(lab.u + P - 2, 4) == b"abcd"
        assert kvm_uwrite(kd, lab.u + 2 * P - 2, b"wxyz") == 2 and kd.uread(lab.u + 2 * P - 2, 2) == b"wx"
        assert kvm_uwrite(kd, lab.u, b"") == 0
    with lab.open("r") as kd:
        select(kd, lab.pid)
        assert kd.uread(lab.u + P - 2, 4) == pattern(P - 2, 4), "writes were private, or in a copy"


def test_items_72_to_75_names_of_the_program(lab: Lab) -> None:
    with lab.open("r") as kd:
        entry = Nlist("PyObject_Str")
        assert kvm_nlist(kd, [entry, Nlist("no_such_name")]) == 0
        found = kd.symbol("PyObject_Str")
        assert found.address == entry.n_value
        proc = kd.proc(lab.pid)
        code = proc.read(found.address, 4)
        assert code == kd.aread(proc, found.address, 4) and any(code)
        with pytest.raises(kvm.NoSymbolError):
            kd.symbol("PyObject_Strr")


def test_there_is_no_kernel(lab: Lab) -> None:
    with lab.open("r") as kd:
        buffer = bytearray(8)
        assert kvm_kread(kd, 0xFFFF_FFFF_8000_0000, buffer) == -1 and kd.errno and "no kernel memory" in kvm_geterr(kd)
        with pytest.raises(kvm.KvmError):
            kd.kread(kd.symbol("PyObject_Str").address, 8)
        assert kvm_getproc(kd, 1) is None and kvm_getproc(kd, lab.pid) is not None


def test_a_process_that_ends(tmp_path: Path) -> None:
    made, place = child(tmp_path)
    with kvm.open(f"pid:{made.pid}") as kd:
        select(kd, made.pid)
        made.kill()
        made.wait()
        with pytest.raises(kvm.KvmError) as caught:
            kd.uread(place, 8)
        assert caught.value.errno == errno.ESRCH
    with pytest.raises(OpenError, match="no process"):
        kvm.open(f"pid:{made.pid}")
