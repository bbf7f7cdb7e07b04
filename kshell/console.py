"""Where a session's output and errors go: two streams, as text or as JSON.

Errors go to stderr, one line each and the next step below; the same text said again in one command is counted instead.
The console knows no terminal library: the interactive shell gives it a pager and a colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from kshell.errors import EvaluateError, KshellError, ParseError
from kshell.escape import escape
from kshell.output import Done, Flush, Note, Output, Warn
from kshell.render import JsonRenderer, Renderer, TextRenderer, dump_json, error_record

if TYPE_CHECKING:
    from kshell.session import Session
    from kshell.wrap import Wrapper


_LONGEST = 2000  # characters of a message
_SHOWN = 120  # characters of a line that an error points into


class Stream(Protocol):
    """Where text goes."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class Terminal(Stream, Protocol):
    """A stream that knows whether it is a terminal."""

    def isatty(self) -> bool: ...


class Console:
    """Writes what a session yields.

    :param json: one object a line on *out*, errors as objects on *err*
    :param quiet: no notes
    :param terminal: *out* is one: headers are underlined, free text is cut, prose and errors are folded
    """

    def __init__(
        self, session: Session, out: Stream, err: Terminal, *, json: bool = False, quiet: bool = False,
        terminal: bool = False,
    ) -> None:
        self.session, self.out = session, out
        self.err: Stream = err
        self.json, self.quiet = json, quiet
        self.renderer: Renderer = JsonRenderer() if json else TextRenderer(
            lambda: session.radix, terminal=terminal, width=self._columns)
        self._fold_errors = terminal and not json and err.isatty()
        #: the width of the prompt behind which the line stands on the terminal, None when it does not
        self.shown: int | None = None
        self._said: dict[str, int] = {}
        self._wrapper: Wrapper | None = None
        #: takes what tells of progress off the terminal, before anything else is written
        self.wipe: Callable[[], None] = lambda: None
        session.report = self.report

    def show(self, outputs: Iterator[Output]) -> None:
        """Write *outputs* as they come; the line is ended and everything flushed at the end, come what may."""
        try:
            for item in outputs:
                if type(item) is Flush or type(item) is Done:
                    self._write(self.renderer.finish())
                    self.out.flush()
                    if type(item) is Done:
                        self.end_command()
                    continue
                self._write(self.renderer.render(item))
        finally:
            self._write(self.renderer.finish())
            self.out.flush()
            self.end_command()

    def _write(self, pieces: Iterable[str]) -> None:
        for piece in pieces:
            self.wipe()
            self.shown = None
            if self.session.options.autowrap and not self.json:
                piece = self._wrapped(piece)
            self.out.write(piece)
            self.session.log(piece)

    def _columns(self) -> int:
        """Return the columns of the terminal, or of the page if the user has set them."""
        from shutil import get_terminal_size

        options = self.session.options
        return max(options.width if options.width_fixed else get_terminal_size().columns, 40)

    def _wrapped(self, piece: str) -> str:
        """Return *piece* with its lines broken at the page width (``::set -o autowrap``)."""
        if self._wrapper is None:
            from kshell.wrap import Wrapper

            self._wrapper = Wrapper()
        return self._wrapper.wrap(piece, self.session.options.width)

    # -- errors -------------------------------------------------------------------------------------------------------

    def report(self, item: Note | Warn, where: str = "") -> None:
        """Write a note or a warning at once, behind what was written before it."""
        if isinstance(item, Note):
            if not self.quiet:
                self._say(dump_json({"note": escape(item.text)}) if self.json else escape(item.text, "\n\t") + "\n")
            return
        self.error(item.problem, where)

    def error(self, problem: KshellError | str, where: str = "") -> None:
        """Write an error: ``kshell: ::dcmd: text``, and the next step on a line of its own.

        A syntax error shows the line that has it, with a caret; in a script its file and line stand in front.
        """
        text = str(problem)
        key = f"{where}: {text}" if where else text
        if len(key) > _LONGEST:
            key = key[:_LONGEST] + " ..."
        place = self.session.place
        self._said[place + key] = self._said.get(place + key, 0) + 1
        if self._said[place + key] > 1:
            return
        if isinstance(problem, ParseError) and not problem.hint:
            problem.hint = _foreign(problem)
        if self.json:
            self._say(dump_json(error_record(problem, where, place)))
            return
        if isinstance(problem, ParseError):
            self._point(problem.text, problem.start, problem.end)
        lines = [place + "kshell: " + escape(key, "\n\t")]
        if isinstance(problem, KshellError) and problem.hint:
            lines += ["        " + line for line in escape(problem.hint, "\n\t").split("\n")]
        message = "\n".join(lines) + "\n"
        if self._fold_errors:
            from kshell.wrap import fold

            message = fold(message, self._columns())
        self._say(message)

    def parse_error(self, error: KshellError, text: str) -> None:
        """Write an error that has a place in *text*, with a caret under it; the line is said again if need be."""
        if isinstance(error, EvaluateError):
            error = ParseError(str(error), text, error.start, error.end, hint=error.hint)
        self.error(error)

    def _point(self, text: str, start: int, end: int) -> None:
        """Show the line of ``text[start:end]``, or of a long one the part around it, with a caret under the place."""
        if end <= start:
            return
        head = text.rfind("\n", 0, start) + 1
        tail = text.find("\n", start)
        tail = len(text) if tail < 0 else tail
        if self.shown is not None and head == 0 and tail == len(text) and tail < _SHOWN:
            self._say(" " * (self.shown + start) + "^" * max(1, min(end, tail) - start) + "\n")
            return
        before = after = ""
        if tail - head > _SHOWN:
            if start - head > _SHOWN // 2:
                head, before = start - _SHOWN // 2, "..."
            if tail - head > _SHOWN:
                tail, after = head + _SHOWN, "..."
        left = escape(text[head:start], chr(9))
        line = before + left + escape(text[start:tail], chr(9)) + after
        indent = "".join(char if char == "\t" else " " for char in before + left)
        marks = max(1, len(escape(text[start : min(end, tail)], chr(9))))
        self._say(f"  {line}\n  {indent}{'^' * marks}\n")

    def end_command(self) -> None:
        """Say how often errors came again, and forget them."""
        for key, times in self._said.items():
            if times > 1:
                self._say(f"kshell: {escape(key)}: and {times - 1} more like it\n" if not self.json else
                          dump_json({"error": escape(key), "repeated": times - 1}))
        self._said.clear()

    def _say(self, text: str) -> None:
        self._write(self.renderer.end_line())
        self.out.flush()
        self.wipe()
        self.err.write(text)
        self.err.flush()
        self.session.log(text)


def _foreign(error: ParseError) -> str | None:
    """Return what to type here, if the line of *error* is a command of crash, gdb or drgn."""
    from kshell.foreign import hint_for

    head = max(error.text.rfind(mark, 0, error.start) for mark in "\n;") + 1
    return hint_for(error.text[head : head + _SHOWN])
