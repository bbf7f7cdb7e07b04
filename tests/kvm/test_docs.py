"""The examples in docs/kvm.md do what they show."""

from __future__ import annotations

import doctest
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.guest.image import GuestImage
from tests.guest.qemu import RunningGuest

pytest_plugins = ["tests.guest.fixtures"]
GUIDE = Path(__file__).parents[2] / "docs" / "kvm.md"


def run_examples(heading: str, places: Mapping[str, str] | None = None) -> None:
    """Run the examples of one section of the guide, with other paths for some in it."""
    text = GUIDE.read_text()
    start = text.index(f"\n## {heading}\n")
    section = text[start : text.index("\n## ", start + 4)]
    for place, other in (places or {}).items():
        section = section.replace(place, other)
    test = doctest.DocTestParser().get_doctest(section, {}, heading, str(GUIDE), text[:start].count("\n"))
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(test, out=report.append)
    assert result.attempted >= 4
    assert result.failed == 0, "".join(report)


def test_the_running_system() -> None:
    run_examples("The running system")


def test_a_dump(guest_61: GuestImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vmcore").symlink_to(guest_61.elf)
    monkeypatch.chdir(tmp_path)
    run_examples("A dump")


def test_a_virtual_machine(live_guest: RunningGuest) -> None:
    run_examples("A virtual machine", {
        "/run/vm.qmp": str(live_guest.qmp_socket), "/run/vm.gdb": str(live_guest.gdb_socket),
        "/dev/shm/vm": str(live_guest.memory_file)})
