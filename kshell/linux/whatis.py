"""What an address is: symbols, tasks and their stacks, per-CPU areas, modules, vmalloc areas, mappings, memory.

Each *provider* is a function that looks for one kind of thing; :func:`whatis` asks all, the most specific first. One
that cannot answer, because the kernel's structures cannot be read, gives an answer that says so; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux import memory_map, mm, modules, percpu, tasks
from kshell.linux.kernel import require_kernel
from kshell.linux.vtop import page_tables
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

#: x86-64 without KASAN; asked of the types and symbols first
THREAD_SIZE = 16384


class Answer(NamedTuple):
    """One thing that an address is in.

    :ivar kind: "symbol", "task", "stack", "percpu", "module", "vmalloc", "region", "direct", "vma" or "error"
    :ivar start: address of the thing; the address asked for is ``start + offset``
    :ivar text: what follows "A is B+off, "
    """

    kind: str
    start: int
    offset: int
    text: str


class Question(NamedTuple):
    """What is asked: an address, and the process context for addresses of user memory (mm_struct address, comm)."""

    target: Target
    address: int
    mm: int = 0
    comm: str = ""


Provider = Callable[[Question], Iterator[Answer]]


def whatis(target: Target, address: int, mm: int = 0, comm: str = "") -> Iterator[Answer]:
    """Yield what *address* is, the most specific answer first; nothing when it is unknown.

    :param mm: mm_struct of the process whose user memory counts, 0 for none; ``comm`` its name
    """
    question = Question(target, address, mm, comm)
    if address >= target.arch.kernel_half:
        require_kernel(target)
    providers = KERNEL_PROVIDERS if address >= target.arch.kernel_half else USER_PROVIDERS
    for name, provider in providers:
        try:
            yield from provider(question)
        except KshellError as error:
            yield Answer("error", address, 0, f"perhaps in {name}, which cannot be told: {error}")


def thread_size(target: Target) -> int:
    """Return the bytes of a kernel stack: THREAD_SIZE."""
    union = target.types.get("union thread_union")
    if union is not None and union.size:
        return union.size
    # 6.10+ has __start_init_stack, 4.16 to 6.9 __start_init_task
    for low, high in (("__start_init_stack", "__end_init_stack"), ("__start_init_task", "__end_init_task")):
        start, end = target.symbols.get(low), target.symbols.get(high)
        if start is not None and end is not None and end.address > start.address:
            return end.address - start.address
    return THREAD_SIZE


def _symbols(question: Question) -> Iterator[Answer]:
    found = question.target.symbolize(question.address)
    if found is None:
        return
    symbol, offset = found
    if not symbol.module:
        region = memory_map.region_of(question.target, question.address)
        if region is None or region.kind not in ("text", "rodata", "data", "init", "bss"):
            return  # a linker's mark far below is no answer
        where = f"in vmlinux's {region.kind} [{region.start:x},{region.end:x})"
    else:
        where = f"in module {symbol.module}"
    yield Answer("symbol", symbol.address, offset, f"{symbol.name}{_plus(offset)}, {where}")


def _tasks(question: Question) -> Iterator[Answer]:
    """Answer whether the address lies in a task_struct or on a kernel stack."""
    target, address = question.target, question.address
    kind = tasks.task_type(target)
    every = [target.address_of("init_task"), *_threads(target)]
    stack_size = thread_size(target)
    stacks = Vector(target, kind, every).column("stack")
    # A task_struct is cut short by what the CPU's registers need less of than BTF's size has; the next one follows.
    nearest = max((task for task in every if task <= address), default=0)
    for task, stack in zip(every, stacks, strict=True):
        if task == nearest and address < task + (kind.size or 0):
            yield Answer("task", task, address - task, f"in struct task_struct of {_who(target, task)}")
        if isinstance(stack, int) and stack and stack <= address < stack + stack_size:
            text = f"in the stack of {_who(target, task)} [{stack:x},{stack + stack_size:x})"
            yield Answer("stack", stack, address - stack, text)


def _threads(target: Target) -> list[int]:
    leaders = tasks.process_addresses(target)
    counts = Vector(target, tasks.task_type(target), leaders).column("signal->nr_threads")
    found: list[int] = []
    for leader, count in zip(leaders, counts, strict=True):
        found += [leader] if count == 1 else tasks.thread_addresses(target, leader)
    return found


def _who(target: Target, task: int) -> str:
    value = tasks.task_value(target, task)
    return f"thread {value.integer('pid')} ({value['comm'].string()}), task 0x{task:x}"


def _percpu(question: Question) -> Iterator[Answer]:
    start, _end = percpu.section(question.target)
    for area in percpu.areas(question.target):
        if area.start <= question.address < area.end:
            offset = question.address - area.start
            found = question.target.symbols.at(start + offset)
            name = f"{found[0].name}{_plus(found[1])} " if found else ""
            yield Answer("percpu", area.start, offset, f"{name}of CPU {area.cpu}, in its per-CPU area")


def _modules(question: Question) -> Iterator[Answer]:
    for module in modules.iter_modules(question.target):
        size = question.target.type("struct module").size or 0
        if module.address <= question.address < module.address + size:
            yield Answer("module", module.address, question.address - module.address, f"struct module of {module.name}")
        for region in module.regions:
            if region.base <= question.address < region.base + region.size:
                offset = question.address - region.base
                text = f"in {region.kind} of module {module.name}{_section(question, module)}"
                yield Answer("module", region.base, offset, text)


def _section(question: Question, module: modules.Module) -> str:
    value = question.target.value("struct module", module.address)
    below = [s for s in modules.sections(question.target, value) if s.address <= question.address]
    return f" (section {max(below, key=lambda section: section.address).name})" if below else ""


def _vmalloc(question: Question) -> Iterator[Answer]:
    area = memory_map.find_vmalloc(question.target, question.address)
    if area is None:
        return
    found = question.target.symbolize(area.caller) if area.caller else None
    caller = f", allocated by {found[0].name}{_plus(found[1])}" if found else ""
    text = f"in a vmalloc area [{area.start:x},{area.end:x}){caller}"
    yield Answer("vmalloc", area.start, question.address - area.start, text)


def _regions(question: Question) -> Iterator[Answer]:
    region = memory_map.region_of(question.target, question.address)
    if region is None:
        return
    offset = question.address - region.start
    if region.kind == "direct":
        text = f"direct map of physical {offset:x}"
        yield Answer("direct", region.start, offset, text)
        yield from _alias(question, offset)
    elif region.kind == "vmemmap":
        page = question.target.types.get("struct page")
        size = (page.size if page else None) or 64
        text = f"struct page of pfn {offset // size:x}"
        yield Answer("region", region.start + offset // size * size, offset % size, text)
    else:
        yield Answer("region", region.start, offset, f"in {region.name} [{region.start:x},{region.end:x})")


def _alias(question: Question, paddr: int) -> Iterator[Answer]:
    """Answer whether the same memory is part of the kernel image, which is mapped twice."""
    target = question.target
    first, last = target.symbol("_text").address, target.symbol("_end").address
    start = page_tables(target.kernel).translate(first)
    if start <= paddr < start + last - first:
        image = first + paddr - start
        found = target.symbolize(image)
        name = f", {found[0].name}{_plus(found[1])}" if found else ""
        yield Answer("symbol", image, 0, f"alias of {image:x} in the kernel image{name}")


def _vmas(question: Question) -> Iterator[Answer]:
    if not question.mm:
        return
    vma = mm.find_vma(question.target, question.mm, question.address)
    if vma is None:
        return
    name = vma.name if isinstance(vma.name, str) else f"a file whose path cannot be told ({vma.name})"
    text = f"in {name or '[anon]'} [{vma.start:x},{vma.end:x}) {vma.permissions} of {question.comm}"
    yield Answer("vma", vma.start, question.address - vma.start, text)


def _plus(offset: int) -> str:
    return f"+0x{offset:x}" if offset else ""


#: (what it looks in, the provider), the most specific first
KERNEL_PROVIDERS: list[tuple[str, Provider]] = [
    ("the symbols", _symbols), ("a task", _tasks), ("a per-CPU area", _percpu), ("a module", _modules),
    ("a vmalloc area", _vmalloc), ("the kernel's memory map", _regions),
]
USER_PROVIDERS: list[tuple[str, Provider]] = [("a mapping of the process", _vmas)]
