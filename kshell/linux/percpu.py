"""Per-CPU variables and CPU masks.

Kernel source: include/linux/percpu-defs.h, mm/percpu.c, ``__per_cpu_offset`` in arch/x86/kernel/setup_percpu.c,
include/linux/cpumask.h. A per-CPU symbol's address is what ``__per_cpu_offset[cpu]`` is added to: an offset before
6.15 on x86-64, an ordinary address since (9d7de2aa8b41 "x86/percpu/64: Use relative percpu offsets").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError, ValueTypeError

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.types.model import Symbol
    from kshell.value import Value

TOP = 1 << 64
#: a mask of more CPUs than any kernel can be built for is damaged
MAX_CPUS = 1 << 16


class Area(NamedTuple):
    """The static per-CPU variables of one CPU: ``start <= address < end``; ``start`` is that of the section."""

    cpu: int
    start: int
    end: int


def per_cpu_ptr(target: Target, pointer: int, cpu: int) -> int:
    """Return the address of *cpu*'s copy of the per-CPU variable at *pointer* (a ``__percpu`` pointer or a symbol)."""
    return (pointer + target.percpu_base(cpu)) % TOP


def section(target: Target) -> tuple[int, int]:
    """Return start and end of the kernel's per-CPU section, as per-CPU symbols have their addresses in it.

    :raises SymbolNotFoundError: the kernel's symbols do not tell
    """
    return target.symbol("__per_cpu_start").address, target.symbol("__per_cpu_end").address


def variable(target: Target, pointer: int) -> Symbol | None:
    """Return the symbol of the kernel's own per-CPU variable that holds *pointer* (an address in the section)."""
    start, end = section(target)
    for source in target.symbols.sources:
        below = getattr(source, "below", None)
        found: Symbol | None = below(pointer, 0) if below is not None else None
        if found is not None and start <= found.address <= pointer < end:
            return found
    return None


def areas(target: Target) -> Iterator[Area]:
    """Yield the area of each possible CPU that holds the kernel's own (static) per-CPU variables."""
    start, end = section(target)
    for cpu in target.cpu_numbers("possible"):
        base = target.percpu_base(cpu)
        yield Area(cpu, (start + base) % TOP, (end + base) % TOP)


def cpumask(target: Target, mask: Value) -> list[int]:
    """Return the numbers of the CPUs in a ``struct cpumask``, or in what a ``cpumask_var_t`` points to.

    Bits of CPUs that are not possible in this boot say nothing: the kernel never looks at them.

    :raises ValueTypeError: another type
    """
    if not mask.has("bits"):
        raise ValueTypeError(f"{mask.type} is not a CPU mask")
    words = mask["bits"].bytes()
    if len(words) * 8 > MAX_CPUS:
        raise KshellError(f"a CPU mask of {len(words) * 8} bits is damaged")
    bits = int.from_bytes(words, "little")
    return [cpu for cpu in target.cpu_numbers("possible") if bits >> cpu & 1]
