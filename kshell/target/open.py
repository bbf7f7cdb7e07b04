"""Opening: what a file is, by an ordered and explicit list of looks at its first bytes, and the target made of it.

A named file is never replaced by the running system; what is recognised but cannot be read is named.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from kshell.errors import FormatError, OpenError
from kshell.memory.elfcore import ElfCore, open_elfcore
from kshell.memory.model import Memory
from kshell.memory.overlay import Overlay
from kshell.target.cpus import read_cpus
from kshell.target.kernel import attach_kernel
from kshell.target.target import Target
from kshell.target.vmcoreinfo import Vmcoreinfo

if TYPE_CHECKING:
    from kshell.memory.kdump import Kdump

MODES = ("r", "r+", "c")
HEADER = 4096

#: First bytes of what is known and not read yet, with its name.
NAMED = (
    (b"EMiL", "a LiME memory image"),
    (b"AVML", "an AVML memory image"),
    (b"PAGEDU64", "a Windows crash dump"),
    (b"PAGEDUMP", "a Windows crash dump"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"\xfd7zXZ\0", "xz-compressed"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"BZh", "bzip2-compressed"),
    (b"QFI\xfb", "a QEMU disk image"),
)


def open_target(path: str | None, vmlinux: str | None = None, mode: str = "r") -> Target:
    """Open *path*, or the running system when it is None.

    :param vmlinux: an ELF file with symbols of the same kernel, or a System.map; adds to what the image tells
    :param mode: "r" read only, "r+" writes go into the file, "c" writes are kept in memory and the file stays
    :raises OpenError: with ``kind`` telling why
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    if path is None:
        from kshell.target.live import open_running_system

        return open_running_system(mode)
    target = _open_file(path, mode)
    if vmlinux is not None:
        from kshell.target.vmlinux import add_vmlinux

        try:
            add_vmlinux(target, vmlinux)
        except BaseException:
            target.close()
            raise
    return target


def _open_file(path: str, mode: str) -> Target:
    head = read_head(path)
    if head[:4] == b"\x7fELF":
        return _open_elf(path, mode)
    if head.startswith((b"KDUMP   ", b"DISKDUMP", b"makedumpfile\0")):
        return _open_kdump(path, mode)
    for magic, name in NAMED:
        if head.startswith(magic):
            raise OpenError(path, f"{name}: recognised, but not read by this version of kshell", kind="unsupported",
                            hint="unpack it first" if name.endswith("compressed") else
                            "an ELF vmcore is read: makedumpfile -E, virsh dump --memory-only, dump-guest-memory")
    if not head:
        raise OpenError(path, "the file is empty: it has no header", kind="header")
    raise OpenError(path, "not a kernel core file (no ELF header, no known dump magic)", kind="format",
                    hint=f"it starts with {head[:8].hex(' ')}; file(1) may know what it is")


def read_head(path: str) -> bytes:
    """Return the first bytes of *path*.

    :raises OpenError: it is not there, not a file, or may not be read
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise OpenError(path, "no such file", kind="missing") from error
    except PermissionError as error:
        hint = "dumps are often root's: sudo kshell ..."
        raise OpenError(path, "permission denied", kind="permission", hint=hint) from error
    except OSError as error:
        raise OpenError(path, error.strerror or str(error), kind="missing") from error
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)        # fdopen would refuse it, and leave it open
        raise OpenError(path, "is a directory", kind="format", hint="name the dump in it")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        try:
            return file.read(HEADER) or b""
        except OSError as error:
            raise OpenError(path, error.strerror or str(error), kind="format") from error


def _open_elf(path: str, mode: str) -> Target:
    core = open_elfcore(path, "r+" if mode == "r+" else "r")
    try:
        return _target_of_core(core, path, mode)
    except BaseException:
        core.close()
        raise


def _target_of_core(core: ElfCore, path: str, mode: str) -> Target:
    if core.is_user_core:
        raise OpenError(path, "a core of a user process, not of a kernel", kind="format",
                        hint="user cores are not read by this version of kshell; gdb reads them")
    return _target_of(core, path, mode, [note.desc for note in core.notes if note.name == "VMCOREINFO"])


def _open_kdump(path: str, mode: str) -> Target:
    from kshell.memory.kdump import open_kdump

    dump = open_kdump(path, mode)
    try:
        notes = [note.desc for note in dump.notes if note.name == "VMCOREINFO"]
        return _target_of(dump, path, mode, ([dump.vmcoreinfo] if dump.vmcoreinfo else []) + notes)
    except BaseException:
        dump.close()
        raise


def _target_of(dump: ElfCore | Kdump, path: str, mode: str, described: list[bytes]) -> Target:
    """Return the target in *dump*; *described* are the bytes that may be its VMCOREINFO.

    :raises OpenError: none of them is, or the kernel cannot be found by it
    """
    target = Target(path, dump.describe(), dump.arch, mode=mode)
    target.on_close(dump.close)
    physical: Memory = Overlay(dump) if mode == "c" else dump
    target.findings["image"] = dump.describe()
    if dump.complete is not None:
        target.findings["missing"] = dump.complete
    target.cpus = read_cpus(dump.notes, dump.arch)
    info = best_vmcoreinfo(described)
    if info is not None:
        attach_kernel(target, physical, info)
    elif not _attach_found(target, physical):
        told = f"; {dump.complete}" if dump.complete else ""
        why = f"a dump without VMCOREINFO, and none in its memory, so nothing tells where its kernel is{told}"
        raise OpenError(path, why, kind="symbols",
                        hint="copy the dump again" if dump.complete else
                        "QEMU writes VMCOREINFO with -device vmcoreinfo and qemu_fw_cfg.ko loaded in the guest")
    return target


def _attach_found(target: Target, physical: Memory) -> bool:
    """Look for VMCOREINFO in the memory itself; attach the first kernel whose page tables are where it says.

    Where there is none the other roads are tried.
    """
    from kshell.target.scan import find_vmcoreinfo

    for address, info in find_vmcoreinfo(physical):
        try:
            attach_kernel(target, physical, info)
        except OpenError:
            continue
        target.findings["VMCOREINFO"] = f"not in the dump's notes; found in its memory at physical 0x{address:x}"
        return True
    from kshell.target.roads import attach_by_roads

    return attach_by_roads(target, physical, target.cpus)


def best_vmcoreinfo(descriptions: list[bytes]) -> Vmcoreinfo | None:
    """Return the first of the VMCOREINFO notes that is one; None when there is none."""
    for data in descriptions:
        try:
            return Vmcoreinfo(data)
        except FormatError:
            continue
    return None
