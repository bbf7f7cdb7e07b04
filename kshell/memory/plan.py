"""What a converted image will hold: frames, notes, and what its headers tell. The writers and the filter share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kshell.arch.model import Arch
from kshell.errors import FormatError
from kshell.memory import bitmap
from kshell.memory.model import Memory
from kshell.memory.notes import Note

MAX_FRAMES = 1 << 33  # two bitmaps of 1 GiB: 32 TiB of pages of 4 KiB
PIECE = 256  # pages read at once


@dataclass
class Plan:
    """The memory to write, by page frame.

    :ivar existing: bitmap of the frames that are RAM
    :ivar kept: bitmap of those that are written
    :ivar lost: frames that should be written and could not be read, with why; the writers add to it
    :ivar partial: how many pages the source holds in part; their rest is written as zeroes
    :ivar late: frame -> offset at which it begins, of pages of which the source lacks the beginning
    :ivar level: the union of makedumpfile levels by which pages were left out, here and before
    """

    source: Memory
    arch: Arch
    frames: int
    existing: bytearray
    kept: bytearray
    notes: list[Note] = field(default_factory=list)
    vmcoreinfo: bytes | None = None
    utsname: bytes = b""
    phys_base: int = 0
    page_offset: int | None = None
    level: int = 0
    partial: int = 0
    lost: dict[int, str] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)

    @property
    def page(self) -> int:
        """Bytes of a page."""
        return self.arch.page_size

    def pieces(self, bits: bytearray | None = None) -> Iterator[tuple[int, bytearray]]:
        """Yield (first frame, bytes) of all that is kept, at most PIECE pages each; pages lost are zeroes."""
        for start, end in bitmap.runs(self.kept if bits is None else bits):
            for frame in range(start, end, PIECE):
                buffer = bytearray(min(PIECE, end - frame) * self.page)
                with memoryview(buffer) as view:
                    self._read(frame, view)
                yield frame, buffer

    def _read(self, frame: int, view: memoryview) -> None:
        at = 0
        while at < len(view):
            fault = self.source.read_into(frame * self.page + at, view[at:])
            if fault is None:
                return
            at += fault.done
            number, inside = divmod(at, self.page)
            rest = self.page - inside
            view[at : at + rest] = bytes(rest)
            begin = self.late.get(frame + number, 0)
            if begin and not inside:
                fault = self.source.read_into((frame + number) * self.page + begin, view[at + begin : at + rest])
                begin += fault.done if fault is not None else 0
            if not (inside or begin):
                self.lost[frame + number] = str(fault)
            at += rest


def make_plan(source: Memory, arch: Arch) -> Plan:
    """Return the plan that keeps everything *source* holds.

    :raises FormatError: it holds nothing, or reaches further than a dump's bitmaps
    """
    page = arch.page_size
    ranges = [item for item in source.ranges() if item.end > item.start]
    top = max((item.end for item in ranges), default=0)
    frames = -(-top // page)
    if not any(item.held for item in ranges):
        raise FormatError("the source tells of no physical memory that it holds")
    if frames > MAX_FRAMES:
        raise FormatError(f"memory up to 0x{top:x}: more than {MAX_FRAMES * page >> 40} TiB cannot be converted")
    plan = Plan(source, arch, frames, bytearray(-(-frames // 8)), bytearray(-(-frames // 8)))
    for item in ranges:
        first, last = item.start // page, -(-item.end // page)
        bitmap.set_range(plan.existing, first, last)
        if item.held:
            bitmap.set_range(plan.kept, first, last)
    cut: dict[int, int] = {}
    for item in ranges:  # a page that two ranges hold together is whole
        for frame in {item.start // page, (item.end - 1) // page} if item.held else ():
            cut[frame] = cut.get(frame, 0) + min(item.end, (frame + 1) * page) - max(item.start, frame * page)
            if item.start > frame * page and cut[frame] < page:
                plan.late.setdefault(frame, item.start % page)
    plan.partial = sum(held < page for held in cut.values())
    plan.late = {frame: begin for frame, begin in plan.late.items() if cut[frame] < page}
    return plan
