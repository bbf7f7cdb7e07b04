"""Writing ELF cores (as /proc/vmcore shows them), LiME and raw images of physical memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from kshell.errors import FormatError
from kshell.memory import bitmap
from kshell.memory.elfcore import EHDR, ET_CORE, MAX_SEGMENTS, PHDR, PN_XNUM, PT_LOAD, PT_NOTE, SHDR
from kshell.memory.notes import pack_notes
from kshell.memory.output import OutputFile
from kshell.memory.plan import Plan

LIME = struct.Struct("<IIQQ8x")  # LiME: doc/ and src/lime.h, lime_mem_range_header
LIME_MAGIC = 0x4C694D45
ALIGN = 4096


def _segments(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """Yield (first frame, pages in the file, pages in memory): a run of kept pages with the RAM left out behind it."""
    kept = list(bitmap.runs(plan.kept))
    starts = iter([*kept, (plan.frames + 8, 0)])
    first, last = next(starts)
    for begin, end in bitmap.runs(plan.existing):
        at = begin
        while at < end:
            if first >= end:
                yield at, 0, end - at
                break
            if at < first:
                yield at, 0, first - at
                at = first
            low, high = first, last
            first, last = next(starts)
            at = min(first, end)
            yield low, high - low, at - low


def write_elf(plan: Plan, file: OutputFile, progress: Callable[[int], None]) -> None:
    """Write *plan* as an ELF core; RAM left out is a segment's memory beyond its bytes (p_filesz < p_memsz).

    :raises FormatError: so many runs that no reader takes the file
    """
    segments = list(_segments(plan))
    count = len(segments) + 1
    if count > MAX_SEGMENTS:
        raise FormatError(f"{count} runs of pages: more than an ELF core has segments", hint="use --to kdump")
    many = count >= PN_XNUM
    notes, _ = pack_notes(plan.notes, plan.vmcoreinfo)
    sections = EHDR.size + count * PHDR.size
    at_notes = sections + (SHDR.size if many else 0)
    at = -(-(at_notes + len(notes)) // ALIGN) * ALIGN
    headers = [EHDR.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9), ET_CORE, plan.arch.elf_machine, 1, 0, EHDR.size, sections if many else 0, 0,
        EHDR.size, PHDR.size, PN_XNUM if many else count, SHDR.size if many else 0, int(many), 0),
        PHDR.pack(PT_NOTE, 0, at_notes, 0, 0, len(notes), len(notes), 0)]
    places = {}
    for frame, filed, memory in segments:
        address = frame * plan.page
        virtual = 0 if plan.page_offset is None else (plan.page_offset + address) % (1 << 64)
        headers.append(PHDR.pack(PT_LOAD, 7, at, virtual, address, filed * plan.page, memory * plan.page, 0))
        if filed:
            places[frame] = at
        at += filed * plan.page
    file.write(0, b"".join(headers) + (SHDR.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0) if many else b"") + notes)
    place = 0
    for frame, data in plan.pieces():
        place = places.get(frame, place)
        file.write(place, data)
        place += len(data)
        progress(len(data) // plan.page)


def write_raw(plan: Plan, file: OutputFile, progress: Callable[[int], None]) -> None:
    """Write *plan* as raw memory: an address is an offset; what is not held is a hole, read as zeroes."""
    zero = bytes(plan.page)
    for frame, data in plan.pieces():
        if any(data):
            for at in range(0, len(data), plan.page):
                page = data[at : at + plan.page]
                if page != zero:
                    file.write(frame * plan.page + at, page)
        progress(len(data) // plan.page)
    file.end = plan.frames * plan.page


def write_lime(plan: Plan, file: OutputFile, progress: Callable[[int], None]) -> None:
    """Write *plan* as a LiME image: a header and the bytes of each run that is held."""
    ends = dict(bitmap.runs(plan.kept))
    for frame, data in plan.pieces():
        if frame in ends:
            file.append(LIME.pack(LIME_MAGIC, 1, frame * plan.page, ends[frame] * plan.page - 1))
        file.append(data)
        progress(len(data) // plan.page)
