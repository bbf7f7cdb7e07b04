"""kshell as a program of its own: what it prints, and its rows of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def kshell(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Return the run of kshell with *words*, which ends with *status* and without a traceback."""
    done = subprocess.run([sys.executable, "-m", "kshell", "-q", *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def rows(*words: str) -> list[dict[str, Any]]:
    """Return the objects that kshell prints with *words*."""
    return [json.loads(line) for line in kshell("--json", *words).stdout.splitlines()]


def commands(*lines: str) -> list[str]:
    """Return the options that have *lines* obeyed."""
    return [word for line in lines for word in ("-e", line)]
