"""What ``whatis`` looks addresses up in: tasks, stacks, per-CPU areas, modules, vmalloc areas, each found once.

Everything is kept for one state of the memory (:mod:`kshell.linux.kept`), so that the second question is answered at
once. The objects of slabs and the uses of pages have indexes of their own (slub_objects, census).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux import memory_map, modules, percpu, tasks
from kshell.linux.cpus import cpu_stacks, thread_size
from kshell.linux.kept import kept
from kshell.linux.lists import list_for_each_entry
from kshell.linux.pages import page_array
from kshell.linux.task_stacks import every_task
from kshell.linux.vmalloc_pages import AreaPages, array_pages, mapped_pages
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.linux.memory_map import Region, VmallocArea
    from kshell.linux.modules import Module
    from kshell.target.target import Target

TOP = 1 << 64
MAX_SLOTS = 256


class Spans(NamedTuple):
    """Ranges that do not overlap, ascending: ``starts[n] <= address < ends[n]`` is ``what[n]``."""

    starts: list[int]
    ends: list[int]
    what: list[int]

    def find(self, address: int) -> tuple[int, int, int] | None:
        """Return (start, end, what) of the range that holds *address*, or None."""
        at = bisect_right(self.starts, address) - 1
        if at < 0 or address >= self.ends[at]:
            return None
        return self.starts[at], self.ends[at], self.what[at]


def _spans(rows: Sequence[tuple[int, int, int]]) -> Spans:
    """Return ranges; the next one cuts short one that runs into it."""
    ordered = sorted(set(rows))
    starts = [row[0] for row in ordered]
    following = [*starts[1:], TOP]
    return Spans(starts, [min(row[1], after) for row, after in zip(ordered, following, strict=True)],
                 [row[2] for row in ordered])


class TaskIndex(NamedTuple):
    """``tasks``: the task_structs; ``stacks``: the stack of each; what they hold is the task_struct."""

    tasks: Spans
    stacks: Spans


def task_index(target: Target) -> TaskIndex:
    """Return the index of tasks and their stacks."""
    return kept(target, "task index", _tasks)


def _tasks(target: Target) -> TaskIndex:
    every = every_task(target)
    kind = tasks.task_type(target)
    size, room = thread_size(target), kind.size or 0
    stacks = Vector(target, kind, every).column("stack")
    return TaskIndex(
        # A task_struct is cut short by what the CPU's registers need less of than BTF's size has; the next one follows.
        _spans([(task, task + room, task) for task in every]),
        _spans([(stack, stack + size, task) for task, stack in zip(every, stacks, strict=True)
                if isinstance(stack, int) and stack]))


class CpuStack(NamedTuple):
    """A stack of a CPU: for interrupts, an exception, or entry."""

    cpu: int
    name: str
    start: int
    end: int


def cpu_stack_list(target: Target) -> list[CpuStack]:
    """Return the stacks that CPUs have besides those of tasks."""
    return kept(target, "cpu stacks", lambda target: [
        CpuStack(cpu, found.name, found.start, found.end)
        for cpu in target.cpu_numbers("possible") for found in cpu_stacks(target, cpu)])


class CpuAreas(NamedTuple):
    """The units of per-CPU memory.

    :ivar units: of every chunk and CPU; what they hold is the CPU
    :ivar static: start and end of the kernel's own variables, as symbols have them
    """

    units: Spans
    static: tuple[int, int]


def cpu_areas(target: Target) -> CpuAreas:
    """Return where per-CPU memory is, static and dynamic."""
    return kept(target, "cpu areas", _cpu_areas)


def _cpu_areas(target: Target) -> CpuAreas:
    rows = [(area.start, area.end, area.cpu) for area in percpu.areas(target)]
    try:
        units = _units(target)
    except KshellError:
        units = []  # the static part, at least, is known
    starts = {row[0] for row in units}
    return CpuAreas(_spans(units + [row for row in rows if row[0] not in starts]), percpu.section(target))


def _units(target: Target) -> list[tuple[int, int, int]]:
    """Return (start, end, CPU) of each unit of each chunk (mm/percpu.c)."""
    kernel = target.kernel
    offsets = kernel.u64(target.symbol("pcpu_unit_offsets").address)
    slots = min(kernel.u32(target.symbol("pcpu_nr_slots").address), MAX_SLOTS)
    # 5.14 (faf65dde844a "percpu: implement partial chunk depopulation") and around it: pcpu_slot before
    name = "pcpu_chunk_lists" if target.symbols.get("pcpu_chunk_lists") is not None else "pcpu_slot"
    lists = kernel.u64(target.symbol(name).address)
    spans: set[tuple[int, int]] = set()
    for slot in range(slots):
        # what is left of the first chunk's units behind its own pages was given back
        chunks = list_for_each_entry(target, "struct pcpu_chunk", lists + 16 * slot, "list")
        for base, pages in zip(*chunks.columns("base_addr", "nr_pages"), strict=True):
            if isinstance(base, int) and isinstance(pages, int) and base:
                spans.add((base, base + (pages << 12)))
    starts = [(cpu, kernel.u64(offsets + 8 * cpu)) for cpu in target.cpu_numbers("possible")]
    return [(first + start, end + start, cpu) for first, end in spans for cpu, start in starts]


def module_list(target: Target) -> list[Module]:
    """Return all modules."""
    return kept(target, "modules", lambda target: list(modules.iter_modules(target)))


class Areas(NamedTuple):
    """The vmalloc areas, and their ranges; what those hold is the number of the area."""

    areas: list[VmallocArea]
    spans: Spans


def vmalloc_areas(target: Target) -> Areas:
    """Return the areas of vmalloc space, as far as they can be read."""
    return kept(target, "vmalloc", _vmalloc)


def _vmalloc(target: Target) -> Areas:
    found: list[VmallocArea] = []
    try:
        for area in memory_map.iter_vmalloc(target):
            found.append(area)
    except KshellError:
        if not found:
            raise
    return Areas(found, _spans([(area.start, area.end, number) for number, area in enumerate(found)]))


def area_pages(target: Target) -> AreaPages:
    """Return the pages of all vmalloc areas, ascending by frame."""
    return kept(target, "area pages", _area_pages)


def _area_pages(target: Target) -> AreaPages:
    import numpy as np

    areas = vmalloc_areas(target).areas
    parts = array_pages(target, page_array(target), areas), mapped_pages(target, areas)
    frame, address, area = (np.concatenate([part[column] for part in parts]) for column in range(3))
    order = np.argsort(frame, kind="stable")
    return AreaPages(frame[order], address[order], area[order], parts[0].lost)


def region_list(target: Target) -> list[Region]:
    """Return the regions of the kernel's half."""
    return kept(target, "regions", memory_map.regions)


def region_of(target: Target, address: int) -> Region | None:
    """Return the region that holds *address*, the smallest where they lie in one another, or None."""
    holding = [region for region in region_list(target) if region.start <= address < region.end]
    return min(holding, key=lambda region: region.end - region.start, default=None)
