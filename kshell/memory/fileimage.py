"""An image whose bytes lie in its file as they are."""

from __future__ import annotations

from kshell.memory.file import FileMemory
from kshell.memory.filekey import file_key
from kshell.memory.image import Image


class FileImage(FileMemory, Image):
    """The physical memory in a file that is read, and may be written, in place."""

    def content_key(self) -> str | None:
        return None if self.live else file_key(self._fd)
