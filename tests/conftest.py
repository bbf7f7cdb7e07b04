"""What every test has: the guests' fixtures, and folders of its own for state and configuration."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

pytest_plugins = ["tests.guest.fixtures"]


# With it set what is not flushed in time comes in time all the same.
os.environ.pop("PYTHONUNBUFFERED", None)

# A shell that starts us in the background ignores SIGINT, and what we start would: tests interrupt commands with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-transcripts", action="store_true", help="write tests/commands/transcripts anew")


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's history, configuration and plugins out of the tests, and the tests out of them."""
    base = tmp_path_factory.mktemp("xdg")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STATE", "CONFIG", "DATA"):
            patch.setenv(f"XDG_{name}_HOME", str(base / name.lower()))
        patch.delenv("KSHELL_CACHE", raising=False)
        yield
