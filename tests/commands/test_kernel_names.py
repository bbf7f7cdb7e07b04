"""mdb's dcmds and walkers over structures of the kernel, on real dumps, beside what the guests themselves said."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from kshell.linux import locks, slab
from kshell.linux.lists import member_offset
from kshell.linux.slub import has_member, slab_type
from kshell.linux.vtop import page_tables
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask, objects
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.oracle import PAGE_FRAME, PAGE_PRESENT, PAGE_SWAPPED
from tests.guest.spec import named_spec
from tests.linux.conftest import Guest

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=["6.1", "6.12", "5.10"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    image = have(named_spec(request.param))
    with open_target(str(image.elf)) as target:
        yield Guest(request.param, image, target, image.oracle)


# -- mounts, paths ----------------------------------------------------------------------------------------------------


def test_12_1_fsinfo_has_the_rows_of_proc_mounts(guest: Guest) -> None:
    wanted = [line.split() for line in guest.oracle.text("proc/mounts").splitlines()]
    assert len(wanted) > 3
    rows = objects(guest.target, "::fsinfo -v")
    assert [(row["source"], row["mount"], row["type"]) for row in rows] == [tuple(line[:3]) for line in wanted]
    for row, (_source, _place, kind, options, *_rest) in zip(rows, wanted, strict=True):
        own = row["options"].split(",")  # a file system's own options stand behind these
        assert options.split(",")[: len(own)] == own, kind
        assert ("relatime" in own) == ("relatime" in options.split(","))
    assert objects(guest.target, "::walk vfs | ::fsinfo -v") == rows == objects(guest.target, "::fsinfo -v 1")
    assert ask(guest.target, "::walk vfs | ::vnode2path").split() == [line[1] for line in wanted]
    assert "is no struct mount" in ask(guest.target, "init_task::fsinfo")


def test_12_1_vnode2path_of_each_way_to_a_file(guest: Guest) -> None:
    rows = [row for task in ("victim", "init") for row in objects(guest.target, f"::pgrep -x {task} | ::pfiles")]
    assert any(row["path"].startswith("/run/") for row in rows)
    for row in rows:
        file, inode = int(row["file"], 16), int(row["inode"], 16)
        path = row["path"]
        for line in (f"0x{file:x}::vnode2path", f"0x{file:x}::print struct file f_path | ::vnode2path",
                     f"0x{file:x}::print struct file f_path.dentry | ::vnode2path"):
            assert ask(guest.target, line).splitlines() == [path], line
        for line in (f"0x{inode:x}::vnode2path", f"0x{inode:x}::print struct inode i_data | ::vnode2path"):
            assert path in ask(guest.target, line).splitlines(), line
    assert "is no file, path, dentry" in ask(guest.target, "init_task::vnode2path")


def test_13_allfile_has_each_file_once(guest: Guest) -> None:
    every = ask(guest.target, "::walk allfile").split()
    single = ask(guest.target, "::walk thread | ::walk file").split()
    assert len(every) == len(set(every)) and set(every) == set(single) and len(every) < len(single)
    assert set(every) <= set(ask(guest.target, "::walk filp").split())


# -- page tables, page cache ------------------------------------------------------------------------------------------


def test_12_1_vatopfn_pte_and_ptable_have_the_frames_of_pagemap(guest: Guest) -> None:
    pid = guest.oracle.victim()["pid"]
    told = {address: entry & PAGE_FRAME for address, entry in guest.oracle.pagemap(pid).items()
            if entry & PAGE_PRESENT and entry & PAGE_FRAME}
    stack = next(line for line in guest.oracle.maps(pid) if line.name == "[stack]")
    wanted = {address: frame for address, frame in told.items() if stack.start <= address < stack.end}
    assert wanted
    for address, frame in wanted.items():
        assert ask(guest.target, f"::getu {pid}; 0x{address:x}::vatopfn").splitlines()[0] == (
            f"virtual {address:x} mapped to pfn {frame:x}")
        rows = {row["virtual"]: row for row in objects(guest.target, f"::getu {pid}; 0x{address:x}::ptable -a")
                if "virtual" in row}
        row = rows[f"0x{address:x}"]
        assert row["pfn"] == frame and "user" in row["flags"] and "noexec" in row["flags"]
        (same,) = objects(guest.target, f"{row['entry']}::pte")
        assert same == {name: cell for name, cell in row.items() if name not in ("virtual", "slot")}
    assert "no mapping for address" in ask(guest.target, "0xffffc8ffffffffff::vatopfn")


def test_12_1_ptable_from_the_top_leads_to_every_table_below(guest: Guest) -> None:
    line = "::pgrep -x swapped | ::print mm->pgd | ::vatopfn"
    for level in (3, 2, 1):
        below = ask(guest.target, f"{line} | ::ptable -l {level} | ::count").split()
        rows = objects(guest.target, f"{line} | ::ptable -l {level}")
        assert below == [str(len(rows))] and all(row["kind"] == "table" for row in rows[:1])
        line += f" | ::ptable -l {level} | ::head -1"
    last = objects(guest.target, f"{line} | ::ptable")
    assert {row["kind"] for row in last} <= {"page", "swapped"}
    pid = objects(guest.target, "::pgrep -x swapped")[0]["pid"]
    swapped = [address for address, entry in guest.oracle.pagemap(pid).items() if entry & PAGE_SWAPPED]
    assert swapped
    rows = objects(guest.target, f"::getu {pid}; 0x{swapped[0]:x}::ptable -a")
    found = {int(row["virtual"], 16) for row in rows if row.get("kind") == "swapped"}
    span = {address for address in swapped if address >> 21 == swapped[0] >> 21}
    assert found == span


def test_12_1_pagelookup_has_the_frames_of_pagemap(guest: Guest) -> None:
    pid = guest.oracle.victim()["pid"]
    entries = guest.oracle.pagemap(pid)
    some = 0
    for line in guest.oracle.maps(pid):
        if line.permissions[0] != "r" or "w" in line.permissions or not line.name.startswith("/"):
            continue
        for address in range(line.start, line.end, 4096):
            entry = entries.get(address, 0)
            if entry & PAGE_PRESENT and entry & PAGE_FRAME:
                (row,) = objects(guest.target, f"::pgrep -x victim | ::print mm->exe_file | ::pagelookup -o "
                                               f"0x{line.offset + address - line.start:x}")
                assert row["pfn"] == entry & PAGE_FRAME
                some += 1
    assert some
    rows = objects(guest.target, "::pgrep -x victim | ::print mm->exe_file | ::pagelookup")
    inode = "::pgrep -x victim | ::print mm->exe_file->f_inode"
    assert len(rows) == int(ask(guest.target, f"{inode} | ::print struct inode i_data.nrpages").split()[-1], 0)
    assert rows == objects(guest.target, f"{inode} | ::pagelookup")
    assert "is not in the page cache" in ask(guest.target, f"{inode} | ::pagelookup -o 0x40000000")


# -- locks, stacks, wait queues ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deadlocked(guest_abba: GuestImage) -> Iterator[Target]:
    with open_target(str(guest_abba.elf), mode="c") as target:
        yield target


def test_12_1_mutex_and_rwlock_of_a_deadlock(deadlocked: Target) -> None:
    (row,) = objects(deadlocked, "left_lock::mutex")
    assert (row["held"], row["comm"], row["waiters"], row["flags"]) == ("held", "abba-left", 2, "waiters")
    lines = ask(deadlocked, "left_lock::mutex -w").splitlines()[2:]
    assert [line.split()[3] for line in lines] == ["abba-right", "abba-bystander"]
    (row,) = objects(deadlocked, "ledger_lock::rwlock")
    assert (row["held"], row["comm"], row["readers"], row["waiters"]) == ("write", "abba-left", 0, 2)
    assert ask(deadlocked, "ledger_lock::rwlock -w | ::print comm").count("abba-") == 2


def test_12_1_a_rwlock_held_for_reading(deadlocked: Target) -> None:
    kind = deadlocked.type("struct rw_semaphore")  # three readers, no writer
    at = deadlocked.symbol("ledger_lock").address
    deadlocked.kernel.write(at + member_offset(kind, "count"), (0x300).to_bytes(8, "little"))
    owner = deadlocked.value(kind, at).integer("owner.counter") & locks.OWNER
    deadlocked.kernel.write(at + member_offset(kind, "owner"), (owner | 3).to_bytes(8, "little"))
    (row,) = objects(deadlocked, "ledger_lock::rwlock")
    assert (row["held"], row["readers"], row["comm"], row["flags"]) == ("read", 3, "abba-left", "nonspinnable")


def test_12_1_locks_that_nobody_holds(guest: Guest) -> None:
    (row,) = objects(guest.target, "cgroup_mutex::mutex")
    assert (row["held"], row.get("owner"), row["waiters"], row["flags"]) == ("free", None, 0, "")
    (row,) = objects(guest.target, "namespace_sem::rwlock")
    assert (row["held"], row["readers"], row["waiters"], row["flags"]) == ("free", 0, 0, "")
    assert "cannot read" in ask(guest.target, "linux_banner::mutex")


def test_12_1_whatthread_has_what_a_search_through_memory_finds_on_stacks(guest: Guest) -> None:
    target = guest.target
    translate = page_tables(target.kernel).translate
    pages: dict[int, int] = {}
    for task in ask(target, "::walk thread").split():
        stack = target.value("struct task_struct", int(task, 16)).integer("stack")
        for page in range(stack, stack + 0x4000 if stack else 0, 0x1000):
            pages[translate(page) >> 12] = int(task, 16)
    (init,) = ask(target, "::pid2proc 1").split()
    hits = {translate(int(place, 16)) for place in ask(target, f"{init}::kgrep -q").split()}
    wanted = {hit: pages[hit >> 12] for hit in hits if hit >> 12 in pages}
    rows = objects(target, f"{init}::whatthread -v")
    found = {translate(int(row["place"], 16)): int(row["addr"], 16) for row in rows if row["pid"]}
    assert found == wanted and wanted
    assert {row["where"] for row in rows} >= {"kernel_wait4"}
    counts = objects(target, f"{init}::whatthread")
    assert sum(row["places"] for row in counts) == len(rows)


def test_13_wchan_is_who_waits_in_a_queue(guest: Guest) -> None:
    assert any("do_wait" in line for line in guest.oracle.stack(1))
    (init,) = ask(guest.target, "::pid2proc 1").split()
    queue = f"{init}::print struct task_struct signal->wait_chldexit"
    assert ask(guest.target, f"{queue} | ::walk wchan").split() == [init]
    victim = "::pgrep -x victim | ::print signal->wait_chldexit | ::walk wchan"
    assert ask(guest.target, victim) == ""
    assert ask(guest.target, "linux_banner::walk wchan").startswith("kshell:")


# -- slabs ------------------------------------------------------------------------------------------------------------


def test_12_1_kmem_slabs_has_what_the_kernel_counts_and_lists(guest: Guest) -> None:
    target = guest.target
    rows = {row["name"]: row for row in objects(target, "::kmem_slabs")}
    some = 0
    for cache in slab.iter_caches(target):
        if not isinstance(cache.slabs, int) or not cache.slabs:
            continue
        row = rows[cache.name]
        assert (row["slabs"], row["buffers"]) == (cache.slabs, cache.objects), cache.name
        each = objects(target, f"0x{cache.address:x}::kmem_slabs")
        assert len(each) == cache.slabs and sum(one["objects"] - one["inuse"] for one in each) == row["unused"]
        # the kernel's own lists: partial slabs are linked, full ones and those of CPUs are not
        listed = ask(target, f"0x{cache.address:x}::walk kmem_slab_partial").split()
        assert sorted(listed) == sorted(one["slab"] for one in each if one["state"] in ("partial", "empty")), cache.name
        assert len(listed) == row["partial"] + row["empty"]
        some += len(listed)
    assert some


def test_13_kmem_cpu_cache_is_what_cpus_allocate_from(guest: Guest) -> None:
    target = guest.target
    found = ask(target, "::kmem_cache -n dentry | ::walk kmem_cpu_cache").split()
    assert len(found) == len(target.cpu_numbers("possible"))
    kind = target.type("struct kmem_cache_cpu")
    member = "slab" if has_member(kind, "slab") else "page"
    held = {target.value(kind, int(one, 16)).integer(member) for one in found} - {0}
    rows = {int(row["slab"], 16): row["state"] for row in objects(target, "::kmem_slabs dentry")}
    assert held and all(rows[one].startswith("cpu ") for one in held)


def test_12_1_kmem_verify_finds_a_free_list_that_was_overwritten(guest: Guest) -> None:
    assert ask(guest.target, "::kmem_verify | ::count").split() == ["0"]
    assert {row["integrity"] for row in objects(guest.target, "::kmem_verify")} == {"clean"}
    with open_target(str(guest.image.elf), mode="c") as target:
        name, row = next((name, row) for name in sorted(cache.name for cache in slab.iter_caches(target))
                         for row in objects(target, f"::kmem_slabs {name}") if row["state"] == "partial")
        kind = slab_type(target)
        first = target.value(kind, int(row["slab"], 16)).integer("freelist")
        assert first
        offset = target.value("struct kmem_cache", slab.find_cache(target, name).address).integer("offset")
        target.kernel.write(first + offset, b"use after free!!"[:8])
        text = ask(target, f"::kmem_verify {name}")
        assert row["slab"][2:] in text and "1 of " in text and "its free list is damaged" in text
        assert ask(target, f"::kmem_verify {name} | ::map .").split() == [row["slab"]]
        bad = [one for one in objects(target, "::kmem_verify") if one["integrity"] != "clean"]
        assert [(one["name"], one["integrity"]) for one in bad] == [(name, "1 corrupt slabs")]


@pytest.mark.parametrize("line", [
    "::fsinfo", "1000::vnode2path", "1000::mutex", "1000::rwlock", "1000::whatthread", "::kmem_slabs", "::kmem_verify",
    "1000::pagelookup", "::walk vfs", "::walk allfile", "1000::walk wchan"])
def test_12_1_without_a_kernel_it_is_said_that_there_is_none(line: str) -> None:
    with open_target(sys.executable) as target:
        assert "there is no kernel here" in ask(target, line)


def test_12_1_vatopfn_without_page_tables() -> None:
    with open_target(sys.executable) as target:
        for name in ("vtop", "vatopfn"):
            assert ask(target, f"1000::{name}") == (
                f"kshell: ::{name}: failed to get physical mapping: a process or file has no page tables to look at\n")
