"""Paths of files: from a ``struct path`` up through the dentries and the mounts, as d_path() makes them.

Kernel source: fs/d_path.c (``d_path``, ``prepend_path``, ``simple_dname``), fs/mount.h (``struct mount``), and the
``d_dname`` of pipes, sockets, anonymous inodes and files that have no directory. The root is that of the bottom mount;
a process in a chroot sees less of the path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import FormatError, KshellError
from kshell.linux.lists import member_offset
from kshell.types.model import StructType

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

#: a path of more components than PATH_MAX allows is a loop
MAX_COMPONENTS = 4096


class Paths:
    """Makes paths of one target; remembers what it has read, so that one object serves one listing.

    :ivar target: where the dentries are
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._dentries: dict[int, tuple[int, str]] = {}
        self._mounts: dict[int, tuple[int, int, int]] = {}
        self._makers: dict[int, str] = {}
        self._dentry_type = target.type("struct dentry")
        self._mount_type = target.type("struct mount").strip()
        self._mnt = member_offset(self._mount_type, "mnt")

    def of_file(self, file: int) -> str:
        """Return the path of the ``struct file`` at *file*, `` (deleted)`` added where the kernel adds it.

        :raises Fault, FormatError: a dentry or mount on the way cannot be read, or they loop
        """
        path = self.target.value("struct file", file)["f_path"]
        return self.of_path(path.integer("mnt"), path.integer("dentry"))

    def of_path(self, mnt: int, dentry: int) -> str:
        """Return the path of a vfsmount and a dentry, by address."""
        value = self.target.value(self._dentry_type, dentry)
        made = self._made_name(value, mnt)
        if made is not None:
            return made
        unhashed = value.integer("d_hash.pprev") == 0 and value.integer("d_parent") != dentry
        return self._climb(mnt, dentry) + (" (deleted)" if unhashed else "")

    def _dentry(self, address: int) -> tuple[int, str]:
        """Return parent and name of a dentry."""
        found = self._dentries.get(address)
        if found is None:
            value = self.target.value(self._dentry_type, address)
            name = value["d_name.name"].string()
            found = self._dentries[address] = value.integer("d_parent"), name
        return found

    def _mount(self, mnt: int) -> tuple[int, int, int]:
        """Return (root dentry, dentry it is mounted on, vfsmount it is mounted in) of a vfsmount; itself at the top."""
        found = self._mounts.get(mnt)
        if found is None:
            assert isinstance(self._mount_type, StructType)
            value = self.target.value(self._mount_type, mnt - self._mnt)
            parent = value.integer("mnt_parent") + self._mnt
            found = self._mounts[mnt] = value.integer("mnt.mnt_root"), value.integer("mnt_mountpoint"), parent
        return found

    def _climb(self, mnt: int, dentry: int) -> str:
        """Return the names from the root to *dentry*: prepend_path()."""
        names: list[str] = []
        for _ in range(MAX_COMPONENTS):
            root, mountpoint, parent_mnt = self._mount(mnt)
            if dentry == root:
                if parent_mnt == mnt:
                    return "/" + "/".join(reversed(names))
                dentry, mnt = mountpoint, parent_mnt
                continue
            parent, name = self._dentry(dentry)
            if parent == dentry:
                return "/" + "/".join(reversed(names))  # the root of a file system that is not reached from its mount
            names.append(name)
            dentry = parent
        raise FormatError(f"path of dentry 0x{dentry:x} does not end")

    def _made_name(self, dentry: Value, mnt: int) -> str | None:
        """Return the name that a file system makes up (``d_op->d_dname``), None where the directories tell it."""
        operations = dentry.integer("d_op")
        if not operations:
            return None
        maker = self._maker(operations)
        if maker is None:
            return None
        if dentry.integer("d_parent") == dentry.address and self._mount(mnt)[0] == dentry.address:
            return None  # the root of a mount is a place (bind mounts of such files)
        name = self._dentry(dentry.address)[1]
        if maker == "simple_dname":  # memfd, shared anonymous memory, System V shared memory
            return f"/{name} (deleted)"
        system = dentry["d_sb"].deref()["s_type"].deref()["name"].string()
        if maker in ("pipefs_dname", "sockfs_dname") or system in ("pipefs", "sockfs"):
            inode = dentry["d_inode"].deref().integer("i_ino")
            return f"{'pipe' if system == 'pipefs' else 'socket'}:[{inode}]"
        if maker == "ns_dname" or system == "nsfs":
            return f"{name or 'ns'}:[{dentry['d_inode'].deref().integer('i_ino')}]"
        if system == "anon_inodefs":
            return f"anon_inode:{name}"
        return f"{system}:{name}"

    def _maker(self, operations: int) -> str | None:
        """Return the name of the function ``d_dname`` of the dentry_operations at *operations*, None for NULL."""
        if operations not in self._makers:
            function = self.target.value("struct dentry_operations", operations).integer("d_dname")
            found = self.target.symbolize(function) if function else None
            self._makers[operations] = "" if not function else found[0].name if found else "unknown"
        return self._makers[operations] or None


def path_or_error(paths: Paths, file: int) -> str | KshellError:
    """Return the path of the file at *file*, or why it cannot be told."""
    try:
        return paths.of_file(file)
    except KshellError as error:
        return error
