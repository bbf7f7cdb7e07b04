"""``::bp``, ``::wp``, ``::events``, ``::delete``, ``::evset``: where a machine is to stop, and what is done then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    DECIMAL,
    Column,
    Context,
    Decimal,
    Event,
    Flag,
    KshellError,
    NoProcessError,
    Note,
    Option,
    Output,
    Row,
    Session,
    Table,
    UsageError,
    Word,
    check_condition,
    dcmd,
    debugger_of,
    decimal_value,
    resolve_place,
)
from kshell.linux import processes

Condition = Annotated[str | None, Option("-c", "condition", "an expression, or dcmds that yield something")]
Commands = Annotated[str | None, Option("-e", "commands", "obey them at each hit, and go on")]
Hits = Annotated[Decimal | None, Option("-n", "hits", "stop at the so-manieth hit only, in decimal")]
Stops = Annotated[bool, Flag("-s", "with -e: stop behind the commands")]
Temporary = Annotated[bool, Flag("-t", "delete it when it has stopped the machine")]
Process = Annotated[str | None, Option("-p", "pid|name", "in this process only")]
COLUMNS = (
    Column("ID", 3, DECIMAL, "<", "id"), Column("STATE", 7), Column("KIND", 7), Column("HITS", 6, COUNT),
    Column("LIMIT", 6, COUNT), Column("ADDR", kind=ADDRESS), Column("WHERE", 24, key="place"),
    Column("PID", 6, DECIMAL),
    Column("CONDITION AND COMMANDS", key="rest"),
)


@dcmd("bp", aliases=(":b",), group="Execution")
def bp(
    session: Session, address: int | None, condition: Condition, commands: Commands, hits: Hits, stops: Stops,
    temporary: Temporary, process: Process, places: Annotated[list[str], Word("symbol", "where: an expression")],
) -> Iterator[Output]:
    """Stop the virtual machine where an instruction is about to be executed.

    The condition is written in this language and evaluated on the CPU that has come there: <rdi is its register,
    <thread its task, user addresses are those of its process. With -e the commands are obeyed at each hit that counts
    and the machine goes on; ::stop in them, -s or -n let it stand. In user code a breakpoint is one of the process
    context (::getu) or of -p. module`name may be of a module that is not loaded yet. Breakpoints are in the machine
    only while ::cont or ::step run it.

    Examples:
      ::bp do_sys_openat2; ::cont
      ::bp -c '<rdi==5' -e '<rsi/s' do_sys_openat2
      ::bp -p victim -n 3 do_sys_openat2
      ::getu victim; 401000::bp
      ::bp nbd`nbd_open
    """
    if address is None and not places:
        yield from _rows(session)
        return
    _check(condition, hits)
    wanted: list[tuple[str, int | None]] = [(place, resolve_place(session, place)) for place in places]
    if address is not None:
        wanted.insert(0, (session.name_of(address), address))
    for place, found in wanted:
        event = _add(session, "execute", place, found, 1, process)
        _refine(event, condition, commands, hits, stops, temporary)
        if found is None:
            yield Note(f"breakpoint {event.number} waits until the module of {place} is loaded")
        else:
            yield Note(f"breakpoint {event.number} at {found:x}")


@dcmd("wp", aliases=(":w",), group="Execution")
def wp(
    session: Session, address: int, count: int | None,
    read: Annotated[bool, Flag("-r", "when it is read")], write: Annotated[bool, Flag("-w", "when it is written")],
    length: Annotated[Decimal | None, Option("-l", "bytes", "how many, in decimal; 8 without")],
    condition: Condition, commands: Commands, hits: Hits, stops: Stops, temporary: Temporary, process: Process,
) -> Iterator[Output]:
    """Stop the virtual machine when memory is written, or with -r read, with -rw either.

    The count in front is the number of bytes too, as in mdb. Old and new value are shown. The machine stops behind the
    instruction that did it. All else is as in ::bp.

    Examples:
      jiffies::wp; ::cont
      modprobe_path,10::wp -rw
      ::getu teller; 404040::wp -l 4 -c '<rax==2'
    """
    size = length or count or 8
    if not 0 < size <= 4096:
        raise UsageError(f"{size} bytes: 1 to 4096")
    _check(condition, hits)
    kind = "access" if read and write else "read" if read else "write"
    event = _add(session, kind, session.name_of(address), address, size, process)
    _refine(event, condition, commands, hits, stops, temporary)
    yield Note(f"watchpoint {event.number} at {address:x}, {size} bytes")


def _add(session: Session, kind: str, place: str, address: int | None, size: int, process: str | None) -> Event:
    debugger_of(session)
    context: Context | None = None
    if process is not None:
        task = processes.find(session.target, process)
        context = Context(task.pid, task.comm, processes.user_memory(session.target, task), task.address, task.mm)
    elif address is not None and address < session.target.arch.kernel_half:
        context = session.context
        if context is None:
            raise NoProcessError(f"0x{address:x} is a user address and there is no process context",
                                 hint="::getu PID chooses the process, or -p PID")
    return session.events.add(kind, place, address, size, context)  # type: ignore[arg-type]


def _check(condition: str | None, hits: int | None) -> None:
    """See that these can be so, before there is an event."""
    if condition is not None:
        check_condition(condition)
    if hits is not None and hits < 1:
        raise UsageError(f"-n {hits}: the first hit is 1")


def _refine(
    event: Event, condition: str | None, commands: str | None, hits: int | None, stops: bool, temporary: bool,
) -> None:
    """Set what else was said of *event*."""
    event.condition, event.commands = condition or "", commands or ""
    event.stops = not commands or stops or hits is not None
    event.limit, event.temporary = hits or 1, temporary


@dcmd("events", aliases=("$b",), group="Execution")
def events(session: Session) -> Iterator[Output]:
    """List breakpoints and watchpoints, with how often each was hit.

    Into a pipe it passes their addresses.

    Examples:
      ::events
      ::events | ::dis -n 2
    """
    yield from _rows(session)


def _rows(session: Session) -> Iterator[Output]:
    yield Table(COLUMNS)
    for event in session.events:
        rest = "  ".join(part for part in (event.condition and f"-c '{event.condition}'",
                                           event.commands and f"-e '{event.commands}'") if part)
        pid = event.process.pid if event.process is not None else None
        yield Row(event.address, (event.number, event.state, event.kind, event.hits, event.limit, event.address,
                                  event.place, pid, rest))


@dcmd("delete", aliases=(":d",), group="Execution")
def delete(
    session: Session, address: int | None,
    which: Annotated[list[str], Word("id|all", "numbers of ::events, in decimal")],
) -> Iterator[Output]:
    """Take breakpoints and watchpoints away: by number, all, or those at an address.

    Examples:
      ::delete 1
      ::delete all
      do_sys_openat2::delete
    """
    if address is None and not which:
        raise UsageError("which: numbers of ::events, all, or an address in front")
    found = _chosen(session, which)
    if address is not None:
        there = session.events.at(address)
        if not there:
            raise KshellError(f"no event at {session.name_of(address)}", hint="::events lists them")
        found += there
    for event in found:
        session.events.remove(event)
    return iter(())


@dcmd("evset", group="Execution")
def evset(
    session: Session, off: Annotated[bool, Flag("-d", "disable it: it stays on the list and does nothing")],
    on: Annotated[bool, Flag("-e", "enable it again")], hits: Hits,
    which: Annotated[list[str], Word("id|all", "numbers of ::events, in decimal")],
) -> Iterator[Output]:
    """Change breakpoints and watchpoints: disable, enable, or stop at another hit.

    Examples:
      ::evset -d 1
      ::evset -e all
      ::evset -n 100 2
    """
    if not which or not (off or on or hits) or (off and on):
        raise UsageError("-d, -e or -n, and which: numbers of ::events or all")
    for event in _chosen(session, which):
        event.enabled = on or (event.enabled and not off)
        if hits is not None:
            event.limit, event.hits = hits, 0
    return iter(())


def _chosen(session: Session, which: list[str]) -> list[Event]:
    if which == ["all"]:
        return list(session.events)
    numbers = []
    for word in which:
        number = decimal_value(word)
        if number is None:
            raise UsageError(f"{word} is no number of an event", hint="::events lists them; all means all")
        numbers.append(number)
    return [session.events.get(number) for number in numbers]
