"""What ``::status`` can tell of the disk cache: why it was not used, and nothing when it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from kshell.target.open import open_target
from tests.guest.image import GuestImage


def test_a_cache_that_is_off_is_told(guest_61: GuestImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHELL_CACHE", "off")
    with open_target(str(guest_61.elf)) as target:
        assert target.symbol("init_task").address
        assert "off" in target.findings["cache"]


def test_a_cache_that_works_is_not_worth_a_word(
    guest_61: GuestImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with open_target(str(guest_61.elf)) as target:
        assert target.symbol("init_task").address
        assert "cache" not in target.findings
    assert list((tmp_path / "kshell/index").iterdir())
