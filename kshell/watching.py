"""A command obeyed again and again, and what changed from one time to the next: what ``::watch`` stands on.

Each round is a question of its own, so that a target which moves moves in between. On a terminal the rounds take turns
on one screen; elsewhere they follow each other.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.output import Block, Flush, Output, Text
from kshell.render import TextRenderer

if TYPE_CHECKING:
    from kshell.session import Session

MOST_LINES = 10_000
_WORD = re.compile(r"\S+|\s+")
_ON, _OFF = "\x1b[7m", "\x1b[27m"
_ENTER, _LEAVE, _HOME, _REST, _BELOW = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[K", "\x1b[J"


class Piece(NamedTuple):
    """A part of a line, and whether it is new or different."""

    text: str
    changed: bool


def obeyed(session: Session, command: str) -> list[str]:
    """Obey *command* and return the lines it shows; an error that ends it is the last one."""
    renderer = TextRenderer(lambda: session.radix)
    parts: list[str] = []
    kept, session.direct_output = session.direct_output, False
    try:
        for item in session.eval(command):
            if not isinstance(item, Flush):
                parts += renderer.render(item)
            if len(parts) > MOST_LINES:
                parts.append("...\n")
                break
        parts += renderer.finish()
    except KshellError as error:
        parts += [*renderer.finish(), f"kshell: {error}\n"]
    finally:
        session.direct_output = kept
    return "".join(parts).splitlines()


def compare(before: list[str] | None, now: list[str]) -> list[list[Piece]]:
    """Return the lines of *now* in pieces that tell what was not so *before*; without a before nothing is marked.

    A line that was there is not marked wherever it stands now. Of another one the words are marked that differ from
    those of the line whose first word, or place, it has.
    """
    if before is None:
        return [[Piece(line, False)] for line in now]
    known = set(before)
    by_word = {line.split(None, 1)[0]: line for line in reversed(before) if line.strip()}
    return [[Piece(line, False)] if line in known or not line.strip() else
            _words(by_word.get(line.split(None, 1)[0]) or (before[place] if place < len(before) else ""), line)
            for place, line in enumerate(now)]


def _words(before: str, now: str) -> list[Piece]:
    old, new = _WORD.findall(before), _WORD.findall(now)
    if len(old) != len(new):
        return [Piece(now, True)]
    return [Piece(word, word != was and not word.isspace()) for was, word in zip(old, new, strict=True)]


def watch(session: Session, command: str, seconds: float, count: int | None) -> Iterator[Output]:
    """Obey *command* *count* times (None: until interrupted), *seconds* apart, and yield or draw what it shows."""
    screen = session.screen if session.direct_output else None
    before: list[str] | None = None
    number = 0
    try:
        if screen is not None:
            yield Flush()
            screen(_ENTER)
        while count is None or number < count:
            if number:
                time.sleep(seconds)
            number += 1
            lines = obeyed(session, command)
            marked = compare(before, lines)
            before = lines
            head = f"{time.strftime('%H:%M:%S')}  round {number}, every {seconds:g} s: {command}"
            if screen is not None:
                screen(_drawn(head, marked))
            else:
                yield Text(head)
                yield Block("".join(_plain(line) + "\n" for line in marked) + "\n")
                yield Flush()
    except KeyboardInterrupt:
        if screen is None:
            raise
    finally:
        if screen is not None:
            screen(_LEAVE)
    if screen is not None and before is not None:
        yield Block("".join(line + "\n" for line in before))


def _plain(line: list[Piece]) -> str:
    mark = "* " if any(piece.changed for piece in line) else "  "
    return (mark + "".join(piece.text for piece in line)).rstrip()


def _drawn(head: str, lines: list[list[Piece]]) -> str:
    width, height = shutil.get_terminal_size()
    shown = [head[:width] + _REST, _REST]
    for line in lines[: max(height - 3, 1)]:
        room, text = width, ""
        for piece in line:
            part = piece.text.expandtabs()[:room]
            room -= len(part)
            text += f"{_ON}{part}{_OFF}" if piece.changed else part
        shown.append(text + _REST)
    more = len(lines) - max(height - 3, 1)
    if more > 0:
        shown.append(f"... {more} lines more" + _REST)
    return _HOME + "\r\n".join(shown) + _BELOW
