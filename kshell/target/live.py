"""The running system: /proc/kcore for kernel memory where it can be read; symbols and types from /proc and /sys.

Where the kernel's memory cannot be read the target says why, and user memory of processes works all the same, through
/proc/PID/mem. Kernel source: fs/proc/kcore.c, kernel/kallsyms.c (``kallsyms_show_value``), kernel/bpf/sysfs_btf.c.
"""

from __future__ import annotations

import os
from pathlib import Path

from kshell.arch.model import arch_of_machine
from kshell.errors import KshellError, OpenError
from kshell.memory.overlay import Overlay
from kshell.target.cpus import read_cpus
from kshell.target.kernel import attach_kernel
from kshell.target.open import best_vmcoreinfo
from kshell.target.target import Target, Unavailable
from kshell.types.btf import Btf
from kshell.types.names import SymbolIndex, TypeIndex
from kshell.types.procsyms import read_proc_kallsyms

KCORE = "/proc/kcore"
LOCKDOWN = "/sys/kernel/security/lockdown"
LOCKED_HINT = "user memory, ::ps, symbols and types work all the same; a virtual machine's kernel is seen from its host"
CANNOT_WRITE = (
    "Linux lets nobody write its own memory: /proc/kcore is read-only, /dev/kmem is gone since 5.13, /dev/mem shows no "
    "RAM; --cow writes to a private copy, -w user memory (::uwrite), and a guest's kernel is written from its "
    "host (kshell -w qmp:SOCKET)")
KALLSYMS = "/proc/kallsyms"
BTF = "/sys/kernel/btf/vmlinux"


def open_running_system(mode: str = "r") -> Target:
    """Open the running kernel and its processes.

    With "r+" user memory can be written; kernel memory cannot, for Linux lets nobody write it.

    :raises OpenError: the machine's architecture is not supported
    """
    host = os.uname()
    arch = arch_of_machine(host.machine)
    target = Target("the running system", f"running system {host.nodename}", arch, mode=mode, live=True, host=True)
    target.release = host.release
    try:
        _attach_kcore(target, mode)
    except KshellError as error:
        why = str(error)
        hint = error.hint or "user memory, ::ps, symbols and types work all the same where /proc shows them"
        target.kernel = Unavailable("kernel", why, hint)
        target.physical = Unavailable("physical", why, hint)
        target.findings["kernel"] = f"{host.release}; its memory cannot be read: {why}"
        target.findings["without it"] = "processes from /proc, their memory by /proc/PID/mem; no kernel structures"
        target.make_symbols, target.make_types = _proc_symbols, _sys_types
    return target


def _attach_kcore(target: Target, mode: str) -> None:
    if not Path(KCORE).exists():
        why = "this kernel has no /proc/kcore (CONFIG_PROC_KCORE is off, or a container hides it)"
        raise OpenError("", why, kind="missing")
    if not Path(KCORE).is_file():
        raise OpenError("", "/proc/kcore is hidden by something mounted over it, as containers do", kind="missing",
                        hint="kshell outside of the container sees it")
    if not os.access(KCORE, os.R_OK):
        raise OpenError("", "/proc/kcore may be read by root only", kind="permission", hint="sudo kshell")
    from kshell.memory.kcore import open_kcore

    try:
        core = open_kcore(KCORE)
    except OpenError as error:
        if error.kind == "permission":
            raise OpenError("", _refused(), kind="permission", hint=LOCKED_HINT) from error
        raise
    try:
        info = best_vmcoreinfo([note.desc for note in core.notes if note.name == "VMCOREINFO"])
        if info is None:
            raise OpenError("", "/proc/kcore has no VMCOREINFO note (Linux before 4.19)", kind="symbols")
        core.why_not_writable = CANNOT_WRITE
        attach_kernel(target, Overlay(core) if mode == "c" else core, info)
        target.findings["memory"] = "/proc/kcore, and /proc/PID/mem of processes"
        target.cpus = read_cpus(core.notes, target.arch)
    except BaseException:
        core.close()
        raise
    target.on_close(core.close)


def _refused() -> str:
    """Return why root may not read /proc/kcore (fs/proc/kcore.c, ``open_kcore``)."""
    try:
        states = Path(LOCKDOWN).read_text()
    except OSError:
        states = ""
    mode = states.partition("[")[2].partition("]")[0]
    if mode == "confidentiality":
        return "/proc/kcore is closed by kernel lockdown (confidentiality)"
    return "/proc/kcore may not be opened: CAP_SYS_RAWIO is missing, or the kernel is locked down"


def _proc_symbols(target: Target) -> SymbolIndex:
    index = SymbolIndex([])
    try:
        table = read_proc_kallsyms(KALLSYMS)
    except KshellError as error:
        target.findings["symbols"] = f"none: {error}"
        return index
    index.add(table)
    target.findings["symbols"] = f"{len(table)} ({KALLSYMS})"
    return index


def _sys_types(target: Target) -> TypeIndex:
    index = TypeIndex([])
    try:
        index.add(Btf(Path(BTF).read_bytes()))
        target.findings["types"] = f"BTF ({BTF})"
    except OSError as error:
        target.findings["types"] = f"none: {BTF}: {error.strerror}"
    except KshellError as error:
        target.findings["types"] = f"none: {error}"
    return index
