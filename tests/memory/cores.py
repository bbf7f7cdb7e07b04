"""ELF cores built from a few bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from kshell.memory.elfcore import EHDR, PHDR, SHDR

PAGE = 4096


class Load(NamedTuple):
    """A PT_LOAD: *data* at physical *paddr*; *memsz* None means as long as *data*, *filesz* what the header claims."""

    paddr: int
    data: bytes
    memsz: int | None = None
    vaddr: int = 0
    filesz: int | None = None


def note(name: str, kind: int, desc: bytes) -> bytes:
    """Return one note, aligned to 4 bytes."""
    raw = name.encode() + b"\0"
    return struct.pack("<3I", len(raw), len(desc), kind) + raw + bytes(-len(raw) % 4) + desc + bytes(-len(desc) % 4)


def core(
    loads: Sequence[Load], notes: bytes = b"", *, machine: int = 62, kind: int = 4, ident: bytes = b"\x02\x01\x01",
    extended: bool = False,
) -> bytes:
    """Return an ELF core; *extended* puts the number of program headers into section 0 (PN_XNUM)."""
    count = len(loads) + 1
    table = EHDR.size
    sections = table + count * PHDR.size
    at = sections + (SHDR.size if extended else 0)
    headers = [PHDR.pack(4, 0, at, 0, 0, len(notes), 0, 0)]
    body = [notes]
    at += len(notes)
    for load in loads:
        filesz = len(load.data) if load.filesz is None else load.filesz
        memsz = filesz if load.memsz is None else load.memsz
        headers.append(PHDR.pack(1, 7, at, load.vaddr, load.paddr, filesz, memsz, 0))
        body.append(load.data)
        at += len(load.data)
    number, shoff = (0xFFFF, sections) if extended else (count, 0)
    head = EHDR.pack(b"\x7fELF" + ident + bytes(9), kind, machine, 1, 0, table, shoff, 0, 64, PHDR.size, number,
                     SHDR.size, int(extended), 0)
    section = SHDR.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0) if extended else b""
    return b"".join([head, *headers, section, *body])
