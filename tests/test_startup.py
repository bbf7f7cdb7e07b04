"""What starting may import: a question on the command line must not wait for libraries it does not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.guest.image import GuestImage

HEAVY = {
    "prompt_toolkit", "asyncio", "pygments", "elftools", "capstone", "numpy", "importlib.metadata", "rich", "ssl",
    "subprocess", "json", "tempfile", "ctypes", "cramjam", "zstandard", "deflate", "socket", "multiprocessing",
}


def modules(*arguments: str) -> list[str]:
    """Return the names in sys.modules after ``kshell`` has run with *arguments*."""
    code = (
        "import sys, kshell.__main__ as main\n"
        f"status = main.cli.main({list(arguments)!r}, standalone_mode=False)\n"
        "sys.stderr.write('\\n'.join(sorted(sys.modules)))\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    return done.stderr.split("\n")


@pytest.fixture(scope="module")
def click_alone() -> set[str]:
    """What a Python with click has loaded."""
    code = "import sys, click; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("arguments", [("-n", "-e", "1=X"), ("-n", "-e", "::dcmds"), ("-n", "-e", "::nosuch")])
def test_batch(arguments: tuple[str, ...], click_alone: set[str]) -> None:
    more = {name for name in modules(*arguments) if name.replace(".", "").replace("_", "").isalnum()} - click_alone
    assert not HEAVY & more
    ours = {name for name in more if name.partition(".")[0] == "kshell"}
    assert len(ours) <= 50, ours
    assert len(more - ours) <= 18, more - ours  # pathlib and difflib with what they need: differs from Python to Python


def test_a_question_to_a_compressed_dump_starts_no_processes(guest_61: GuestImage) -> None:
    loaded = set(modules(str(guest_61.kdump_flat), "-e", "::ps"))
    assert "kshell.memory.kdump" in loaded
    assert not loaded & (HEAVY - {"deflate"} | {"kshell.memory.crew", "kshell.memory.threads", "dataclasses"})
    assert not loaded & {"kshell.linux.whatis", "kshell.linux.mm", "kshell.unwind.model"}


def test_only_needed_dcmds_are_imported() -> None:
    bodies = [name for name in modules("-n", "-e", "1=X") if name.startswith(("kshell.commands.", "kshell.plugins."))]
    assert sorted(bodies) == ["kshell.commands._index", "kshell.plugins._index"]


def test_version_imports_click_only() -> None:
    code = ("import sys, kshell.__main__ as main\n"
            "try:\n    main.cli.main(['--version'], standalone_mode=False)\n"
            "finally:\n    print(*sorted(m for m in sys.modules if m.startswith('kshell')))\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    version, names = done.stdout.splitlines()
    assert version.startswith("kshell 0")
    assert names == "kshell kshell.__main__"


def test_interactive_modules() -> None:
    code = "import sys, kshell.shell.interactive; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    found = done.stdout.split()
    assert not {"elftools", "capstone", "numpy", "importlib.metadata", "rich", "textual"} & set(found)
    assert not [name for name in found if name.startswith("kshell.commands.")]
