"""What a guest is: its kernel, its machine, what runs in it, what is taken from it; and the standard guests by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

LATER = ("teller", "memory_file", "disaster", "second", "inside")
"""fields that came later: where they are False or empty they do not count, and older images stay valid"""


@dataclass(frozen=True)
class GuestSpec:
    """One guest. Two equal specs, built with the same packages and rig, are the same cached image."""

    name: str
    kernel: str = "6.1"
    """series ("6.1", "6.12") or exact version ("6.1.0-55")"""
    memory: int = 256
    """MiB"""
    cpus: int = 2
    kaslr: bool = True
    five_levels: bool = False
    """57-bit virtual addresses"""
    vmcoreinfo: bool = True
    """QEMU's dumps carry the kernel's VMCOREINFO note"""
    crash: bool = False
    """panic and let a crash kernel save /proc/vmcore, instead of dumping through QEMU"""
    processes: int = 0
    """extra sleeping processes"""
    files: int = 0
    """extra empty files in tmpfs"""
    swap: bool = True
    """part of one process is swapped out to zram"""
    arguments: str = ""
    """more kernel command line"""
    teller: bool = False
    """a process that says on the console when its memory is changed (live.c)"""
    memory_file: bool = False
    """the guest's memory is a shared file, ``RunningGuest.memory_file``"""
    inside: bool = False
    """Python and kshell are in the guest, and inside.py runs there; nothing is dumped"""
    disaster: str = ""
    """one of disasters.DISASTERS is staged instead of the usual processes, and the dead or frozen kernel is dumped"""
    second: bool = False
    """with crash: dumped through QEMU while its crash kernel runs, so that two kernels are in memory"""
    timeout: float = 300.0
    """seconds from power-on until the guest must be ready (and, with crash, saved)"""

    def facts(self) -> dict[str, object]:
        """Return what decides the guest's content: all but the name and the patience, and what most do not have."""
        left_out = {"name", "timeout", *(name for name in LATER if not getattr(self, name))}
        return {name: value for name, value in asdict(self).items() if name not in left_out}


CRASH_MEMORY = 256
"""MiB set aside for the crash kernel"""

_BASE = GuestSpec("6.1")

STANDARD: dict[str, GuestSpec] = {
    spec.name: spec
    for spec in (
        _BASE,
        GuestSpec("6.12", kernel="6.12"),
        GuestSpec("5.10", kernel="5.10.0-32"),
        replace(_BASE, name="la57", five_levels=True),
        replace(_BASE, name="nokaslr", kaslr=False),
        replace(_BASE, name="novmcoreinfo", vmcoreinfo=False),
        replace(_BASE, name="kdump", memory=1024, crash=True, timeout=600.0),
        GuestSpec("kdump-6.12", kernel="6.12", memory=1024, crash=True, timeout=600.0),
        replace(_BASE, name="two", memory=768, crash=True, second=True, timeout=600.0),
        replace(_BASE, name="live", teller=True, memory_file=True),
        replace(_BASE, name="inside", memory=1024, teller=True, inside=True, timeout=900.0),
        GuestSpec("inside-6.12", kernel="6.12", memory=1024, teller=True, inside=True, timeout=900.0),
        replace(_BASE, name="big", memory=2048, processes=8000, files=60000, timeout=1800.0),
        replace(_BASE, name="null", disaster="null"),
        GuestSpec("abba", kernel="6.12", disaster="abba"),
        replace(_BASE, name="leak", disaster="leak"),
        GuestSpec("overflow", kernel="6.12", disaster="overflow"),
        replace(_BASE, name="softlockup", disaster="softlockup"),
    )
}


def named_spec(name: str) -> GuestSpec:
    """Return a standard guest by name; "6.1.0-55" (a kernel) and "null-6.12" (a disaster on one) are names too.

    :raises KeyError: there is none
    """
    if name in STANDARD:
        return STANDARD[name]
    if name[:1].isdigit():
        return GuestSpec(name, kernel=name)
    disaster, _, version = name.partition("-")
    if version[:1].isdigit() and disaster in STANDARD and STANDARD[disaster].disaster:
        kernel = STANDARD[version].kernel if version in STANDARD else version
        return replace(STANDARD[disaster], name=name, kernel=kernel)
    raise KeyError(f"no guest named {name!r}; there are {', '.join(STANDARD)}")
