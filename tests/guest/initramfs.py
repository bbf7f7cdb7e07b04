"""cpio archives in the "newc" format: written for the guest's initramfs, read for the oracle the guest sends back.

Format: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import PurePosixPath

MAGIC = b"070701"
HEADER_SIZE = 110
TRAILER = "TRAILER!!!"


@dataclass
class Archive:
    """Files to be, by path without a leading slash; parent folders are added when written."""

    entries: dict[str, tuple[int, bytes, int]] = field(default_factory=dict)  # mode, content, device number

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self.entries[path.lstrip("/")] = (stat.S_IFREG | mode, content, 0)

    def link(self, path: str, target: str) -> None:
        self.entries[path.lstrip("/")] = (stat.S_IFLNK | 0o777, target.encode(), 0)

    def folder(self, path: str) -> None:
        self.entries[path.lstrip("/")] = (stat.S_IFDIR | 0o755, b"", 0)

    def character_device(self, path: str, major: int, minor: int) -> None:
        self.entries[path.lstrip("/")] = (stat.S_IFCHR | 0o600, b"", major << 32 | minor)

    def to_bytes(self) -> bytes:
        """Return the archive, parents before children, the same bytes for the same entries."""
        complete = dict(self.entries)
        for path in self.entries:
            for parent in PurePosixPath(path).parents:
                if parent.name:
                    complete.setdefault(str(parent), (stat.S_IFDIR | 0o755, b"", 0))
        parts = [_entry(number, path, *complete[path]) for number, path in enumerate(sorted(complete), start=1)]
        parts.append(_entry(0, TRAILER, 0, b"", 0))
        return b"".join(parts)


def iter_entries(data: bytes | mmap) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of each regular file of an archive.

    :raises ValueError: the archive is damaged or ends before its trailer
    """
    offset = 0
    while True:
        header = data[offset : offset + HEADER_SIZE]
        if len(header) < HEADER_SIZE or header[:6] != MAGIC:
            raise ValueError(f"no cpio entry at offset {offset:#x}")
        values = [int(header[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
        mode, size, name_size = values[1], values[6], values[11]
        name_end = offset + HEADER_SIZE + name_size
        name = data[offset + HEADER_SIZE : name_end - 1].decode()
        start = _aligned(name_end)
        if start + size > len(data):
            raise ValueError(f"cpio entry {name} ends behind the archive")
        if name == TRAILER:
            return
        if stat.S_ISREG(mode):
            yield name, data[start : start + size]
        offset = _aligned(start + size)


def _entry(inode: int, path: str, mode: int, content: bytes, device: int) -> bytes:
    name = path.encode() + b"\0"
    values = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, device >> 32, device & 0xFFFFFFFF, len(name), 0]
    header = MAGIC + b"".join(b"%08X" % value for value in values) + name
    return _padded(header) + _padded(content)


def _aligned(offset: int) -> int:
    return (offset + 3) & ~3


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) & 3)
