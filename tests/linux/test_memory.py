"""What memory is used for: against the kernel's own counters in the same dump, the guest's /proc, and its processes."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from kshell.errors import KshellError
from kshell.linux import census, memory_map, memstat, page_owner, page_types, swap, zones
from kshell.linux.lists import member_offset
from kshell.linux.percpu import per_cpu_ptr
from kshell.linux.tasks import iter_processes
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.oracle import Oracle
from tests.guest.spec import named_spec


@pytest.fixture(scope="module", params=["6.1", "6.12", "5.10", "la57", "kdump"])
def guest(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Oracle]]:
    image = have(named_spec(request.param))
    with open_target(str(image.elf if image.elf.exists() else image.folder / "makedumpfile.zlib")) as target:
        yield target, image.oracle


def iter_unmapped(target: Target) -> Iterator[page_owner.Page]:
    """Yield the anonymous pages that no process maps any more and that something still holds.

    The last user of a page is often a CPU's list of pages that are to go to an LRU list (mm/swap.c): 5.10 counts
    the page as mapped no more (NR_ANON_MAPPED), and it is anonymous until it is freed.
    """
    types, taken = page_types.PageTypes(target), census.census(target)
    for frame in taken.frames(census.ANONYMOUS).tolist():
        page = page_owner.read_page(target, types, frame)
        # a part of a compound page has no count of its own
        if page.mapcount == 0 and next(page_owner.mapped_by(target, page), None) is None:
            assert page.refcount > 0 and page.head == page.address
            yield page


def iter_request_blocks(target: Target) -> Iterator[int]:
    """Yield the orders of the blocks of pages that hold requests: linked to each other, the order in page->private."""
    types, taken = page_types.PageTypes(target), census.census(target)
    lru = member_offset(target.type("struct page"), "lru")
    for frame in taken.frames(census.KERNEL).tolist():
        page = types.array.start + frame * types.array.size
        link = page + lru
        order = target.kernel.u64(page + types.at["private"])
        try:
            linked = target.kernel.u64(target.kernel.u64(link) + 8) == link
        except KshellError:
            continue
        if linked and order <= 4:
            yield order


def not_added(target: Target) -> int:
    """Return by how much a counter of /proc/meminfo may be wrong: each CPU adds its part when it passes a threshold."""
    (node,) = zones.iter_nodes(target)
    pointer = node["per_cpu_nodestats"]
    kind = pointer.deref().type
    return sum(target.value(kind, per_cpu_ptr(target, pointer.integer(), cpu)).integer("stat_threshold")
               for cpu in target.cpu_numbers("online"))


def test_rows_add_up_and_are_what_the_kernel_counts(guest: tuple[Target, Oracle]) -> None:
    target, oracle = guest
    found = memstat.memory(target)
    assert found.problems == []
    assert found.total == found.told == oracle.meminfo()["MemTotal"] >> 12
    counted = {share.name: (share.pages, share.counted) for share in found.shares if share.counted is not None}
    assert len(counted) == 7
    unmapped = list(iter_unmapped(target))
    assert len(unmapped) < 32 * len(target.cpu_numbers("online"))
    pages, mapped = counted.pop("anonymous")
    assert pages - len(unmapped) == mapped
    assert {name: pair for name, pair in counted.items() if pair[0] != pair[1]} == {}
    share = {share.name: share.pages for share in found.shares}
    slabs = share["slab, unreclaimable"] + share["large kmalloc"]
    assert slabs == zones.node_counter(target, "NR_SLAB_UNRECLAIMABLE_B")
    cached = share["page cache"] + share["block devices"] + share["shared memory and tmpfs"]
    assert cached == zones.node_counter(target, "NR_FILE_PAGES")
    assert share["zsmalloc and balloons"] == zones.zone_counter(target, "NR_ZSPAGES")
    meminfo = oracle.meminfo()
    assert share["huge pages"] == meminfo["Hugetlb"] >> 12
    # writing the oracle changes nothing of tmpfs, but meminfo leaves out what CPUs have counted and not added yet
    assert share["shared memory and tmpfs"] == zones.node_counter(target, "NR_SHMEM") > 500
    assert abs(share["shared memory and tmpfs"] - (meminfo["Shmem"] >> 12)) <= not_added(target)
    assert abs(share["kernel stacks"] - (meminfo["KernelStack"] >> 12)) <= 16
    assert abs(share["page tables"] - (meminfo["PageTables"] >> 12)) <= not_added(target)
    # of requests of block devices some thousand pages (blk_mq_alloc_rqs()), as many as the machine's drives have queues
    requests = sum(1 << order for order in iter_request_blocks(target))
    assert share["kernel, other"] - requests < found.total / 25


def test_zones_are_those_of_zoneinfo(guest: tuple[Target, Oracle]) -> None:
    target, oracle = guest
    found = list(zones.iter_zones(target))
    text = oracle.text("proc/zoneinfo")
    told = re.findall(r"zone +(\w+)\n(?:(?!Node).*\n)*? +min +(\d+)\n +low +(\d+)\n +high +(\d+)\n"
                      r"(?: +promo.*\n)? +spanned +(\d+)\n +present +(\d+)\n +managed +(\d+)", text)
    assert [(zone.name, *map(str, (*zone.watermark, zone.spanned, zone.present, zone.managed))) for zone in found] == [
        one for one in told if one[5] != "0"]
    assert sum(zone.free for zone in found) == zones.zone_counter(target, "NR_FREE_PAGES")


def test_vmalloc_areas_are_those_of_vmallocinfo(guest: tuple[Target, Oracle]) -> None:
    target, oracle = guest
    ours: Counter[tuple[int, str, int]] = Counter()
    for area in memory_map.iter_vmalloc(target):
        found = target.symbolize(area.caller) if area.caller else None
        ours[area.end - area.start, found[0].name if found else "", area.pages] += 1
    theirs: Counter[tuple[int, str, int]] = Counter()
    for line in oracle.text("proc/vmallocinfo").splitlines():
        words = line.split()
        pages = re.search(r"pages=(\d+)", line)
        if words[2] == "unpurged":  # given back, and waiting for the TLBs
            continue
        caller = "" if words[2] == "vm_map_ram" else words[2].split("+")[0]
        theirs[int(words[1]), caller, int(pages[1]) if pages else 0] += 1
    assert sum(ours.values()) > 100
    assert sum(((ours - theirs) + (theirs - ours)).values()) <= 12  # a stack or two of threads that came or went


def test_swap_is_that_of_proc_swaps(guest: tuple[Target, Oracle]) -> None:
    target, oracle = guest
    lines = [line.split() for line in oracle.text("proc/swaps").splitlines()[1:]]
    found = [[area.path, area.kind, str(area.size >> 10), str(area.used >> 10), str(area.priority)]
             for area in swap.iter_swap(target)]
    assert found == lines and (found or named_spec("kdump").swap is False)


def test_pages_of_a_process_lead_back_to_it(guest_61: GuestImage) -> None:
    victim = guest_61.oracle.victim()
    pages = guest_61.oracle.pagemap(victim["pid"])
    with open_target(str(guest_61.elf)) as target:
        types, taken = page_types.PageTypes(target), census.census(target)
        told = 0
        for address, entry in pages.items():
            frame = entry & (1 << 55) - 1
            kind = int(taken.kind[frame]) if entry >> 63 else census.HOLE
            if kind not in (census.ANONYMOUS, census.SHMEM):
                continue
            mapped = list(page_owner.mapped_by(target, page_owner.read_page(target, types, frame)))
            assert (victim["pid"], address) in {(place.pid, place.address) for place in mapped}
            told += 1
        assert told > 200


def test_pages_of_files_tell_path_and_offset(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf)) as target:
        types, taken = page_types.PageTypes(target), census.census(target)
        names = set()
        for frame in taken.frames(census.SHMEM).tolist()[::3]:
            page = page_owner.read_page(target, types, frame)
            names.add(page_owner.file_of(target, page.mapping))
            sentence = next(page_owner.owner(target, page, census.SHMEM))
            assert f"offset 0x{page.pgoff << 12:x}" in sentence
        assert {"/bin/busybox", "/parts/victim"} <= names
        assert page_owner.free_block(target, types, int(taken.frames(census.FREE)[5])) is not None


def test_damage_is_told_and_the_rest_counted(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        whole = memstat.memory(target)
        head = next(head for zone in zones.iter_zones(target) for head, _ in zones.pcp_heads(target, zone)
                    if target.kernel.u64(head) != head)
        target.kernel.write(target.kernel.u64(head), b"\x41" * 8)  # of a list of free pages
        area = target.address_of("vmap_area_list")
        target.kernel.write(target.kernel.u64(target.kernel.u64(area)), b"\x41" * 8)
        found = memstat.memory(target)
        assert len(found.problems) == 2 and found.total == whole.total
        shares = {share.name: share.pages for share in found.shares}
        # the slab cache of the areas makes up for their list
        assert shares["vmalloc"] == {share.name: share.pages for share in whole.shares}["vmalloc"]
        with pytest.raises(KshellError):
            list(memory_map.iter_vmalloc(target))


def test_what_makedumpfile_left_out_costs_only_that() -> None:
    image = have(named_spec("kdump-6.12"))
    with open_target(str(image.folder / "makedumpfile.zlib")) as target:
        found = memstat.memory(target)
        assert found.total == found.told and found.problems
        shares = {share.name: share for share in found.shares}
        assert shares["free"].pages == shares["free"].counted and shares["vmalloc"].pages > 0


def test_vtop_tells_each_level_and_the_page(guest_61: GuestImage) -> None:
    from kshell.linux.vtop import page_tables, steps
    from kshell.linux.whatis_pages import page_text

    victim = guest_61.oracle.victim()
    with open_target(str(guest_61.elf)) as target:
        mm = next(task.mm for task in iter_processes(target) if task.pid == victim["pid"])
        space = page_tables(target.user_space(mm))
        assert [step.name for step in steps(space, victim["greeting"])] == ["PGD", "PUD", "PMD", "PTE"]
        paddr = space.translate(victim["greeting"])
        assert paddr == guest_61.oracle.vtop(victim["pid"], victim["greeting"])
        text = page_text(target, paddr)
        assert text.startswith(f"page {paddr >> 12:x} at ") and f"mapped by victim (pid {victim['pid']})" in text
        assert "swapbacked" in text
        assert page_text(target, 1 << 45).endswith("outside RAM")


def test_what_is_asked_wrongly_says_so(guest_61: GuestImage) -> None:
    from kshell.builtin import make_registry
    from kshell.console import Console
    from kshell.session import Session
    from kshell.shell.scripted import run_text

    with open_target(str(guest_61.elf)) as target:
        session = Session(target, make_registry(lambda _: None, plugins=False))
        for line, said in (
                ("ffffffffffffffff::page -f", "no page 0xffffffffffffffff: memory ends with page 0x"),
                ("::page -k slub", 'no kind of page "slub"; did you mean'), ("::page", "an address, or -k KIND"),
                ("1234567::vmap", "no vmalloc area holds 0x1234567"), ("0::walk leak", "no struct kmem_cache"),
                ("0::kgrep -o", "in no object of a slab"), ("init_task::walk holders", "in no allocated object")):
            out, err = io.StringIO(), io.StringIO()
            run_text(session, Console(session, out, err), line, string=True, recover=True)
            assert said in err.getvalue() and not out.getvalue(), line
