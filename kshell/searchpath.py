"""Search paths: the folders of ``-I`` and ``-L``, with mdb's tokens in them (mdb-language.md 16)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kshell.errors import UsageError

if TYPE_CHECKING:
    from kshell.session import Session


def folders(session: Session, path: str, old: Sequence[str]) -> tuple[str, ...]:
    """Return the folders of *path*, separated by colons, with their tokens expanded.

    ``%R`` and ``%V`` are the release and version of the target's kernel, ``%i`` and ``%m`` its instruction set, ``%p``
    the platform (linux), ``%t`` the kind of target, ``%r`` the root (nothing), ``%o`` the path as it was.

    :raises UsageError: an unknown token
    """
    def expand(match: re.Match[str]) -> str:
        letter = match[1]
        if letter == "o":
            return ":".join(old)
        if letter not in "imprtRV%" or not letter:
            raise UsageError(f"%{letter}: no token of a path", hint="%i %m %p %r %t %o %R %V, and %% for a %")
        return _token(session, letter)

    expanded = re.sub("%(.?)", expand, path)
    return tuple(os.path.abspath(os.path.expanduser(part)) for part in expanded.split(":") if part)


def _token(session: Session, letter: str) -> str:
    if letter in "RV":
        if session.has_target and session.target.kind == "kernel":
            from kshell.linux.uts import uname

            names = uname(session.target)
            told = names.release if letter == "R" else names.version
            return re.sub(r"^\.+|[/:\0]", "_", told)  # a dump may say anything: it is a part of one name
        own = os.uname()
        return own.release if letter == "R" else own.version
    machine = session.target.arch.name if session.has_target else os.uname().machine
    kind = session.target.kind if session.has_target else "none"
    return {"i": machine, "m": machine, "p": "linux", "r": "", "t": kind, "%": "%"}[letter]


def find(name: str, path: Sequence[str]) -> str | None:
    """Return the first file *name* in the folders of *path*; None when there is none, or *name* says where it is."""
    if "/" in name:
        return None
    return next((place for folder in path if os.path.isfile(place := os.path.join(folder, name))), None)
