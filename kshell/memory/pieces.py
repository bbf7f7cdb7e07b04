"""Memory whose bytes come from a :class:`kshell.memory.source.Source`, here and there: files not read as they are."""

from __future__ import annotations

from collections.abc import Iterator

from kshell.errors import Fault, FormatError, Reason
from kshell.memory.image import Image
from kshell.memory.model import Range, Window
from kshell.memory.segments import Segments
from kshell.memory.source import Source

PAGE = 4096
MAX_READ = 64 << 20


class PieceMemory(Image):
    """Pieces of *source*, which belongs to this memory from now on; addresses in no piece are outside RAM.

    :ivar damage: what is wrong with pieces that are absent for :attr:`Reason.IO`
    """

    def __init__(self, path: str, source: Source, segments: Segments) -> None:
        self.path, self.source, self._segments = path, source, segments
        self.damage = ""

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            piece = self._segments.find(at)
            fault = None
            if piece is None or piece.reason is not None:
                reason = Reason.OUTSIDE if piece is None else piece.reason or Reason.TRUNCATED
                fault = Fault(at, size, reason, done=done, space=self.space,
                              detail=self.damage if reason is Reason.IO else "")
            else:
                want = min(size - done, piece.end - at, MAX_READ)
                try:
                    part = self.source.pread(want, piece.offset + at - piece.start)
                    if not part:
                        fault = Fault(at, size, Reason.TRUNCATED, done=done, space=self.space)
                except (FormatError, OSError) as error:
                    fault = Fault(at, size, Reason.IO, done=done, space=self.space, detail=str(error))
            if fault is not None:
                fault.partial = b"".join(parts)
                return fault.partial, fault
            parts.append(part)
            done += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts), None

    def window(self, address: int) -> Window | None:
        piece = self._segments.find(address)
        if piece is None or piece.reason is not None:
            return None
        start, end = max(address & -PAGE, piece.start), min((address & -PAGE) + PAGE, piece.end)
        data, fault = self.read_upto(start, end - start)
        return Window(start, end, memoryview(data)) if fault is None else None

    def ranges(self) -> Iterator[Range]:
        return self._segments.ranges()

    def check(self) -> None:
        changed = self.source.changed()
        if changed is not None:
            raise FormatError(changed)

    def content_key(self) -> str | None:
        return self.source.key()

    def close(self) -> None:
        self.source.close()
