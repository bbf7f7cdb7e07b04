"""What an address of the file layer is (file, path, dentry, inode, address_space, mount), and the names it has.

Kernel source: include/linux/fs.h, include/linux/dcache.h, fs/mount.h. A structure does not say of which type it is, but
each leads to a super block whose root directory leads back to it, by a way that only its own type has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, KshellError, Reason
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import chase, member_offset
from kshell.linux.mounts import MOUNT, mount_addresses
from kshell.linux.paths import MAX_COMPONENTS, Paths

if TYPE_CHECKING:
    from kshell.target.target import Target

#: more names for one inode, or mounts of one super block, than this are damage
MAX_NAMES = 1 << 20
KINDS = ("file", "path", "dentry", "inode", "address_space", "mount", "vfsmount")


class Vnode(NamedTuple):
    """What an address is.

    :ivar kind: one of :data:`KINDS`
    :ivar inode: its ``struct inode``, 0 for a dentry without one (a name that is known not to exist)
    :ivar dentry, mnt: its dentry and vfsmount, as far as it names them, else 0
    """

    kind: str
    inode: int
    dentry: int
    mnt: int


def identify(target: Target, address: int) -> Vnode:
    """Return what the structure at *address* is.

    :raises KshellError: it is none of :data:`KINDS`
    """
    require_kernel(target)
    lost: list[Fault] = []
    found = probe(target, address, lost)
    if found is not None:
        return found
    if lost:
        raise KshellError(f"what 0x{address:x} is cannot be told: {lost[0]}")
    raise KshellError(f"0x{address:x} is no file, path, dentry, inode, address_space or mount",
                      hint=f"{address:x}::whatis tells what is there")


def probe(target: Target, address: int, lost: list[Fault] | None = None) -> Vnode | None:
    """Return what the structure at *address* is, None for none of :data:`KINDS`.

    :param lost: gets the faults of memory that was there, but is not in the dump
    """
    for kind in KINDS:
        try:
            found = _PROBES[kind](target, address)
        except KshellError as error:
            if lost is not None and isinstance(error, Fault) and error.reason is not Reason.NOT_MAPPED:
                lost.append(error)
            continue
        if found is not None:
            return found
    return None


def _is_super(target: Target, sb: int) -> bool:
    """Whether a ``struct super_block`` is at *sb*: its root says so."""
    root = target.value("struct super_block", sb).integer("s_root") if sb else 0
    return bool(root) and target.value("struct dentry", root).integer("d_sb") == sb


def _dentry(target: Target, address: int) -> Vnode | None:
    value = target.value("struct dentry", address)
    if not value.integer("d_name.name") or not value.integer("d_parent") or not _is_super(
            target, value.integer("d_sb")):
        return None
    return Vnode("dentry", value.integer("d_inode"), address, 0)


def _inode(target: Target, address: int) -> Vnode | None:
    value = target.value("struct inode", address)
    if value.integer("i_data.host") != address or not _is_super(target, value.integer("i_sb")):
        return None
    return Vnode("inode", address, 0, 0)


def _vfsmount(target: Target, address: int) -> Vnode | None:
    value = target.value("struct vfsmount", address)
    root = value.integer("mnt_root")
    found = _dentry(target, root)
    if found is None or target.value("struct dentry", root).integer("d_sb") != value.integer("mnt_sb"):
        return None
    return Vnode("vfsmount", found.inode, root, address)


def _path(target: Target, address: int) -> Vnode | None:
    value = target.value("struct path", address)
    mnt, dentry = value.integer("mnt"), value.integer("dentry")
    if _vfsmount(target, mnt) is None:
        return None
    found = _dentry(target, dentry)
    if found is None or target.value("struct dentry", dentry).integer("d_sb") != target.value(
            "struct vfsmount", mnt).integer("mnt_sb"):
        return None
    return Vnode("path", found.inode, dentry, mnt)


def _file(target: Target, address: int) -> Vnode | None:
    value = target.value("struct file", address)
    found = _path(target, value["f_path"].address or 0)
    inode = value.integer("f_inode")
    return Vnode("file", inode, found.dentry, found.mnt) if found and _inode(target, inode) else None


def _mapping(target: Target, address: int) -> Vnode | None:
    host = target.value("struct address_space", address).integer("host")
    return Vnode("address_space", host, 0, 0) if host and _inode(target, host) else None


def _mount(target: Target, address: int) -> Vnode | None:
    found = _vfsmount(target, address + member_offset(target.type(MOUNT), "mnt"))
    return found and found._replace(kind="mount")


_PROBES = {"file": _file, "path": _path, "dentry": _dentry, "inode": _inode, "address_space": _mapping,
           "mount": _mount, "vfsmount": _vfsmount}


def names(target: Target, address: int) -> list[str]:
    """Return the paths of the file, path, dentry, inode, address_space or mount at *address*.

    An inode has as many as dentries that are in memory: hard links; none when nobody has looked it up by name.

    :raises KshellError: it is none of these, or cannot be read
    """
    found = identify(target, address)
    paths = Paths(target)
    if found.mnt:
        return [paths.of_path(found.mnt, found.dentry)]
    aliases = [found.dentry] if found.dentry else _aliases(target, found.inode)
    return [paths.of_path(_mount_of(target, dentry), dentry) for dentry in aliases]


def _aliases(target: Target, inode: int) -> list[int]:
    """Return the dentries of an inode."""
    head = target.value("struct inode", inode)["i_dentry"].address or 0
    at = member_offset(target.type("struct dentry"), "d_u.d_alias")
    return [node - at for node in chase(target.kernel, head, 0, MAX_NAMES)]


def _mount_of(target: Target, dentry: int) -> int:
    """Return the vfsmount by which *dentry* is reached: of the first process's namespace, else the kernel's own."""
    kind = target.type(MOUNT)
    above, sb = _ancestors(target, dentry), target.value("struct dentry", dentry).integer("d_sb")
    mounts = mount_addresses(target)
    head = target.value("struct super_block", sb)["s_mounts"]
    if "list_head" in str(head.type):  # a pointer since 6.18
        at = member_offset(kind, "mnt_instance")
        mounts += [node - at for node in chase(target.kernel, head.address or 0, 0, MAX_NAMES)]
    for one in mounts:
        value = target.value(kind, one)
        if value.integer("mnt.mnt_sb") == sb and value.integer("mnt.mnt_root") in above:
            return one + member_offset(kind, "mnt")
    raise KshellError(f"the dentry at 0x{dentry:x} is below no mount: it is disconnected, or was unmounted")


def _ancestors(target: Target, dentry: int) -> set[int]:
    """Return *dentry* and all directories above it."""
    found: set[int] = set()
    while dentry not in found:
        if len(found) >= MAX_COMPONENTS:
            raise FormatError(f"path of dentry 0x{dentry:x} does not end")
        found.add(dentry)
        dentry = target.value("struct dentry", dentry).integer("d_parent")
    return found
