"""pytest fixtures: one standard guest each, built at the first use in a session and kept in the cache.

``KSHELL_GUEST=off`` skips every test that needs a guest. Otherwise one that cannot be had is a failure where
``CI=true``, and a skip with the reason elsewhere. Load with ``pytest_plugins = ["tests.guest.fixtures"]``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .build import boot, prepare
from .image import GuestImage
from .progress import RigError, RigUnavailable
from .qemu import RunningGuest
from .spec import GuestSpec, named_spec


def have(spec: GuestSpec) -> GuestImage:
    """Return a guest's image, or skip or fail the test that asked for it."""
    if os.environ.get("KSHELL_GUEST") == "off":
        pytest.skip("guests are switched off (KSHELL_GUEST=off)")
    try:
        return prepare(spec)
    except RigUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no guest {spec.name}: {error}", pytrace=False)
        pytest.skip(f"no guest {spec.name}: {error}")
    except RigError as error:  # the guest was started and did not do its work: never a reason to skip
        pytest.fail(f"guest {spec.name}: {error}", pytrace=False)


@contextmanager
def running(spec: GuestSpec) -> Iterator[RunningGuest]:
    """Give a running guest, or skip or fail the test that asked for it."""
    have(named_spec("6.1"))  # says why there can be none
    with boot(spec) as guest:
        yield guest


@pytest.fixture(scope="session")
def live_guest() -> Iterator[RunningGuest]:
    """A running guest: Linux 6.1 whose memory is a file, with a teller (live.c). One for all tests: leave it running.

    ``Oracle(guest.oracle_folder)`` is what it said when it was ready; what a test writes it should put back.
    """
    with running(named_spec("live")) as guest:
        yield guest


@pytest.fixture(scope="session", params=["inside", "inside-6.12"])
def guest_inside(request: pytest.FixtureRequest) -> GuestImage:
    """Linux 6.1 and 6.12 in which this kshell ran (inside.py); ``folder / "oracle/run"`` has what it said. No dumps."""
    return have(named_spec(str(request.param)))


@pytest.fixture(scope="session")
def guest_61() -> GuestImage:
    """Linux 6.1, 256 MiB, 4-level paging, KASLR, VMCOREINFO."""
    return have(named_spec("6.1"))


@pytest.fixture(scope="session")
def guest_612() -> GuestImage:
    """Linux 6.12, else as guest_61."""
    return have(named_spec("6.12"))


@pytest.fixture(scope="session")
def guest_510() -> GuestImage:
    """Linux 5.10 (Debian 11): no BTF, no ORC, and a VMCOREINFO that does not tell where kallsyms is."""
    return have(named_spec("5.10"))


@pytest.fixture(scope="session")
def guest_la57() -> GuestImage:
    """Linux 6.1 with 5-level paging."""
    return have(named_spec("la57"))


@pytest.fixture(scope="session")
def guest_nokaslr() -> GuestImage:
    """Linux 6.1 at its link addresses."""
    return have(named_spec("nokaslr"))


@pytest.fixture(scope="session")
def guest_novmcoreinfo() -> GuestImage:
    """Linux 6.1 whose dumps have no VMCOREINFO note."""
    return have(named_spec("novmcoreinfo"))


@pytest.fixture(scope="session")
def guest_kdump() -> GuestImage:
    """Linux 6.1 that panicked: a crash kernel's vmcore and makedumpfile's formats of it."""
    return have(named_spec("kdump"))


@pytest.fixture(scope="session")
def guest_kdump_612() -> GuestImage:
    """Linux 6.12, else as guest_kdump."""
    return have(named_spec("kdump-6.12"))


@pytest.fixture(scope="session")
def guest_null() -> GuestImage:
    """Linux 6.1 that panicked: a NULL dereference in the module disaster."""
    return have(named_spec("null"))


@pytest.fixture(scope="session")
def guest_abba() -> GuestImage:
    """Linux 6.12, frozen: two threads deadlocked on two mutexes, others waiting behind them."""
    return have(named_spec("abba"))


@pytest.fixture(scope="session")
def guest_leak() -> GuestImage:
    """Linux 6.1, frozen: 10,000 objects of the cache disaster_session leaked, 100 kept on a list."""
    return have(named_spec("leak"))


@pytest.fixture(scope="session")
def guest_overflow() -> GuestImage:
    """Linux 6.12 that panicked: a recursion ran into the guard page of its kernel stack."""
    return have(named_spec("overflow"))


@pytest.fixture(scope="session")
def guest_softlockup() -> GuestImage:
    """Linux 6.1 that panicked: a thread span with preemption off until the watchdog saw it."""
    return have(named_spec("softlockup"))


@pytest.fixture(scope="session", params=["6.1", "6.12"])
def guest(request: pytest.FixtureRequest) -> GuestImage:
    """Each kernel series in turn."""
    return have(named_spec(str(request.param)))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guest: needs a Linux guest's dump (built by tests/guest, slow the first time)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a guest, so that ``-m "not guest"`` leaves them out."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if any(name in ("guest", "live_guest") or name.startswith("guest_") for name in names):
            item.add_marker(pytest.mark.guest)
