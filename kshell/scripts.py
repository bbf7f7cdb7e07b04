"""Files of commands: ``$<file``, ``$<<file``, ``-f``, standard input, the startup file, and what ``!<`` prints.

Reference: mdb-language.md 11.1 (``$<``), 7.5 (a file goes on behind the next ``;`` or newline after an error), 17. A
file is read line by line as it is obeyed. ``$<`` in a file takes the place of that file, so that files may follow one
another without end, as adb's macros walk lists; ``$<<`` comes back.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import IO, TYPE_CHECKING

from kshell.errors import EvaluateError, KshellError, ParseError, UsageError, repr_name
from kshell.lang.parser import Parser
from kshell.output import Done, Output, Warn
from kshell.pipeline import Status, TooDeep, check_dcmd, nested, run_statement

if TYPE_CHECKING:
    from kshell.session import Session

MAX_LINE = 1 << 22  # bytes
MAX_FOLLOWED = 100_000  # files that take each other's place
ARGUMENTS = 8  # in the variables 1 to 8


class Script:
    """A file that is being obeyed.

    :ivar name: in front of errors; :ivar folder: where the names of other files in it start
    :ivar number: of the line that runs, from 1
    :ivar top: standard input, which other files do not replace
    :ivar string: a naked address in it only sets dot, as in ``::eval``
    :ivar over: no more of it is obeyed; :ivar follow: the file that takes its place
    :ivar bad: a statement of it could not be parsed or evaluated
    """

    def __init__(
        self, source: Iterable[bytes], name: str, *, folder: str = "", top: bool = False, string: bool = False,
        arguments: Sequence[int] | None = None,
    ) -> None:
        self.source, self.name, self.folder = source, name, folder
        self.top, self.string = top, string
        self.arguments = arguments
        self.number = 0
        self.over = self.bad = False
        self.follow: Script | None = None

    def lines(self) -> Generator[str, None, None]:
        """Yield the lines, a first one that begins with ``#!`` as a comment; close the file at the end."""
        try:
            for raw in self.source:
                self.number += 1
                text = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
                yield "//" if self.number == 1 and text.startswith("#!") else text
        finally:
            close = getattr(self.source, "close", None)
            if close is not None:
                close()


def file_lines(source: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of *source* and close it at the end.

    :raises KshellError: it cannot be read, or a line is too long to be one
    """
    try:
        while raw := source.readline(MAX_LINE + 1):
            if len(raw) > MAX_LINE:
                raise KshellError(f"{name}: a line of more than {MAX_LINE >> 20} MiB", hint="is it a file of commands?")
            yield raw
    except OSError as error:
        raise KshellError(f"cannot read {name}: {error.strerror}") from error
    finally:
        source.close()


def open_script(session: Session, path: str, words: Sequence[str | int] | None = None) -> Script:
    """Return the file *path* ready to be obeyed; inside another file its name starts at the folder of that file.

    A name without a ``/`` that is not there is looked for in the folders of ``::set -I``.

    :param words: its arguments, each an expression; None: it has none of its own
    :raises KshellError: it cannot be opened, or an argument has no value
    """
    outer = session.script
    found = os.path.join(outer.folder, path) if outer is not None and outer.folder else path
    values = None if words is None else script_arguments(session, words)
    try:
        source = _open(session, path, found)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise KshellError(f"failed to open {repr_name(found)}: {why}", hint="see ::help '$<'") from error
    found = source.name
    return Script(file_lines(source, found), found, folder=os.path.dirname(found) or ".", arguments=values)


def _open(session: Session, path: str, found: str) -> IO[bytes]:
    try:
        return open(found, "rb")
    except FileNotFoundError:
        from kshell.searchpath import find

        other = find(path, session.options.macro_path)
        if other is None:
            raise
        return open(other, "rb")


def script_arguments(session: Session, words: Sequence[str | int]) -> list[int]:
    """Return the values of a file's arguments.

    :raises KshellError: there are too many, or one is no expression
    """
    if len(words) > ARGUMENTS:
        raise KshellError(f"a file takes at most {ARGUMENTS} arguments, not {len(words)}")
    values: list[int] = []
    for number, word in enumerate(words, 1):
        try:
            values.append(word if isinstance(word, int) else session.evaluate(word))
        except KshellError as error:
            raise KshellError(f"argument {number} ({repr_name(str(word))}): {error}",
                              hint="arguments are expressions: numbers, symbols; 0t10 is ten") from error
    return values


def obey_file(
    session: Session, path: str, words: Sequence[str | int], *, returns: bool, piped: bool,
) -> Generator[Output, None, Status]:
    """Obey the file *path* (``$<<``, *returns*), or let it take the place of the file that runs (``$<``).

    :raises KshellError: it cannot be opened
    """
    script = open_script(session, path, words or None)
    outer = session.script
    if returns or piped or outer is None or outer.top:
        return (yield from obey_script(session, script))
    outer.over, outer.follow = True, script
    return Status.OK


def leave(session: Session) -> None:
    """Obey no more of the file that runs (``$<`` without a name).

    :raises UsageError: none does
    """
    if session.script is None or session.script.top:
        raise UsageError("input stack is empty", hint="$< alone leaves a file of commands; ::quit leaves kshell")
    session.script.over = True


def obey_script(
    session: Session, script: Script, *, stop_on_error: bool = False, logged: bool = False,
) -> Generator[Output, None, Status]:
    """Obey *script* and those that take its place; yield what they show and return the status of the last dcmd.

    Errors are reported with file and line. A statement with one is left out and the next one obeyed.

    :param stop_on_error: obey nothing behind the first thing that failed
    :raises KshellError: the file cannot be read
    :raises TooDeep: files and strings are obeyed in one another without end
    """
    outer, place = session.script, session.place
    status, followed, first = Status.OK, 0, script
    with nested(session), _Arguments(session) as arguments:
        try:
            current: Script | None = script
            while current is not None:
                session.script = current
                arguments.set(current.arguments)
                with closing(current.lines()) as lines:
                    status = yield from _lines(session, current, lines, stop_on_error, logged)
                first.bad |= current.bad
                if session.done or (stop_on_error and session.failed):
                    break
                current.follow, current = None, current.follow
                followed += 1
                if followed > MAX_FOLLOWED:
                    raise TooDeep(f"{MAX_FOLLOWED} files have taken each other's place: does $< ever end?")
        finally:
            session.script, session.place = outer, place
    return status


def _lines(
    session: Session, script: Script, lines: Iterator[str], stop_on_error: bool, logged: bool,
) -> Generator[Output, None, Status]:
    status = Status.OK
    for text in lines:
        if logged:
            session.log(f"> {text}\n")
        parser = Parser(text + "\n", check_dcmd(session))
        while True:
            session.place = f"{script.name}:{script.number}: "
            try:
                statement = parser.next_statement()
                if statement is None:
                    break
                status = yield from run_statement(session, statement, string=script.string)
            except TooDeep as error:
                if session.nesting > 1:
                    raise
                script.bad = True
                session.report(Warn(error), "")
            except KshellError as error:
                script.bad = session.failed = True
                if isinstance(error, ParseError):
                    parser.recover()
                elif isinstance(error, EvaluateError):  # its statement is read to the end
                    error = ParseError(str(error), text, error.start, error.end, hint=error.hint)
                session.report(Warn(error), "")
            yield Done()
            if session.done or script.over or (stop_on_error and session.failed):
                return status
    return status


class _Arguments:
    """The variables 1 to 8 as a file's arguments, and afterwards as they were."""

    def __init__(self, session: Session) -> None:
        self._variables = session.variables
        self._before: dict[str, int | None] | None = None

    def set(self, values: Sequence[int] | None) -> None:
        if values is None:
            return
        names = [str(number) for number in range(1, ARGUMENTS + 1)]
        if self._before is None:
            self._before = {name: self._variables.get(name) for name in names}
        for name, value in zip(names, [*values, *[0] * ARGUMENTS], strict=False):
            self._variables[name] = value

    def __enter__(self) -> _Arguments:
        return self

    def __exit__(self, *_error: object) -> None:
        for name, value in (self._before or {}).items():
            if value is not None:
                self._variables[name] = value
            elif name in self._variables:
                self._variables.unset(name)
