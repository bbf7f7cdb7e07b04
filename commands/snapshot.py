"""``::snapshot`` keeps bytes of the target; ``::diff`` tells what has changed since."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

from kshell.api import (
    ADDRESS,
    COUNT,
    Argument,
    Call,
    Column,
    FileName,
    Note,
    Number,
    Option,
    Output,
    Row,
    Session,
    Table,
    UsageError,
    Word,
    dcmd,
    differences,
    format_value,
    frozen,
    piped_type,
)

if TYPE_CHECKING:
    from kshell.api import Memory, Value

MOST = 256 << 20  # bytes that are kept under all names
LINE = 16


class Kept(NamedTuple):
    """Bytes of the target as they were: of a value with a type, or of a range."""

    address: int
    data: bytes
    memory: Memory
    value: Value | None = None


KEPT = (Column("NAME", 20), Column("ADDR", kind=ADDRESS), Column("SIZE", 8, COUNT), Column("TYPE"))
CHANGES = (Column("ADDR", kind=ADDRESS), Column("MEMBER", 32), Column("OLD", 24), Column("NEW"))
#: of several objects: which one comes first
CHANGES_OF_MANY = (Column("OBJECT", kind=ADDRESS), *CHANGES)


@dcmd("snapshot", group="Language", columns=KEPT)
def snapshot(
    session: Session, address: int | None, call: Call,
    size: Annotated[Number | None, Option("-l", "size", "keep so many bytes, whatever they are")],
    file: Annotated[FileName | None, Option("-f", "file", "write all of memory to this file, as a kdump")],
    words: Annotated[list[Argument], Word("name|type", "the name to keep it under, then the type")],
) -> Iterator[Output]:
    """Keep what is at an address now, under a name; ::diff tells later what has changed.

    The type is that of the symbol or of the values in a pipe, which are all kept under the name, or is given; -l keeps
    bytes. Outside of a pipe a name that is used again begins anew. Without arguments it lists what is kept. -f writes
    all of physical memory as a compressed dump that kshell, crash and makedumpfile read; a machine is stopped for it.

    Examples:
      init_task::snapshot before
      ::walk proc | ::snapshot all
      panic_timeout::snapshot p int
      ffffffff82000000::snapshot -l 1000 page
      ::snapshot -f /tmp/dump
      ::snapshot
    """
    if file is not None:
        yield from _dump(session, str(file))
        return
    if address is None:
        if words:
            raise UsageError("an address is needed", hint="init_task::snapshot NAME")
        for label, known in session.snapshots.items():
            for one in known:
                kind = str(one.value.type) if one.value else "bytes"
                yield Row(one.address, (label, one.address, len(one.data), kind))
        return
    if not words:
        raise UsageError("a name is needed to keep it under")
    name, *rest = words
    if not call.piped or call.first:
        session.snapshots.pop(str(name), None)
    memory = session.space(address)
    if size is not None:
        kept = Kept(address, memory.read(address, _room(session, size)), memory)
    else:
        typed = piped_type(rest, session.target, address, call.type)
        value = session.target.value(typed.type, address, memory)
        _room(session, value.size)
        old = frozen(value)
        kept = Kept(address, old.bytes(), memory, old)
    session.snapshots.setdefault(str(name), []).append(kept)


def _room(session: Session, size: int) -> int:
    held = sum(len(one.data) for kept in session.snapshots.values() for one in kept)
    if not 0 < size <= MOST - held:
        raise UsageError(f"{size} bytes: snapshots hold at most {MOST >> 20} MiB", hint="::snapshot -f writes a dump")
    return size


def _dump(session: Session, path: str) -> Iterator[Output]:
    from contextlib import nullcontext

    from kshell.linux.convert import convert
    from kshell.linux.kernel import require_kernel

    require_kernel(session.target)
    control = session.target.control
    with nullcontext() if control is None else control.standing():
        made = convert(session.target, path, progress=session.target.progress or _untold)
    size = made.pages * made.page >> 20
    yield Note(f"{path}: {made.pages:,} pages ({size:,} MiB), {made.written >> 20:,} MiB written")


def _untold(_what: str, _done: int, _total: int) -> None:
    """Tell nobody how far it is."""


@dcmd("diff", group="Language", columns=CHANGES)
def diff(session: Session, name: Annotated[str, Word("name", "what ::snapshot kept")]) -> Iterator[Output]:
    """Show what has changed since a snapshot: members of structures, or lines of 16 bytes.

    Of a union the first member is told. Of several objects under one name each line begins with the object it is of.
    Into a pipe it passes the addresses of what changed.

    Examples:
      init_task::snapshot before; ::diff before
    """
    kept = session.snapshots.get(name)
    if kept is None:
        known = ", ".join(session.snapshots) or "none"
        raise UsageError(f"no snapshot {name}", hint=f"there are: {known}")
    yield Table(CHANGES if len(kept) == 1 else CHANGES_OF_MANY)
    for one in kept:
        first: tuple[int, ...] = () if len(kept) == 1 else (one.address,)
        if one.value is not None:
            now = session.target.value(one.value.type, one.address, one.memory)
            for found in differences(one.value, frozen(now)):
                yield Row(found.new.address,
                          (*first, found.new.address, found.path, _text(found.old), _text(found.new)))
            continue
        data = one.memory.read(one.address, len(one.data))
        for at in range(0, len(data) if data != one.data else 0, LINE):
            old, new = one.data[at : at + LINE], data[at : at + LINE]
            if old != new:
                yield Row(one.address + at, (*first, one.address + at, f"+0x{at:x}", old.hex(), new.hex()))


def _text(value: Value) -> str:
    return " ".join(line.strip() for line in format_value(value))
