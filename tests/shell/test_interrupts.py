"""An interrupt that comes where Python cannot raise is not lost."""

from __future__ import annotations

import sys
import time

import pytest

from kshell.shell.interrupts import keep_interrupts


class Interrupted:
    """Ctrl-C comes while this is finalized."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


def test_interrupt_in_a_finalizer_comes_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    keep_interrupts()
    with pytest.raises(KeyboardInterrupt):
        del [Interrupted()][0]
        time.sleep(10)
    assert capsys.readouterr() == ("", "")


def test_other_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: seen.append(lost.exc_type))
    keep_interrupts()
    sys.unraisablehook(type("Lost", (), {"exc_type": ValueError})())
    assert seen == [ValueError]
