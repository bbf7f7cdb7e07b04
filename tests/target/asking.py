"""A session on an opened target, for tests of what the shell says."""

from __future__ import annotations

from pathlib import Path

from kshell.target.open import open_target
from tests.conformance.run import Machine, Said


def ask(path: Path | str, text: str, beside: Path | None = None, mode: str = "r", *, json: bool = False) -> Said:
    """Open *path*, obey *text* and return what was said."""
    machine = Machine(target=False, json=json)
    with open_target(str(path), None if beside is None else str(beside), mode) as target:
        machine.session.attach(target)
        return machine.run(text)
