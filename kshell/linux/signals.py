"""Signals of a task: what is pending, blocked, ignored and caught, and by which handlers.

Kernel source: ``task_sig`` and ``collect_sigign_sigcatch`` in fs/proc/array.c, include/linux/signal_types.h,
include/uapi/asm-generic/signal.h. Numbers are those of x86-64 and arm64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.linux.lists import list_for_each

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

#: _NSIG
COUNT = 64
NAMES = (
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM",
    "PROF", "WINCH", "IO", "PWR", "SYS",
)  # fmt: skip
DEFAULT, IGNORE = 0, 1
SA_FLAGS = (
    (0x1, "NOCLDSTOP"), (0x2, "NOCLDWAIT"), (0x4, "SIGINFO"), (0x400, "UNSUPPORTED"), (0x800, "EXPOSE_TAGBITS"),
    (0x0400_0000, "RESTORER"), (0x0800_0000, "ONSTACK"), (0x1000_0000, "RESTART"), (0x4000_0000, "NODEFER"),
    (0x8000_0000, "RESETHAND"),
)


class Action(NamedTuple):
    """What a process does with a signal: ``handler`` is :data:`DEFAULT`, :data:`IGNORE` or a user address."""

    handler: int
    flags: int
    mask: int


class Signals(NamedTuple):
    """The signals of a task; sets are bit masks, signal 1 is bit 0, as in /proc/PID/status.

    :ivar pending: for this thread; ``shared``: for the whole process
    :ivar queued: entries of both queues that carry information of their own
    :ivar actions: of signals 1 to 64; empty for a task that has no handlers any more
    """

    pending: int
    shared: int
    blocked: int
    ignored: int
    caught: int
    queued: int
    actions: tuple[Action, ...]


def signals(target: Target, task: Value) -> Signals:
    """Return the signals of a ``struct task_struct``.

    :raises KshellError: they cannot be read
    """
    process = task.integer("signal")
    shared = target.value("struct signal_struct", process) if process else None
    queued = len(list_for_each(target, task["pending.list"].address))
    if shared is not None:
        queued += len(list_for_each(target, shared["shared_pending.list"].address))
    actions = _actions(target, task.integer("sighand"))
    ignored = sum(1 << at for at, action in enumerate(actions) if action.handler == IGNORE)
    caught = sum(1 << at for at, action in enumerate(actions) if action.handler not in (DEFAULT, IGNORE))
    return Signals(
        _mask(task["pending.signal"]), _mask(shared["shared_pending.signal"]) if shared is not None else 0,
        _mask(task["blocked"]), ignored, caught, queued, actions)


def _actions(target: Target, sighand: int) -> tuple[Action, ...]:
    if not sighand:
        return ()
    table = target.value("struct sighand_struct", sighand).snapshot()
    return tuple(
        Action(one.integer("sa.sa_handler"), one.integer("sa.sa_flags"), _mask(one["sa.sa_mask"]))
        for one in table["action"])


def _mask(signal_set: Value) -> int:
    return int.from_bytes(signal_set.bytes()[:8], "little")


def name(number: int) -> str:
    """Return the name of a signal without SIG: "KILL"; "RT+2" for real-time signals, counted from SIGRTMIN (34)."""
    if number < len(NAMES):
        return NAMES[number]
    if number in (32, 33):
        return f"RT{number}"  # taken by the C library
    return "RTMIN" if number == 34 else f"RT+{number - 34}"


def names(mask: int) -> list[str]:
    """Return the names of the signals in *mask*."""
    return [name(number) for number in range(1, COUNT + 1) if mask >> (number - 1) & 1]


def flag_names(flags: int) -> str:
    """Return the names of SA_* bits, "RESTART|SIGINFO"; those without a name in hex."""
    found = [word for bit, word in SA_FLAGS if flags & bit]
    rest = flags & ~sum(bit for bit, _word in SA_FLAGS)
    return "|".join([*found, *([f"0x{rest:x}"] if rest else [])])
