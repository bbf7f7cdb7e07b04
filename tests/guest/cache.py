"""The rig's cache folder: where it is, locks, folders that appear complete or not at all, sparse files.

``KSHELL_GUEST_CACHE`` names it, otherwise ``${XDG_CACHE_HOME:-~/.cache}/kshell/guests``. Inside:
``apt/`` (private apt state), ``packages/`` (unpacked Debian packages), ``resolved.json`` (which version a
name meant when it was first asked for), ``images/`` (finished guests), ``failed/`` (what broken builds left).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SPARSE_BLOCK = 64 * 1024
#: in a folder that is somebody's as long as this file is locked
HELD = "held"
YOUNG_SECONDS = 600.0
UNUSED_SECONDS = 86400.0


def cache_root() -> Path:
    """Return the cache folder, made if it is not there."""
    named = os.environ.get("KSHELL_GUEST_CACHE")
    if named:
        root = Path(named)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kshell" / "guests"
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock *name* (between processes; the kernel drops it when its holder dies)."""
    folder = cache_root() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold *folder*, which :func:`remove_unheld` leaves alone then (the kernel lets go when its holder dies)."""
    with (folder / HELD).open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def remove_unheld(folders: Iterable[Path]) -> None:
    """Remove those of *folders* whose holders have died. One that is just being made is not held yet."""
    for old in folders:
        with suppress(OSError):  # it is held, somebody else's, or gone
            mark = old / HELD
            if time.time() - old.stat().st_mtime > (YOUNG_SECONDS if mark.exists() else UNUSED_SECONDS):
                if mark.exists():
                    with mark.open("rb") as handle:
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)


@contextmanager
def appearing(final: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes *final* in one rename when the block ends without an error."""
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        yield work
        work.chmod(0o755)
        if final.exists():
            shutil.rmtree(final)
        work.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove_unused(name: str, keep: Path, age: float = UNUSED_SECONDS) -> None:
    """Remove the images of the spec *name*, and what killed builds of it left, that nobody used for *age* seconds.

    :param keep: the one that is in use now. Of others :func:`used` tells: trees of different states may share a cache.
    """
    for path in [*keep.parent.glob(f"{name}-{'?' * 16}"), *keep.parent.glob(f".{name}-{'?' * 16}-*")]:
        with suppress(FileNotFoundError):  # another run was first
            if path != keep and time.time() - path.stat().st_mtime > age:
                shutil.rmtree(path, ignore_errors=True)


def used(folder: Path) -> None:
    """Note that an image is used now."""
    with suppress(OSError):  # a cache that only others may write
        os.utime(folder)


def copy_sparse(source: Path, target: Path, size: int | None = None, start: int = 0) -> None:
    """Copy *size* bytes (all, when None) of *source* from *start* on, leaving holes for blocks of zeroes."""
    end = source.stat().st_size if size is None else start + size
    zeroes = bytes(SPARSE_BLOCK)
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        offset = start
        while offset < end:
            data = _next_data(reader.fileno(), offset)
            if data is None or data >= end:
                break
            offset = data - (data - start) % SPARSE_BLOCK
            block = os.pread(reader.fileno(), min(SPARSE_BLOCK, end - offset), offset)
            if not block:
                raise OSError(f"{source} ends at {offset}, before {end}")
            if block != zeroes[: len(block)]:
                os.pwrite(writer.fileno(), block, offset - start)
            offset += len(block)
        writer.truncate(end - start)


def make_sparse(path: Path) -> None:
    """Replace *path* by a sparse copy of itself."""
    thin = path.with_name(path.name + ".sparse")
    copy_sparse(path, thin)
    thin.replace(path)


def _next_data(descriptor: int, offset: int) -> int | None:
    """Return the offset of the first data at or after *offset*; None when only a hole is left."""
    try:
        return max(offset, os.lseek(descriptor, offset, os.SEEK_DATA))
    except OSError:
        return None
