"""The memory of a running virtual machine by its memory file: QEMU's memory-backend-file with share=on.

Nobody is asked: the machine is not stopped, and nothing tells of its CPUs. Where RAM lies is a question of the size and
of the kernel's own max_pfn (:func:`kshell.memory.guestram.likely_splits`).
"""

from __future__ import annotations

import os
import re
import stat

from kshell.errors import KshellError, OpenError
from kshell.memory.guestram import GIB, GuestRam, layout, likely_splits, split_ram
from kshell.memory.overlay import Overlay
from kshell.target.kernels import attach_found
from kshell.target.target import Target


def open_ram(words: str, mode: str = "r") -> Target:
    """Open a memory file: ``FILE`` or ``FILE,below4g=SIZE``, the bytes of RAM below 4 GiB (3G for pc, 2G for q35).

    :raises OpenError: it is not there, or no Linux is found in it
    """
    path, low = _parse(words)
    name = f"ram:{words}"
    try:
        descriptor = os.open(path, (os.O_RDWR if mode == "r+" else os.O_RDONLY) | os.O_CLOEXEC)
        kind = os.fstat(descriptor).st_mode
        size = os.lseek(descriptor, 0, os.SEEK_END) if stat.S_ISREG(kind) or stat.S_ISBLK(kind) else 0
    except OSError as error:
        denied = isinstance(error, PermissionError)
        why = "missing" if isinstance(error, FileNotFoundError) else "permission" if denied else "format"
        raise OpenError(name, error.strerror or str(error), kind=why,
                        hint="it belongs to the user that runs QEMU: sudo kshell ..." if denied else None) from error
    if size < 1 << 20:
        os.close(descriptor)
        told = f"{size} bytes are" if stat.S_ISREG(kind) or stat.S_ISBLK(kind) else "no file, so"
        raise OpenError(name, f"{told} no machine's memory", kind="format")
    from kshell.arch.x86_64 import X86_64

    best: Target | None = None
    try:
        for split in [low] if low else likely_splits(size):
            pieces = split_ram(size, split)
            ram = GuestRam(path, os.dup(descriptor), pieces, [piece.offset for piece in pieces],
                           writable=mode == "r+", gone="the file became shorter")
            what = f"memory file of a virtual machine, {size >> 20} MiB"
            target = Target(name, what, X86_64(), mode=mode, live=True)
            target.on_close(ram.close)
            target.findings["image"] = target.description
            target.findings["memory"] = f"RAM at {layout(pieces)}"
            try:
                found = attach_found(target, Overlay(ram) if mode == "c" else ram)
                fits = found and (size <= split or low or _top(target) == pieces[-1].end)
            except BaseException:
                target.close()
                raise
            if fits:
                if best is not None:
                    best.close()
                return target
            if found and best is None:
                best = target
            else:
                target.close()
    finally:
        os.close(descriptor)
    if best is None:
        raise OpenError(name, "no Linux is found in it: neither VMCOREINFO nor a kernel's page tables", kind="symbols",
                        hint="a guest that has just been started has none; a dump is opened without ram:")
    best.findings["memory"] += "; the kernel's max_pfn does not agree: name it, ram:FILE,below4g=SIZE"
    return best


def _top(target: Target) -> int:
    """Return where the kernel believes that RAM ends, 0 when it does not tell."""
    try:
        return target.kernel.u64(target.symbol("max_pfn").address) * target.arch.page_size
    except KshellError:
        return 0


def _parse(words: str) -> tuple[str, int]:
    path, comma, option = words.rpartition(",")
    if not comma or not option.startswith("below4g="):
        return words, 0
    value = option.removeprefix("below4g=")
    found = re.fullmatch(r"(0x[0-9a-fA-F]+|\d+)([MG]?)", value)
    number = int(found[1], 0) << {"": 0, "M": 20, "G": 30}[found[2]] if found else 0
    if not 0 < number <= 4 * GIB or number % 4096:
        raise OpenError(f"ram:{words}", f"below4g={value} is no size up to 4G", kind="format",
                        hint="below4g=3G is QEMU's machine pc with 3 GiB or more, below4g=2G is q35")
    return path, number
