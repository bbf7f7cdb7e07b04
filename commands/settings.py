"""``::vars``, ``::set``, ``::formats``, ``::log``, ``::version``, ``::quit``: the session itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell import __version__
from kshell.api import (
    FORMATS,
    SEARCH_LETTERS,
    WRITE_LETTERS,
    Column,
    FileName,
    Flag,
    KshellError,
    Option,
    Output,
    Row,
    Session,
    Table,
    Text,
    UsageError,
    dcmd,
)

SWITCHES = ("autowrap", "ignoreeof", "pager", "repeatlast", "write_readback")
FORMAT_COLUMNS = (Column("L", 1, key="letter"), Column("DESCRIPTION"))
LIMITS = ("array_mem_limit", "array_str_limit")


@dcmd("vars", group="Session")
def vars_(
    session: Session, nonzero: Annotated[bool, Flag("-n", "only those that are not 0")],
    again: Annotated[bool, Flag("-p", "as commands that set them again")],
    tagged: Annotated[bool, Flag("-t", "only those that are tagged")],
) -> Iterator[Output]:
    """List the variables and registers.

    Examples:
      ::vars -n
      ::vars -p
    """
    for variable in session.variables:
        if (nonzero and not variable.value) or (tagged and not variable.tagged) or (again and variable.read_only):
            continue
        shown = session.format_number(variable.value)
        yield Text(f"{shown}>{variable.name}" if again else f"{variable.name} = {shown}", variable.value)


@dcmd("set", group="Session")
def set_(
    session: Session, options: Annotated[list[str], Option("-o", "opt", "switch on, or NAME=VALUE")],
    distance: Annotated[int | None, Option("-s", "dist", "bytes behind a symbol that carry its name; 0: its size")],
    prompt: Annotated[str | None, Option("-P", "text", "the prompt")],
    write: Annotated[bool, Flag("-w", "make sure that the target is open for writing, as $W")], words: list[str],
) -> Iterator[Output]:
    """Show or change the options of the session.

    -o NAME switches on, +o NAME off; array_mem_limit and array_str_limit take =NUMBER or =none. autowrap breaks long
    lines at the page width ($w).

    Examples:
      ::set
      ::set -o array_mem_limit=none
      ::set +o pager
    """
    chosen = session.options
    given = [(option, True) for part in options for option in part.split(",")]
    while words:
        if words[0] != "+o" or len(words) < 2:
            raise UsageError(f"{words[0]}: -o NAME or +o NAME")
        given += [(option, False) for option in words[1].split(",")]
        words = words[2:]
    for option, on in given:
        _change(session, option, on)
    if distance is not None:
        session.set_symbol_distance(distance)
    if prompt is not None:
        chosen.prompt = prompt[:35]
    if write:
        session.require_writable()
    if given or write or distance is not None or prompt is not None:
        return
    smart = " (smart)" * (not chosen.symbol_distance)
    yield Text(f"{'symbol matching distance':<25}: {chosen.symbol_distance}{smart}")
    yield Text(f"{'prompt':<25}: {chosen.prompt!r}")
    for name in LIMITS:
        limit = getattr(chosen, name)
        yield Text(f"{name:<25}: {'none' if limit is None else limit}")
    for name in SWITCHES:
        yield Text(f"{name:<25}: {'on' if getattr(chosen, name) else 'off'}")
    if session.has_target:
        yield Text(f"{'target':<25}: {'read-write' if session.target.writable else 'read-only'}")


def _change(session: Session, option: str, on: bool) -> None:
    name, equals, value = option.partition("=")
    if name in SWITCHES:
        if equals:
            raise UsageError(f"option does not accept an argument -- {name}")
        setattr(session.options, name, on)
    elif name in LIMITS:
        if not equals:
            raise UsageError(f"option requires an argument -- {name}")
        if value != "none" and not value.isdecimal():
            raise UsageError(f"invalid argument for option {name} -- {value}", hint="a decimal number, or none")
        setattr(session.options, name, None if value == "none" else int(value))
    else:
        raise UsageError(f"invalid debugger option -- {name}", hint=f"one of {', '.join((*SWITCHES, *LIMITS))}")


@dcmd("formats", columns=FORMAT_COLUMNS, group="Session")
def formats(session: Session) -> Iterator[Output]:
    """List the letters of the formatting verbs / \\ @ ? and =.

    Those that write or match do so as the first letter after / \\ and ?.

    Examples:
      ::formats
    """
    yield Table(FORMAT_COLUMNS, joint=" - ", header=False)
    rows = [(letter, found.description, found.size_text) for letter, found in FORMATS.items()]
    for letter, (size, description) in {**WRITE_LETTERS, **SEARCH_LETTERS}.items():
        rows.append((letter, description, f"{size} byte{'s' * (size > 1)}" if size else ""))
    for letter, description, bytes_ in sorted(rows):
        yield Row(None, (letter, description + f" ({bytes_})" * bool(bytes_)))


@dcmd("log", group="Session")
def log(
    session: Session, off: Annotated[bool, Flag("-d", "stop logging")], on: Annotated[bool, Flag("-e", "as without")],
    file: FileName | None,
) -> Iterator[Output]:
    """Append what is typed and printed to a file; without a file say whether a log is active.

    Examples:
      ::log /tmp/session
      ::log -d
    """
    if off and (on or file):
        raise UsageError("-d takes no file")
    if off:
        if not session.log_path:
            raise KshellError("no log is active")
        session.stop_log()
    elif file is not None:
        session.start_log(file)
        yield Text(f'logging to "{file}"')
    elif on:
        raise UsageError("-e needs a file")
    elif session.log_path:
        yield Text(f'logging to "{session.log_path}" is currently enabled')
    else:
        yield Text("no log is active")


@dcmd("version", group="Session")
def version(session: Session) -> Iterator[Output]:
    """Show the version of kshell.

    Examples:
      ::version
    """
    yield Text(f"kshell {__version__}")


@dcmd("quit", aliases=("$q", "$Q", "$%"), group="Session")
def quit_(session: Session) -> None:
    """Leave kshell.

    Examples:
      ::quit
    """
    session.quit()
