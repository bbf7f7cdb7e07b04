"""The libkvm binding: ``kvm_open`` and its relatives as in section 3KVM of the manual, and classes for Python.

Two faces on one core: functions return counts and -1, methods do all that was asked or raise. See docs/kvm.md.

    with kvm.open("/var/crash/vmcore") as kd:
        task = kd.symbol("init_task").address
        print(kd.kread(task, 64).hex())
"""

from __future__ import annotations

from kshell.kvm.backend import Facts, Page, User
from kshell.kvm.errors import (
    CorruptDumpError,
    FaultError,
    KvmError,
    NoProcessError,
    NoSymbolError,
    NoUserSpaceError,
    OpenError,
    ProcessGoneError,
    ReadOnlyError,
)
from kshell.kvm.functions import (
    kvm_aread,
    kvm_awrite,
    kvm_close,
    kvm_getcmd,
    kvm_geterr,
    kvm_getproc,
    kvm_getu,
    kvm_kerndisp,
    kvm_kread,
    kvm_kwrite,
    kvm_namelist,
    kvm_native,
    kvm_nextproc,
    kvm_nlist,
    kvm_physaddr,
    kvm_pread,
    kvm_pwrite,
    kvm_read,
    kvm_setproc,
    kvm_uread,
    kvm_uwrite,
    kvm_walk_pages,
    kvm_write,
)
from kshell.kvm.handle import Kvm
from kshell.kvm.opening import kvm_open
from kshell.kvm.opening import open as open  # not in __all__: a star import leaves the builtin alone
from kshell.kvm.proc import Proc
from kshell.kvm.spaces import KAS, PHYS, Space
from kshell.kvm.symbols import Nlist

__all__ = [
    "KAS", "PHYS", "CorruptDumpError", "Facts", "FaultError", "Kvm", "KvmError", "Nlist", "NoProcessError",
    "NoSymbolError", "NoUserSpaceError", "OpenError", "Page", "Proc", "ProcessGoneError", "ReadOnlyError", "Space",
    "User", "kvm_aread", "kvm_awrite", "kvm_close", "kvm_getcmd", "kvm_geterr", "kvm_getproc", "kvm_getu",
    "kvm_kerndisp", "kvm_kread", "kvm_kwrite", "kvm_namelist", "kvm_native", "kvm_nextproc", "kvm_nlist", "kvm_open",
    "kvm_physaddr", "kvm_pread", "kvm_pwrite", "kvm_read", "kvm_setproc", "kvm_uread", "kvm_uwrite", "kvm_walk_pages",
    "kvm_write",
]
