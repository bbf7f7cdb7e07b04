"""Real dumps robbed of what tells about their kernel: copies whose VMCOREINFO, registers or BTF are gone."""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

from tests.guest.cache import copy_sparse

PT_NOTE = 4
TEXT = re.compile(rb"OSRELEASE=\d[^\0]*")
BTF = re.compile(rb"\x9f\xeb\x01\x00\x18\x00\x00\x00")


def strip(
    source: Path, copy: Path, *, vmcoreinfo: bool = False, registers: bool = True, btf: bool = True
) -> Path:
    """Copy the ELF dump *source* without what is False.

    :param vmcoreinfo: the note, and the text in memory
    :param registers: the notes of the CPUs
    :param btf: every BTF in memory, the kernel's and its modules'
    """
    copy_sparse(source, copy)
    names = [*(() if vmcoreinfo else (b"VMCOREINFO\0",)), *(() if registers else (b"QEMU\0", b"CORE\0"))]
    texts = [*(() if vmcoreinfo else (TEXT,)), *(() if btf else (BTF,))]
    with copy.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for text in texts:
            for start, end in [match.span() for match in text.finditer(data)]:
                data[start:end] = bytes(end - start)
        for name in names:
            _rename_notes(data, name)
    return copy


def _rename_notes(data: mmap.mmap, name: bytes) -> None:
    offset, size, count = struct.unpack_from("<Q14xHH", data, 32)
    for number in range(count):
        kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", data, offset + number * size)
        if kind != PT_NOTE:
            continue
        found = data.find(name, at, at + length)
        while found >= 0:
            data[found : found + 1] = b"x"
            found = data.find(name, found + 1, at + length)
