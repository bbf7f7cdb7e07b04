"""What drgn says of the stacks in an image, with the kernel's full DWARF: computed once and kept in the cache.

drgn needs the ``-dbg`` package of the kernel (``python -m tests.guest debuginfo 6.1``: large), which is never
downloaded for this. Where it is there, or was once, the answers are there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from .cache import appearing, cache_root
from .image import GuestImage

VERSION = 1
PROGRAM = """
import json, sys, drgn
from drgn.helpers.linux import for_each_online_cpu, for_each_task, per_cpu
program = drgn.Program()
program.set_core_dump(sys.argv[1])
try:
    program.load_debug_info([sys.argv[2]])
except drgn.MissingDebugInfoError:
    pass  # of modules; drgn has ORC for their frames
rows = []
idle = [per_cpu(program["runqueues"], cpu).idle for cpu in for_each_online_cpu(program)]
for task in [*for_each_task(program), *idle]:
    row = {"task": task.value_(), "pid": task.pid.value_(), "comm": task.comm.string_().decode()}
    row |= {"pcs": [], "error": ""}
    try:
        for frame in program.stack_trace(task):
            if not frame.is_inline:
                try:
                    row["pcs"].append(frame.pc)
                except LookupError:
                    row["pcs"].append(0)
    except drgn.FaultError as error:
        row["error"] = str(error)
    rows.append(row)
json.dump(rows, sys.stdout)
"""


class Answer(NamedTuple):
    """drgn's stack of one task: the program counters of its frames, without inlined ones; behind user code is noise."""

    task: int
    pid: int
    comm: str
    pcs: list[int]
    error: str


def vmlinux_of(image: GuestImage) -> Path | None:
    """Return the vmlinux of an image's kernel, None when its ``-dbg`` package is not in the cache."""
    found = (cache_root() / "packages").glob(f"*-dbg_*/usr/lib/debug/boot/vmlinux-{image.kernel_release}")
    return next(found, None)


def drgn_can_tell() -> bool:
    """Whether there is a ``-dbg`` package of any kernel in the cache, or an answer from when there was."""
    return any((cache_root() / "packages").glob("*-dbg_*")) or any((cache_root() / "answers").glob("*"))


def drgn_stacks(image: GuestImage, dump: Path) -> list[Answer] | None:
    """Return drgn's stacks of all tasks in *dump*, a file of *image*; None without debuginfo, or without drgn."""
    kept = cache_root() / "answers" / f"{image.folder.name}-{dump.name}-{VERSION}"
    if not kept.exists():
        vmlinux = vmlinux_of(image)
        if vmlinux is None:
            return None
        words = [sys.executable, "-c", PROGRAM, str(dump), str(vmlinux)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            if "No module named 'drgn'" in done.stderr:
                return None
            raise RuntimeError(f"drgn failed on {dump}: {done.stderr[-500:]}")
        with appearing(kept) as work:
            (work / "stacks.json").write_text(done.stdout)
    rows = json.loads((kept / "stacks.json").read_text())
    return [Answer(**row) for row in rows]
