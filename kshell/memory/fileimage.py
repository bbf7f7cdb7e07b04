"""An image whose bytes lie in its file as they are."""

from __future__ import annotations

from kshell import cache
from kshell.memory.file import FileMemory
from kshell.memory.filekey import file_key
from kshell.memory.image import Image


class FileImage(FileMemory, Image):
    """The physical memory in a file that is read, and may be written, in place."""

    def content_key(self) -> str | None:
        """Return the key of the file and of where its bytes belong: of raw memory that is not in the file itself."""
        key = None if self.live else file_key(self._fd)
        if key is None:
            return None
        places = (f"{piece.start:x} {piece.end:x} {piece.offset:x}\n" for piece in self._segments.pieces)
        return cache.key_of(key.encode(), "".join(places).encode())
