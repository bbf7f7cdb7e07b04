"""Mounted file systems: the mounts of a mount namespace, as /proc/PID/mounts lists them.

Kernel source: ``struct mnt_namespace`` and ``struct mount`` in fs/mount.h, ``show_vfsmnt`` in fs/proc_namespace.c. All
mounts of the namespace are listed, those too that another one hides; places are told from its bottom mount.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import chase, member_offset
from kshell.linux.paths import Paths
from kshell.linux.rbtree import rbtree_for_each
from kshell.linux.slub import has_member
from kshell.linux.tasks import task_value

if TYPE_CHECKING:
    from kshell.target.target import Target

MOUNT = "struct mount"
#: more mounts than sysctl_mount_max (100000 by default) is set to anywhere
MAX_MOUNTS = 1 << 20
#: MNT_CURSOR: a reader's place in the list, no mount (5.8 to 6.7; 9f6c61f96f2d "proc/mounts: add cursor")
CURSOR = 0x1000_0000
#: SB_* in the order in which /proc/mounts names them, MNT_* likewise; include/linux/fs.h, include/linux/mount.h
SB_RDONLY, MNT_READONLY = 0x1, 0x40
SB_OPTIONS = ((0x10, "sync"), (0x80, "dirsync"), (0x40, "mand"), (0x200_0000, "lazytime"))
MNT_OPTIONS = ((0x1, "nosuid"), (0x2, "nodev"), (0x4, "noexec"), (0x8, "noatime"), (0x10, "nodiratime"),
               (0x20, "relatime"), (0x80, "nosymfollow"))  # fmt: skip
MINOR_BITS = 20


class Mount(NamedTuple):
    """One mounted file system.

    :ivar address: of the ``struct mount``; ``sb``: of the ``struct super_block``
    :ivar type: as mount(8) takes it, "ext4"; ``source``: what was mounted, "/dev/sda1", "tmpfs"
    :ivar device: major and minor number of the super block, "8:1"
    :ivar options: those that every file system has, "ro,nosuid,relatime"; the file system's own are not told
    """

    address: int
    sb: int
    type: str
    source: str
    device: str
    options: str
    place: str | KshellError


def mount_addresses(target: Target, task: int | None = None) -> list[int]:
    """Return the ``struct mount`` of all mounts of a task's namespace, by default of the first process's.

    :raises KshellError: the task has none (a zombie), or the list or tree is damaged
    """
    require_kernel(target)
    if task is None:
        task = target.symbol("init_task").address
    proxy = task_value(target, task).integer("nsproxy")
    if not proxy:
        raise KshellError(f"the task at 0x{task:x} has no namespaces any more: it has exited")
    namespace = target.value("struct nsproxy", proxy).integer("mnt_ns")
    kind, mount = target.type("struct mnt_namespace"), target.type(MOUNT)
    if has_member(kind, "mounts") and has_member(mount, "mnt_node"):
        # since 6.8 (2eea9ce4310d "mounts: keep list of mounts in an rbtree")
        at = member_offset(mount, "mnt_node")
        return [node - at for node in rbtree_for_each(target, namespace + member_offset(kind, "mounts"), MAX_MOUNTS)]
    at = member_offset(mount, "mnt_list")
    found = [node - at for node in chase(target.kernel, namespace + member_offset(kind, "list"), 0, MAX_MOUNTS)]
    return [one for one in found if not target.value(mount, one).integer("mnt.mnt_flags") & CURSOR]


def read_mount(target: Target, address: int, paths: Paths | None = None) -> Mount:
    """Return the mount whose ``struct mount`` is at *address*.

    :raises Fault, FormatError: it cannot be read
    """
    value = target.value(MOUNT, address)
    sb = value["mnt.mnt_sb"].deref()
    kind, subtype = sb["s_type"].deref()["name"].string(), sb.integer("s_subtype")
    if subtype:
        kind = f"{kind}.{sb['s_subtype'].string()}"
    name = value["mnt_devname"].string() if value.integer("mnt_devname") else "none"
    device = sb.integer("s_dev")
    return Mount(address, sb.address, kind, name, f"{device >> MINOR_BITS}:{device & (1 << MINOR_BITS) - 1}",
                 _options(sb.integer("s_flags"), value.integer("mnt.mnt_flags")), place(target, address, paths))


def place(target: Target, address: int, paths: Paths | None = None) -> str | KshellError:
    """Return where the ``struct mount`` at *address* is mounted, or why that cannot be told."""
    value = target.value(MOUNT, address)
    try:
        mnt = address + member_offset(target.type(MOUNT), "mnt")
        return (paths or Paths(target)).of_path(mnt, value.integer("mnt.mnt_root"))
    except KshellError as error:
        return error


def iter_mounts(target: Target, task: int | None = None) -> Iterator[Mount]:
    """Yield the mounts of a task's namespace, as :func:`mount_addresses` has them."""
    paths = Paths(target)
    for address in mount_addresses(target, task):
        yield read_mount(target, address, paths)


def _options(sb: int, mnt: int) -> str:
    words = ["ro" if sb & SB_RDONLY or mnt & MNT_READONLY else "rw"]
    words += [name for bit, name in SB_OPTIONS if sb & bit]
    words += [name for bit, name in MNT_OPTIONS if mnt & bit]
    return ",".join(words)
