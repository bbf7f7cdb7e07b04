"""The fixtures of the contract's tests: a lab (labs.py), handles on it, a child process.

The guests come from ``pytest_plugins = ["tests.guest.fixtures"]`` in each test module.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.kvm import Kvm
from tests.kvm.labs import Child, Lab, child_process, lab_e, lab_m

_labs: dict[str, Lab] = {}


@pytest.fixture(params=["M", *(pytest.param(name, marks=pytest.mark.guest) for name in ("6.1", "6.12"))])
def lab(request: pytest.FixtureRequest) -> Lab:
    """Each of M, and the dumps of two kernels."""
    if request.param == "M":
        return lab_m()
    if request.param not in _labs:
        guest = request.getfixturevalue("guest_61" if request.param == "6.1" else "guest_612")
        _labs[request.param] = lab_e(guest)
    return _labs[request.param]


@pytest.fixture
def kd(lab: Lab) -> Iterator[Kvm]:
    """A read-only handle on the lab."""
    with lab.open("r") as handle:
        yield handle


@pytest.fixture
def writable(lab: Lab) -> Iterator[Kvm]:
    """A handle on the lab that takes writes."""
    with lab.open(lab.write_mode) as handle:
        yield handle


@pytest.fixture
def child() -> Iterator[Child]:
    with child_process() as found:
        yield found
