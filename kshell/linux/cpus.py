"""What each CPU was doing: the task on it, its registers, and the stacks that it has besides its task's.

Kernel source: ``crash_save_cpu`` in kernel/crash_core.c (kernel/kexec_core.c before 6.8), ``struct irq_stack`` and
``in_irq_stack`` in arch/x86/kernel/dumpstack_64.c, ``struct cpu_entry_area`` in arch/x86/include/asm/cpu_entry_area.h,
``struct pcpu_hot`` in arch/x86/include/asm/current.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.linux.lists import member_offset
from kshell.linux.percpu import TOP, per_cpu_ptr
from kshell.memory.notes import iter_notes
from kshell.types.model import StructType
from kshell.unwind.model import StackRange

if TYPE_CHECKING:
    from kshell.target.target import Target

NT_PRSTATUS = 1
#: bytes of ``note_buf_t`` that are looked at
NOTE_SIZE = 1024
PAGE = 4096
#: IRQ_STACK_SIZE where the types do not tell
IRQ_STACK_SIZE = 16 << 10
#: entries of ``struct cea_exception_stacks`` that are stacks end so
STACK_SUFFIX = "_stack"


class CpuState(NamedTuple):
    """A CPU and the registers it had.

    :ivar task: the ``task_struct`` on it, 0 when that cannot be told
    :ivar registers: by lower-case name; empty when the target has none
    :ivar source: who told them: "crash_notes", "PRSTATUS", "PRSTATUS+QEMU", ...
    """

    number: int
    task: int
    registers: dict[str, int]
    source: str


def cpu_states(target: Target) -> dict[int, CpuState]:
    """Return the state of each online CPU, and of others that the image has registers of, by number."""
    told = registers(target)
    current: dict[int, int] = {}
    # without the tasks the registers are still told
    with suppress(KshellError):
        # a panicking kernel takes the CPUs that it stops off line
        numbers = sorted({*target.cpu_numbers("online"), *told})
        current = dict(current_tasks(target, numbers))
    return {
        number: CpuState(number, current.get(number, 0), *told.get(number, ({}, "")))
        for number in sorted({*current, *told})
    }


def current_tasks(target: Target, numbers: Sequence[int], member: str = "curr") -> Iterator[tuple[int, int]]:
    """Yield (cpu, ``task_struct``) of what the run queues of these CPUs say runs on them, or of ``idle``.

    ``rq->curr`` is in every kernel; ``current_task`` moved twice (pcpu_hot in 6.2, back in 6.15).

    :raises KshellError: the run queues cannot be found
    """
    queues = target.symbol("runqueues").address
    offset = member_offset(target.type("struct rq"), member)
    for number in numbers:
        with suppress(KshellError):  # one that cannot be read costs its own answer
            yield number, target.kernel.u64((queues + target.percpu_base(number) + offset) % TOP)


def registers(target: Target) -> dict[int, tuple[dict[str, int], str]]:
    """Return the registers of the CPUs and who told them, by number."""
    info = target.vmcoreinfo
    if info is not None and info.get("CRASHTIME") is not None:
        found = dict(crash_notes(target))
        if found:
            return {number: (values, "crash_notes") for number, values in found.items()}
    cpus = [cpu for cpu in target.cpus if cpu.registers]
    numbers = [cpu.number for cpu in cpus]
    if cpus and all(cpu.note == "PRSTATUS" for cpu in cpus):
        # A kdump kernel writes notes of the CPUs that are online, in order; QEMU of all that it has.
        try:
            online = target.cpu_numbers("online")
        except KshellError:
            online = []
        if len(online) >= len(target.cpus):
            numbers = [online[cpu.number] for cpu in cpus]
    return {number: (cpu.registers, cpu.note) for number, cpu in zip(numbers, cpus, strict=True)}


def crash_notes(target: Target) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield (cpu, registers) of the per-CPU notes that a panicking kernel saves for its successor."""
    try:
        pointer = target.kernel.u64(target.symbol("crash_notes").address)
        possible = target.cpu_numbers("possible")
    except KshellError:
        return
    for number in possible:
        try:
            data, _ = target.kernel.read_upto(per_cpu_ptr(target, pointer, number), NOTE_SIZE)
            for note in iter_notes(data):
                if note.name == "CORE" and note.type == NT_PRSTATUS:
                    found = target.arch.prstatus(note.desc)
                    del found["pid"]
                    yield number, found
                    break
        except KshellError:
            continue  # this CPU did not answer, or its note is not in the image


def panicking_cpu(target: Target) -> int | None:
    """Return the number of the CPU that panicked or crashed, None when none did or it cannot be told."""
    for name in ("panic_cpu", "crashing_cpu"):
        symbol = target.symbols.get(name)
        if symbol is None:
            continue
        try:
            value = target.kernel.u32(symbol.address)
        except KshellError:
            continue
        if value < 1 << 31:  # PANIC_CPU_INVALID is -1
            return value
    return None


def thread_size(target: Target) -> int:
    """Return THREAD_SIZE: the bytes of a task's kernel stack, which are a power of two."""
    for first, last in (("__start_init_stack", "__end_init_stack"), ("__start_init_task", "__end_init_task")):
        start, end = target.symbols.get(first), target.symbols.get(last)
        if start is not None and end is not None and PAGE <= end.address - start.address <= 1 << 20:
            return 1 << (end.address - start.address - 1).bit_length()
    for name in ("init_stack", "init_thread_union"):
        symbol = target.symbols.get(name)
        if symbol is not None and PAGE <= symbol.size <= 1 << 20:
            return 1 << (symbol.size - 1).bit_length()
    return IRQ_STACK_SIZE


def cpu_stacks(target: Target, cpu: int) -> list[StackRange]:
    """Return the stacks of *cpu* for interrupts, exceptions and entry; those that cannot be told are left out."""
    found: list[StackRange] = []
    for finder in (_irq_stack, _exception_stacks):
        try:
            found += finder(target, cpu)
        except KshellError:
            continue
    return found


def _irq_stack(target: Target, cpu: int) -> list[StackRange]:
    # 6.2 to 6.14 (c063a217bc07 "x86/percpu: Move current_top_of_stack next to current_task" and around it)
    if target.symbols.get("pcpu_hot") is not None:
        pointer = target.percpu("pcpu_hot", cpu, "struct pcpu_hot").integer("hardirq_stack_ptr")
    else:  # since 5.2 and again since 6.15; irq_stack_ptr before
        name = "hardirq_stack_ptr" if target.symbols.get("hardirq_stack_ptr") else "irq_stack_ptr"
        pointer = target.percpu(name, cpu, "unsigned long").integer()
    kind = target.types.get("struct irq_stack")
    size = (kind.size if kind is not None else None) or IRQ_STACK_SIZE
    end = -(-pointer // PAGE) * PAGE  # the pointer is to the last word since 5.12 (951c2a51ae75)
    return [StackRange("irq", end - size, end)] if pointer >= target.arch.kernel_half else []


def _exception_stacks(target: Target, cpu: int) -> list[StackRange]:
    base = target.percpu("cea_exception_stacks", cpu, "unsigned long").integer()
    kind = target.type("struct cea_exception_stacks").strip()
    if not isinstance(kind, StructType) or base < target.arch.kernel_half:
        raise FormatError("no exception stacks")
    found = []
    for member in kind.members:
        if member.name and member.name.endswith(STACK_SUFFIX) and member.type.size:
            start = base + member.offset
            found.append(StackRange(member.name.removesuffix(STACK_SUFFIX), start, start + member.type.size))
    area = target.type("struct cpu_entry_area").strip()
    if isinstance(area, StructType) and area.has("estacks") and area.has("entry_stack_page"):
        entry = area.member("entry_stack_page")
        start = base - area.member("estacks").offset + entry.offset
        found.append(StackRange("entry", start, start + (entry.type.size or PAGE)))
    return found
