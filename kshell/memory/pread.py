"""Reading all that is asked for: a file system over a network may give less than there is."""

from __future__ import annotations

import os


def pread_all(descriptor: int, size: int, offset: int) -> bytes:
    """Return *size* bytes at *offset*, fewer only where the file ends.

    :raises OSError: the medium cannot be read
    """
    data = os.pread(descriptor, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]
    done = len(data)
    while done < size:
        data = os.pread(descriptor, size - done, offset + done)
        if not data:
            break
        parts.append(data)
        done += len(data)
    return b"".join(parts)


def preadv_all(descriptor: int, buffer: memoryview, offset: int) -> bool:
    """Fill *buffer* from *offset* on; False when the file ends before.

    :raises OSError: the medium cannot be read
    """
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if not count:
            return False
        done += count
    return True
