"""The prompt: editing, history, completion, colours, a status line, interrupts. Needs prompt_toolkit and pygments."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, ThreadedCompleter, get_common_complete_suffix
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from kshell.bugs import keep_trace, state_dir
from kshell.console import Console
from kshell.errors import KshellError, ParseError
from kshell.lang.complete import context_at
from kshell.lang.parser import Parser
from kshell.pipeline import check_dcmd
from kshell.session import Session
from kshell.shell.banner import banner as banner_lines
from kshell.shell.completion import KshellCompleter, current_parameter
from kshell.shell.highlight import STYLE, KshellLexer
from kshell.shell.pager import PagedOutput, PagerQuit, may_page
from kshell.shell.scripted import run_text

_TOOLBAR_COLUMNS = 60
#: what other shells have taught, alone on a line
_WORDS = {"?": "::help", "help": "::help", "exit": "::quit", "quit": "::quit"}


def run_interactive(session: Session, console: Console, *, banner: bool = True) -> int:
    """Read commands from the terminal until the end; return the exit status."""
    session.interactive = True
    session.direct_output = True
    if banner and not console.json:
        for line in banner_lines(session, shutil.get_terminal_size().columns):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    prompt = _make_prompt(session)
    while not session.done:
        try:
            text = prompt.prompt(lambda: _prompt_text(session))
        except KeyboardInterrupt:
            continue
        except EOFError:
            if session.options.ignoreeof:
                console.error("use ::quit to leave")
                console.end_command()
                continue
            break
        session.log(_plain_prompt(session) + text + "\n")
        _obey(session, console, _WORDS.get(text.strip(), text))
    return 0


def _obey(session: Session, console: Console, text: str) -> None:
    paged = PagedOutput(sys.stdout, sys.stderr, enabled=session.options.pager and may_page())
    console.out, console.err = paged, paged.errors_stream
    console.shown = len(_plain_prompt(session)) if "\n" not in text else None
    if not session.options.width_fixed:
        session.options.width = max(shutil.get_terminal_size().columns, 40)
    try:
        run_text(session, console, text, string=False, recover=False)
    except PagerQuit:
        pass
    except KeyboardInterrupt:
        console.error("stopped")
    except BrokenPipeError:
        pass
    except Exception as error:
        console.error(keep_trace(error, "kshell"))
    finally:
        console.shown = None
        console.end_command()
        paged.finish()
        console.out, console.err = sys.stdout, sys.stderr


# -- the prompt -------------------------------------------------------------------------------------------------------


def _make_prompt(session: Session) -> PromptSession[str]:
    completer = KshellCompleter(session)
    lexer = type("_Lexer", (KshellLexer,), {"known": staticmethod(session.registry.has_dcmd)})
    wide = os.environ.get("TERM") != "dumb"
    return PromptSession(
        history=_history(), completer=ThreadedCompleter(completer), lexer=PygmentsLexer(lexer),
        style=Style.from_dict(STYLE), bottom_toolbar=_toolbar(session) if wide else None, complete_while_typing=True,
        color_depth=ColorDepth.DEPTH_4_BIT, enable_suspend=True, reserve_space_for_menu=6,
        include_default_pygments_style=False, key_bindings=_keys(completer))


def _keys(completer: KshellCompleter) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("tab")
    def _complete(event: KeyPressEvent) -> None:
        """Insert what all offers have in common; when there is nothing to insert, open the list, then go through it."""
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.complete_index is not None:
            buffer.complete_next()
            return
        document = buffer.document
        asked = CompleteEvent(completion_requested=True)
        offers = list(islice(completer.get_completions(document, asked), 1000))
        before = document.text_before_cursor
        exact = [offer for offer in offers if offer.text.startswith(before[len(before) + offer.start_position :])]
        common = get_common_complete_suffix(document, exact)
        if len(offers) == 1:
            buffer.apply_completion(offers[0])
        elif common:
            buffer.insert_text(common)
        elif offers:
            if buffer.complete_state is None:
                buffer.start_completion(select_first=False)
            else:
                buffer.complete_next()

    return keys


def _plain_prompt(session: Session) -> str:
    if session.options.prompt != "> ":
        return session.options.prompt
    mark = "! " if session.writable else "> "
    head = _stands_at(session)
    if session.context is not None:
        return f"{head}pid {session.context.pid}{mark}"
    if head:
        return head.rstrip() + mark
    return ("live" if session.has_target and session.target.live else "") + mark


def _stands_at(session: Session) -> str:
    """Return ``[1] ``, as kmdb has it, where a machine (a process: its thread) stands until it is let go; else ""."""
    control = session.target.control if session.has_target else None
    try:
        shown = control is not None and (control.can_debug or session.target.kind == "process")
        return f"[{control.cpu}] " if control is not None and shown and control.stays else ""
    except KshellError:  # it is gone, and the next command says so
        return ""


def _prompt_text(session: Session) -> StyleAndTextTuples:
    text = _plain_prompt(session)
    return [("class:prompt.write" if text.endswith("! ") else "", text)]


class _History(FileHistory):
    """Does not save lines that begin with a blank, nor the same line twice in a row."""

    def append_string(self, string: str) -> None:
        last = self._loaded_strings[0] if self._loaded_strings else None
        if string.strip() and not string.startswith(" ") and string != last:
            super().append_string(string)

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except OSError:
            return  # a full disk costs the history, not the session


def _history() -> History:
    """Return the user's history, readable by nobody else; one in memory where no file may be written."""
    folder = state_dir()
    if folder is None:
        return InMemoryHistory()
    path: Path = folder / "history"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return _History(str(path))


# -- the line at the bottom -------------------------------------------------------------------------------------------


def _toolbar(session: Session) -> Callable[[], StyleAndTextTuples | None]:
    from prompt_toolkit.application import get_app

    check = check_dcmd(session)

    def line() -> StyleAndTextTuples | None:
        if shutil.get_terminal_size().columns < _TOOLBAR_COLUMNS:
            return None
        buffer = get_app().current_buffer
        text = buffer.text
        head = f" .={session.dot:x}" + (f"  radix 0t{session.radix}" if session.radix != 16 else "")
        parts: StyleAndTextTuples = [("", head + "   ")]
        wrong = _error_before_end(text, check)
        if wrong:
            return [*parts, ("class:bottom-toolbar.error", wrong)]
        return parts + _signature(session, text, buffer.cursor_position)

    return line


def _error_before_end(text: str, check: Callable[[str], str | None]) -> str:
    """Return what is wrong with a line that is still being typed; errors at its end may yet be typed away."""
    try:
        for _ in Parser(text, check):
            pass
    except ParseError as error:
        if error.end < len(text.rstrip()):
            return str(error)
    return ""


def _signature(session: Session, text: str, cursor: int) -> StyleAndTextTuples:
    """Return the usage of the dcmd under the cursor, the current argument in bold."""
    context = context_at(text, cursor)
    if not context.name or not session.registry.has_dcmd(context.name):
        return []
    try:
        dcmd = session.registry.find_dcmd(context.name)
        usage = dcmd.usage
    except (KshellError, ImportError):
        return []
    parameter = current_parameter(dcmd, context.before)[0] if context.blank_at_end or context.word else None
    words = usage.split(" ")
    bold = parameter.metavar if parameter is not None else ""
    return [("class:bottom-toolbar.now" if bold and bold in word else "", word + " ") for word in words]
