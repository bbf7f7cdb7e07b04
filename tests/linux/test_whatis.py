"""``whatis`` on real kernels: each kind of answer, against what the guest said of itself; damage; how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kshell.linux import census, memory_map, slab, slub_objects, table_pages, tasks, whatis, whatis_index
from kshell.linux.cpus import thread_size
from kshell.linux.pages import page_array
from kshell.linux.whatis import Answer
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.value import Vector
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec

PAGE = 4096


@pytest.fixture(scope="module", params=["6.1", "6.12", "5.10", "la57"])
def guest(request: pytest.FixtureRequest) -> Iterator[tuple[Target, GuestImage]]:
    image = have(named_spec(request.param))
    with open_target(str(image.elf)) as target:
        yield target, image


def ask(target: Target, address: int, kind: str, *, verbose: bool = False) -> Answer:
    """Return the answer of that kind."""
    found = list(whatis.whatis(target, address % (1 << 64), verbose=verbose))
    assert not [answer for answer in found if answer.kind == "error"], found
    return next(answer for answer in found if answer.kind == kind)


def direct(target: Target) -> int:
    return next(region.start for region in memory_map.regions(target) if region.kind == "direct")


def objects(target: Target, name: str) -> slub_objects.Objects:
    cache = slab.find_cache(target, name).address
    return slub_objects.cache_objects(target, target.value("struct kmem_cache", cache))


def test_objects_of_slabs(guest: tuple[Target, GuestImage]) -> None:
    target, _ = guest
    found = objects(target, "dentry")
    used, free = (found.address[found.allocated == state].tolist() for state in (True, False))
    dentry = used[len(used) // 2]
    answer = ask(target, dentry + 3, "slab")
    assert (answer.start, answer.offset) == (dentry, 3)
    assert answer.text.startswith("allocated, object ") and " in a slab of dentry (slab 0x" in answer.text
    offset = target.value("struct dentry", dentry)["d_name"].address - dentry
    assert ", member d_name" in ask(target, dentry + offset, "slab", verbose=True).text
    assert ask(target, free[0], "slab").text.startswith(("free, in a slab that CPU ", "free, in a slab on CPU "))
    pad = objects(target, "task_struct")
    size = slab.find_cache(target, "task_struct").size
    per_slab = (1 << 15) // size
    behind = pad.address.tolist()[per_slab - 1] + size
    assert "but in no object of it" in ask(target, behind, "slab").text


def test_frames_of_stacks(guest: tuple[Target, GuestImage]) -> None:
    target, image = guest
    victim = tasks.find_task(target, image.oracle.victim()["pid"])
    base = tasks.task_value(target, victim).integer("stack")
    size = thread_size(target)
    told = {line.split("+")[0] for line in image.oracle.stack(image.oracle.victim()["pid"])}
    frames = set()
    for address in range(base + size - 4096, base + size, 8):
        text = ask(target, address, "stack").text
        assert "(victim), task" in text
        if "in the frame of " in text:
            frames.add(text.split("in the frame of ")[1].split("+")[0])
    # the entry code has no frame but the saved registers
    assert told - {"entry_SYSCALL_64_after_hwframe"} <= frames and len(frames) >= 4
    assert text.endswith(", in saved registers of user mode (struct pt_regs)")
    below = tasks.task_value(target, victim).integer("thread.sp") - 8
    assert "below its stack pointer" in ask(target, below, "stack").text
    hard = next(stack for stack in whatis_index.cpu_stack_list(target) if stack.name == "irq" and stack.cpu == 1)
    assert "in the irq stack of CPU 1 [" in ask(target, hard.start + 100, "stack").text


def test_per_cpu_memory(guest: tuple[Target, GuestImage]) -> None:
    target, _ = guest
    queue = target.symbol("runqueues").address + target.percpu_base(1) + 8
    assert ask(target, queue, "percpu").text == "runqueues+0x8 of CPU 1, in its per-CPU area"
    cache = target.value("struct kmem_cache", slab.find_cache(target, "dentry").address)
    if cache.has("cpu_slab"):
        pointer = cache.integer("cpu_slab")
        text = ask(target, pointer + target.percpu_base(1), "percpu").text
        assert f"in dynamic per-CPU memory of CPU 1, the copy of per-CPU pointer {pointer:x}" in text


def test_pages_and_their_owners(guest: tuple[Target, GuestImage]) -> None:
    target, image = guest
    victim, base = image.oracle.victim(), direct(target)
    taken = census.census(target)
    paddr = image.oracle.vtop(victim["pid"], victim["greeting"])
    assert paddr is not None
    answer = ask(target, base + paddr, "page")
    assert f"mapped by victim (pid {victim['pid']}) at 0x{victim['greeting'] & -PAGE:x}" in answer.text
    assert answer.start + answer.offset == base + paddr
    frame = int(taken.frames(census.FREE)[7])
    assert "free, in a block of order " in ask(target, base + frame * PAGE, "page").text
    owners = table_pages.table_owners(target)
    task = tasks.read_task(target, tasks.find_task(target, victim["pid"]))
    space = target.user_space(task.mm)
    tables = space.walk(victim["greeting"])
    for level in tables:
        found = owners.find(level.table >> 12)
        assert found is not None and found[1] == task.mm
        assert f") of victim (pid {victim['pid']})" in ask(target, base + level.table, "page").text
    assert "page table (PTE)" in ask(target, base + tables[-1].table, "page").text
    stack = tasks.task_value(target, task.address).integer("stack")
    there = target.kernel.translate(stack)  # type: ignore[attr-defined]
    assert f"kernel stack, mapped at {stack:x}, of thread {victim['pid']} (victim)" in ask(
        target, base + there, "page").text
    structure = taken.pages(page_array(target))[frame]
    assert f"struct page of pfn {frame:x}, free" in ask(target, int(structure), "region").text
    (first, second) = whatis.whatis(target, victim["greeting"], task.mm, "victim")
    assert (first.kind, second.kind) == ("vma", "page") and "mapped by victim" in second.text


def test_gaps_of_the_image_are_no_alias_of_it(guest: tuple[Target, GuestImage]) -> None:
    target, _ = guest
    base, taken = direct(target), census.census(target)
    start = target.kernel.translate(target.symbol("_text").address)  # type: ignore[attr-defined]
    frames = range(start >> 12, start + target.symbol("_end").address - target.symbol("_text").address >> 12)
    given = next(frame for frame in frames if taken.kind[frame] != census.RESERVED)
    told = [answer.kind for answer in whatis.whatis(target, base + given * PAGE)]
    assert "symbol" not in told and "page" in told
    alias = list(whatis.whatis(target, base + start))
    assert any(answer.kind == "symbol" and "alias of" in answer.text for answer in alias)


def test_warm_answers_take_less_than_ten_milliseconds() -> None:
    image = have(named_spec("kdump"))
    with open_target(str(image.folder / "makedumpfile.zlib")) as target:
        base = direct(target)
        heap = slub_objects.heap(target)
        stacks = whatis_index.task_index(target).stacks.starts
        questions = [base + frame * PAGE for frame in range(0x1000, 0x30000, 0x1ff)]
        questions += heap.addresses()[:: len(heap) // 200].tolist() + [stack + 0x3f80 for stack in stacks[:40]]
        for question in questions[:50] + questions[-50:]:
            list(whatis.whatis(target, question))
        best = []
        for question in questions:
            times = []
            for _ in range(3):
                start = time.process_time()
                list(whatis.whatis(target, question))
                times.append(time.process_time() - start)
            best.append(min(times))
        assert len(best) > 500 and sorted(best)[-3] < 0.010


def test_a_dump_without_user_pages_and_with_broken_lists_is_still_answered() -> None:
    image = have(named_spec("kdump-6.12"))
    with open_target(str(image.folder / "makedumpfile.zlib")) as target:
        base, taken = direct(target), census.census(target)
        for kind in range(census.RESERVED, census.MORE + 1):
            for frame in taken.frames(kind).tolist()[::997]:
                found = list(whatis.whatis(target, base + frame * PAGE))
                assert found and all(answer.kind != "error" for answer in found), (kind, found)


def test_one_damaged_list_costs_its_answers_only(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        task = tasks.find_task(target, 1)
        head = target.address_of("init_task") + target.value("struct task_struct", 0)["tasks"].address
        target.kernel.write(target.kernel.u64(head), b"\x41" * 8)
        assert "in struct task_struct of thread 1 (init)" in ask(target, task + 8, "task").text
        dentry = objects(target, "dentry").address.tolist()[100]
        assert Vector(target, target.type("struct dentry"), [dentry])
        ask(target, dentry, "slab")
