"""Targets on the rig's real kernels, opened once for all tests of this folder.

The disk cache is a folder of this test run: the first guest of each kernel is read cold, those with another KASLR
offset or other page tables find the first one's names in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.oracle import Oracle
from tests.guest.spec import named_spec


class Guest(NamedTuple):
    """A guest's dump, opened, and what the guest itself said."""

    name: str
    image: GuestImage
    path: Path
    target: Target
    oracle: Oracle


@pytest.fixture(scope="session")
def index_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An index cache for the session, empty at its start."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    guests = os.environ.get("KSHELL_GUEST_CACHE")
    with pytest.MonkeyPatch.context() as patch:
        base = Path(before) if before else Path.home() / ".cache"
        patch.setenv("KSHELL_GUEST_CACHE", guests or str(base / "kshell" / "guests"))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", params=["6.1", "6.12", "la57", "nokaslr", "kdump"])
def guest(request: pytest.FixtureRequest, index_cache: Path) -> Iterator[Guest]:
    """Each standard guest in turn; "kdump" is the crash kernel's /proc/vmcore."""
    name = str(request.param)
    image = have(named_spec(name))
    path = image.vmcore if name == "kdump" else image.elf
    with open_target(str(path)) as target:
        yield Guest(name, image, path, target, image.oracle)
