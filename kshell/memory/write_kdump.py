"""Writing kdump-compressed dumps, header version 6: what :mod:`kshell.memory.kdump` reads.

makedumpfile: diskdump_mod.h and ``write_kdump_header``. Pages are compressed by several threads and written in order;
all pages of zeroes share one place; a page that would not shrink is written as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from kshell.memory import bitmap
from kshell.memory.codecs import CODECS, encoder_of
from kshell.memory.kdump import HEADER, SUB_HEADER
from kshell.memory.notes import pack_notes
from kshell.memory.output import OutputFile
from kshell.memory.pages import DESCRIPTOR
from kshell.memory.plan import Plan
from kshell.memory.threads import stream

BATCH = 4096  # descriptors written at once
SUB_SIZE = SUB_HEADER.size  # sizeof(struct kdump_sub_header) of version 6: 104
NUMBERS = {name: flag for flag, name in CODECS.items()} | {"none": 0}


class Packed(NamedTuple):
    """Some pages compressed: ``sizes`` and ``flags`` a page; a size of 0 is a page of zeroes, not in ``data``."""

    frame: int
    data: bytes
    sizes: list[int]
    flags: list[int]


def write_kdump(plan: Plan, file: OutputFile, codec: str, progress: Callable[[int], None]) -> None:
    """Write *plan* to *file*; ``progress(pages)`` is told as pages are done.

    :raises FormatError: no library here writes *codec*
    """
    page, number = plan.page, NUMBERS[codec]
    held = bitmap.count(plan.kept)
    notes, info_at = pack_notes(plan.notes, plan.vmcoreinfo)
    sub_blocks = -(-(SUB_SIZE + len(notes)) // page)
    one_bitmap = -(-len(plan.kept) // page) * page
    file.write(0, _header(plan, number, sub_blocks, 2 * one_bitmap // page, held))
    at_notes = page + SUB_SIZE
    info_size = len(plan.vmcoreinfo or b"")
    sub = SUB_HEADER.pack(
        plan.phys_base % (1 << 64), plan.level, 0, 0, 0, at_notes + info_at if info_size else 0, info_size,
        at_notes if notes else 0, len(notes), 0, 0, 0, 0, plan.frames)
    file.write(page, sub + notes)
    table = (1 + sub_blocks) * page
    file.write(table, plan.existing)
    file.write(table + one_bitmap, plan.kept)
    table += 2 * one_bitmap
    file.end = table + held * DESCRIPTOR.size
    encode = encoder_of(number) if number else None
    zero = bytes(page)
    zeroes: tuple[int, int, int, int] | None = None
    rows: list[bytes] = []

    def pack(piece: tuple[int, bytearray]) -> Packed:
        frame, data = piece
        encode = encoder_of(number) if number else bytes  # of its own: an LZO compressor is for one thread
        parts, sizes, flags = [], [], []
        for at in range(0, len(data), page):
            one = bytes(data[at : at + page])
            if one == zero:
                sizes.append(0)
                flags.append(0)
                continue
            made = encode(one)
            small = len(made) < page
            parts.append(made if small else one)
            sizes.append(len(parts[-1]))
            flags.append(number if small else 0)
        return Packed(frame, b"".join(parts), sizes, flags)

    for packed in stream(pack, plan.pieces()):
        offset = file.append(packed.data)
        for size, flags in zip(packed.sizes, packed.flags, strict=True):
            if size == 0:
                if zeroes is None:
                    made = encode(zero) if encode else zero
                    zeroes = (file.append(made), len(made), number, 0)
                rows.append(DESCRIPTOR.pack(*zeroes))
                continue
            rows.append(DESCRIPTOR.pack(offset, size, flags, 0))
            offset += size
        if len(rows) >= BATCH:
            file.write(table, b"".join(rows))
            table += len(rows) * DESCRIPTOR.size
            rows.clear()
        progress(len(packed.sizes))
    file.write(table, b"".join(rows))


def _header(plan: Plan, codec: int, sub_blocks: int, bitmap_blocks: int, held: int) -> bytes:
    small = (1 << 32) - 1
    cpus = sum(note.name == "CORE" and note.type == 1 for note in plan.notes)
    return HEADER.pack(
        b"KDUMP   ", 6, plan.utsname.ljust(390, b"\0")[:390], bytes(16), codec, plan.page, sub_blocks, bitmap_blocks,
        min(plan.frames, small), 0, 0, min(held, small), 0) + struct.pack("<I", cpus)
