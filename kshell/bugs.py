"""Bugs of kshell and of plugins: named in one line, their trace kept in a file that can be sent."""

from __future__ import annotations

import os
from pathlib import Path

from kshell.errors import KshellError


def state_dir() -> Path | None:
    """Return the folder for history and traces, ``$XDG_STATE_HOME/kshell``; made if needed, private to the user.

    None when there is no home to write to, or when it belongs to somebody else (sudo keeps HOME).
    """
    path = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        if not path.is_absolute():
            home = Path("~").expanduser()
            if not home.is_dir():
                return None
            path = home / ".local/state"
        nearest = path
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if nearest.stat().st_uid != os.geteuid():
            return None
        folder = path / "kshell"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder


def keep_trace(error: BaseException, module: str) -> KshellError:
    """Write the traceback of *error* to ``last-error.txt`` and return what to tell the user."""
    import platform
    import traceback

    import kshell

    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "no trace could be kept: no private state folder"
    folder = state_dir()
    if folder is not None:
        path = folder / "last-error.txt"
        head = f"kshell {kshell.__version__}, Python {platform.python_version()}, module {module}\n\n"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(head + "".join(traceback.format_exception(error)))
            hint = f"trace kept in {path}"
        except OSError as problem:
            hint = f"no trace could be kept in {path}: {problem.strerror}"
    whose = "kshell" if module == "kshell" else f"kshell or its module {module}"
    return KshellError(f"bug in {whose}: {what}", hint=hint)
