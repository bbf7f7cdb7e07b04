"""Staged disasters: guests whose kernel is killed or frozen on purpose by the module disaster.c, and dumped by QEMU.

A crash kernel would take a minute more to save the same memory, so there is none: after ``panic()`` the kernel
spins (``panic=0``), and QEMU dumps it with the registers of every CPU; so does a guest that is frozen.
"""

from __future__ import annotations

from dataclasses import dataclass

from .contents import HERE, _add_modules, _base, compile_program
from .kmodule import compile_module
from .kmodule import packages as module_packages
from .packages import Kernel
from .spec import GuestSpec

SOURCES = ("disaster.c", "disasters.py", "init.disaster", "kmodule.py")
PANICKED = b"---[ end Kernel panic"
ORACLE_FILES = (
    "/proc/version", "/proc/cmdline", "/proc/uptime", "/proc/meminfo", "/proc/kallsyms", "/proc/modules",
    "/proc/slabinfo", "/proc/vmstat", "/proc/stat", "/proc/sys/kernel/tainted", "/sys/kernel/vmcoreinfo", "/dev/kmsg",
)  # fmt: skip


@dataclass(frozen=True)
class Disaster:
    """What is staged, and how one knows that it has happened.

    :ivar panics: the kernel panics; otherwise it is paused after *wait* seconds
    :ivar arguments: for the kernel command line
    :ivar settings: in /proc/sys/kernel, "name value"
    """

    panics: bool
    wait: int = 0
    arguments: str = ""
    settings: tuple[str, ...] = ()


DISASTERS = {
    "null": Disaster(True, arguments="oops=panic"),
    "abba": Disaster(False, wait=4, settings=("hung_task_timeout_secs 1",)),
    # the kernel keeps who allocated each object of this cache
    "leak": Disaster(False, wait=1, arguments="slub_debug=U,disaster_session"),
    "overflow": Disaster(True, arguments="oops=panic"),
    "softlockup": Disaster(True, settings=("watchdog_thresh 1", "softlockup_panic 1")),
}


def disaster_initramfs(spec: GuestSpec, kernel: Kernel) -> bytes:
    """Return the initramfs of a guest with a disaster."""
    disaster = DISASTERS[spec.disaster]
    archive = _base(kernel)
    archive.file("init", (HERE / "init.disaster").read_bytes(), 0o755)
    archive.file("parts/collect", compile_program(HERE / "collect.c"), 0o755)
    archive.file("parts/victim", compile_program(HERE / "victim.c"), 0o755)
    archive.link("parts/sleeper", "victim")
    _add_modules(archive, kernel, "more", ("qemu_fw_cfg",))  # VMCOREINFO for QEMU's dump
    archive.file("lib/modules/disaster.ko", compile_module(HERE / "disaster.c", kernel))
    archive.file("etc/oracle.list", "\n".join([*ORACLE_FILES, ""]).encode())
    archive.file("etc/settings", "".join(f"{line}\n" for line in disaster.settings).encode())
    settings = {"WHICH": spec.disaster, "PANICS": int(disaster.panics), "WAIT": disaster.wait}
    archive.file("etc/disaster", "".join(f"{name}={value}\n" for name, value in settings.items()).encode())
    return archive.to_bytes()


def disaster_arguments(spec: GuestSpec) -> str:
    """Return what the disaster adds to the kernel command line: no restart after a panic, among others."""
    return f"panic=0 {DISASTERS[spec.disaster].arguments}".strip()


def disaster_sources(spec: GuestSpec) -> tuple[str, ...]:
    """Return the files of the rig that decide what is staged; none for the other guests."""
    return SOURCES if spec.disaster else ()


def disaster_identities(kernel: Kernel) -> list[str]:
    """Return the packages the module is made of, for the cache key."""
    return [package.identity for package in module_packages(kernel)]
