"""What a CPU of a machine that stands is doing: which of the kernel's CPUs it is, and the task on it.

Kernel source: arch/x86/kernel/cpu/common.c, arch/x86/include/asm/percpu.h: in the kernel GS's base is the CPU's per-CPU
area, ``__per_cpu_offset[cpu]``; in user mode it waits in MSR_KERNEL_GS_BASE (swapgs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux.lists import member_offset
from kshell.linux.tasks import Task, read_task

if TYPE_CHECKING:
    from kshell.target.target import Cpu, Target


def kernel_number(target: Target, cpu: Cpu) -> int:
    """Return the kernel's number of a CPU: by its per-CPU area, for firmware may number otherwise."""
    bases = {cpu.registers.get("gs_base"), cpu.registers.get("kernel_gs_base")} - {None, 0}
    numbers = target.cpu_numbers("possible")
    if cpu.number in numbers and target.percpu_base(cpu.number) in bases:
        return cpu.number
    return next((number for number in numbers if target.percpu_base(number) in bases), cpu.number)


def current_address(target: Target, cpu: Cpu) -> int:
    """Return the address of the task on a CPU, of its idle task where nothing runs.

    ``rq->curr`` is in every kernel; ``current_task`` moved twice (pcpu_hot in 6.2, back in 6.15).

    :raises KshellError: it cannot be read
    """
    offset = member_offset(target.type("struct rq"), "curr")
    base = target.symbol("runqueues").address + target.percpu_base(kernel_number(target, cpu))
    return int.from_bytes(target.kernel.read((base + offset) % (1 << 64), 8), "little")


def current_tasks(target: Target) -> dict[int, Task]:
    """Return the task on each CPU of a machine, by the machine's number; those that cannot be read are left out."""
    found: dict[int, Task] = {}
    for cpu in target.cpus:
        try:
            found[cpu.number] = read_task(target, current_address(target, cpu))
        except KshellError:
            continue
    return found
