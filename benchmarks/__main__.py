"""One command, one table: kshell beside drgn on the same dump in the same run. ``python -m benchmarks [--quick]``.

The dumps come from the guest rig (6.1 with 256 MiB, and "big" with 8,000 processes), drgn from PyPI, its vmlinux from
Debian's -dbg package. Every figure is the median of runs that alternate between the two debuggers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PYTHON = sys.executable
DRGN_PS = """
import sys, drgn
from drgn.helpers.linux.list import list_for_each_entry
p = drgn.Program(); p.set_core_dump(sys.argv[1]); p.load_debug_info([sys.argv[2]])
for t in list_for_each_entry("struct task_struct", p["init_task"].tasks.address_of_(), "tasks"):
    print(t.pid.value_(), t.real_parent.tgid.value_(), t.comm.string_().decode())
"""


class Measured:
    """Seconds and peak memory of repeated runs of one command."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.peak = 0
        self.results: list[dict[str, Any]] = []

    def run(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **(environment or {})})
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds.append(time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"benchmark failed: {' '.join(command)}")
        self.peak = max(self.peak, usage.ru_maxrss << 10)
        if output.startswith(b"{"):
            self.results.append(json.loads(output))

    def median(self, key: str | None = None) -> float:
        values = self.seconds if key is None else [result[key] for result in self.results]
        return statistics.median(values)


def row(name: str, ours: float, theirs: float | None, goal: str, unit: str = "s") -> None:
    scale, word = {"s": (1.0, " s"), "MiB": (1 / (1 << 20), " MiB"), "ns": (1e9, " ns"), "ms": (1e3, " ms")}[unit]
    ratio = f"{ours / theirs:8.3f}" if theirs else "       -"
    other = f"{theirs * scale:10.3f}{word}" if theirs else " " * 10 + " -  "
    print(f"{name:44s} {ours * scale:10.3f}{word:4s} {other:14s} {ratio}   {goal}", flush=True)


def case(name: str, runs: int, dump: str, vmlinux: str | None) -> tuple[Measured, Measured | None]:
    """Run one of benchmarks.cases on both sides, alternating, and compare what they found."""
    ours, theirs = Measured(), Measured() if vmlinux else None
    for _ in range(runs):
        ours.run([PYTHON, "-m", "benchmarks.cases", "kshell", name, dump])
        if theirs is not None:
            theirs.run([PYTHON, "-m", "benchmarks.cases", "drgn", name, dump, str(vmlinux)])
    if theirs is not None and ours.results[0]["check"] != theirs.results[0]["check"]:
        print(f"   the answers differ: {ours.results[0]} {theirs.results[0]}")
    return ours, theirs


def open_and_list(runs: int, dump: str, vmlinux: str) -> None:
    cold, warm, theirs, version, click, _prompt = (Measured() for _ in range(6))
    question = [PYTHON, "-m", "kshell", "-e", "::ps", dump]
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as empty:
            cold.run(question, {"XDG_CACHE_HOME": empty})
        warm.run(question)
        theirs.run([PYTHON, "-c", DRGN_PS, dump, vmlinux])
        version.run([PYTHON, "-m", "kshell", "--version"])
        click.run([PYTHON, "-c", "import click"])
    warm.seconds.pop(0)
    row("::ps on the 256 MiB ELF dump, empty cache", cold.median(), theirs.median(), "<= 1 of drgn")
    row("::ps on the 256 MiB ELF dump, warm cache", warm.median(), theirs.median(), "<= 0.35 of drgn")
    row("  peak memory (warm)", warm.peak, theirs.peak, "<= 0.4 of drgn", "MiB")
    row("  peak memory (empty cache)", cold.peak, theirs.peak, "<= 0.4 of drgn", "MiB")
    row("kshell --version, beside import click", version.median(), click.median(), "<= 3 of it")


def hexdump(runs: int, dump: str) -> None:
    ours = Measured()
    theirs: list[float] = []
    for _ in range(runs):
        ours.run([PYTHON, "-m", "benchmarks.cases", "kshell", "hexdump", dump])
        start = time.perf_counter()
        subprocess.run(["hexdump", "-C", "-v", "-n", str(1 << 20), dump], stdout=subprocess.PIPE, check=True)
        theirs.append(time.perf_counter() - start)
    row("hexdump of 1 MiB, beside hexdump -C", ours.median("seconds"), statistics.median(theirs), "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement (default 5)")
    parser.add_argument("--quick", action="store_true", help="leave out the guest with 8,000 processes")
    options = parser.parse_args()
    dump, vmlinux = images("6.1")
    print(f"{dump} ({Path(dump).stat().st_size >> 20} MiB)  Python {sys.version.split()[0]}  {os.cpu_count()} cores")
    print(f"{'':44s} {'kshell':>12s}   {'drgn':>10s}      ratio   goal")
    open_and_list(options.runs, dump, vmlinux)
    for name, label, goal in (
        ("sequential", "64 MiB sequential kread, first time", ""),
        ("random", "100,000 random 8-byte kreads", ""),
        ("symbols", "500 symbol look-ups, by name and by address", ""),
    ):
        ours, theirs = case(name, options.runs, dump, vmlinux)
        assert theirs is not None
        row(label, ours.median("seconds"), theirs.median("seconds"), goal)
        if name == "sequential":
            row("  again", ours.median("again"), theirs.median("again"), "")
            row("  again, beside copying 64 MiB in memory", ours.median("again"), ours.median("copy"), "<= 2 of it")
    hexdump(options.runs, dump)
    ours, _ = case("translate", options.runs, dump, None)
    row("one translation in the TLB", ours.median("seconds") / 100_000, None, "<= 1000 ns", "ns")
    row("one address of a vector translation", ours.median("vector") / 1e9, None, "<= 50 ns", "ns")
    if not options.quick:
        big, vmlinux = images("big")
        ours, theirs = case("tasks", options.runs, big, vmlinux)
        assert theirs is not None
        row("8,000 tasks: pid, ppid, state, comm", ours.median("seconds"), theirs.median("seconds"), "<= 0.15 of drgn")


def images(name: str) -> tuple[str, str]:
    """Return the ELF dump of a standard guest and the vmlinux of its kernel; built and downloaded when absent."""
    from tests.guest.build import prepare
    from tests.guest.packages import debug_package
    from tests.guest.spec import named_spec

    image = prepare(named_spec(name))
    vmlinux, _ = debug_package(named_spec(name).kernel)
    return str(image.elf), str(vmlinux)


if __name__ == "__main__":
    main()
