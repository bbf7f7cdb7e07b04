"""The disk cache: what is expensive to compute once, keyed by the content it was computed from. Never raises.

A file is a header (magic, version, length, checksum) and its payload; it is written beside its place and renamed, so
readers see whole files only, and mapped when it is read. A damaged, foreign or older one is ignored and rewritten.
It lives in ``$XDG_CACHE_HOME/kshell/index`` (~/.cache/...); ``KSHELL_CACHE=off`` disables it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
import zlib

MAGIC = b"KSHELLIX"
HEADER = struct.Struct("<8sIIQII")  # magic, version of the kind, unused, length, crc32 of the payload, of the above
MAX_BYTES = 512 << 20  # the whole cache; what was not used for longest goes first
MAX_FILE = 128 << 20
STALE = 3600  # seconds after which a file that its writer left behind may go

#: why the cache could not be used the last time, for ::status; None when all is well
last_problem: str | None = None
#: which kinds of files were "read" or "made" by this process, for ::status
used: dict[str, str] = {}


def folder() -> str | None:
    """Return the cache's folder, or None when there must not be one (``last_problem`` tells why)."""
    global last_problem
    if os.environ.get("KSHELL_CACHE", "").lower() == "off":
        last_problem = "switched off (KSHELL_CACHE=off)"
        return None
    home = os.path.expanduser("~")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    if base.startswith(home + "/") and not os.path.isdir(home):
        last_problem = f"there is no home {home}"
        return None
    if not base.startswith("/"):
        last_problem = f"{base} is not an absolute path"
        return None
    # Under sudo or su with the caller's HOME, files of root in the caller's cache would lock the caller out of it, and
    # what the caller wrote there would be believed by root.
    if os.geteuid() == 0 and _owner(base) != 0:
        last_problem = f"{base} belongs to another user than root"
        return None
    return f"{base}/kshell/index"


def _owner(path: str) -> int | None:
    """Return the uid that *path* belongs to, or, as long as it does not exist, the nearest folder above it."""
    while True:
        try:
            return os.stat(path).st_uid
        except FileNotFoundError:
            path = path.rstrip("/").rpartition("/")[0] or "/"
        except OSError:
            return None


def key_of(*parts: bytes | bytearray | memoryview) -> str:
    """Return the key for content: a hash of all *parts* and their lengths."""
    try:
        from _blake2 import blake2b  # type: ignore[import-not-found, unused-ignore]  # hashlib loads OpenSSL: 4 ms
    except ImportError:
        from hashlib import blake2b
    digest = blake2b(digest_size=20)
    for part in parts:
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return str(digest.hexdigest())


def load(kind: str, key: str, version: int) -> memoryview | None:
    """Return the payload kept under *kind* and *key*; None when there is none that is whole and of *version*."""
    base = folder()
    if base is None or not _is_ours(base):
        return None
    try:
        descriptor = os.open(f"{base}/{kind}-{key}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode) or told.st_uid != os.geteuid() or not HEADER.size <= told.st_size <= MAX_FILE:
            return None
        mapped = memoryview(mmap.mmap(descriptor, told.st_size, access=mmap.ACCESS_READ))
        payload = mapped[HEADER.size :]
        if mapped[: HEADER.size] != _header(version, payload):
            return None
        used.setdefault(kind, "read")
        with contextlib.suppress(OSError):  # a read-only disk: the order in which files go is not worth an answer
            os.utime(descriptor)
        return payload
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def store(kind: str, key: str, version: int, *parts: bytes | bytearray | memoryview) -> None:
    """Keep the joined *parts* under *kind* and *key*; does nothing, and notes why, where that is not possible."""
    global last_problem
    base = folder()
    if base is None:
        return
    payload = b"".join(parts)
    if len(payload) > MAX_FILE - HEADER.size:
        last_problem = f"{kind}: {len(payload)} bytes are too many to keep"
        return
    path = f"{base}/{kind}-{key}"
    temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        os.makedirs(os.path.dirname(os.path.dirname(base)), exist_ok=True)
        for part in (os.path.dirname(base), base):
            if not os.path.isdir(part):
                os.makedirs(part, mode=0o700, exist_ok=True)
        if not _is_ours(base):
            return
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_header(version, payload))
                file.write(payload)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        last_problem = None
        used[kind] = "made"
        _prune(base)
    except OSError as error:
        last_problem = f"{path}: {error.strerror}"


def _header(version: int, payload: bytes | memoryview) -> bytes:
    head = HEADER.pack(MAGIC, version, 0, len(payload), zlib.crc32(payload), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def _is_ours(base: str) -> bool:
    """Whether the folder *base* is the user's own and nobody else may write into it."""
    global last_problem
    try:
        told = os.stat(base)
    except OSError as error:
        last_problem = None if isinstance(error, FileNotFoundError) else f"{base}: {error.strerror}"
        return False
    if told.st_uid != os.geteuid():
        last_problem = f"{base} belongs to somebody else"
        return False
    if told.st_mode & 0o022:
        last_problem = f"{base} may be written by others"
        return False
    return True


def _prune(base: str) -> None:
    """Delete the files that were not used for longest until the cache is within its size, and what writers left."""
    import time

    kept: list[tuple[float, int, str]] = []
    with os.scandir(base) as entries:
        for entry in entries:
            try:
                told = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process was faster
            if not entry.name.endswith(".tmp"):
                kept.append((told.st_mtime, told.st_size, entry.path))
            elif told.st_mtime < time.time() - STALE:
                _unlink(entry.path)
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept)[:-1]:  # the newest, just written, stays
        if total <= MAX_BYTES:
            return
        _unlink(path)
        total -= size


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # another process was faster
