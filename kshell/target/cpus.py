"""The CPUs of an image: NT_PRSTATUS and QEMU notes, matched by their order.

QEMU writes one PRSTATUS note a CPU and then one note named QEMU a CPU (target/i386/arch_dump.c); a kdump kernel writes
one PRSTATUS a CPU that answered (kernel/crash_core.c). QEMU's note tells control registers that PRSTATUS lacks.
"""

from __future__ import annotations

from collections.abc import Sequence

from kshell.arch.model import Arch
from kshell.errors import FormatError
from kshell.memory.notes import Note
from kshell.target.target import Cpu

NT_PRSTATUS = 1


def read_cpus(notes: Sequence[Note], arch: Arch) -> list[Cpu]:
    """Return what the notes tell of each CPU, in order; damaged notes are left out."""
    status = [_decode(arch.prstatus, n.desc) for n in notes if n.name == "CORE" and n.type == NT_PRSTATUS]
    machine = [_decode(arch.qemu_cpu, n.desc) for n in notes if n.name == "QEMU"]
    cpus: list[Cpu] = []
    for number in range(max(len(status), len(machine))):
        registers: dict[str, int] = {}
        names: list[str] = []
        for name, rows in (("PRSTATUS", status), ("QEMU", machine)):
            if number < len(rows) and rows[number]:
                registers |= rows[number]
                names.append(name)
        pid = registers.pop("pid", None)
        cpus.append(Cpu(number, registers, pid, "+".join(names)))
    return cpus


def _decode(decode: object, data: bytes) -> dict[str, int]:
    assert callable(decode)
    try:
        found: dict[str, int] = decode(data)
    except FormatError:
        return {}
    return found
