"""A running guest beside a dump of it: ``python -m benchmarks.live``. Boots the guest "live", dumps it, asks both.

The same questions of the ELF dump, of the machine by QMP and of its memory file, in turns; the table shows the smallest
wall-clock and CPU seconds of each and the ratio to the dump. The goal is 1.5 at most; status 1 when it is missed.
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
QUESTIONS = {
    "::ps": ["-e", "::ps"],
    "::ps -T, ::lsmod": ["-e", "::ps -T", "-e", "::lsmod"],
    "pids, comms of all tasks": ["-e", "::walk thread | ::print pid comm"],
    "dentries, counted": ["-e", "::walk dentry | ::count"],
}


def measured(target: str, words: list[str]) -> tuple[float, float]:
    """Return wall-clock and CPU seconds of one run."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", "kshell", "-q", *words, target], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def main() -> int:
    missed = False
    with boot(named_spec("live")) as guest, tempfile.TemporaryDirectory(dir=guest.console.parent) as folder:
        dump = Path(folder) / "elf"
        guest.command("dump-guest-memory", paging=False, protocol=f"file:{dump}")
        targets = {"dump": str(dump), "qmp": f"qmp:{guest.qmp_socket}", "ram": f"ram:{guest.memory_file}"}
        print(f"{'question':26} {'target':6} {'wall s':>7} {'cpu s':>7} {'wall':>6} {'cpu':>6}")
        for name, words in QUESTIONS.items():
            runs: dict[str, list[tuple[float, float]]] = {kind: [] for kind in targets}
            for _ in range(ROUNDS):
                for kind, target in targets.items():
                    runs[kind].append(measured(target, words))
            best = {kind: (min(run[0] for run in found), min(run[1] for run in found)) for kind, found in runs.items()}
            for kind, (wall, cpu) in best.items():
                ratios = wall / best["dump"][0], cpu / best["dump"][1]
                print(f"{name:26} {kind:6} {wall:7.2f} {cpu:7.2f} {ratios[0]:6.2f} {ratios[1]:6.2f}", flush=True)
                missed |= ratios[0] > GOAL
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
