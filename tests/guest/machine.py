"""The machine a guest runs on: QEMU's command line, and QEMU itself when it is not there yet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .apt import install_qemu
from .progress import RigUnavailable
from .spec import GuestSpec

PROGRAM = "qemu-system-x86_64"


def qemu_program() -> str:
    """Return QEMU's path, installing it where that is ours to do.

    :raises RigUnavailable: it is not there and cannot be installed from here
    """
    path = shutil.which(PROGRAM)
    if path is None and os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get"):
        install_qemu()
        path = shutil.which(PROGRAM)
    if path is None:
        raise RigUnavailable(f"{PROGRAM} is not installed (Debian, Ubuntu: apt-get install qemu-system-x86)")
    return path


def command(spec: GuestSpec, kernel: Path, initrd: Path, arguments: str, folder: Path, drives: list[Path]) -> list[str]:
    """Return the QEMU command line of a guest whose sockets and console are in *folder*."""
    words = [
        *_dying_with_us(), qemu_program(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", f"max,la57={'on' if spec.five_levels else 'off'}",
        "-m", str(spec.memory), "-smp", str(spec.cpus),
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", arguments,
        "-chardev", f"file,id=console,path={folder / 'console.log'}", "-serial", "chardev:console",
        "-chardev", f"socket,id=control,path={folder / 'control'},server=on,wait=off", "-mon", "control,mode=control",
        "-chardev", f"socket,id=qmp,path={folder / 'qmp'},server=on,wait=off", "-mon", "qmp,mode=control",
        "-chardev", f"socket,id=gdb,path={folder / 'gdb'},server=on,wait=off", "-gdb", "chardev:gdb",
    ]  # fmt: skip
    if spec.vmcoreinfo:
        words += ["-device", "vmcoreinfo"]
    for index, drive in enumerate(drives):
        words += ["-drive", f"if=none,id=drive{index},format=raw,cache=unsafe,discard=unmap,file={drive}"]
        words += ["-device", f"virtio-blk-pci,drive=drive{index}"]
    return words


def _dying_with_us() -> list[str]:
    """Return the words that have QEMU ended by the kernel should this process be killed outright."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
