"""``::watch``: a command obeyed again and again, with what changed marked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import Call, Decimal, Option, Output, Session, UsageError, Word, dcmd, watching

LEAST = 0.05


@dcmd("watch", group="Language")
def watch(
    session: Session, call: Call, every: Annotated[str | None, Option("-n", "seconds", "between rounds; 2 without")],
    count: Annotated[Decimal | None, Option("-c", "count", "how many rounds, in decimal; until Ctrl-C without")],
    words: Annotated[list[str], Word("command", "a command line; quote one that has pipes or blanks to keep")],
) -> Iterator[Output]:
    """Obey a command again and again, and mark what changed.

    On a terminal the rounds take turns on one screen, with what differs from the round before in reverse; the last one
    stays. Elsewhere they follow each other, and lines that are new or changed begin with *. Each round is a question of
    its own: a machine opened with --pause runs in between.

    Examples:
      ::watch '::ps | ::print comm utime'
      ::watch -n 0.5 -c 10 jiffies/J
    """
    try:
        seconds = float(every) if every is not None else 2.0
    except ValueError:
        raise UsageError(f"-n {every}: a number of seconds") from None
    if not LEAST <= seconds <= 86400:
        raise UsageError(f"-n {every}: {LEAST} to 86400 seconds")
    if not words:
        raise UsageError("which command?")
    if call.piped or call.pipe_out:
        raise UsageError("it stands alone: its command may have pipes, in quotes")
    yield from watching.watch(session, " ".join(words), seconds, count)
