"""``::objects``: what code is loaded where; ``::nmadd``, ``::nmdel``: symbols of one's own (mdb-language.md 11.7)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    HEX,
    Column,
    Expr,
    Flag,
    KshellError,
    Option,
    Output,
    Row,
    Session,
    Symbol,
    SymbolName,
    Table,
    Text,
    UsageError,
    dcmd,
)
from kshell.linux.objects import iter_objects
from kshell.linux.userland import iter_user_objects, user_facts

COLUMNS = (
    Column("BASE", 16, ADDRESS, ">", zeros=1), Column("LIMIT", 16, ADDRESS, ">", zeros=1), Column("SIZE", 16, HEX, ">"),
    Column("NAME", 24), Column("PART"),
)
VERSIONS = (Column("NAME", 28), Column("VERSION"))
NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9_.]*")


@dcmd("objects", columns=COLUMNS, group="Symbols")
def objects(
    session: Session, versions: Annotated[bool, Flag("-v", "the version of each instead")],
) -> Iterator[Output]:
    """List the kernel image and the modules with where they are; a module may have several parts.

    Of a process or a core the program and its libraries; their versions are build ids, or why a file is not used.
    Into a pipe go the base addresses.

    Examples:
      ::objects
      ::objects -v
    """
    if versions:
        yield Table(VERSIONS)
    last = ""
    user = user_facts(session.target) is not None
    for found in iter_user_objects(session.target) if user else iter_objects(session.target):
        if not versions:
            cells = (found.base, found.base + found.size, found.size, found.name, found.part)
            yield Row(found.base, cells)
        elif found.name != last:
            yield Row(found.base, (found.name, found.version))
        last = found.name


@dcmd("nmadd", group="Symbols")
def nmadd(
    session: Session, address: int | None,
    function: Annotated[bool, Flag("-f", "it is a function")],
    object: Annotated[bool, Flag("-o", "it is an object: data")],
    end: Annotated[Expr | None, Option("-e", "end", "where it ends")],
    size: Annotated[Expr | None, Option("-s", "size", "bytes it has")],
    name: SymbolName,
) -> Iterator[Output]:
    """Add a symbol of your own at the address, or at dot.

    It is looked up before those of the target, by name and by address; without a size it covers its own address only.
    One of the same name that was added before is replaced.

    Examples:
      init_task+10::nmadd -o -s 8 my_field
      my_field=p
    """
    if function and object:
        raise UsageError("-f or -o, not both")
    if end is not None and size is not None:
        raise UsageError("-e or -s, not both")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name} is not a name for a symbol")
    value = session.dot if address is None else address
    if end is not None and end < value:
        raise UsageError(f"the end 0x{end:x} is before 0x{value:x}")
    length = end - value if end is not None else size or 0
    kind = "T" if function else "D" if object else "?"
    session.target.symbols.private.add(Symbol(name, value, length, kind))
    yield Text(f"added {name}, value={value:x} size={length:x}")


@dcmd("nmdel", group="Symbols")
def nmdel(session: Session, name: SymbolName) -> Iterator[Output]:
    """Remove a symbol that ::nmadd added.

    Examples:
      init_task::nmadd first; ::nmdel first
    """
    found = session.target.symbols.private.remove(name)
    if found is None:
        raise KshellError(f"symbol '{name}' not found in private symbol table")
    yield Text(f"deleted {name}, value={found.address:x} size={found.size:x}")
