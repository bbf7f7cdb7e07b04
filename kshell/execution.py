"""Stopping a live target and letting it go on: what the dcmds of execution control have in common.

Reference: mdb-language.md 11.1 (``:c ::cont``, ``:s ::step``); where a target has nothing to stop the text is mdb's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import KshellError

if TYPE_CHECKING:
    from kshell.session import Session
    from kshell.target.control import Control


def control_of(session: Session) -> Control:
    """Return what stops the session's target.

    :raises KshellError: nothing can: a dump, the system that kshell itself runs on
    """
    control = session.target.control
    if control is None:
        raise KshellError("command is not supported by current target",
                          hint="a virtual machine can be stopped: kshell gdb:HOST:PORT")
    return control


def debugger_of(session: Session) -> Control:
    """Return what has breakpoints, steps and registers that can be changed.

    :raises KshellError: the target has no such thing
    """
    control = control_of(session)
    if not control.can_debug:
        raise KshellError(f"command is not supported over {control.transport}",
                          hint="the gdb stub of QEMU can: kshell gdb:HOST:PORT")
    return control
