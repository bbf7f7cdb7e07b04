"""Reading all that is asked for: a file system over a network may give less than there is."""

from __future__ import annotations

import os

LARGE = 16 << 20  # bytes from which on several threads read: the kernel copies page by page, at half of memory's speed
TURN = 2 << 20  # bytes that one of them reads at once, so that together they go through the file in order
MOST = 4  # threads, the caller's with them: more do not make memory faster


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


def preadv_large(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill *buffer* from *offset* on by several threads; return how many bytes were read before the first gap.

    Fewer than asked for where the file ends, or where the medium cannot be read: reading on there tells which.
    """
    from kshell.memory.threads import at_once

    reached = [len(buffer)]

    def read(at: int) -> None:
        if at > min(reached):
            return
        part = buffer[at : at + TURN]
        done = 0
        try:
            while done < len(part):
                count = os.preadv(descriptor, [part[done:]], offset + at + done)
                if not count:
                    break
                done += count
        except OSError:
            pass
        if done < len(part):
            reached.append(at + done)

    at_once(read, range(0, len(buffer), TURN), MOST)
    return min(reached)
