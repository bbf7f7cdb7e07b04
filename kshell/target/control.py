"""Control of a live target: stopping it, letting it go on, the registers of its CPUs. One subclass a transport.

What was running when it was opened runs again when it is closed, whatever happened in between; what was stopped stays
stopped. ``moment`` counts how often the target may have moved: what was read of it holds as long as that is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kshell.errors import KshellError

if TYPE_CHECKING:
    from kshell.target.target import Cpu


class Control(ABC):
    """The control of one live target.

    :ivar pause: each question is asked of a target that stands still: it is stopped before and resumed behind
    :ivar moment: changes whenever the target may have moved
    """

    def __init__(self, *, pause: bool = False) -> None:
        self.pause = pause
        self.moment = 0
        self._stops = 0  # questions in one another, and whether the outermost stopped the target
        self._ours = False

    # -- what a transport does -------------------------------------------------------------------------------------

    @abstractmethod
    def is_running(self) -> bool:
        """Ask whether the target runs now. :raises KshellError: it cannot be asked"""

    @abstractmethod
    def halt(self) -> None:
        """Stop the target; returns when it stands. :raises KshellError: it cannot be stopped"""

    @abstractmethod
    def go(self) -> None:
        """Let the target run. :raises KshellError: it cannot be resumed"""

    @abstractmethod
    def read_cpus(self) -> list[Cpu]:
        """Return the registers of every CPU as they are now. :raises KshellError: they cannot be asked for"""

    def disconnect(self) -> None:  # noqa: B027 (optional to override)
        """Give up the connection. A second call does nothing."""

    # -- what everybody uses ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop the target if it runs, and remember that it is ours to resume."""
        if self.is_running():
            self._ours = True
            self.halt()
            self.moment += 1

    def resume(self) -> None:
        """Let the target run, whoever stopped it."""
        self.moment += 1
        self._ours = False
        self.go()

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Hold the target still for a ``with`` block; one that ran runs again behind it, whatever happens in it."""
        outermost = self._stops == 0 and not self._ours
        self._stops += 1
        try:
            if outermost:
                self.stop()
            yield
        finally:
            self._stops -= 1
            if outermost and self._ours:
                self.resume()

    @contextmanager
    def question(self) -> Iterator[None]:
        """The time of one statement: with :attr:`pause` the target stands still meanwhile."""
        if not self.pause:
            yield
            return
        with self.standing():
            yield

    def close(self) -> None:
        """Leave the target as it was found, and disconnect."""
        with suppress(KshellError):
            if self._ours:
                self.resume()
        self.disconnect()
