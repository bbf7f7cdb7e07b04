"""C programs compiled for tests, with debugging data of every form that compilers write."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_folder: list[tempfile.TemporaryDirectory[str]] = []


def compiler() -> str:
    """Return a C compiler, or skip the test that asks; a failure where ``scripts/test`` could have installed one."""
    for name in ("gcc", "cc", "clang"):
        found = shutil.which(name)
        if found:
            return found
    why = "no C compiler on this machine; on Debian or Ubuntu: apt-get install gcc libc6-dev"
    if os.environ.get("CI") == "true" and os.geteuid() == 0 and shutil.which("apt-get"):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@functools.cache
def compiled(*flags: str, name: str = "rec", sources: tuple[str, ...] = ("rec.c", "other.c")) -> Path:
    """Return a program (or, with ``-c``, an object file) made of *sources*; once per run of the tests."""
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory(prefix="kshell-programs-"))
    place = Path(_folder[0].name) / f"{len(os.listdir(_folder[0].name))}"
    place.mkdir()
    output = place / name
    files = [str(HERE / source) for source in (sources[:1] if "-c" in flags else sources)]
    done = subprocess.run([compiler(), *flags, "-o", str(output), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output
