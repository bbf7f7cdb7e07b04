"""An interrupt that comes where Python cannot raise is not lost."""

from __future__ import annotations

import subprocess
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


LOOK = """
import signal, sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "click":
            print(signal.getsignal(signal.SIGINT).name)

sys.meta_path.insert(0, Finder())
import kshell.__main__
print(signal.getsignal(signal.SIGINT).__name__)
"""


def test_ctrl_c_while_modules_are_loaded_ends_the_process_and_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["SIG_DFL", "default_int_handler"]
