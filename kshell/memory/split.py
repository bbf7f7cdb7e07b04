"""Split dumps: what makedumpfile --split writes into several files, found by any of them.

Each part has all headers and both bitmaps, and the pages of its frames. What tells that two belong together is what
they share: uname, the time, and VMCOREINFO, which has the crash's time and this boot's KASLR offset.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from kshell.errors import FormatError, KshellError, OpenError
from kshell.memory.filebitmap import BLOCK
from kshell.memory.kdumpheader import SIGNATURES, KdumpHeader, read_kdump_header
from kshell.memory.source import FLAT_MAGIC, FileSource, FlattenedSource, Source

MAX_FILES = 4096  # looked at in the folder
Part = tuple[str, Source, KdumpHeader]


def open_source(path: str, descriptor: int) -> Source:
    """Return the bytes behind *descriptor*, of a flattened file as if it were put together.

    :raises OpenError: a flattened file that is damaged; the descriptor is closed then
    """
    file = FileSource(path, descriptor)
    try:
        return FlattenedSource(file) if file.pread(len(FLAT_MAGIC), 0) == FLAT_MAGIC else file
    except FormatError as error:
        file.close()
        raise OpenError(path, str(error).removeprefix(f"{path}: "), kind="header") from error
    except BaseException:
        file.close()
        raise


def difference(one: Part, other: Part) -> str | None:
    """Return what shows that two files are no parts of one dump, None when they are."""
    (_, source, header), (_, other_source, found) = one, other
    if not found.split:
        return "it is not a part of a split dump"
    for what in ("names", "stamp", "page", "frames", "phys_base", "level", "vmcoreinfo", "bitmap_size"):
        if getattr(header, what) != getattr(found, what):
            words = {"names": "uname", "stamp": "time", "frames": "number of pages", "vmcoreinfo": "VMCOREINFO"}
            return f"its {words.get(what, what)} is another"
    size = min(BLOCK, header.bitmap_size)
    if source.pread(size, header.bitmaps + header.bitmap_size) != other_source.pread(
            size, found.bitmaps + found.bitmap_size):
        return "its bitmap of pages is another"
    if (header.first, header.last) == (found.first, found.last):
        return "it has the same pages: it is that part, or a copy"
    return None


def other_parts(first: Part, named: Sequence[str]) -> list[Part]:
    """Return the other parts of the split dump that *first* is of: those *named*, or those in its folder.

    :raises OpenError: one of those named cannot be read, or is of another dump
    """
    parts: list[Part] = []
    try:
        for path in named or _neighbours(first[0]):
            try:
                part = _open_part(path)
            except KshellError:
                if named:
                    raise
                continue
            why = difference(first, part)
            if why is None:
                parts.append(part)
                continue
            part[1].close()
            if named:
                raise OpenError(path, f"not a part of the same dump as {first[0]}: {why}", kind="format")
    except BaseException:
        for _, source, _ in parts:
            source.close()
        raise
    return parts


def _open_part(path: str) -> Part:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "permission"
        raise OpenError(path, f"cannot be opened: {error.strerror}", kind=kind) from error
    try:
        source = open_source(path, descriptor)
    except OSError as error:  # a folder
        os.close(descriptor)
        raise OpenError(path, f"cannot be read: {error.strerror}", kind="format") from error
    try:
        return path, source, read_kdump_header(path, source)
    except BaseException:
        source.close()
        raise


def _neighbours(path: str) -> list[str]:
    """Return the other files in the folder of *path* that begin as a dump does, by name."""
    folder = os.path.dirname(path) or "."
    found: list[str] = []
    try:
        own = os.stat(path)
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MAX_FILES), entries, strict=False):
                try:
                    if not entry.is_file():
                        continue
                    told = entry.stat()
                    if not stat.S_ISREG(told.st_mode) or (told.st_dev, told.st_ino) == (own.st_dev, own.st_ino):
                        continue
                    with open(entry.path, "rb", buffering=0) as file:
                        head = file.read(len(FLAT_MAGIC))
                except OSError:  # a link to itself, a file that may not be read
                    continue
                if head.startswith((*SIGNATURES, FLAT_MAGIC)):
                    found.append(entry.path)
    except OSError:
        return []
    return sorted(found)
