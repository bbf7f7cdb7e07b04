"""Credentials of a task: user and group ids, capabilities.

Kernel source: ``struct cred`` in include/linux/cred.h; ``kuid_t`` in include/linux/uidgid.h. Ids are those of the
initial user namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kshell.value import Value


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
