"""Commands from ``-e``, from a file or from standard input; no terminal library is needed.

Reference: mdb-language.md 7.5 (what an error does to the rest), 16 (exit status). A script goes on behind the next
``;`` or newline after a statement that cannot be parsed; a string (``-e``) stops there. The end of the input ends the
last line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO

from kshell.console import Console
from kshell.errors import KshellError, ParseError
from kshell.lang.parser import Parser
from kshell.pipeline import Status, check_dcmd, run_statement
from kshell.scripts import Script, file_lines, obey_script
from kshell.session import Session


def run_text(
    session: Session, console: Console, text: str, *, string: bool, recover: bool,
    stop_on_error: bool = False,
) -> bool:
    """Obey *text*; return whether all of it could be parsed and evaluated.

    :param string: a naked address only sets dot
    :param recover: after an error go on with the next statement, else drop the rest
    :param stop_on_error: drop the rest also when a command has failed
    """
    good = True
    parser = Parser(text, check_dcmd(session))
    while not session.done and not (stop_on_error and session.failed):
        try:
            statement = parser.next_statement()
            if statement is None:
                break
            console.show(run_statement(session, statement, string=string))
        except KshellError as error:
            good, session.failed = False, True
            console.parse_error(error, text)
            console.end_command()
            if not recover:
                break
            if isinstance(error, ParseError):
                parser.recover()
    return good


def run_strings(session: Session, console: Console, commands: Sequence[str], *, stop_on_error: bool = False) -> int:
    """Obey each of *commands*; return the exit status: 1 after a parse error, or if the last dcmd failed.

    An error that drops the rest of one string does not drop the next one.
    """
    good = True
    for text in commands:
        session.log(f"> {text}\n")
        good &= run_text(session, console, text, string=True, recover=False, stop_on_error=stop_on_error)
        if session.failed and stop_on_error:
            return 1
        if session.done:
            break
    return 0 if good and session.status in (None, Status.OK) else 1


def run_file(
    session: Session, console: Console, source: IO[bytes], *, strict: bool = False, stop_on_error: bool = False,
    arguments: Sequence[int] | None = None,
) -> int:
    """Obey the lines of *source* as they come; return the exit status.

    :param strict: a file given with ``-f``: status 1 if its last dcmd failed or a statement could not be parsed
    :param arguments: the file's own, in the variables 1 to 8
    """
    name = getattr(source, "name", "")
    named = isinstance(name, str) and bool(name) and not name.startswith("<")
    script = Script(
        file_lines(source, name if named else "(stdin)"), name if named else "(stdin)", top=not named,
        folder=os.path.dirname(name) or "." if named else "", arguments=arguments)
    good = _obey(session, console, script, stop_on_error=stop_on_error, logged=True)
    if session.failed and stop_on_error:
        return 1
    return 0 if not strict or (good and session.status in (None, Status.OK)) else 1


def run_startup(session: Session, console: Console, path: str) -> None:
    """Obey the startup file *path*, if there is one; what it does to the exit status and to dot is forgotten."""
    try:
        with open(path, "rb") as source:
            _obey(session, console, Script(file_lines(source, path), path, folder=os.path.dirname(path)))
    except FileNotFoundError:
        return
    except OSError as error:
        console.error(f"cannot read {path}: {error.strerror}")
        console.end_command()
    session.status, session.failed, session.last = None, False, None
    session.dot = session.increment = 0


def _obey(
    session: Session, console: Console, script: Script, *, stop_on_error: bool = False, logged: bool = False,
) -> bool:
    """Show what *script* does; return whether all of it could be read, parsed and evaluated."""
    try:
        console.show(obey_script(session, script, stop_on_error=stop_on_error, logged=logged))
    except KshellError as error:
        session.failed = True
        console.error(error)
        console.end_command()
        return False
    return not script.bad
