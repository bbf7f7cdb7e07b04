"""One command, one table: kshell beside drgn on the same dump in the same run. ``python -m benchmarks [--quick]``.

With ``--live`` it is a running guest beside a dump of it instead (benchmarks/live.py).

The dumps come from the guest rig (6.1 with 256 MiB, and "big" with 8,000 processes), drgn from PyPI, its vmlinux from
Debian's -dbg package. Runs alternate between the two debuggers; the table shows the median and the smallest of each. On
a machine with other work the smallest says more, so a goal is judged by the ratio of those. The answers are compared.
Everything is compiled first, as an installation does. Status 1 when a goal is missed or the answers differ.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import SEQUENTIAL

PYTHON = sys.executable
ROOT = Path(__file__).resolve().parent.parent
#: of the children: bytecode may be written, and the checkout is importable from anywhere
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
PROMPT = b"0m>\x1b"  # what prompt_toolkit writes for it
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
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=ROOT, env={**ENVIRONMENT, **(environment or {})})
        assert process.stdout is not None
        output = process.stdout.read(1 << 20)  # of more only the time counts; kept, it would be in our children's peak
        while process.stdout.read(1 << 20):
            pass
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds.append(time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"benchmark failed: {' '.join(command)}")
        self.peak = max(self.peak, usage.ru_maxrss << 10)
        if output.startswith(b"{"):
            self.results.append(json.loads(output))

    def times(self, key: str | None = None) -> list[float]:
        return self.seconds if key is None else [result[key] for result in self.results]


class Table:
    """The rows printed, and how many of them do not reach their goal."""

    def __init__(self) -> None:
        self.missed = 0
        self.differ = 0
        print(f"{'':45s} {'kshell':>18s}      {'drgn or other':>18s}      {'ratio':>13s}\n"
              f"{'':45s} {'median       min':>18s}      {'median       min':>18s}      {'median    min':>13s}   goal")

    def row(
        self, name: str, ours: Sequence[float], theirs: Sequence[float] | None = None, goal: float | None = None,
        unit: str = "s",
    ) -> None:
        """Print a row. *goal* is the largest ratio, or without *theirs* the largest figure in *unit*."""
        scale = {"s": 1.0, "MiB": 1 / (1 << 20), "ns": 1e9, "ms": 1e3}[unit]
        digits = 3 if unit == "s" else 1
        mine = [statistics.median(ours) * scale, min(ours) * scale]
        text = f"{name:45s} {mine[0]:9.{digits}f} {mine[1]:9.{digits}f} {unit:3s}"
        judged = mine[1]
        if theirs:
            other = [statistics.median(theirs) * scale, min(theirs) * scale]
            judged = mine[1] / other[1]
            text += f" {other[0]:9.{digits}f} {other[1]:9.{digits}f} {unit:3s} {mine[0] / other[0]:6.3f} {judged:6.3f}"
        else:
            text += " " * 38
        if goal is not None:
            met = judged <= goal
            self.missed += not met
            text += f"   <= {goal:g}{'' if theirs else ' ' + unit}  {'ok' if met else 'MISSED'}"
        print(text, flush=True)

    def compare(self, name: str, ours: Measured, theirs: Measured) -> None:
        """Say so when the two debuggers' answers differ."""
        found = {str(result["check"]) for result in ours.results}, {str(result["check"]) for result in theirs.results}
        if found[0] != found[1] or len(found[0]) != 1:
            self.differ += 1
            print(f"   {name}: THE ANSWERS DIFFER: {found}")


def case(table: Table, name: str, runs: int, dump: str, vmlinux: str | None) -> tuple[Measured, Measured]:
    """Run one of benchmarks.cases on both sides, alternating, and compare what they found."""
    ours, theirs = Measured(), Measured()
    for _ in range(runs):
        ours.run([PYTHON, "-m", "benchmarks.cases", "kshell", name, dump])
        if vmlinux is not None:
            theirs.run([PYTHON, "-m", "benchmarks.cases", "drgn", name, dump, vmlinux])
    if vmlinux is not None:
        table.compare(name, ours, theirs)
    return ours, theirs


def open_and_list(table: Table, runs: int, dump: str, vmlinux: str) -> None:
    cold, warm, theirs, version, click = (Measured() for _ in range(5))
    question = [PYTHON, "-m", "kshell", "-e", "::ps", dump]
    with tempfile.TemporaryDirectory() as kept:
        Measured().run(question, {"XDG_CACHE_HOME": kept})
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as empty:
                cold.run(question, {"XDG_CACHE_HOME": empty})
            warm.run(question, {"XDG_CACHE_HOME": kept})
            theirs.run([PYTHON, "-c", DRGN_PS, dump, vmlinux])
            version.run([PYTHON, "-m", "kshell", "--version"])
            click.run([PYTHON, "-c", "import click"])
    table.row("::ps on the 256 MiB ELF dump, empty cache", cold.seconds, theirs.seconds, 1)
    table.row("::ps on the 256 MiB ELF dump, warm cache", warm.seconds, theirs.seconds, 0.35)
    table.row("  peak memory (warm)", [warm.peak], [theirs.peak], 0.4, "MiB")
    table.row("  peak memory (empty cache)", [cold.peak], [theirs.peak], 0.4, "MiB")
    table.row("kshell --version, beside import click", version.seconds, click.seconds, 3)


def prompt(table: Table, runs: int) -> None:
    ours, theirs = [], Measured()
    for _ in range(runs):
        ours.append(seconds_to_prompt())
        theirs.run([PYTHON, "-c", "import click, prompt_toolkit.shortcuts"])
    table.row("a plain prompt, beside importing its libraries", ours, theirs.seconds)
    table.row("  in seconds", ours, goal=0.3)


def seconds_to_prompt() -> float:
    """Start kshell in a terminal and wait for its prompt."""
    master, slave = os.openpty()
    start = time.perf_counter()
    child = subprocess.Popen([PYTHON, "-m", "kshell", "-n"], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT,
                             env={**ENVIRONMENT, "TERM": "xterm"}, start_new_session=True)
    os.close(slave)
    seen = b""
    try:
        while PROMPT not in seen:
            if not select.select([master], [], [], 20)[0]:
                raise SystemExit("benchmark failed: kshell shows no prompt")
            piece = os.read(master, 65536)
            seen += piece
            if b"\x1b[6n" in piece:  # where is the cursor?
                os.write(master, b"\x1b[1;1R")
        return time.perf_counter() - start
    finally:
        child.kill()
        child.wait()
        os.close(master)


def output(table: Table, runs: int, dump: str) -> None:
    """The two ways to print much, beside hexdump(1) and beside opening."""
    blocks, _ = case(table, "hexdump", runs, dump, None)
    theirs = Measured()
    for _ in range(runs):
        theirs.run(["hexdump", "-C", "-v", "-n", str(1 << 20), dump])
    table.row("hexdump of 1 MiB, beside hexdump -C", blocks.times("seconds"), theirs.seconds)
    with tempfile.NamedTemporaryFile() as same:
        # in a process of its own: a child's peak memory begins with its parent's
        copy = [PYTHON, "-m", "benchmarks.cases", "kshell", "copy", dump, same.name]
        copied = subprocess.run(copy, stdout=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT, check=True)
        start = json.loads(copied.stdout)["check"]
        questions = (
            (f"{start:x}/0t{SEQUENTIAL}", ["hexdump", "-C", "-v"], SEQUENTIAL, "64 MiB as a hex dump"),
            (f"{start:x},{SEQUENTIAL:x}::dump", ["hexdump", "-C", "-v"], SEQUENTIAL, "64 MiB by ::dump"),
            (f"{start:x},0t1000000/X", ["od", "-v", "-A", "x", "-t", "x4"], 4_000_000, ",0t1000000/X"),
            (f"{start:x},0t1000000/J", ["od", "-v", "-A", "x", "-t", "x8"], 8_000_000, ",0t1000000/J"),
        )
        empty = Measured()
        for _ in range(runs):
            empty.run([PYTHON, "-m", "kshell", "-e", "1=X", dump])
        for command, tool, size, name in questions:
            ours, theirs = Measured(), Measured()
            for _ in range(runs if tool[0] == "od" else 1):  # hexdump takes half a minute
                ours.run([PYTHON, "-m", "kshell", "-e", command, dump])
                theirs.run([*tool, "-N" if tool[0] == "od" else "-n", str(size), same.name])
            table.row(f"{name}, beside {tool[0]}", ours.seconds, theirs.seconds)
            more = [max(one - min(empty.seconds), 0.0) for one in ours.seconds]
            table.row("  without opening the dump", more, theirs.seconds, 1)


def compressed(table: Table, runs: int, dump: str, vmlinux: str) -> None:
    """The same memory as kdump dumps, beside the ELF dump, drgn on it, and the codecs alone; a sparse TiB."""
    with tempfile.TemporaryDirectory() as folder:
        small = f"{folder}/kdump.zlib"
        for codec in ("zlib", "lzo", "snappy", "zstd"):
            path = f"{folder}/kdump.{codec}"
            Measured().run([PYTHON, "-m", "kshell", "convert", "-q", "-c", codec, dump, path])
            ours, _ = case(table, "decode", runs, path, None)
            table.row(f"kdump-{codec}, all pages, beside the codec on all cores", ours.times("seconds"),
                      ours.times("codec"), 1.25)
            table.row("  beside the codec on one core, over the cores", ours.times("seconds"), ours.times("single"))
            if codec == "zlib":
                table.row("  beside Python's own zlib x cores", ours.times("seconds"), ours.times("stdlib"))
        sparse = f"{folder}/sparse"
        make_sparse(dump, sparse)
        flat = str(Path(dump).with_name("kdump.zlib"))  # as QEMU writes it; drgn does not open it
        elf, kdump, theirs, huge, flattened, first, passed = (Measured() for _ in range(7))
        keep = {"XDG_CACHE_HOME": f"{folder}/cache"}
        for number in range(runs + 1):
            for measured, path in ((elf, dump), (kdump, small), (huge, sparse), (flattened, flat)):
                measured.run([PYTHON, "-m", "kshell", "-e", "::ps", path], keep)
                if not number:
                    measured.seconds.clear()
            theirs.run([PYTHON, "-c", DRGN_PS, small, vmlinux])
            for index in Path(f"{folder}/cache").glob("kshell/index/flattened-*"):
                index.unlink()
            first.run([PYTHON, "-m", "kshell", "-e", "::ps", flat], keep)
            passed.run(["cat", flat])
        table.row("::ps on kdump-zlib, beside the ELF dump", kdump.seconds, elf.seconds, 1.3)
        table.row("  beside drgn on the same kdump", kdump.seconds, theirs.seconds, 0.5)
        table.row("  peak memory", [kdump.peak], goal=150, unit="MiB")
        table.row("::ps on QEMU's flattened kdump, beside the ELF dump", flattened.seconds, elf.seconds, 1.3)
        table.row("  without its index, beside that and one pass", first.seconds,
                  [1.3 * one + more for one, more in zip(elf.seconds, passed.seconds, strict=False)], 1)
        table.row("::ps on a sparse ELF of 1 TiB, beside 256 MiB", huge.seconds, elf.seconds, 1.3)
        table.row("  peak memory", [huge.peak], goal=150, unit="MiB")


def make_sparse(dump: str, path: str) -> None:
    """Write the ELF dump *dump* with one more segment: a TiB of holes at physical 1 TiB."""
    from kshell.memory.elfcore import EHDR, PHDR

    shutil.copyfile(dump, path)  # not read: a child's peak memory begins with its parent's
    with open(path, "r+b") as file:
        fields = list(EHDR.unpack(file.read(EHDR.size)))
        file.seek(fields[5])
        table = file.read(fields[10] * PHDR.size)
        end = -(-os.fstat(file.fileno()).st_size // 4096) * 4096
        hole = -(-(end + len(table) + PHDR.size) // 4096) * 4096
        fields[5], fields[10] = end, fields[10] + 1
        file.seek(0)
        file.write(EHDR.pack(*fields))
        file.seek(end)
        file.write(table + PHDR.pack(1, 7, hole, 0, 1 << 40, 1 << 40, 1 << 40, 0))
        file.truncate(hole + (1 << 40))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement (default 5)")
    parser.add_argument("--quick", action="store_true", help="leave out the guest with 8,000 processes")
    parser.add_argument("--live", action="store_true", help="a running guest beside a dump of it, and nothing else")
    options = parser.parse_args()
    if options.live:
        from benchmarks import live

        return live.main()
    runs = max(options.runs, 1)
    for folder in ("kshell", "commands", "plugins", "benchmarks"):
        compileall.compile_dir(str(ROOT / folder), quiet=2)
    dump, vmlinux = images("6.1")
    print(f"{dump} ({Path(dump).stat().st_size >> 20} MiB)  Python {sys.version.split()[0]}  {os.cpu_count()} cores")
    table = Table()
    open_and_list(table, runs, dump, vmlinux)
    prompt(table, runs)
    ours, theirs = case(table, "sequential", runs, dump, vmlinux)
    table.row("64 MiB sequential kread, first time", ours.times("seconds"), theirs.times("seconds"))
    table.row("  again", ours.times("again"), theirs.times("again"))
    table.row("  again, beside copying 64 MiB in memory", ours.times("again"), ours.times("copy"), 2)
    ours, theirs = case(table, "random", runs, dump, vmlinux)
    table.row("100,000 random 8-byte kreads", ours.times("seconds"), theirs.times("seconds"))
    ours, theirs = case(table, "symbols", min(runs, 3), dump, vmlinux)
    table.row("500 symbol look-ups, by name and by address", ours.times("seconds"), theirs.times("seconds"))
    output(table, runs, dump)
    ours, _ = case(table, "translate", runs, dump, None)
    table.row("one translation in the TLB", [t / 100_000 for t in ours.times("seconds")], goal=1000, unit="ns")
    table.row("one address of a vector translation", [t / 1e9 for t in ours.times("vector")], goal=50, unit="ns")
    table.row("  by page tables (vmalloc)", [t / 1e9 for t in ours.times("walked")], goal=50, unit="ns")
    compressed(table, runs, dump, vmlinux)
    if not options.quick:
        big, vmlinux = images("big")
        ours, theirs = case(table, "tasks", runs, big, vmlinux)
        table.row("8,000 tasks: pid, ppid, state, comm, first time", ours.times("seconds"), theirs.times("seconds"))
        table.row("  again: the loop alone", ours.times("again"), theirs.times("again"), 0.15)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/kdump"
            Measured().run([PYTHON, "-m", "kshell", "convert", "-q", big, path])
            elf, kdump = Measured(), Measured()
            for _ in range(runs):
                elf.run([PYTHON, "-m", "kshell", "-e", "::ps", big])
                kdump.run([PYTHON, "-m", "kshell", "-e", "::ps", path])
            table.row("::ps of 8,000 on kdump-zlib, beside the ELF dump", kdump.seconds, elf.seconds, 1.3)
            table.row("  peak memory", [kdump.peak], goal=150, unit="MiB")
        ours, theirs = case(table, "search", runs, big, vmlinux)
        table.row("a string in 2 GiB of RAM", ours.times("seconds"), theirs.times("seconds"), 1)
        table.row("  a number under a mask", ours.times("masked"))
        ours, theirs = case(table, "stacks", 1, big, vmlinux)  # drgn needs a minute
        table.row("8,000 kernel stacks with function names", ours.times("seconds"), theirs.times("seconds"), 0.15)
        table.row("  again", ours.times("again"), theirs.times("again"), 0.15)
        table.row("  followed and grouped", ours.times("groups"))
        grouped = Measured()
        for _ in range(runs):
            grouped.run([PYTHON, "-m", "kshell", "-e", "::stacks", big])
        table.row("  ::stacks as a command", grouped.seconds, goal=2)
        ours, theirs = case(table, "dentries", runs, big, vmlinux)
        table.row("all dentries by their slabs, first time", ours.times("seconds"), theirs.times("seconds"), 0.05)
        table.row("  again", ours.times("again"), theirs.times("again"))
        table.row("  two members of each", ours.times("members"), theirs.times("members"))
        pipe, nothing = Measured(), Measured()
        question = "::walk dentry | ::print struct dentry d_inode d_lockref.count"
        for _ in range(runs):
            pipe.run([PYTHON, "-m", "kshell", "-e", question, big])
            nothing.run([PYTHON, "-m", "kshell", "-e", "1=X", big])
        table.row("  ::walk dentry | ::print both, beside opening", pipe.seconds, nothing.seconds)
        ours, theirs = case(table, "names", runs, big, vmlinux)
        table.row("  ::walk dentry | ::print d_name.name", ours.times("seconds"), theirs.times("seconds"), 0.15)
        crashed, _ = images("kdump", "makedumpfile.zlib")
        ours, _ = case(table, "whatis", runs, crashed, None)
        table.row("::whatis on 1 GiB: its index", ours.times("seconds"), goal=0.5)
        table.row("  one answer when it is there", ours.times("warm"), goal=10, unit="ms")
        ours, _ = case(table, "memstat", runs, crashed, None)
        table.row("::memstat on 1 GiB", ours.times("seconds"))
        ours, _ = case(table, "leaks", runs, crashed, None)
        table.row("::findleaks on 1 GiB", ours.times("seconds"), goal=20)
    print(f"{table.missed} goals missed, {table.differ} answers differ")
    return int(bool(table.missed or table.differ))


def images(name: str, file: str = "elf") -> tuple[str, str]:
    """Return a dump of a standard guest and the vmlinux of its kernel; built and downloaded when absent."""
    from tests.guest.build import prepare
    from tests.guest.packages import debug_package
    from tests.guest.spec import named_spec

    image = prepare(named_spec(name))
    vmlinux, _ = debug_package(named_spec(name).kernel)
    return str(image.folder / file), str(vmlinux)


if __name__ == "__main__":
    sys.exit(main())
