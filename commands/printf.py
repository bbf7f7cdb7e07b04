"""``::printf``: members of objects in a format (mdb-language.md 11.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    Abort,
    Argument,
    Call,
    KshellError,
    Output,
    Printf,
    Session,
    Text,
    UsageError,
    Warn,
    Word,
    dcmd,
    piped_type,
    sizeof,
)

WORDS = Word("type member", "a C type and a member for each conversion; . is the address itself")


@dcmd("printf", group="Types")
def printf(
    session: Session, address: int, call: Call,
    format: Annotated[Argument, Word("format", 'text with conversions; "..." knows \\n, \'...\' does not')],
    words: Annotated[list[Argument], WORDS],
) -> Iterator[Output]:
    r"""Print members of an object in a format.

    Each conversion takes a member: %d %u %x %X %o %q (signed octal) %r (current radix) %R (the same, signed) %H (bytes
    with a unit) for numbers, %p %a (symbol) %A (symbol or nothing) for addresses, %s for strings, character arrays and
    names of enum values, %I and %N for IP addresses, %Y for dates (UTC), %% for itself. - pads on the right, 0 with
    zeros; a width, or ? for that of a pointer. No newline is added: write \n in double quotes. In a pipe that knows its
    type the type may be left out.

    Examples:
      ::walk proc | ::printf "%-6d %s\n" task_struct pid comm
      ::ps | ::printf "%?p %-16s %A\n" . comm sched_class
      init_task::printf "%08x %H\n" struct task_struct flags stack_canary
    """
    if not isinstance(format, str):
        raise UsageError("expected a format string")
    target = session.typed
    try:
        found = piped_type(words, target, address, call.type)
        made = Printf(format, found.type, found.members, session.radix)
    except UsageError:
        raise
    except KshellError as error:
        raise Abort(str(error), hint=error.hint) from error
    if call.first:
        for warning in made.warnings:
            yield Warn(warning)
    text = made.text(target.value(found.type, address, session.space(address)))
    yield Text(text, end="")
    session.dot, session.increment = (address + sizeof(found.type)) & (1 << 64) - 1, 0
