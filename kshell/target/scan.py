"""A dump that does not tell where its kernel is: VMCOREINFO looked for in the memory itself.

The kernel keeps the text in a page of its own, ``vmcoreinfo_data``, from its first byte on (kernel/vmcore_info.c), so a
look at the start of every page finds it. Several may be there: a crash kernel's beside the dead one's, or a guest's.
"""

from __future__ import annotations

from collections.abc import Iterator

from kshell.errors import Fault, FormatError
from kshell.memory.model import Memory
from kshell.target.vmcoreinfo import Vmcoreinfo

MARK = b"OSRELEASE="
PAGE = 4096
CHUNK = 16 << 20


def find_vmcoreinfo(physical: Memory) -> Iterator[tuple[int, Vmcoreinfo]]:
    """Yield (physical address, VMCOREINFO) of every page of *physical* that holds one, ascending.

    Only texts that tell of ``swapper_pg_dir`` count. What cannot be read is passed over.
    """
    for run in physical.ranges():
        if not run.held:
            continue
        at = run.start
        while at < run.end:
            size = min(CHUNK, run.end - at)
            data, fault = physical.read_upto(at, size)
            yield from _in_chunk(data, at)
            # behind a page that cannot be read after all, go on with the next one
            at += size if fault is None else (len(data) // PAGE + 1) * PAGE


def _in_chunk(data: bytes, base: int) -> Iterator[tuple[int, Vmcoreinfo]]:
    found = data.find(MARK)
    while found >= 0:
        if (base + found) % PAGE == 0:
            try:
                info = Vmcoreinfo(data[found : found + PAGE])
                if info.symbol("swapper_pg_dir") is not None:
                    yield base + found, info
            except (FormatError, Fault):
                pass  # text that begins alike
        found = data.find(MARK, found + 1)
