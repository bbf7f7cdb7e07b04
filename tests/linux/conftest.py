"""Targets on the real kernels of the guest rig, one open for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
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
    target: Target
    oracle: Oracle


@pytest.fixture(scope="session", params=["6.1", "6.12", "la57", "nokaslr"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """Each standard guest in turn."""
    name = str(request.param)
    image = have(named_spec(name))
    with open_target(str(image.elf)) as target:
        yield Guest(name, image, target, image.oracle)
