"""By what an image file is known again, so that what was found in it once is kept: never by its name alone.

The key is the file itself (device, inode), its size, both its times to the nanosecond, and some of its bytes. A file
that was changed in the last moments has no key: another change within the same tick of the clock would not be seen.
"""

from __future__ import annotations

import os
import stat
import struct
import time

from kshell import cache

SETTLED = 2_000_000_000  # nanoseconds since the last change from which on times tell every later one
SAMPLE = 4096


def file_key(descriptor: int) -> str | None:
    """Return the key of an open file's content, or None when nothing found in it may be kept."""
    try:
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode) or time.time_ns() - max(told.st_mtime_ns, told.st_ctime_ns) < SETTLED:
            return None
        facts = struct.pack("<5Q", told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)
        samples = [os.pread(descriptor, SAMPLE, told.st_size * part // 4 & -SAMPLE) for part in range(4)]
        last = os.pread(descriptor, SAMPLE, max(told.st_size - SAMPLE, 0))
    except (OSError, struct.error, OverflowError):
        return None
    return cache.key_of(facts, *samples, last)
