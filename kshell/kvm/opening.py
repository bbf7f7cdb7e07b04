"""Opening: ``kvm_open`` with the manual's arguments and messages, ``open`` with Python's.

What is opened is decided by the path alone: None and ``/proc/kcore`` are the running system, everything else a dump.
A path is never replaced by another one, nor a namelist by the dump's own symbols.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kshell import errors
from kshell.kvm.backend import Backend
from kshell.kvm.errors import OpenError
from kshell.kvm.handle import Kvm
from kshell.kvm.symbols import check_namelist
from kshell.target.formats import Options, is_raw

if TYPE_CHECKING:
    from kshell.target.target import Target

KCORE = "/proc/kcore"
FLAGS = {os.O_RDONLY: "r", os.O_RDWR: "r+"}
MODES = ("r", "r+", "c")
#: what stands before the colon where a virtual machine is opened and not a file
MACHINES = ("qmp", "ram", "gdb", "pid")
StrPath = str | os.PathLike[str]


def open(
    target: StrPath | Target | None = None, namelist: StrPath | None = None, mode: str = "r", *, raw: bool = False,
    phys_base: int = 0, map: StrPath | None = None, parts: Sequence[StrPath] = (), kernel: int | None = None,
) -> Kvm:
    """Open a dump, or the running system, and return a handle.

    :param target: path of a vmcore; a virtual machine (``qmp:SOCKET``, ``gdb:PLACE``, ``ram:FILE``); a process
        (``pid:PID``) or the core of one, which have no kernel; None for the running system; ``/proc/kcore`` for it
        with its kernel memory; or a Target that is open already: the handle has its mode then, and closing leaves it
        open
    :param namelist: a vmlinux or System.map of the same kernel; None: the dump's own symbols
    :param mode: "r" read only, "r+" writes go into the target, "c" writes are kept in memory
    :param raw: the file is raw physical memory, whatever it looks like
    :param phys_base: of raw memory, the physical address of its first byte
    :param map: of raw memory, a file that tells which runs it has, as /proc/iomem does
    :param parts: the other files of a split dump, where they are not beside it
    :param kernel: which of several kernels in it, from 1; None is the one that the image is of
    :raises OpenError: with ``kind`` and ``filename``
    """
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    options = Options(raw=bool(raw), phys_base=phys_base, map=None if map is None else _text(map),
                      parts=tuple(_text(part) for part in parts), kernel=kernel)
    said = options != Options()
    if target is not None and not isinstance(target, str | os.PathLike):
        if said:
            raise TypeError("raw, phys_base, map, parts and kernel are about a file that is opened, not a Target")
        return Kvm(_over(target))
    path = None if target is None else _text(target)
    names = None if namelist is None else _text(namelist)
    if said and path in (None, KCORE):
        raise ValueError("raw, phys_base, map, parts and kernel are about a dump, not the running system")
    try:
        if path is not None and path.partition(":")[0] not in MACHINES:
            _look(path)
            if not is_raw(options):
                _check_version(path)
        if names is not None:
            check_namelist(names)
        return Kvm(_live(path, names, mode) if path in (None, KCORE) else _image(path or "", names, mode, options))
    except errors.OpenError as error:
        raise _explained(error, path) from error
    except OSError as error:
        raise OpenError(path or KCORE, f"cannot open {_shown(path or KCORE)}: {error.strerror or error}") from error


def kvm_open(
    namelist: StrPath | None = None, corefile: StrPath | None = None, swapfile: StrPath | None = None,
    flag: int = os.O_RDONLY, errstr: str | None = None,
) -> Kvm | None:
    """Open as the manual has it; None when it cannot be done.

    :param swapfile: accepted and not used
    :param flag: O_RDONLY or O_RDWR, nothing else
    :param errstr: when given, one line about a failure goes to stderr, ``errstr: message``; with KVM_DEBUG in the
        environment there is one anyway
    """
    for given in (namelist, corefile, swapfile):
        if given is not None:
            _text(given)
    if not isinstance(flag, int):
        raise TypeError(f"flag is a number, not {type(flag).__name__}")
    prefix = errstr if errstr is not None else "KVM_DEBUG" if "KVM_DEBUG" in os.environ else None
    try:
        mode = FLAGS.get(flag)
        if mode is None:
            raise OpenError("", f"illegal flag {flag:#x} to kvm_open()")
        return open(corefile, namelist, mode)
    except OpenError as error:
        if prefix is not None:
            print(f"{prefix}: {error}", file=sys.stderr)
        return None


def _over(target: Target) -> Backend:
    """Return a backend over a Target that somebody else opened and closes."""
    from kshell.kvm.backend_image import ImageBackend
    from kshell.kvm.backend_live import LiveBackend
    from kshell.target.target import Target

    if not isinstance(target, Target):
        raise TypeError(f"a path, a Target or None is opened, not {type(target).__name__}")
    if target.kind in ("process", "core"):
        return _user(target, owned=False)
    return LiveBackend(mode=target.mode, target=target) if target.host else ImageBackend(target, owned=False)


def _user(target: Target, *, owned: bool) -> Backend:
    from kshell.kvm.backend_user import UserBackend
    from kshell.target.user import UserTarget

    assert isinstance(target, UserTarget)
    return UserBackend(target, owned=owned)


def _live(path: str | None, namelist: str | None, mode: str) -> Backend:
    from kshell.kvm.backend_live import LiveBackend

    if path is not None and mode == "r+":
        raise OpenError(path, f"{path} cannot be opened for writing: Linux lets nobody write kernel memory through it",
                        kind="permission", hint='mode "c" keeps writes in memory; None with "r+" writes to processes')
    backend = LiveBackend(path or "/proc", mode, namelist)
    if path is not None or namelist is not None:
        backend.target      # noqa: B018 (opens what was named, or says why not)
    return backend


def _image(path: str, namelist: str | None, mode: str, options: Options) -> Backend:
    from kshell.kvm.backend_image import ImageBackend
    from kshell.target.open import open_target

    target = open_target(path, namelist, mode, options)
    if target.kind in ("process", "core"):
        return _user(target, owned=True)
    if target.kind != "kernel":
        target.close()
        raise OpenError(path, f"{_shown(path)} is not a kernel core file: it is {target.description}", kind="format")
    return ImageBackend(target, namelist)


def _look(path: str) -> None:
    """See that *path* can be there at all, with the manual's words: cannot stat."""
    try:
        Path(path).stat()
    except PermissionError as error:
        raise OpenError(path, f"cannot stat {_shown(path)}: permission denied", kind="permission") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        hint = "this kernel has none (CONFIG_PROC_KCORE)" if path == KCORE else None
        raise OpenError(path, f"cannot stat {_shown(path)}: {why}", kind="missing", hint=hint) from error


def _check_version(path: str) -> None:
    """See that an ELF file is of the one version there is.

    :raises OpenError: it is not; both versions are in the message
    """
    head = _head(path)
    if head[:4] == b"\x7fELF" and len(head) == 64:
        version = head[6] if head[6] != 1 else struct.unpack_from("<I", head, 20)[0]
        if version != 1:
            raise OpenError(path, f"{_shown(path)}: version mismatch: ELF version {version}, library version 1",
                            kind="version")


def _head(path: str) -> bytes:
    """Return the first 64 bytes of a file; nothing of what is no file or cannot be read."""
    try:
        if not Path(path).is_file():    # a pipe would be waited for
            return b""
        with Path(path).open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def _explained(error: errors.OpenError, path: str | None) -> OpenError:
    """Return *error* with the manual's words for what the first bytes of the file show."""
    if isinstance(error, OpenError):
        return error
    name, kind, message = error.path or path or KCORE, error.kind, str(error)
    if error.path == path and path is not None:
        kind, message = _header_fault(path, kind, message)
    return OpenError(name, " ".join(message.split()), kind=kind, hint=error.hint)


def _header_fault(path: str, kind: str, message: str) -> tuple[str, str]:
    """Look at the first bytes of a file that could not be opened: kind and message, in the manual's words."""
    head = _head(path)
    if not head and not (Path(path).is_file() and kind == "header"):
        return kind, message
    if len(head) < 64 and b"\x7fELF".startswith(head[:4]):
        return "header", f"cannot read dump header of {_shown(path)}: the file has {len(head)} bytes ({message})"
    if kind not in ("format", "wordsize"):
        return kind, message
    if head[:4] != b"\x7fELF":
        return "format", f"{_shown(path)} is not a kernel core file: bad magic 0x{head[:4].hex()} ({message})"
    if head[4] != 2:
        bits = "32-bit" if head[4] == 1 else f"class {head[4]}"
        return "wordsize", f"{_shown(path)}: word size mismatch: {bits} dump, 64-bit library"
    return kind, message if "kernel" in message else f"{_shown(path)} is not a kernel core file: {message}"


def _shown(path: str) -> str:
    """Return *path* fit for one line of a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in path)


def _text(path: StrPath) -> str:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is text, not {type(text).__name__}")
    return text
