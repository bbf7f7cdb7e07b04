"""Guest-physical memory through the monitor alone, where QEMU's process cannot be read: slow, and right.

``xp`` prints words; ``pmemsave`` writes larger pieces to a file, where QEMU may write one that we may read. Neither can
write memory. hmp-commands.hx and ``qmp_pmemsave`` in QEMU's system/cpus.c.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from kshell.errors import Fault, FormatError, KshellError, Reason
from kshell.memory.guestram import RamPiece
from kshell.memory.model import Memory, Range, Window, merge_ranges
from kshell.memory.qmp import Qmp

PAGE = 4096
LARGE = 64 << 10  # from here on a file is cheaper than text
STEP = 16 << 20
MAX_KEPT = 4096  # pages


class QmpMemory(Memory):
    """The pieces of the guest's RAM, asked for page by page.

    :param why: why the quick road is closed, for the faults of writes
    :param still: whether the guest stands still, so that pages may be kept
    """

    def __init__(self, qmp: Qmp, pieces: list[RamPiece], why: str, still: Callable[[], bool]) -> None:
        self.pieces, self._qmp, self._why, self._still = pieces, qmp, why, still
        self._pages: dict[int, bytes] = {}
        self._seen = -1
        self._folder: Path | None = None
        self._no_files = ""

    @property
    def moving(self) -> bool:
        return not self._still()

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        out = bytearray()
        while len(out) < size:
            at = address + len(out)
            piece = next((piece for piece in self.pieces if piece.start <= at < piece.end), None)
            if piece is None:
                return bytes(out), self._fault(at, size, Reason.OUTSIDE, out)
            try:
                want = min(size - len(out), piece.end - at, STEP)
                if want >= LARGE and not self._no_files:
                    out += self._saved(at, want)
                else:
                    out += self._page(at & -PAGE)[at % PAGE :][:want]
            except KshellError as error:
                reason = Reason.GONE if self._qmp.lost else Reason.IO
                return bytes(out), self._fault(at, size, reason, out, str(error))
        return bytes(out), None

    def _fault(self, address: int, size: int, reason: Reason, data: bytearray, detail: str = "") -> Fault:
        return Fault(address, size, reason, partial=bytes(data), space=self.space, detail=detail)

    def _page(self, page: int) -> bytes:
        if self.epoch.count != self._seen or len(self._pages) >= MAX_KEPT:
            self._pages.clear()
            self._seen = self.epoch.count
        data = self._pages.get(page)
        if data is None:
            data = parse_words(self._qmp.monitor(f"xp /{PAGE // 8}gx 0x{page:x}"), page, PAGE)
            if self._still():
                self._pages[page] = data
        return data

    def _saved(self, address: int, size: int) -> bytes:
        """Return memory that QEMU wrote to a file. Where it cannot, no other one is tried."""
        if self._folder is None:
            import tempfile

            self._folder = Path(tempfile.mkdtemp(prefix="kshell-"))
            self._folder.chmod(0o711)  # QEMU may be another user; nobody can list it
        path = self._folder / f"{os.urandom(12).hex()}"
        try:
            path.touch()
            path.chmod(0o622)
            self._qmp.execute("pmemsave", val=address, size=size, filename=str(path))
            path.chmod(0o600)
            data = path.read_bytes()
        except (OSError, KshellError) as error:
            if self._qmp.lost:
                raise
            self._no_files = str(error)
            data = b"".join(self._page(page) for page in range(address & -PAGE, address + size, PAGE))
            data = data[address % PAGE :][:size]
        finally:
            path.unlink(missing_ok=True)
        if len(data) != size:
            raise FormatError(f"QEMU saved {len(data)} bytes instead of {size}")
        return data

    def window(self, address: int) -> Window | None:
        if not self._still() or not any(piece.start <= address < piece.end for piece in self.pieces):
            return None
        page = address & -PAGE
        data, fault = self.read_upto(page, PAGE)
        return Window(page, page + PAGE, memoryview(data)) if fault is None else None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        raise Fault(address, len(data), Reason.READ_ONLY, space=self.space, verb="write",
                    detail=f"QMP cannot write memory, and QEMU's process cannot be written: {self._why}",
                    hint="gdb:PLACE writes through a gdb stub; ram:FILE into a memory file")

    def ranges(self) -> Iterator[Range]:
        return merge_ranges(Range(piece.start, piece.end) for piece in self.pieces)

    def close(self) -> None:
        if self._folder is not None:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def parse_words(text: str, address: int, size: int) -> bytes:
    """Return the bytes that ``xp /Ngx`` printed: lines of an address, a colon, and words of 64 bits.

    :raises FormatError: they are not the *size* bytes at *address*
    """
    out = bytearray()
    for line in text.splitlines():
        head, colon, words = line.partition(":")
        if not colon:
            continue
        try:
            if int(head, 16) != address + len(out):
                break
            out += b"".join(int(word, 16).to_bytes(8, "little") for word in words.split())
        except (ValueError, OverflowError):
            break
    if len(out) != size:
        raise FormatError(f"QEMU does not show memory at 0x{address:x}: {text.strip()[:100]}")
    return bytes(out)
