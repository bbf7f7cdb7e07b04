"""Every error a user may see. Each carries the facts as attributes, so that callers need not read the text.

The message says what could not be done, to what, and why; ``hint`` is the next step, printed on a line of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from kshell.escape import escape


class KshellError(Exception):
    """The base of all errors that kshell raises on purpose: a message for the user, never a traceback."""

    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ParseError(KshellError):
    """A command line that is not in the language; ``text[start:end]`` is the place."""

    def __init__(self, message: str, text: str, start: int, end: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.message, self.text, self.start, self.end = message, text, start, end


class EvaluateError(KshellError):
    """An expression that has no value; ``start`` and ``end`` are the place in the line, when known."""

    def __init__(self, message: str, start: int = 0, end: int = 0, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.start, self.end = start, end


class UsageError(KshellError):
    """A dcmd called with arguments that it does not take."""


class Reason(enum.Enum):
    """Why memory could not be moved. Different answers for different causes, never zeroes."""

    NOT_MAPPED = "no mapping for address"
    EXCLUDED = "page excluded from the dump"
    OUTSIDE = "outside RAM"
    TRUNCATED = "the file ends early"
    ELSEWHERE = "in a part of the dump that is not here"
    SWAPPED = "page is swapped out"
    PERMISSION = "not permitted"
    CORRUPT = "corrupt page table"
    READ_ONLY = "target is not open for writing"
    GONE = "the process is gone"
    IO = "input/output error"
    UNSUPPORTED = "not available in this target"


class Fault(KshellError):
    """Memory that could not be moved, or not all of it.

    :ivar address: the first byte that could not be moved
    :ivar size: bytes asked for; 0 when there is no access to this memory at all
    :ivar done: bytes moved before ``address``
    :ivar partial: for reads the bytes moved, ``len(partial) == done``
    :ivar reason: why ``address`` could not be moved
    :ivar space: "physical", "kernel", "user" or what the memory calls itself
    :ivar visited: for a list that was followed, the addresses before the one that failed
    """

    def __init__(
        self, address: int, size: int, reason: Reason, *, partial: bytes = b"", done: int | None = None,
        space: str = "", verb: str = "read", detail: str = "", hint: str | None = None,
    ) -> None:
        self.address, self.size, self.reason, self.partial = address, size, reason, partial
        self.done = len(partial) if done is None else done
        self.space, self.verb, self.detail = space, verb, detail
        self.visited: list[int] = []
        where = f"{space} address" if space else "address"
        why = f"{reason.value} ({detail})" if detail else reason.value
        stopped = f" after {self.done}" if self.done else ""
        amount = "1 byte" if size == 1 else f"{size} bytes"
        what = f"{amount}{stopped} at {where} 0x{address:x}" if size else f"{space} memory".lstrip()
        super().__init__(f"cannot {verb} {what}: {why}", hint=hint)


class OpenError(KshellError):
    """A target that cannot be opened.

    :ivar kind: "missing", "format", "version", "wordsize", "symbols", "permission", "header" or "unsupported"
    """

    def __init__(self, path: str, message: str, *, kind: str = "format", hint: str | None = None) -> None:
        super().__init__(f"{path}: {message}" if path else message, hint=hint)
        self.path, self.kind = path, kind


class FormatError(KshellError):
    """Bytes that are not what their format says: a damaged table, an impossible size, a cycle."""


class NotFoundError(KshellError, LookupError):
    """A name that the target does not have; ``near`` are similar names that it has.

    :param what: the message, if it is not "no KIND NAME"
    """

    def __init__(
        self, kind: str, name: str, near: Sequence[str] = (), *, hint: str | None = None, what: str | None = None,
    ) -> None:
        self.kind, self.name, self.near = kind, name, tuple(near)
        guess = f'; did you mean {" or ".join(repr_name(n) for n in self.near)}?' if self.near else ""
        super().__init__(f"{what or f'no {kind} {repr_name(name)}'}{guess}", hint=hint)


class SymbolNotFoundError(NotFoundError):
    """A symbol name that no table holds."""

    def __init__(self, name: str, near: Sequence[str] = (), *, hint: str | None = None) -> None:
        super().__init__("symbol", name, near, hint=hint)


class TypeNotFoundError(NotFoundError):
    """A type name that no type source holds."""

    def __init__(self, name: str, near: Sequence[str] = (), *, hint: str | None = None) -> None:
        super().__init__("type", name, near, hint=hint, what=f"failed to look up type {bare_name(name)}: no such type")


class MemberError(NotFoundError):
    """A member that a structure or union does not have."""

    def __init__(self, name: str, owner: str, near: Sequence[str] = ()) -> None:
        what = f"failed to find member {bare_name(name)} of {owner}: no such member of structure or union"
        super().__init__(f"member of {owner}", name, near, what=what)
        self.owner = owner


class ValueTypeError(KshellError, TypeError):
    """An operation that a value's type does not have: the dereference of an int, a member of void *."""


class NoProcessError(KshellError):
    """User memory was asked for and no process context is set, or the process is not there."""


class NoUserSpaceError(KshellError):
    """A kernel thread or a zombie: it has no user memory."""


def bare_name(name: str) -> str:
    """Return *name* with control characters escaped, for messages."""
    return repr_name(name)[1:-1]


def repr_name(name: str) -> str:
    """Return *name* in double quotes with control characters escaped, for messages."""
    return '"' + escape(name.replace("\\", r"\\").replace('"', r"\"")) + '"'
