"""A genuine kdump: the guest panics, its crash kernel saves /proc/vmcore, makedumpfile makes the other formats of it.

makedumpfile runs on the host over the raw vmcore: the same program and the same bytes as in the crash kernel, where
emulation would make it many times slower. All formats are of the same instant.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from .cache import copy_sparse
from .libraries import host_command
from .packages import bundle
from .progress import RigError, progress, step
from .qemu import READY, RunningGuest

SAVED = b"KSHELL-SAVED"
FAILED_BY_ITSELF = b"KSHELL-FAILED"
PANIC = b"sysrq triggered crash"
DUMP_START = 1 << 20  # init writes the dump behind the drive's first MiB
FORMATS = {
    "makedumpfile.zlib": ["-c", "-d", "31"],
    "makedumpfile.lzo": ["-l", "-d", "31"],
    "makedumpfile.snappy": ["-p", "-d", "31"],
    "makedumpfile.zstd": ["-z", "-d", "31"],
    "makedumpfile.d1": ["-l", "-d", "1"],
    "makedumpfile.raw": ["-d", "31"],
    "makedumpfile.elf": ["-E", "-d", "31"],
    "makedumpfile.flat": ["-F", "-c", "-d", "31"],
}


def wait_crash(guest: RunningGuest, seconds: float) -> None:
    """Wait until the guest has collected its oracle; its last line may be lost in the panic that follows at once."""
    guest.wait_console((READY, PANIC), seconds, failing=(FAILED_BY_ITSELF,))


def save_vmcore(guest: RunningGuest, seconds: float) -> None:
    """Wait until the crash kernel has saved the memory and powered off; the panic on the console is wanted here."""
    guest.wait_console((SAVED,), seconds, failing=(FAILED_BY_ITSELF,))
    guest.wait_end(30)


def convert_vmcore(drive: Path, folder: Path) -> None:
    """Cut ``vmcore`` out of the dump drive and write the formats makedumpfile can make of it."""
    with drive.open("rb") as handle:
        word, size = handle.read(512).rstrip(b"\0").split()
    if word != b"vmcore":
        raise RigError(f"the crash kernel wrote no size on {drive}")
    vmcore = folder / "vmcore"
    copy_sparse(drive, vmcore, int(size), DUMP_START)
    program = host_command("makedumpfile", bundle("makedumpfile"))
    with step("makedumpfile: all formats"):
        for name, options in FORMATS.items():
            _makedumpfile(program, options, vmcore, folder / name)


def _makedumpfile(program: list[str], options: list[str], vmcore: Path, output: Path) -> None:
    flat = "-F" in options
    command = [*program, "-f", *options, str(vmcore), *([] if flat else [str(output)])]
    with output.open("wb") as stream:
        stdout = stream if flat else subprocess.PIPE
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace")
    complaints = done.stderr if flat else done.stdout + done.stderr
    if "is disabled" in complaints:  # built without that compression; it then writes uncompressed pages
        output.unlink()
        progress(f"this makedumpfile cannot write {output.name}")
    elif done.returncode:
        raise RigError(f"makedumpfile {' '.join(options)} failed: {complaints.strip()[-1000:]}")
    else:
        output.chmod(0o644)
