"""Stops and breakpoint hits by the thousand, on a guest that is booted for it: ``python -m benchmarks.soak``.

``python -m benchmarks.soak [CYCLES [HITS]]``; 10,000 and 1,000 without. A cycle stops the machine, reads, and lets it
run, over gdb and QMP each. A hit has a condition that is true and a command. Prints times, how much memory was taken
between the first tenth and the end, and descriptors; the machine must run at the end, and its clock have gone on.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import NamedTuple

from kshell.builtin import make_registry
from kshell.session import Session
from kshell.target.formats import Options
from kshell.target.open import open_target
from tests.guest.build import boot
from tests.guest.spec import named_spec

MANY = 1000  # cycles in which the guest's clock is sure to go on
MUCH = 4096  # KiB: more growth is a leak


class Took(NamedTuple):
    """How many there were, the seconds of all, and how many KiB more are in memory than after the first tenth."""

    times: int
    seconds: float
    growth: int


def cycles(place: str, count: int) -> Took:
    """Stop, read and resume *count* times; the clock of the guest must not go back in between."""
    with open_target(place, options=Options(pause=True)) as target:
        address = target.symbol("jiffies").address
        start = time.monotonic()
        first = last = held = 0
        for number in range(count):
            with target.question():
                now = target.kernel.u64(address)
                assert len(target.physical.read(0x100_0000, 8192)) == 8192
            assert now >= last, "the guest's clock went back: not the guest of before"
            first, last = first or now, now
            if number == count // 10:
                held = _held()
        if count >= MANY:
            assert last > first, "the guest's clock stands"
        return Took(count, time.monotonic() - start, _held() - held)


def hits(place: str, count: int, process: str = "teller") -> Took:
    """Have a breakpoint with a condition and a command hit *count* times."""
    session = Session(open_target(place), make_registry(print, plugins=False))
    held: dict[int, int] = {}
    try:
        for _ in session.eval(f"::bp -p {process} -c '<rsi!=0' -n 0t{count} -e '<rip=J' do_sys_openat2"):
            pass
        event = session.events.get(1)
        start = time.monotonic()
        for _ in session.eval("::cont -t 600"):
            if event.hits in (count // 10, count - 1) and event.hits not in held:
                held[event.hits] = _held()
        return Took(event.hits, time.monotonic() - start, held[count - 1] - held[count // 10])
    finally:
        session.close()


def _held() -> int:
    """Return how many KiB of this process are in memory."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") >> 10)


def main() -> int:
    """Print a line for each kind; the status is 1 when descriptors or much memory were left."""
    many, few = (int(word) for word in (*sys.argv[1:], *("10000", "1000")[len(sys.argv) - 1 :]))
    bad = 0
    with boot(named_spec("live")) as guest:
        stub, monitor = f"gdb:{guest.gdb_socket}", f"qmp:{guest.qmp_socket}"
        guest.command("query-status")
        for name, place in (("stop, read, resume over gdb", stub), ("stop, read, resume over QMP", monitor),
                            ("breakpoint hits", stub)):
            before = len(os.listdir("/proc/self/fd"))
            took = hits(place, few) if name == "breakpoint hits" else cycles(place, many)
            gc.collect()
            left = len(os.listdir("/proc/self/fd")) - before
            running = guest.command("query-status")["running"]
            bad += left > 0 or took.growth > MUCH or not running
            print(f"{name}: {took.times} in {took.seconds:.1f} s, {took.seconds / took.times * 1000:.2f} ms each, "
                  f"{took.growth:+d} KiB, {left:+d} descriptors, {'runs' if running else 'STANDS'}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
