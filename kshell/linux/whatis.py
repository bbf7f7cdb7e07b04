"""What an address is: symbols, tasks and their stacks, per-CPU areas, modules, vmalloc areas, mappings, memory.

Each *provider* is a function that looks for one kind of thing; :func:`whatis` asks all, the most specific first. One
that cannot answer, because the kernel's structures cannot be read, gives an answer that says so; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.linux import mm, modules, percpu, tasks, whatis_index
from kshell.linux.kernel import require_kernel
from kshell.linux.memory_map import image_range
from kshell.linux.vtop import page_tables
from kshell.unwind.model import USER

if TYPE_CHECKING:
    from kshell.linux.stack import Stack
    from kshell.target.target import Target
    from kshell.types.model import CType
    from kshell.value import Value


#: bytes of struct pt_regs on x86-64
PT_REGS = 168


class Answer(NamedTuple):
    """One thing that an address is in.

    :ivar kind: "symbol", "task", "stack", "slab", "percpu", "module", "vmalloc", "page", "region", "direct", "vma" or
        "error"
    :ivar start: address of the thing; the address asked for is ``start + offset``
    :ivar text: what follows "A is B+off, "
    """

    kind: str
    start: int
    offset: int
    text: str


class Question(NamedTuple):
    """What is asked: an address, and the process context for addresses of user memory (mm_struct address, comm).

    :ivar verbose: members of structures are told
    """

    target: Target
    address: int
    mm: int = 0
    comm: str = ""
    verbose: bool = False


Provider = Callable[[Question], Iterator[Answer]]


def whatis(
    target: Target, address: int, mm: int = 0, comm: str = "", *, verbose: bool = False,
) -> Iterator[Answer]:
    """Yield what *address* is, the most specific answer first; nothing when it is unknown.

    :param mm: mm_struct of the process whose user memory counts, 0 for none; ``comm`` its name
    :param verbose: tell members of structures too
    """
    question = Question(target, address, mm, comm, verbose)
    if address >= target.arch.kernel_half:
        require_kernel(target)
    providers = KERNEL_PROVIDERS if address >= target.arch.kernel_half else USER_PROVIDERS
    for name, provider in providers:
        try:
            yield from provider(question)
        except KshellError as error:
            yield Answer("error", address, 0, f"perhaps in {name}, which cannot be told: {error}")


def extent(target: Target, address: int) -> tuple[int, int]:
    """Return where the object that *address* is in begins, and its last byte's offset: of a slab, task or stack.

    :raises KshellError: it is in none
    """
    from kshell.linux import whatis_pages

    index = whatis_index.task_index(target)
    found = index.tasks.find(address) or index.stacks.find(address)
    if found is not None:
        return found[0], found[1] - found[0] - 1
    whole = whatis_pages.slab_extent(target, address)
    if whole is None:
        raise KshellError(f"0x{address:x} is in no object of a slab, no task_struct and on no stack",
                          hint="-d DIST finds pointers from the address to so much above it")
    return whole


def _symbols(question: Question) -> Iterator[Answer]:
    found = question.target.symbolize(question.address)
    if found is None:
        return
    symbol, offset = found
    if not symbol.module:
        region = whatis_index.region_of(question.target, question.address)
        if region is None or region.kind not in ("text", "rodata", "data", "init", "bss"):
            return  # a linker's mark far below is no answer
        where = f"in vmlinux's {region.kind} [{region.start:x},{region.end:x})"
    else:
        where = f"in module {symbol.module}"
    yield Answer("symbol", symbol.address, offset, f"{symbol.name}{_plus(offset)}, {where}")


def _tasks(question: Question) -> Iterator[Answer]:
    """Answer whether the address lies in a task_struct, or on a stack of a task or a CPU."""
    target, address = question.target, question.address
    index = whatis_index.task_index(target)
    found = index.tasks.find(address)
    if found is not None:
        task = found[0]
        inside = member(question, tasks.task_type(target), address - task)
        yield Answer("task", task, address - task, f"in struct task_struct of {who(target, task)}{inside}")
    found = index.stacks.find(address)
    if found is not None:
        start, end, task = found
        text = f"in the stack of {who(target, task)} [{start:x},{end:x}){_frame(target, task, address)}"
        yield Answer("stack", start, address - start, text)
    for stack in whatis_index.cpu_stack_list(target):
        if stack.start <= address < stack.end:
            text = f"in the {stack.name} stack of CPU {stack.cpu} [{stack.start:x},{stack.end:x})"
            text += _cpu_frame(target, stack.cpu, address)
            yield Answer("stack", stack.start, address - stack.start, text)


def _frame(target: Target, task: int, address: int) -> str:
    """Return the frame of *task*'s stack that *address* is in, in words; "" when that cannot be told."""
    from kshell.linux.stack import task_stack

    try:
        return _in_frames(target, task_stack(target, task), address)
    except KshellError:
        return ""


def _cpu_frame(target: Target, cpu: int, address: int) -> str:
    from kshell.linux.stack import cpu_stack

    try:
        return _in_frames(target, cpu_stack(target, cpu), address)
    except KshellError:
        return ""


def _in_frames(target: Target, found: Stack, address: int) -> str:
    from kshell.linux.stack import symbolize

    frames = [frame for frame in found.frames if frame.sp >= target.arch.kernel_half]
    for frame in found.frames:
        if frame.regs and frame.regs <= address < frame.regs + PT_REGS:
            mode = "user mode" if frame.kind == USER else "an interrupted function"
            return f", in saved registers of {mode} (struct pt_regs)"
    last = found.frames[-1] if found.frames else None
    tops = [frame.sp for frame in frames[1:]] + ([last.regs] if last is not None and last.regs else [])
    for frame, top in zip(frames, tops, strict=False):
        if frame.sp <= address < top:
            name = symbolize(target, frame)
            return f", in the frame of {name[0].name}{_plus(name[1])}" if name else f", in the frame of {frame.pc:x}"
    if frames and frames[0].sp - (1 << 14) < address < frames[0].sp:
        return ", below its stack pointer"
    return ""


def who(target: Target, task: int) -> str:
    """Return whose the task_struct at *task* is, in words."""
    value = tasks.task_value(target, task)
    return f"thread {value.integer('pid')} ({value['comm'].string()}), task 0x{task:x}"


def member(question: Question, kind: CType, offset: int) -> str:
    """Return ", member NAME" when members are asked for and *kind* has one at *offset*."""
    if not question.verbose:
        return ""
    from kshell.value.path import route_at

    try:
        return f", member {route_at(kind, offset)[0]}"
    except KshellError:
        return ""


def _percpu(question: Question) -> Iterator[Answer]:
    target, address = question.target, question.address
    areas = whatis_index.cpu_areas(target)
    found = areas.units.find(address)
    if found is None:
        return
    cpu = found[2]
    pointer = (address - target.percpu_base(cpu)) % (1 << 64)
    first, end = areas.static
    if first <= pointer < end:
        variable = percpu.variable(target, pointer)
        name = f"{variable.name}{_plus(pointer - variable.address)} " if variable else ""
        start = (first + target.percpu_base(cpu)) % (1 << 64)
        yield Answer("percpu", start, address - start, f"{name}of CPU {cpu}, in its per-CPU area")
        return
    symbol = target.symbols.at(pointer) if pointer >= target.arch.kernel_half or pointer < 1 << 32 else None
    name = f"{symbol[0].name}{_plus(symbol[1])} " if symbol and symbol[0].module else ""
    text = f"{name}in dynamic per-CPU memory of CPU {cpu}, the copy of per-CPU pointer {pointer:x}"
    yield Answer("percpu", found[0], address - found[0], text)


def _modules(question: Question) -> Iterator[Answer]:
    for module in whatis_index.module_list(question.target):
        size = question.target.type("struct module").size or 0
        if module.address <= question.address < module.address + size:
            yield Answer("module", module.address, question.address - module.address, f"struct module of {module.name}")
        for region in module.regions:
            if region.base <= question.address < region.base + region.size:
                offset = question.address - region.base
                value = question.target.value("struct module", module.address)
                part = _part(value, region, offset)
                text = f"in {part} of module {module.name}{_section(question, value)}"
                yield Answer("module", region.base, offset, text)


def _part(value: Value, region: modules.Region, offset: int) -> str:
    """Return what a byte of a module's memory is: before 6.4 text, rodata and data are one piece, ``core_layout``."""
    if region.kind != "text" or not value.has("core_layout"):
        return region.kind
    layout = value["core_layout"]  # each size is that of all up to there: struct module_layout
    for part, end in (("text", "text_size"), ("rodata", "ro_size"), ("ro_after_init", "ro_after_init_size")):
        if offset < layout.integer(end):
            return part
    return "data"


def _section(question: Question, value: Value) -> str:
    below = [s for s in modules.sections(question.target, value) if s.address <= question.address]
    return f" (section {max(below, key=lambda section: section.address).name})" if below else ""


def _vmalloc(question: Question) -> Iterator[Answer]:
    areas = whatis_index.vmalloc_areas(question.target)
    span = areas.spans.find(question.address)
    if span is None:
        return
    area = areas.areas[span[2]]
    found = question.target.symbolize(area.caller) if area.caller else None
    caller = f", allocated by {found[0].name}{_plus(found[1])}" if found else ""
    text = f"in a vmalloc area [{area.start:x},{area.end:x}){caller}"
    yield Answer("vmalloc", area.start, question.address - area.start, text)


def _regions(question: Question) -> Iterator[Answer]:
    region = whatis_index.region_of(question.target, question.address)
    if region is None:
        return
    offset = question.address - region.start
    if region.kind == "direct":
        text = f"direct map of physical {offset:x}"
        yield Answer("direct", region.start, offset, text)
    elif region.kind != "vmemmap":
        yield Answer("region", region.start, offset, f"in {region.name} [{region.start:x},{region.end:x})")


def _alias(question: Question, paddr: int) -> Iterator[Answer]:
    """Answer whether the same memory is part of the kernel image, which is mapped twice."""
    target = question.target
    first, last = image_range(target)
    start = page_tables(target.kernel).translate(first)
    if start <= paddr < start + last - first:
        from kshell.linux import census

        if int(census.census(target).kind[paddr >> 12]) != census.RESERVED:
            return  # init memory and gaps between sections are given back after boot
        image = first + paddr - start
        found = target.symbolize(image)
        name = f", {found[0].name}{_plus(found[1])}" if found else ""
        yield Answer("symbol", image, 0, f"alias of {image:x} in the kernel image{name}")


def _slabs(question: Question) -> Iterator[Answer]:
    """Answer whether the address lies in an object of a slab cache, allocated or free."""
    from kshell.linux import whatis_pages

    yield from whatis_pages.slab_answers(question)


def _pages(question: Question) -> Iterator[Answer]:
    """Answer what the page behind an address of the direct map, or of a struct page, is used for."""
    from kshell.linux import whatis_pages

    region = whatis_index.region_of(question.target, question.address)
    if region is None:
        return
    if region.kind == "direct":
        yield from _alias(question, question.address - region.start)
        yield from whatis_pages.page_answers(question, question.address - region.start, region.start)
    elif region.kind == "vmemmap":
        yield from whatis_pages.struct_page_answers(question)


def _user_page(question: Question) -> Iterator[Answer]:
    """Answer what the page behind an address of the process is."""
    from kshell.linux import whatis_pages

    if not question.mm:
        return
    try:
        paddr = question.target.user_space(question.mm).translate(question.address)
    except Fault:
        return  # the mapping says what it is; there is no page
    yield from whatis_pages.page_answers(question, paddr, question.address - paddr)


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
    ("the symbols", _symbols), ("a task", _tasks), ("a slab", _slabs), ("a per-CPU area", _percpu),
    ("a module", _modules), ("a vmalloc area", _vmalloc), ("a page", _pages), ("the kernel's memory map", _regions),
]
USER_PROVIDERS: list[tuple[str, Provider]] = [("a mapping of the process", _vmas), ("a page", _user_page)]
