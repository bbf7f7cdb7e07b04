"""What is said at the start: what was opened, what is known of it, what to type next. At most eight lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from textwrap import wrap
from typing import TYPE_CHECKING

import kshell
from kshell.escape import escape

if TYPE_CHECKING:
    from kshell.session import Session

LINES = 8
_FACTS = ("kernel", "symbols", "types", "missing")
_MODES = {"r+": "  -w: writes go into it", "c": "  --cow: writes go to a private copy"}


def banner(session: Session, width: int = 80) -> Iterator[str]:
    """Yield the lines of the banner. Nothing is looked for only to be told here."""
    if not session.has_target:
        yield f"kshell {kshell.__version__}  no target: a calculator"
        yield " next     2+3=X   0t100=X   ::formats   ::help lists all"
        return
    target = session.target
    name = "" if target.live else escape(PurePath(target.path).name) + "  "
    yield f"kshell {kshell.__version__}  {name}{escape(target.description)}{_MODES.get(target.mode, '')}"
    left = LINES - 2
    for fact in _FACTS:
        text = target.findings.get(fact)
        if not text or not left:
            continue
        lines = wrap(escape(text), max(width - 10, 30), max_lines=min(left, 3), placeholder=" …")
        for number, line in enumerate(lines):
            yield f" {'' if number else fact:<8} {line}"
        left -= len(lines)
    if target.kind != "kernel":
        yield " next     ::objects   ::mappings   ::status   main::dis   ::help lists all"
        return
    yield " next     ::ps   ::status   ::msgbuf   ::getu PID   ::help lists all"
