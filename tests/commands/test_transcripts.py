"""Transcripts: command lines, each with its exact output below it. ``pytest --update-transcripts`` writes them anew.

A file begins with ``# target: NAME`` (a guest of the rig, or ``none``) and perhaps ``# mode: c``, ``# json: yes``. What
differs from boot to boot is masked, with as many characters as it had: addresses of the kernel and of mappings that are
placed at random become ``K``, what ``# mask: REGEX`` matches ``N``.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from kshell.builtin import make_registry
from kshell.console import Console
from kshell.session import Session
from kshell.shell.scripted import run_text
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.fixtures import have
from tests.guest.spec import named_spec

FOLDER = Path(__file__).parent / "transcripts"
#: dcmds and walkers that no transcript can have: they need a target that runs, or stop this process; who tests them
ELSEWHERE: dict[str, str] = dict.fromkeys(
    ("bp", "cont", "delete", "events", "evset", "next", "step", "wp"), "tests/target/test_breakpoints.py")
ADDRESSES = re.compile(r"(?<![0-9a-f])(?:ff[0-9a-f]{14}|(?:0000)?7f[0-9a-f]{10})(?![0-9a-f])")


def masked(text: str, more: str | None) -> str:
    text = ADDRESSES.sub(lambda match: "K" * len(match[0]), text)
    if more is not None:
        text = re.sub(more, lambda match: "N" * len(match[0]), text)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def play(text: str) -> str:
    """Return the transcript *text* with the output that its commands have now."""
    facts = dict(re.findall(r"(?m)^# (\w+): (\S+)", text))
    target: Target | None = None
    if facts["target"] != "none":
        target = open_target(str(have(named_spec(facts["target"])).elf), mode=facts.get("mode", "r"))
    session = Session(target, make_registry(lambda _: None, plugins=False))
    stream = io.StringIO()
    console = Console(session, stream, stream, json="json" in facts)
    played: list[str] = []
    try:
        for line in text.splitlines():
            if line.startswith("#") or (not line and not any(part.startswith("> ") for part in played)):
                played.append(line + "\n")
            elif line.startswith("> "):
                played.append(line + "\n")
                run_text(session, console, line[2:], string=False, recover=False)
                played.append(masked(stream.getvalue(), facts.get("mask")))
                stream.seek(0)
                stream.truncate()
    finally:
        session.close()
    return "".join(played)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    played = play(text)
    if request.config.getoption("--update-transcripts"):
        path.write_text(played)
        return
    assert played == text


def test_every_dcmd_and_walker_is_in_a_transcript() -> None:
    registry = make_registry(pytest.fail, plugins=False)
    lines = "\n".join(
        line[2:] for path in FOLDER.glob("*.txt") for line in path.read_text().splitlines() if line.startswith("> "))
    called = {word.removeprefix("::") for word in re.findall(r"\$<<|[$:][A-Za-z%<>?]|::\w+", lines)}
    walked = set(re.findall(r"::walk (\w+)", lines))
    dcmds = {entry.name for entry in registry.dcmds() if not entry.alias}
    walkers = {entry.name for entry in registry.walkers()}
    missing = {*(dcmds - called), *(walkers - walked)} - set(ELSEWHERE)
    assert not missing, f"in no transcript: {', '.join(sorted(missing))}"
    assert set(ELSEWHERE) <= dcmds | walkers - called, "an exemption that is not needed"
