"""Which physical addresses are RAM, as the kernel was told by the firmware: its e820 table.

Kernel source: arch/x86/include/asm/e820/types.h (``struct e820_table``: a count and packed entries).
"""

from __future__ import annotations

import struct

from kshell.errors import FormatError, KshellError
from kshell.target.target import Target

ENTRY = struct.Struct("<QQI")
MAX_ENTRIES = 4096
#: RAM, ACPI tables, ACPI non-volatile storage, unusable RAM is none; RAM that the kernel set aside for itself
RAM, RESERVED = (1, 3, 4, 128), 2
NEAR = 16 << 20


def ram_of_kernel(target: Target) -> list[tuple[int, int]]:
    """Return the runs of RAM as (start, end), ascending.

    What firmware reserves beside RAM is RAM too, its own: QEMU's ACPI tables at the top, the BIOS below 1 MiB.

    :raises FormatError: the kernel has no such table, or an impossible one
    """
    try:
        symbol = target.symbol("e820_table")
        table = int.from_bytes(target.kernel.read(symbol.address, 8), "little")
        count = int.from_bytes(target.kernel.read(table, 4), "little")
        if not 0 < count <= MAX_ENTRIES:
            raise FormatError(f"e820_table with {count} entries")
        data = target.kernel.read(table + 4, count * ENTRY.size)
    except KshellError as error:
        raise FormatError(f"what is RAM in this machine is not found: {error}") from error
    rows = sorted((start, start + size, kind) for start, size, kind in ENTRY.iter_unpack(data) if size)
    runs = [(start, end) for start, end, kind in rows if kind in RAM]
    edges = {edge for run in runs for edge in run}
    runs += [(start, end) for start, end, kind in rows
             if kind == RESERVED and end - start <= NEAR and (start in edges or end in edges)]
    joined: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
