"""Ask a target a line of commands, and have the text or the objects of the answer."""

from __future__ import annotations

import io
import json
from typing import Any

from kshell.builtin import make_registry
from kshell.console import Console
from kshell.session import Session
from kshell.shell.scripted import run_text
from kshell.target.target import Target


def ask(target: Target, line: str, *, json_lines: bool = False, terminal: bool = False) -> str:
    """Return what *line* writes to standard output; what it complains about follows it."""
    session = Session(target, make_registry(lambda _: None, plugins=False))
    stream, errors = io.StringIO(), io.StringIO()
    console = Console(session, stream, errors, json=json_lines, terminal=terminal)
    run_text(session, console, line, string=False, recover=False)
    return stream.getvalue() + errors.getvalue()


def objects(target: Target, line: str) -> list[dict[str, Any]]:
    """Return the objects that *line* writes with ``--json``."""
    return [json.loads(one) for one in ask(target, line, json_lines=True).splitlines()]
