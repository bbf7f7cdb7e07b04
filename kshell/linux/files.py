"""Open files of a task: the descriptor table, and what each descriptor is.

Kernel source: ``struct files_struct`` and ``struct fdtable`` in include/linux/fdtable.h, ``struct file`` in
include/linux/fs.h, include/uapi/asm-generic/fcntl.h.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, KshellError
from kshell.linux.paths import Paths, path_or_error
from kshell.linux.tasks import task_value
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

#: the largest descriptor table: sysctl_nr_open_max is far above what a machine has memory for
MAX_FDS = 1 << 24
TYPES = {stat.S_IFREG: "REG", stat.S_IFDIR: "DIR", stat.S_IFCHR: "CHR", stat.S_IFBLK: "BLK", stat.S_IFIFO: "FIFO",
         stat.S_IFSOCK: "SOCK", stat.S_IFLNK: "LNK", 0: "ANON"}  # fmt: skip
ACCESS = ("RDONLY", "WRONLY", "RDWR", "ACCMODE")
FLAGS = (
    (0o100, "CREAT"), (0o200, "EXCL"), (0o400, "NOCTTY"), (0o1000, "TRUNC"), (0o2000, "APPEND"), (0o4000, "NONBLOCK"),
    (0o10000, "DSYNC"), (0o20000, "ASYNC"), (0o40000, "DIRECT"), (0o100000, "LARGEFILE"), (0o200000, "DIRECTORY"),
    (0o400000, "NOFOLLOW"), (0o1000000, "NOATIME"), (0o2000000, "CLOEXEC"), (0o4000000, "SYNC"),
    (0o10000000, "PATH"), (0o20000000, "TMPFILE"),
)

Cell = int | Fault


class OpenFile(NamedTuple):
    """One open file.

    :ivar fd: its descriptor; -1 for those that have none (exe, cwd, root)
    :ivar file: the ``struct file``; ``inode``: the ``struct inode``; 0 for none
    :ivar type: "REG", "DIR", "CHR", "BLK", "FIFO", "SOCK", "ANON" (a file that is in no file system)
    :ivar flags: O_* bits as fcntl(2) has them; :func:`flag_names` names them
    """

    fd: int
    file: int
    inode: Cell
    type: str
    position: Cell
    flags: Cell
    path: str | KshellError


def open_files(target: Target, task: int, paths: Paths | None = None) -> Iterator[OpenFile]:
    """Yield the open files of the task whose ``task_struct`` is at *task*, by descriptor.

    A file that cannot be read has faults in its place. A task without a table (kernel threads share one that is empty,
    zombies have none) yields nothing.

    :raises Fault, FormatError: the descriptor table cannot be read or is impossible
    """
    files = task_value(target, task).integer("files")
    if not files:
        return
    table = target.value("struct files_struct", files)["fdt"].deref()
    count, array = table.integer("max_fds"), table.integer("fd")
    if not 0 <= count <= MAX_FDS:
        raise FormatError(f"the descriptor table of task 0x{task:x} is damaged: room for {count} files")
    data, fault = target.kernel.read_upto(array, count * 8)
    pointers = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
    wanted = [(fd, pointer) for fd, pointer in enumerate(pointers) if pointer]
    yield from _described(target, wanted, paths or Paths(target))
    if fault is not None:
        raise fault


def _described(target: Target, wanted: list[tuple[int, int]], paths: Paths) -> Iterator[OpenFile]:
    kind = target.type("struct file")
    columns = Vector(target, kind, [pointer for _fd, pointer in wanted]).columns(
        "f_inode", "f_inode->i_mode", "f_pos", "f_flags")
    for (fd, pointer), inode, mode, position, flags in zip(wanted, *columns, strict=True):
        word = TYPES.get(stat.S_IFMT(mode), "?") if isinstance(mode, int) else "?"
        yield OpenFile(fd, pointer, inode, word, position, flags, path_or_error(paths, pointer))


def flag_names(flags: int) -> str:
    """Return the names of O_* bits, "RDWR|CREAT|..."; what has none in octal."""
    names = [ACCESS[flags & 3]]
    flags &= ~3
    for bit, name in FLAGS:
        if flags & bit:
            names.append(name)
            flags &= ~bit
    return "|".join([*names, *([f"0{flags:o}"] if flags else [])])


def places(target: Target, task: Value, paths: Paths | None = None) -> Iterator[tuple[str, str | KshellError]]:
    """Yield (name, path) of the program, the working directory and the root of a ``struct task_struct``."""
    maker = paths or Paths(target)
    for name, member in (("exe", ""), ("cwd", "pwd"), ("root", "root")):
        try:
            if name == "exe":
                mm = task.integer("mm")
                file = target.value("struct mm_struct", mm).integer("exe_file") if mm else 0
                if file:
                    yield name, maker.of_file(file)
                continue
            pointer = task.integer("fs")
            if pointer:
                path = target.value("struct fs_struct", pointer)[member]
                yield name, maker.of_path(path.integer("mnt"), path.integer("dentry"))
        except KshellError as error:
            yield name, error
