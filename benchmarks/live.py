"""A running guest beside a dump of it: ``python -m benchmarks --live``. Boots the guest "live", dumps it, asks both.

The same questions of the ELF dump, of the machine by QMP, of its memory file and of its gdb stub, in turns; the table
shows the smallest wall-clock and CPU seconds of each and the ratio to the dump. Goals: by QMP and the memory file 1.5
times the dump at most, by the gdb stub ``::ps`` within 1 s, and within 4 s with an empty cache. Status 1 when one is
missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.guest.build import boot
from tests.guest.spec import named_spec

ROUNDS = 7
GOAL = 1.5
GDB_WARM, GDB_COLD = 1.0, 4.0
COLD_ROUNDS = 3
QUESTIONS = {
    "::ps": ["-e", "::ps"],
    "::ps -T, ::lsmod": ["-e", "::ps -T", "-e", "::lsmod"],
    "pids, comms of all tasks": ["-e", "::walk thread | ::print pid comm"],
    "dentries, counted": ["-e", "::walk dentry | ::count"],
}


def measured(target: str, words: list[str], cache: str | None = None) -> tuple[float, float]:
    """Return wall-clock and CPU seconds of one run."""
    environment = None if cache is None else {**os.environ, "XDG_CACHE_HOME": cache}
    start, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "kshell", "-q", *words, target]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def cold(target: str, words: list[str]) -> tuple[float, float]:
    """As :func:`measured`, with nothing in the cache."""
    with tempfile.TemporaryDirectory() as empty:
        return measured(target, words, empty)


def best_of(runs: list[tuple[float, float]]) -> tuple[float, float]:
    return min(run[0] for run in runs), min(run[1] for run in runs)


def main() -> int:
    """Print the table; the status is 1 when a goal is missed."""
    missed = 0
    with boot(named_spec("live")) as guest, tempfile.TemporaryDirectory(dir=guest.console.parent) as folder:
        dump = Path(folder) / "elf"
        guest.command("dump-guest-memory", paging=False, protocol=f"file:{dump}")
        stub = f"gdb:{guest.gdb_socket}"
        targets = {"dump": str(dump), "qmp": f"qmp:{guest.qmp_socket}", "ram": f"ram:{guest.memory_file}", "gdb": stub}
        print(f"{'question':26} {'target':8} {'wall s':>7} {'cpu s':>7} {'wall':>6} {'cpu':>6}")

        def row(name: str, kind: str, took: tuple[float, float], dump: tuple[float, float], goal: float | None) -> None:
            nonlocal missed
            ratio = took[0] / dump[0]
            met = goal is None or (ratio if kind in ("qmp", "ram") else took[0]) <= goal
            missed += not met
            told = "" if goal is None else f"   <= {goal:g}{' s' if kind.startswith('gdb') else ''}"
            print(f"{name:26} {kind:8} {took[0]:7.2f} {took[1]:7.2f} {ratio:6.2f} {took[1] / dump[1]:6.2f}{told}"
                  f"{'' if goal is None else '  ok' if met else '  MISSED'}", flush=True)

        for name, words in QUESTIONS.items():
            runs: dict[str, list[tuple[float, float]]] = {kind: [] for kind in targets}
            for _ in range(ROUNDS):
                for kind, target in targets.items():
                    runs[kind].append(measured(target, words))
            best = {kind: best_of(found) for kind, found in runs.items()}
            goals = {"qmp": GOAL, "ram": GOAL} | ({"gdb": GDB_WARM} if name == "::ps" else {})
            for kind, took in best.items():
                row(name, kind, took, best["dump"], goals.get(kind))
            if name == "::ps":
                took = best_of([cold(stub, words) for _ in range(COLD_ROUNDS)])
                row("  with an empty cache", "gdb cold", took, best["dump"], GDB_COLD)
    print(f"{missed} goals missed")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
