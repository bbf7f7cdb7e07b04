"""Credentials of a task: user and group ids, capabilities.

Kernel source: ``struct cred`` in include/linux/cred.h; ``kuid_t`` in include/linux/uidgid.h. Ids are those of the
initial user namespace.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError

if TYPE_CHECKING:
    from kshell.value import Value

#: bit -> name without CAP_; include/uapi/linux/capability.h
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
#: NGROUPS_MAX
MAX_GROUPS = 65536


class Creds(NamedTuple):
    """What ``/proc/PID/status`` shows in Uid, Gid and Cap lines; capabilities are bit sets."""

    address: int
    uid: int
    euid: int
    suid: int
    fsuid: int
    gid: int
    egid: int
    sgid: int
    fsgid: int
    cap_inheritable: int
    cap_permitted: int
    cap_effective: int
    cap_bset: int
    cap_ambient: int


IDS = ("uid", "euid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid")
CAPS = ("cap_inheritable", "cap_permitted", "cap_effective", "cap_bset", "cap_ambient")


def credentials(task: Value) -> Creds:
    """Return the objective credentials (``real_cred``) of a ``struct task_struct``, which /proc shows.

    :raises Fault: they cannot be read
    """
    cred = task["real_cred"].deref().snapshot()
    ids = [cred.integer(f"{name}.val") for name in IDS]
    return Creds(cred.address, *ids, *(_capability(cred[name]) for name in CAPS))


def _capability(caps: Value) -> int:
    # Since Linux 6.3 (f122a08b197d "capability: just use a 'u64' instead of a 'u32[2]' array") it is one number.
    return caps.integer("val") if caps.has("val") else int.from_bytes(caps.bytes(), "little")


def groups(task: Value) -> list[int]:
    """Return the supplementary groups of a ``struct task_struct``.

    :raises Fault, FormatError: they cannot be read, or are more than there can be
    """
    info = task["real_cred"].deref()["group_info"].deref()
    count = info.integer("ngroups")
    if not 0 <= count <= MAX_GROUPS:
        raise FormatError(f"the group_info at 0x{info.address:x} is damaged: {count} groups")
    # Since 4.9 (81243eacfa40 "cred: simpler, 1D supplementary groups") one array, kgid_t gid[]
    data = task.target.kernel.read(info["gid"].address, count * 4)
    return list(struct.unpack(f"<{count}I", data))


def capability_names(mask: int) -> str:
    """Return the names of capabilities: "none", "all", "all but NET_RAW", or a list; those without a name in hex."""
    every = (1 << len(CAPABILITIES)) - 1
    if not mask:
        return "none"
    if mask & every == every and mask == every:
        return "all"
    missing = [name for bit, name in enumerate(CAPABILITIES) if not mask >> bit & 1]
    if len(missing) <= 5 and mask <= every:
        return f"all but {' '.join(missing)}"
    names = [name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1]
    return " ".join([*names, *([f"0x{mask & ~every:x}"] if mask & ~every else [])])
