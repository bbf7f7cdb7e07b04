"""ELF files built from bytes: headers, and namelists with the symbols that a test wants."""

from __future__ import annotations

import struct
from collections.abc import Sequence

#: an ELF64 little-endian x86-64 core without anything in it
ELF_HEADER = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 0, 64, 0, 0)


def namelist(names: Sequence[str]) -> bytes:
    """Return an ELF executable whose .symtab has these objects and nothing else."""
    strings, entries = b"\0", bytes(24)
    for number, name in enumerate(names):
        entries += struct.pack("<IBBHQQ", len(strings), 0x11, 0, 1, 0xFFFF_FFFF_8100_0000 + 64 * number, 64)
        strings += name.encode() + b"\0"
    table, text = 64, 64 + len(entries)
    sections = text + len(strings)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0, 0, sections, 0, 64, 0, 0, 64, 3, 2)
    rows = (
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, table, len(entries), 2, 1, 8, 24),
        struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, text, len(strings), 0, 0, 1, 0),
    )
    return head + entries + strings + b"".join(rows)
