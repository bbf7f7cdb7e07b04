"""What is measured. Each case is run in a process of its own, one for each debugger, and prints one JSON object.

``python -m benchmarks.cases kshell|drgn CASE DUMP [VMLINUX]``: {"seconds": ..., "check": ...}. ``check`` must be the
same on both sides; ``seconds`` is the time of the work named, without starting Python, unless the case is "open".
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

SEQUENTIAL = 64 << 20
RANDOM_READS = 100_000
LOOKUPS = 500


def kshell_open(dump: str) -> Any:
    from kshell.target.open import open_target

    return open_target(dump)


def drgn_open(dump: str, vmlinux: str) -> Any:
    import drgn

    program = drgn.Program()
    program.set_core_dump(dump)
    program.load_debug_info([vmlinux])
    return program


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    start = time.perf_counter()
    check = work()
    return {"seconds": time.perf_counter() - start, "check": check}


def digest(rows: Any) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


# -- tasks: pid, ppid, state, comm of every process and thread ---------------------------------------------------------


def kshell_tasks(dump: str) -> dict[str, Any]:
    from kshell.linux.tasks import process_rows, task_columns

    target = kshell_open(dump)
    target.symbols.get("init_task")
    target.type("struct task_struct")

    def work() -> list[tuple[Any, ...]]:
        addresses, held = process_rows(target)
        return list(zip(*task_columns(target, addresses, "pid", "ppid", "state", "comm", held=held), strict=True))

    result = timed(work)
    result["again"] = timed(work)["seconds"]
    return result | {"check": digest(sorted(result["check"]))}


def drgn_tasks(dump: str, vmlinux: str) -> dict[str, Any]:
    from drgn.helpers.linux.list import list_for_each_entry
    from drgn.helpers.linux.sched import task_state_to_char

    program = drgn_open(dump, vmlinux)
    head = program["init_task"].tasks.address_of_()
    program.type("struct task_struct")

    def work() -> list[tuple[Any, ...]]:
        rows = []
        for task in list_for_each_entry("struct task_struct", head, "tasks"):
            state = task_state_to_char(task)
            parent = task.real_parent.tgid.value_()
            rows.append((task.pid.value_(), parent, state, task.comm.string_().decode()))
        return rows

    result = timed(work)
    result["again"] = timed(work)["seconds"]
    return result | {"check": digest(sorted(result["check"]))}


# -- stacks: the program counters and the function names of every task ------------------------------------------------


def kshell_stacks(dump: str) -> dict[str, Any]:
    """``groups`` are the seconds of grouping equal stacks, without a list of each."""
    from kshell.linux import stacks

    target = kshell_open(dump)
    target.type("struct task_struct")
    every = stacks.every_task(target)
    import numpy  # noqa: F401 - drgn's import is not measured either

    def work() -> list[list[int]]:
        rows = []
        for stack in stacks.stacks(target, every):
            frames = [frame for frame in stack.frames if frame.kind != "user"]
            assert all(stacks.function(target, frame) for frame in frames)
            rows.append([frame.pc for frame in frames])
        return rows

    result = timed(work)
    result["again"] = timed(work)["seconds"]
    result["groups"] = timed(lambda: len(stacks.stacks(target, every).groups()))["seconds"]
    result["count"] = len(every)
    return result | {"check": digest(sorted(result["check"]))}


def drgn_stacks(dump: str, vmlinux: str) -> dict[str, Any]:
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.percpu import per_cpu
    from drgn.helpers.linux.pid import for_each_task

    program = drgn_open(dump, vmlinux)
    every = list(for_each_task(program))
    every += [per_cpu(program["runqueues"], cpu).idle for cpu in for_each_online_cpu(program)]

    def work() -> list[list[int]]:
        rows = []
        for task in every:
            row: list[int] = []
            for frame in program.stack_trace(task) if task.stack else ():
                if frame.pc < 1 << 63:
                    break  # user code; behind it is noise
                name = frame.name
                if not frame.is_inline:
                    assert name
                    row.append(frame.pc)
            rows.append(row)
        return rows

    result = timed(work)
    result["again"] = timed(work)["seconds"]
    return result | {"check": digest(sorted(result["check"]))}


# -- memory ------------------------------------------------------------------------------------------------------------


def direct_map(target: Any) -> int:
    """The direct map's address of physical 1 MiB, from where RAM goes on for long."""
    return int(target.kernel.u64(target.symbol("page_offset_base").address)) + (1 << 20)


def kshell_sequential(dump: str) -> dict[str, Any]:
    from kshell import kvm

    with kvm.open(dump) as handle:
        start = direct_map(kshell_open(dump))
        buffer = bytearray(SEQUENTIAL)

        def work() -> int:
            return int(kvm.kvm_kread(handle, start, buffer, SEQUENTIAL))

        result = timed(work)
        result["again"] = min(timed(work)["seconds"] for _ in range(3))
    target = bytearray(buffer)  # touched, as the buffer is by now
    result["copy"] = min(timed(lambda: target.__setitem__(slice(None), buffer))["seconds"] for _ in range(3))
    result["check"] = hashlib.sha256(buffer).hexdigest()[:16]
    return result


def drgn_sequential(dump: str, vmlinux: str) -> dict[str, Any]:
    program = drgn_open(dump, vmlinux)
    start = program["page_offset_base"].value_() + (1 << 20)
    result = timed(lambda: program.read(start, SEQUENTIAL))
    result["again"] = min(timed(lambda: program.read(start, SEQUENTIAL))["seconds"] for _ in range(3))
    result["check"] = hashlib.sha256(program.read(start, SEQUENTIAL)).hexdigest()[:16]
    return result


def random_addresses(start: int) -> list[int]:
    source = random.Random(1)
    return [start + source.randrange(0, SEQUENTIAL, 8) for _ in range(RANDOM_READS)]


def kshell_random(dump: str) -> dict[str, Any]:
    from kshell import kvm

    with kvm.open(dump) as handle:
        addresses = random_addresses(direct_map(kshell_open(dump)))
        buffer = bytearray(8)

        def work() -> int:
            return sum(kvm.kvm_kread(handle, address, buffer, 8) and buffer[0] for address in addresses)

        return timed(work)


def drgn_random(dump: str, vmlinux: str) -> dict[str, Any]:
    program = drgn_open(dump, vmlinux)
    addresses = random_addresses(program["page_offset_base"].value_() + (1 << 20))
    return timed(lambda: sum(program.read(address, 8)[0] for address in addresses))


# -- symbols -----------------------------------------------------------------------------------------------------------

NAMES = ("init_task", "schedule", "do_exit", "linux_banner", "vfs_read", "kmem_cache_alloc", "tcp_v4_rcv", "jiffies")


def kshell_symbols(dump: str) -> dict[str, Any]:
    target = kshell_open(dump)
    target.symbol("init_task")

    def work() -> str:
        rows = []
        for number in range(LOOKUPS):
            symbol = target.symbol(NAMES[number % len(NAMES)])
            found = target.symbolize(symbol.address + 1)
            rows.append((symbol.address, found[1] if found else None))
        return digest(rows)

    return timed(work)


def drgn_symbols(dump: str, vmlinux: str) -> dict[str, Any]:
    program = drgn_open(dump, vmlinux)

    def work() -> str:
        rows = []
        for number in range(LOOKUPS):
            symbol = program.symbol(NAMES[number % len(NAMES)])
            found = program.symbol(symbol.address + 1)
            rows.append((symbol.address, symbol.address + 1 - found.address))
        return digest(rows)

    return timed(work)


# -- dentries: every allocated one, by the slabs; and their reference counts ------------------------------------------


def kshell_dentries(dump: str) -> dict[str, Any]:
    """``again`` is the walk when the page array has been read once."""
    from kshell.linux import slab, slub_objects
    from kshell.value import Vector

    target = kshell_open(dump)
    cache = target.value("struct kmem_cache", slab.find_cache(target, "dentry").address)
    kind = target.type("struct dentry")
    import numpy  # noqa: F401 - drgn's import is not measured either

    def work() -> list[int]:
        found = slub_objects.cache_objects(target, cache)
        return sorted(found.address[found.allocated].tolist())

    result = timed(work)
    result["again"] = timed(work)["seconds"]
    columns = timed(lambda: Vector(target, kind, result["check"]).columns("d_inode", "d_lockref.count"))
    return result | {"check": digest((result["check"], *columns["check"])), "members": columns["seconds"]}


def drgn_dentries(dump: str, vmlinux: str) -> dict[str, Any]:
    from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object

    program = drgn_open(dump, vmlinux)
    cache = find_slab_cache(program, "dentry")
    found: list[Any] = []

    def work() -> list[int]:
        found[:] = sorted(slab_cache_for_each_allocated_object(cache, "struct dentry"), key=lambda one: one.value_())
        return [one.value_() for one in found]

    result = timed(work)
    result["again"] = timed(work)["seconds"]
    columns = timed(lambda: [[one.d_inode.value_() for one in found], [one.d_lockref.count.value_() for one in found]])
    return result | {"check": digest((result["check"], *columns["check"])), "members": columns["seconds"]}


# -- names of all dentries: the walk and the names, through a pipeline ------------------------------------------------


def kshell_names(dump: str) -> dict[str, Any]:
    import io

    from kshell.builtin import make_registry
    from kshell.console import Console
    from kshell.session import Session
    from kshell.shell.scripted import run_text

    target = kshell_open(dump)
    session = Session(target, make_registry(lambda _: None, plugins=False))
    target.symbols.get("init_task")
    target.type("struct dentry")
    import numpy  # noqa: F401 - drgn's import is not measured either

    def work() -> list[str]:
        out = io.StringIO()
        question = "::walk dentry | ::print struct dentry d_name.name"
        run_text(session, Console(session, out, out), question, string=True, recover=False)
        return out.getvalue().splitlines()

    result = timed(work)
    names = sorted(line.split(' "', 1)[1][:-1] for line in result["check"] if ' "' in line)
    return result | {"check": digest([len(result["check"]), names])}


def drgn_names(dump: str, vmlinux: str) -> dict[str, Any]:
    from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object

    program = drgn_open(dump, vmlinux)
    cache = find_slab_cache(program, "dentry")

    def work() -> list[bytes]:
        found = slab_cache_for_each_allocated_object(cache, "struct dentry")
        return [one.d_name.name.string_() for one in found]

    result = timed(work)
    return result | {"check": digest([len(result["check"]), sorted(name.decode() for name in result["check"])])}


# -- what is behind an address, what memory is used for, what is leaked ------------------------------------------------


def kshell_whatis(dump: str) -> dict[str, Any]:
    """Seconds until the first answer about a page (its index), and ``warm``: the slowest of 2,000 later ones."""
    from kshell.linux import slub_objects, whatis, whatis_index
    from kshell.linux.search import direct_map as start_of

    target = kshell_open(dump)
    target.symbols.get("init_task")
    target.type("struct page")
    import numpy  # noqa: F401 - what importing it takes is no part of the index

    base = start_of(target)
    result = timed(lambda: [answer.text for answer in whatis.whatis(target, base + (64 << 20))])
    source = random.Random(1)
    heap = slub_objects.heap(target)
    objects = heap.addresses()[:: max(len(heap) // 1000, 1)].tolist()
    stacks = [start + 0x3F80 for start in whatis_index.task_index(target).stacks.starts[:200]]
    pages = [base + source.randrange(0, 256 << 20) for _ in range(800)]
    for address in pages[:50] + stacks[:5]:
        list(whatis.whatis(target, address))
    times = [timed(partial(all_answers, target, address))["seconds"] for address in objects + stacks + pages]
    result["warm"] = sorted(times)[-20]  # the machine has other work
    result["check"] = len(times)
    return result


def all_answers(target: Any, address: int) -> list[Any]:
    from kshell.linux import whatis

    return list(whatis.whatis(target, address))


def kshell_memstat(dump: str) -> dict[str, Any]:
    from kshell.linux import memstat

    target = kshell_open(dump)
    target.symbols.get("init_task")
    target.type("struct page")
    import numpy  # noqa: F401

    result = timed(lambda: memstat.memory(target))
    return result | {"check": result["check"].total == result["check"].told}


def kshell_leaks(dump: str) -> dict[str, Any]:
    from kshell.linux import leaks

    target = kshell_open(dump)
    result = timed(lambda: leaks.find_leaks(target))
    return result | {"check": len(result["check"].address)}


# -- translation -------------------------------------------------------------------------------------------------------


def kshell_translate(dump: str) -> dict[str, Any]:
    """Seconds for 100,000 translations in the TLB, in a loop of Python, of an address of vmalloc.

    ``vector`` and ``walked`` are the nanoseconds an address of 1,000,000 at once: of the direct map, and of vmalloc,
    where the page tables are walked.
    """
    import numpy as np

    target = kshell_open(dump)
    space = target.kernel
    start = direct_map(target)
    first = int(space.u64(target.symbol("vmalloc_base").address))
    pages = [page for run in space.mappings(first, first + (1 << 44)) for page in range(run.start, run.end, 4096)]
    translate, base = space.translate, pages[0] + 8
    translate(base)
    numbers = range(100_000)

    def work() -> None:
        for _ in numbers:
            translate(base)

    result = timed(work)
    random_numbers = np.random.default_rng(1)
    direct = random_numbers.integers(start, start + SEQUENTIAL, 1_000_000, dtype=np.uint64)
    walked = random_numbers.choice(np.array(pages, np.uint64), 1_000_000) + np.uint64(8)
    for name, addresses in (("vector", direct), ("walked", walked)):
        space.translate_all(addresses[:1000])
        began = time.perf_counter()
        space.translate_all(addresses)
        result[name] = (time.perf_counter() - began) * 1000
    some = slice(0, None, 9973)
    found, mapped = space.translate_all(walked[some])
    assert mapped.all() and found.tolist() == [translate(address) for address in walked[some].tolist()]
    return result


def kshell_hexdump(dump: str) -> dict[str, Any]:
    from kshell.hexdump import DumpOptions
    from kshell.hexdump import dump as hexdump

    target = kshell_open(dump)
    start = direct_map(target)
    return timed(lambda: sum(len(str(block)) for block in hexdump(target.kernel.read, start, 1 << 20, DumpOptions())))


def kshell_decode(dump: str) -> dict[str, Any]:
    """Seconds for all pages of a kdump in runs of 4 MiB; ``codec`` is what its codec alone needs on all cores at once.

    The codec alone is a tight loop in a process a core over the same compressed pages, each decompressed into one
    buffer, by the library that kshell uses. ``single`` is that of one process, divided by the cores: where cores share
    their units (hyperthreads), the codec does not reach it either. ``stdlib`` is the same with Python's own zlib.
    """
    import zlib

    from kshell.memory.codecs import CODEC_BITS, ZLIB, decoder_of
    from kshell.memory.kdump import open_kdump
    from kshell.memory.threads import cores

    with open_kdump(dump) as image:
        count: int = sum(run.end - run.start for run in image.ranges() if run.held) // 4096
        buffer = memoryview(bytearray(1024 * 4096))
        found = list(image.pages.descriptors(0, count))
        codec = max(row.flags & CODEC_BITS for row in found)
        pieces = [(image.source.pread(row.size, row.offset), row.flags & CODEC_BITS) for row in found]
        decode, page = decoder_of(codec), memoryview(bytearray(4096))

        def loop(first: int, step: int) -> None:
            for piece, flags in pieces[first::step]:
                if flags:
                    page[:] = decode(piece, 4096)
                else:
                    page[:] = piece

        def alone() -> int:
            loop(0, 1)
            return count

        def together() -> float:
            """Return the seconds from when all processes are there until the last has done its share."""
            begin, told = os.pipe()
            others = []
            for number in range(1, cores()):
                pid = os.fork()
                if not pid:
                    os.read(begin, 1)
                    loop(number, cores())
                    os._exit(0)
                others.append(pid)
            time.sleep(0.05)
            start = time.perf_counter()
            os.write(told, b"x" * len(others))
            loop(0, cores())
            for pid in others:
                os.waitpid(pid, 0)
            os.close(begin)
            os.close(told)
            return time.perf_counter() - start

        def all_pages() -> int:
            steps = range(0, count, 1024)
            return sum(int(image.pages.fill(at, buffer[: min(1024, count - at) * 4096])[0]) for at in steps)

        result = min((timed(all_pages) for _ in range(3)), key=lambda one: float(one["seconds"]))
        result["codec"] = min(together() for _ in range(3))
        result["single"] = min(timed(alone)["seconds"] for _ in range(3)) / cores()
        if codec == ZLIB:
            plain = timed(lambda: sum(len(zlib.decompress(piece, bufsize=4096)) for piece, flags in pieces if flags))
            result["stdlib"] = plain["seconds"] / cores()
    return result


# -- searching all of RAM ----------------------------------------------------------------------------------------------

WANTED = b"kshell victim: the quick brown fox"


def kshell_search(dump: str) -> dict[str, Any]:
    from kshell.linux.search import Search, bytes_finder, search_ram, word_finder

    target = kshell_open(dump)
    result = timed(lambda: len(list(search_ram(target, Search(*bytes_finder(WANTED))))))
    masked = word_finder(0x7368656C, 4, "little", mask=0xFFFFFF00)
    return result | {"masked": timed(lambda: len(list(search_ram(target, Search(*masked)))))["seconds"]}


def drgn_search(dump: str, vmlinux: str) -> dict[str, Any]:
    program = drgn_open(dump, vmlinux)
    return timed(lambda: sum(1 for _ in program.search_memory(WANTED)))


def kshell_copy(dump: str, path: str) -> dict[str, Any]:
    """Write SEQUENTIAL bytes of the direct map to the file *path*; "check" is where they are."""
    target = kshell_open(dump)
    start = direct_map(target)
    with open(path, "wb") as file:
        file.write(target.kernel.read(start, SEQUENTIAL))
    return {"seconds": 0.0, "check": start}


def main() -> None:
    side, case, *arguments = sys.argv[1:]
    print(json.dumps(globals()[f"{side}_{case}"](*arguments)))


if __name__ == "__main__":
    main()
