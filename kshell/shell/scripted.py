"""Commands from ``-e``, from a file or from standard input; no terminal library is needed.

Reference: mdb-language.md 7.5 (what an error does to the rest), 16 (exit status). A script goes on behind the next
``;`` or newline after a statement that cannot be parsed; a string (``-e``) stops there. The end of the input ends the
last line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from kshell.console import Console
from kshell.errors import KshellError, ParseError
from kshell.lang.parser import Parser
from kshell.pipeline import Status, check_dcmd, run_statement
from kshell.session import Session


def run_text(session: Session, console: Console, text: str, *, string: bool, recover: bool) -> bool:
    """Obey *text*; return whether all of it could be parsed and evaluated.

    :param string: a naked address only sets dot
    :param recover: after an error go on with the next statement, else drop the rest
    """
    good = True
    parser = Parser(text, check_dcmd(session))
    while not session.done:
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
        good &= run_text(session, console, text, string=True, recover=False)
        if session.failed and stop_on_error:
            return 1
        if session.done:
            break
    return 0 if good and session.status in (None, Status.OK) else 1


def run_file(
    session: Session, console: Console, source: IO[bytes], *, strict: bool = False, stop_on_error: bool = False,
) -> int:
    """Obey the lines of *source* as they come; return the exit status.

    :param strict: a file given with ``-f``: status 1 if its last dcmd failed or a statement could not be parsed
    """
    good = True
    number = 0
    while not session.done:
        raw = source.readline()
        if not raw:
            break
        number += 1
        text = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        if number == 1 and text.startswith("#!"):
            continue
        console.place = f"{_name(source)}:{number}: " if not console.json else ""
        session.log(f"> {text}\n")
        good &= run_text(session, console, text + "\n", string=False, recover=not stop_on_error)
        if session.failed and stop_on_error:
            return 1
    return 0 if not strict or (good and session.status in (None, Status.OK)) else 1


def _name(source: IO[bytes]) -> str:
    name = getattr(source, "name", "")
    return name if isinstance(name, str) and not name.startswith("<") else "(stdin)"


