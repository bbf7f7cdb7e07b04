"""What kind of CPU each is, as /proc/cpuinfo says.

Kernel source: ``struct cpuinfo_x86`` in arch/x86/include/asm/processor.h, ``cpu_info`` in arch/x86/kernel/smpboot.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import KshellError

if TYPE_CHECKING:
    from kshell.target.target import Target


def model(target: Target, cpu: int) -> str:
    """Return the model name of a CPU, with family, model, stepping and microcode: "AMD EPYC ... (25/1/1, 0xa0011d1)".

    :raises KshellError: this architecture's facts are not known here, or cannot be read
    """
    if target.types.get("struct cpuinfo_x86") is None:
        raise KshellError("the model of a CPU is known of x86 only")
    facts = target.percpu("cpu_info", cpu, "struct cpuinfo_x86")
    name = facts["x86_model_id"].string(64).strip() or facts["x86_vendor_id"].string(16).strip()
    numbers = "/".join(str(facts.integer(member)) for member in ("x86", "x86_model", "x86_stepping"))
    return f"{name} ({numbers}, microcode 0x{facts.integer('microcode'):x})"
