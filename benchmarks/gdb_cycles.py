"""Stops and breakpoint hits by the thousand: ``python -m benchmarks.gdb_cycles gdb:PLACE [PROCESS [CYCLES [HITS]]]``.

A cycle stops the machine, reads, and lets it run. A hit has a condition that is true and a command. Prints times, and
how much memory and how many descriptors were taken meanwhile; the machine must run at the end.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import NamedTuple

from kshell.builtin import make_registry
from kshell.session import Session
from kshell.target.open import open_target


class Took(NamedTuple):
    """How many there were, the seconds of all, and the growth of the process in KiB after the first tenth."""

    times: int
    seconds: float
    growth: int


def cycles(place: str, count: int) -> Took:
    """Stop, read and resume *count* times; the clock of the guest must go on in between."""
    with open_target(place) as target:
        address = target.symbol("jiffies").address
        start = time.monotonic()
        peak = last = 0
        for number in range(count):
            with target.question():
                now = target.kernel.u64(address)
                assert len(target.physical.read(0x100_0000, 8192)) == 8192
            assert now >= last, "the guest's clock went back: not the guest of before"
            last = now
            if number == count // 10:
                peak = _peak()
        return Took(count, time.monotonic() - start, _peak() - peak)


def hits(place: str, count: int, process: str) -> Took:
    """Have a breakpoint with a condition and a command hit *count* times."""
    session = Session(open_target(place), make_registry(print, plugins=False))
    found, peak = 0, 0
    try:
        for _ in session.eval(f"::bp -p {process} -c '<rsi!=0' -n 0t{count} -e '<rip=J' do_sys_openat2"):
            pass
        start = time.monotonic()
        for item in session.eval("::cont -t 600"):
            found += type(item).__name__ in ("Text", "Block")
            if found == count // 10:
                peak = _peak()
        return Took(session.events.get(1).hits, time.monotonic() - start, _peak() - peak)
    finally:
        session.close()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    place, process, many, few = (*sys.argv[1:], *("", "teller", "10000", "1000")[len(sys.argv) - 1 :])[:4]
    before = len(os.listdir("/proc/self/fd"))
    for name, took in (("stop, read, resume", cycles(place, int(many))), ("hits", hits(place, int(few), process))):
        print(f"{name}: {took.times} in {took.seconds:.1f} s, {took.seconds / took.times * 1000:.2f} ms each, "
              f"{took.growth} KiB more at the peak")
    print(f"descriptors: {before} before, {len(os.listdir('/proc/self/fd'))} after")


if __name__ == "__main__":
    main()
