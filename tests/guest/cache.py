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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPARSE_BLOCK = 64 * 1024


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
