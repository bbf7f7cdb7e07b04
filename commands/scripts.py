"""``$<``, ``$<<``, ``$>`` and ``::cat``: files of commands, of a log and of values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    Abort,
    Argument,
    Block,
    Call,
    Column,
    FileName,
    KshellError,
    Output,
    Row,
    Session,
    Text,
    UsageError,
    Warn,
    Word,
    dcmd,
)
from kshell.api import escape as escape_text

CHUNK = 1 << 16
#: what mdb obeys for macros of adb's
MACROS = {
    "cpus": "::walk cpu | ::print struct rq cpu nr_running curr", "modules": "::modinfo", "msgbuf": "::msgbuf",
    "pid2proc": "::pid2proc | ::print struct task_struct", "thread": "::print struct task_struct",
}
Arguments = Annotated[list[Argument], Word("arg", "an expression; the variables 1 to 8 in the file")]


@dcmd("$<", group="Language")
def obey(
    session: Session, address: int | None, count: int | None, call: Call, file: FileName | None, words: Arguments,
) -> Iterator[Output]:
    """Obey a file of commands; in such a file, it takes the place of the file.

    At the prompt, in -e and in a pipe it returns, as $<< does. Without a name the file that runs is left. The count
    goes to the variable 9, and with a count of 0 nothing is done: expr,condition$<file. In a file, names of files
    start at its folder, else at the current one.

    Examples:
      $</dev/null
    """
    if file is None:
        session.leave_file()
        return
    yield from _obey(session, address, count, call, file, words, returns=False)


@dcmd("$<<", group="Language")
def call_file(
    session: Session, address: int | None, count: int | None, call: Call, file: FileName, words: Arguments,
) -> Iterator[Output]:
    """Obey a file of commands, then go on with what follows.

    Arguments are expressions: in the file they are the variables 1 to 8. The count goes to the variable 9.

    Examples:
      $<</dev/null
    """
    yield from _obey(session, address, count, call, file, words, returns=True)


def _obey(
    session: Session, address: int | None, count: int | None, call: Call, file: str, words: list[Argument], *,
    returns: bool,
) -> Iterator[Output]:
    if call.pipe_out:
        raise Abort("macro files cannot be used as input to a pipeline", hint="::eval in the pipe obeys a string")
    session.variables["9"] = 1 if count is None else count
    try:
        yield from session.obey_file(file, words, returns=returns, piped=call.piped)
    except KshellError as error:
        macro = _macro(session, file) if isinstance(error.__cause__, FileNotFoundError) and not words else None
        if macro is None:
            raise
        place = "" if address is None else f"0x{address:x}" + ("" if count is None else f",0x{count:x}")
        yield from session.eval(place + macro)


def _macro(session: Session, name: str) -> str | None:
    """Return the command that adb's macro *name* has become: its own, or ::print of the type NAME, NAME_t or NAMEs."""
    if name in MACROS:
        return MACROS[name]
    for spelling in (name, f"{name}_t", f"{name}s"):
        if spelling.isidentifier() and session.typed.types.get(spelling) is not None:
            return f"::print {spelling}"
    return None


@dcmd("$M", columns=(Column("MACRO", 16), Column("NATIVE EQUIVALENT", key="command")), group="Language")
def macros(session: Session) -> Iterator[Output]:
    """List adb's macros that $< and $<< obey where there is no file of that name.

    The name of a type does the same: address$<list_head prints it.

    Examples:
      $M
      $<modules
    """
    for name in sorted(MACROS):
        yield Row(None, (name, MACROS[name]))


@dcmd("$>", group="Session")
def log_to(session: Session, file: FileName | None) -> Iterator[Output]:
    """Append what is typed and printed to a file; without a file stop.

    Examples:
      $>
    """
    if file is None:
        session.stop_log()
        return
    session.start_log(file)
    yield Text(f'logging to "{file}"')


@dcmd("cat", group="Language")
def cat(session: Session, files: Annotated[list[FileName], Word("file")]) -> Iterator[Output]:
    """Print files as they are; in a pipe each line must be an expression.

    Examples:
      ::cat /proc/sys/kernel/ostype
      ::cat /dev/null | ::print struct list_head
    """
    if not files:
        raise UsageError("file is missing")
    for name in files:
        try:
            with open(name, encoding="utf-8", errors="backslashreplace", newline="") as source:
                while text := source.read(CHUNK):
                    yield Block(escape_text(text, "\n\t"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            yield Warn(KshellError(f"failed to open {name}: {why}"))
