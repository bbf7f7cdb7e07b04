"""``::enum``, ``::typelist``: what types there are (mdb-language.md 11.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    DECIMAL,
    HEX,
    Abort,
    Argument,
    Call,
    Column,
    EnumTable,
    Flag,
    Item,
    KshellError,
    Output,
    Row,
    Session,
    Table,
    Text,
    TypeName,
    UsageError,
    Word,
    dcmd,
)

NAME = Word("name", "a name; $[3] is a value")


@dcmd("enum", group="Types")
def enum(
    session: Session, address: int | None, call: Call,
    short: Annotated[bool, Flag("-e", "without what all names begin with")],
    hexadecimal: Annotated[bool, Flag("-x", "values in hexadecimal")],
    type: TypeName, name: Annotated[Argument | None, NAME],
) -> Iterator[Output]:
    """List the names and values of an enum, or those of one value or name.

    The address is a value. Values that are single bits are shown in hexadecimal, and one that has several bits by the
    names of its bits. Into a pipe go the values.

    Examples:
      ::enum pid_type
      1::enum -e pid_type
      ::enum enum pid_type PIDTYPE_SID
    """
    if address is not None and name is not None:
        raise UsageError("a value or a name, not both")
    try:
        table = EnumTable(type, session.typed.type(type))
    except KshellError as error:
        raise Abort(str(error), hint=error.hint) from error
    in_hex = hexadecimal or table.hexadecimal
    for at, (value, found) in enumerate(table.rows(address if address is not None else name)):
        if call.pipe_out:
            yield Item(table.unsigned(value))
            continue
        if not at and call.first:
            yield Table((Column("VALUE", 8 if in_hex else 11, HEX if in_hex else DECIMAL, ">"), Column("NAME")))
        yield Row(value, (table.unsigned(value) if in_hex else value, table.short(found) if short else found))


@dcmd("typelist", group="Types")
def typelist(
    session: Session, pattern: Annotated[str | None, Word("pattern", "names that match this regular expression")],
) -> Iterator[Output]:
    """List the names of all types, one a line, those of modules too.

    Examples:
      ::typelist ! wc -l
      ::typelist '^struct pid'
    """
    try:
        matches = re.compile(pattern or "").search
    except re.error as error:
        raise UsageError(f"{pattern}: {error}") from None
    target = session.typed
    if not len(target.types) and not len(target.types.declared):
        raise KshellError(target.findings.get("types", "no types in this target"))
    seen: set[str] = set()
    for kind, bare in target.types.names():
        name = f"{kind} {bare}" if kind else bare
        if name not in seen and matches(name):
            seen.add(name)
            yield Text(name)
