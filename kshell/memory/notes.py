"""ELF notes: small named records in a core, bounded and tolerant of damage.

System V ABI, chapter 5, "Note Section". Linux and QEMU align names and descriptors to 4 bytes in cores of 64 bits too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAX_NOTES = 1 << 16
MAX_NAME = 256


class Note(NamedTuple):
    """One note: ``name`` without its NUL, the owner's ``type``, and the descriptor's bytes."""

    name: str
    type: int
    desc: bytes


def iter_notes(data: bytes, byteorder: str = "<") -> Iterator[Note]:
    """Yield the notes in *data*; ends at the first one that is cut or impossible."""
    at = 0
    for _ in range(MAX_NOTES):
        if at + 12 > len(data):
            return
        name_size, desc_size, kind = struct.unpack_from(f"{byteorder}3I", data, at)
        at += 12
        if name_size == desc_size == kind == 0 or name_size > MAX_NAME:
            return
        name = data[at : at + name_size].split(b"\0", 1)[0]
        at += (name_size + 3) & ~3
        desc = data[at : at + desc_size]
        if len(desc) < desc_size:
            return
        at += (desc_size + 3) & ~3
        yield Note(name.decode("ascii", "replace"), kind, desc)


def pack_notes(notes: Sequence[Note], vmcoreinfo: bytes | None = None) -> tuple[bytes, int]:
    """Return *notes* as bytes, with one of *vmcoreinfo* unless they have it, and where its text begins in them."""
    out, place = b"", 0
    told = [note for note in notes if not (vmcoreinfo and note.name == "VMCOREINFO")]
    for note in [*told, *([Note("VMCOREINFO", 0, vmcoreinfo)] if vmcoreinfo else [])]:
        name = note.name.encode("ascii", "replace") + b"\0"
        out += struct.pack("<3I", len(name), len(note.desc), note.type) + name + bytes(-len(name) % 4)
        place = len(out)
        out += note.desc + bytes(-len(note.desc) % 4)
    return out, place if vmcoreinfo else 0
