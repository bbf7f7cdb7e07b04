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

FORMAT_COLUMNS = (Column("L", 1, key="letter"), Column("DESCRIPTION"))


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


#: options of ::set that + undoes, and those with a value
UNDONE = "owW"
WITH_VALUE = "oILPs"


@dcmd("set", group="Session")
def set_(
    session: Session, options: Annotated[list[str], Option("-o", "opt", "switch on, or NAME=VALUE")],
    distance: Annotated[int | None, Option("-s", "dist", "bytes behind a symbol that carry its name; 0: its size")],
    macros: Annotated[str | None, Option("-I", "path", "folders in which $<name looks, with colons between")],
    modules: Annotated[str | None, Option("-L", "path", "folders in which ::load NAME looks for plugins")],
    prompt: Annotated[str | None, Option("-P", "text", "the prompt")],
    write: Annotated[bool, Flag("-w", "let the target be written again; it must be open for writing, as for $W")],
    devices: Annotated[bool, Flag("-W", "refused: memory of devices is not read")],
    force: Annotated[bool, Flag("-F", "refused: there is nothing that could be forced")], words: list[str],
) -> Iterator[Output]:
    """Show or change the options of the session.

    -o NAME switches on, +o NAME off; array_mem_limit and array_str_limit take =NUMBER or =none. autowrap breaks long
    lines at the page width ($w). +w lets nothing be written any more, until -w. In paths %R and %V are release and
    version of the kernel, %i and %m its instruction set, %p the platform, %t the kind of target, %o the path as it was.

    Examples:
      ::set
      ::set -o array_mem_limit=none
      ::set +o pager
      ::set -I ~/macros:~/macros/%R:%o
    """
    changes = [("o", True, part) for part in options]
    changes += [(letter, True, value) for letter, value in (("I", macros), ("L", modules), ("P", prompt))
                if value is not None]
    changes += [(letter, True, "") for letter, on in (("w", write), ("W", devices), ("F", force)) if on]
    changes += _more(words)
    if distance is not None:
        session.set_symbol_distance(distance)
    if {("w", True), ("w", False)} <= {(letter, on) for letter, on, _ in changes}:
        raise UsageError("-w and +w: one of them")
    for letter, on, value in changes:
        _change(session, letter, on, value)
    if not changes and distance is None:
        yield from _show(session)


def _more(words: list[str]) -> Iterator[tuple[str, bool, str]]:
    """Yield the options behind the first one with a +, as (letter, on, value)."""
    words = list(words)
    while words:
        first = words.pop(0)
        sign, letter, value = first[:1], first[1:2], first[2:]
        if sign not in ("+", "-") or letter not in ("wWF" + WITH_VALUE if sign == "-" else UNDONE) or not letter:
            raise UsageError(f"{first}: no option of ::set", hint="-o NAME or +o NAME; ::help set lists them")
        if letter in WITH_VALUE:
            if not value and not words:
                raise UsageError(f"option requires an argument -- {letter}")
            yield letter, sign == "-", value or words.pop(0)
        elif value:
            raise UsageError(f"{first}: one option at a time behind a +")
        else:
            yield letter, sign == "-", ""


def _change(session: Session, letter: str, on: bool, value: str) -> None:
    if letter == "o":
        session.options.switch(value, on)
    elif letter in "IL":
        session.set_search_path(letter, value)
    elif letter == "P":
        session.options.prompt = value[:35]
    elif letter == "s":
        session.set_symbol_distance(session.evaluate(value))
    elif letter == "w" and on:
        session.protected = False
        session.require_writable()
    elif letter == "w":
        session.protected = True
    elif letter == "W" and on:
        raise KshellError("command is not supported by current target",
                          hint="-W: what is mapped to a device is not in any image, and /dev/mem does not give it")
    elif letter == "F":
        raise KshellError("command is not supported by current target",
                          hint="-F: kshell takes no control of a process or kernel when it opens one: nothing to force")


def _show(session: Session) -> Iterator[Output]:
    chosen = session.options
    smart = " (smart)" * (not chosen.symbol_distance)
    yield Text(f"{'macro path':<25}: {':'.join(chosen.macro_path)}")
    yield Text(f"{'module path':<25}: {':'.join(session.module_folders())}")
    yield Text(f"{'symbol matching distance':<25}: {chosen.symbol_distance}{smart}")
    yield Text(f"{'prompt':<25}: {chosen.prompt!r}")
    for name in chosen.LIMITS:
        limit = getattr(chosen, name)
        yield Text(f"{name:<25}: {'none' if limit is None else limit}")
    for name in chosen.SWITCHES:
        yield Text(f"{name:<25}: {'on' if getattr(chosen, name) else 'off'}")
    if session.has_target:
        yield Text(f"{'target':<25}: {'read-write' if session.writable else 'read-only'}")


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
