"""Where a session's output and errors go: two streams, as text or as JSON.

Errors go to stderr, one line each and the next step below; the same text said again in one command is counted instead.
The console knows no terminal library: the interactive shell gives it a pager and a colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from kshell.errors import EvaluateError, KshellError, ParseError
from kshell.escape import escape
from kshell.output import Flush, Note, Output, Warn
from kshell.render import JsonRenderer, Renderer, TextRenderer, dump_json, error_record

if TYPE_CHECKING:
    from kshell.session import Session


class Stream(Protocol):
    """Where text goes."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class Console:
    """Writes what a session yields.

    :param json: one object a line on *out*, errors as objects on *err*
    :param quiet: no notes
    :param terminal: *out* is one: headers are underlined, free text is cut
    """

    def __init__(
        self, session: Session, out: Stream, err: Stream, *, json: bool = False, quiet: bool = False,
        terminal: bool = False,
    ) -> None:
        self.session, self.out, self.err = session, out, err
        self.json, self.quiet = json, quiet
        self.renderer: Renderer = JsonRenderer() if json else TextRenderer(lambda: session.radix, terminal=terminal)
        self.place = ""
        #: the width of the prompt behind which the line stands on the terminal, None when it does not
        self.shown: int | None = None
        self._said: dict[str, int] = {}
        session.report = self.report

    def show(self, outputs: Iterator[Output]) -> None:
        """Write *outputs* as they come; the line is ended and everything flushed at the end, come what may."""
        try:
            for item in outputs:
                if type(item) is Flush:
                    self._write(self.renderer.finish())
                    self.out.flush()
                    continue
                self._write(self.renderer.render(item))
        finally:
            self._write(self.renderer.finish())
            self.out.flush()
            self.end_command()

    def _write(self, pieces: Iterable[str]) -> None:
        for piece in pieces:
            self.shown = None
            self.out.write(piece)
            self.session.log(piece)

    # -- errors -------------------------------------------------------------------------------------------------------

    def report(self, item: Note | Warn, where: str = "") -> None:
        """Write a note or a warning at once, behind what was written before it."""
        if isinstance(item, Note):
            if not self.quiet:
                self._say(dump_json({"note": escape(item.text)}) if self.json else escape(item.text, "\n\t") + "\n")
            return
        self.error(item.problem, where)

    def error(self, problem: KshellError | str, where: str = "") -> None:
        """Write an error: ``kshell: ::dcmd: text``, and the next step on a line of its own."""
        text = str(problem)
        key = f"{where}: {text}" if where else text
        self._said[key] = self._said.get(key, 0) + 1
        if self._said[key] > 1:
            return
        if self.json:
            self._say(dump_json(error_record(problem, where)))
            return
        lines = [self.place + "kshell: " + escape(key, "\n\t")]
        if isinstance(problem, KshellError) and problem.hint:
            lines += ["        " + line for line in escape(problem.hint, "\n\t").split("\n")]
        self._say("\n".join(lines) + "\n")

    def parse_error(self, error: KshellError, text: str) -> None:
        """Write an error that has a place in *text*, with a caret under it; the line is said again if need be."""
        start, end = getattr(error, "start", 0), getattr(error, "end", 0)
        if isinstance(error, ParseError):
            text = error.text
        if self.json or not isinstance(error, ParseError | EvaluateError) or end <= start:
            self.error(error)
            return
        head = text.rfind("\n", 0, start) + 1
        line = text[head:].partition("\n")[0]
        width = max(1, min(end - head, len(line)) - (start - head))
        if self.shown is not None and text == line:
            self._say(" " * (self.shown + start) + "^" * width + "\n")
        else:
            self._say(f"  {escape(line, chr(9))}\n  {' ' * (start - head)}{'^' * width}\n")
        self.error(error)

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
        self.err.write(text)
        self.err.flush()
        self.session.log(text)
