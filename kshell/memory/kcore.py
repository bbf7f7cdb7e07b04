"""/proc/kcore: the running kernel's memory as an ELF core; its RAM segments carry physical addresses since Linux 4.11.

Kernel source: fs/proc/kcore.c. Never written (it has no write). The segments are those
of the moment it was opened.
"""

from __future__ import annotations

from kshell.errors import OpenError
from kshell.memory.elfcore import ElfCore, open_elfcore


def open_kcore(path: str = "/proc/kcore") -> ElfCore:
    """Open the running kernel's memory.

    :raises OpenError: it may not be read, or its segments have no physical addresses (Linux before 4.11)
    """
    core = open_elfcore(path, live=True)
    if not any(segment.paddr for segment in core.segments):
        core.close()
        raise OpenError(path, "its segments have no physical addresses (Linux before 4.11)", kind="version")
    return core
