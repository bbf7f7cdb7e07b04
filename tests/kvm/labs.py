"""What the contract is tested over: one description of fixture M, of a real Linux dump (E) and of a child process (L).

A lab names the same places in each: three readable kernel pages from ``k`` on and a hole behind them, two user pages
from ``u`` on and a hole behind them, a process of each sort. What must be read there comes from elsewhere: M's
formula; for E the victim's formula and ``elf.paging``, the same moment of the same guest as QEMU wrote it by virtual
addresses; for L what the child was told to write.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kshell import kvm
from kshell.kvm import Kvm, kvm_getproc, kvm_getu
from kshell.kvm.strings import decode
from tests.kvm import fixture_m

if TYPE_CHECKING:
    from tests.guest.image import GuestImage

P = 4096


class Lab(NamedTuple):
    """One target to test over. ``open(mode)`` gives a new handle; writes with "c" or "r+" spoil no other test."""

    name: str
    open: Callable[[str], Kvm]
    write_mode: str
    k: int
    kernel: Callable[[int, int], bytes]     # (offset from k, size)
    u: int
    user: Callable[[int, int], bytes]       # (offset from u, size) of process `pid`
    pid: int
    other: tuple[int, int, bytes, bytes]    # pid, address, what `pid` has there, what the other has
    kthread: int
    zombie: int
    absent: int
    pids: list[int]
    argv: list[str]
    environ: list[str]


def lab_m() -> Lab:
    u, image = fixture_m.U, fixture_m.Image
    return Lab(
        "M", lambda mode: fixture_m.open_m(mode, image()), "r+", fixture_m.K, fixture_m.pattern, u,
        lambda start, size: fixture_m.user_pattern(100, start, size), 100,
        (200, u, fixture_m.user_pattern(100, 0, 8), fixture_m.user_pattern(200, 0, 8)), 2, 300, 12345,
        [0, 2, 100, 200, 300], ["a", "bc"], ["X=1"],
    )


class PagingReader:
    """An ELF dump by virtual addresses, read with nothing of kshell."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        head = self.file.read(64)
        offset, count = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
        self.file.seek(offset)
        rows = [struct.unpack("<IIQQQQQQ", self.file.read(56)) for _ in range(count)]
        self.loads = [(row[3], row[2], row[5]) for row in rows if row[0] == 1]      # vaddr, offset, filesz

    def read(self, address: int, size: int) -> bytes:
        """Return what is held from *address* on, at most *size* bytes."""
        out = b""
        while len(out) < size:
            here = address + len(out)
            load = next((load for load in self.loads if load[0] <= here < load[0] + load[2]), None)
            if load is None:
                break
            self.file.seek(load[1] + here - load[0])
            out += self.file.read(min(size - len(out), load[0] + load[2] - here))
        return out


def lab_e(guest: GuestImage) -> Lab:
    """The victim in a real dump. K is its kernel stack, four pages with a guard page behind."""
    from kshell.target.open import open_target

    target = open_target(str(guest.elf))
    oracle = guest.oracle
    victim, threads = oracle.victim(), oracle.part("threads")
    reader = PagingReader(guest.elf_paging)
    shared = kvm.open(target)
    stack = target.value("struct task_struct", shared.proc(victim["pid"]).address)["stack"].integer()
    k, u = stack + P, victim["hole"] - 2 * P
    start = victim["pattern_size"] - 2 * P
    lines = oracle.processes()

    def opened(mode: str) -> Kvm:
        return kvm.open(target) if mode == "r" else kvm.open(guest.elf, mode=mode)

    return Lab(
        f"E-{guest.spec.name}", opened, "c", k, lambda offset, size: reader.read(k + offset, size), u,
        lambda offset, size: fixture_m.pattern(start + offset, size), victim["pid"],
        (threads["pid"], victim["list_head"], victim["first_node"].to_bytes(8, "little"), bytes(8)),
        2, next(line.pid for line in lines if line.state == "Z"), 4_000_000, [0, *(line.pid for line in lines)],
        [decode(text) for text in oracle.cmdline(victim["pid"])],
        [decode(text) for text in oracle.environ(victim["pid"])],
    )


CHILD = """
import ctypes, mmap, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
base = libc.mmap(None, 4 * 4096, 3, 0x22, -1, 0)
data = bytes((7 * i + 3) & 255 for i in range(2 * 4096))
ctypes.memmove(base, data, len(data))
libc.munmap(ctypes.c_void_p(base + 2 * 4096), 4096)
print(base, flush=True)
sys.stdin.read()
"""


class Child(NamedTuple):
    process: subprocess.Popen[str]
    u: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        """Kill and reap it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def child_process(*words: str, environ: dict[str, str] | None = None) -> Iterator[Child]:
    """Run a child with two pages of pattern at ``u``, a hole behind them and a page behind the hole."""
    process = subprocess.Popen([sys.executable, "-S", "-c", CHILD, *words], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert process.stdout is not None
        yield Child(process, int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def select(kd: Kvm, pid: int) -> kvm.User:
    proc = kvm_getproc(kd, pid)
    assert proc is not None
    user = kvm_getu(kd, proc)
    assert user is not None, kvm.kvm_geterr(kd)
    return user
