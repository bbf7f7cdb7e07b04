"""``::fsinfo``: mounted file systems; ``::vnode2path``: the path of an inode, dentry, file or mount."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    Column,
    Flag,
    Item,
    KshellError,
    Output,
    Row,
    Session,
    Table,
    Text,
    Warn,
    Word,
    dcmd,
    escape,
    walker,
)
from kshell.linux import files, mounts, processes, tasks, vnodes
from kshell.linux.kernel import require_kernel
from kshell.linux.mounts import MOUNT

COLUMNS = (Column("ADDR", kind=ADDRESS), Column("TYPE", 10), Column("DEVICE", 20, key="source"), Column("MOUNT"))
LONG = (*COLUMNS[:1], Column("SB", kind=ADDRESS), *COLUMNS[1:3], Column("DEV", 7, key="device"), COLUMNS[3],
        Column("OPTIONS"))


@dcmd("fsinfo", columns=COLUMNS, yields=MOUNT, group="Kernel")
def fsinfo(
    session: Session, address: int | None,
    verbose: Annotated[bool, Flag("-v", "super block, device number and options too")],
    which: Annotated[str | None, Word("pid|name", "as this process sees them; a pid is decimal")],
) -> Iterator[Output]:
    """List the mounted file systems, as /proc/mounts.

    Those of the first process's mount namespace, or of the one a process is in; with an address the one whose struct
    mount is there. Mounts that others hide are listed too. OPTIONS are those of every file system; what a file system
    was told of its own (size=, data=) is in its private data. Into a pipe go the struct mounts.

    Examples:
      ::fsinfo
      ::fsinfo -v init
      ::walk vfs | ::fsinfo
    """
    target = session.target
    require_kernel(target)
    if verbose:
        yield Table((*LONG[:5], Column("MOUNT", 20), LONG[6]), MOUNT)
    if address is not None:
        known = vnodes.probe(target, address)
        if known is None or known.kind != "mount":
            raise KshellError(f"0x{address:x} is no struct mount", hint="::walk vfs has them")
        found: Iterator[mounts.Mount] = iter([mounts.read_mount(target, address)])
    else:
        found = mounts.iter_mounts(target, processes.find(target, which).address if which is not None else None)
    for one in found:
        if verbose:
            yield Row(one.address, (one.address, one.sb, one.type, one.source, one.device, one.place, one.options))
        else:
            yield Row(one.address, (one.address, one.type, one.source, one.place))


@walker("vfs", yields=MOUNT)
def vfs(session: Session, address: int | None) -> Iterator[int]:
    """Walk the mounts of the first process's mount namespace; from a task, of its namespace."""
    yield from mounts.mount_addresses(session.target, address)


@dcmd("vnode2path", group="Kernel")
def vnode2path(session: Session, address: int) -> Iterator[Output]:
    """Print the path of the file, path, dentry, inode, address_space or mount at the address.

    What it is is found out. An inode has a line for each of its names that are in memory, as hard links have several;
    one that nobody has looked up by name has none. Paths are those of the first process's mount namespace; of a file
    system that is mounted nowhere they begin with its root.

    Examples:
      ::pgrep -x init | ::walk file | ::vnode2path
      init_task::print fs->root | ::vnode2path
      ::walk dentry | ::head -3 | ::vnode2path
    """
    found = vnodes.names(session.target, address)
    if not found:
        raise KshellError(f"the inode at 0x{address:x} has no name in memory: no dentry leads to it")
    for name in found:
        yield Text(escape(name), address)


@walker("allfile", yields="struct file")
def allfile(session: Session) -> Iterator[Output]:
    """Walk all open files: those that the descriptors of all tasks lead to, each once.

    What is open without a descriptor (mapped, or held by the kernel alone) is among the objects of the slab cache:
    ::walk filp.
    """
    target = session.target
    require_kernel(target)
    seen: set[int] = set()
    for task in tasks.iter_threads(target):
        try:
            for one in files.open_files(target, task.address):
                if one.file not in seen:
                    seen.add(one.file)
                    yield Item(one.file, "struct file")
        except KshellError as error:
            yield Warn(f"the files of {task.comm} ({task.pid}) are not all told: {error}")
