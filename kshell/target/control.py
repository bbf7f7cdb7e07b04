"""Control of a live target: stopping it, letting it go on, the registers of its CPUs. One subclass a transport.

A target may stand still for three reasons: it was found so; somebody said so (:meth:`Control.stop`) or it ran into a
breakpoint, and it stays until :meth:`Control.resume`; or it is held for a question, and goes on behind it.

What was running when it was opened runs again when it is closed, whatever happened in between; what was found stopped
is left as it is then. ``moment`` counts how often the target may have moved: what was read of it holds as long as that
is the same.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from kshell.errors import KshellError

if TYPE_CHECKING:
    from kshell.target.target import Cpu


PointKind = Literal["execute", "write", "read", "access"]
StopKind = Literal["asked", "point", "step", "unknown"]


class ControlError(KshellError):
    """The target cannot be reached any more, or does not do what was asked."""


class Point(NamedTuple):
    """Where the target is to stop: when it executes the instruction at *address*, or touches bytes from there on."""

    kind: PointKind
    address: int
    size: int = 1


class Stop(NamedTuple):
    """Why the target stands still.

    :ivar kind: "asked" (by us), "point" (a breakpoint or watchpoint), "step", or "unknown"
    :ivar cpu: the CPU it happened to
    :ivar address: of a watchpoint, the address that was touched; None: the stop tells none
    """

    kind: StopKind
    cpu: int
    address: int | None = None


class Control(ABC):
    """The control of one live target, its CPUs numbered from 0.

    :ivar pause: each question is asked of a target that stands still: it is stopped before and resumed behind
    :ivar moment: changes whenever the target may have moved
    :ivar cpu: the number of the CPU whose registers are meant where none is named
    :ivar found_running: whether it ran when it was opened
    :ivar lock: held while the target is talked to and while it is stopped or resumed: a completer is a thread
    """

    #: "gdb stub", "QMP": for messages
    transport: ClassVar[str] = "this transport"
    #: whether it has breakpoints, single steps, and registers that can be changed
    can_debug: ClassVar[bool] = False

    def __init__(self, *, pause: bool = False) -> None:
        self.pause = pause
        self.moment = 0
        self.cpu = 0
        self.found_running = True
        self.lock = threading.RLock()
        self._depth = 0  # blocks in one another that hold the target still
        self._held = False  # it is stopped for them, and for nothing else
        self._ours = False  # whoever stopped it, we or a breakpoint, it ran before

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

    # -- what a debugger does, where the transport can ---------------------------------------------------------------

    def set_register(self, cpu: int, name: str, value: int) -> None:
        """Change a register. :raises ControlError: there is none of this name, or it cannot be changed"""
        raise self._cannot("registers cannot be changed")

    def step(self, cpu: int, seconds: float = 5.0) -> Stop | None:
        """Let *cpu* alone execute one instruction; None when it has not within *seconds*: it waits for an interrupt."""
        raise self._cannot("there is no single step")

    def insert(self, point: Point) -> None:
        """Have the target stop at *point*. :raises ControlError: it cannot, or has no room for it"""
        raise self._cannot("there are no breakpoints")

    def remove(self, point: Point) -> None:
        """Have the target not stop at *point* any more."""
        raise self._cannot("there are no breakpoints")

    def in_memory(self, point: Point) -> bool:
        """Whether *point*, which is in the target, is an instruction in its memory, which reads show."""
        return False

    def wait(self, seconds: float) -> Stop | None:
        """Return why the target stopped by itself; None when it still runs after so many seconds."""
        raise self._cannot("nobody tells of stops")

    def _cannot(self, what: str) -> ControlError:
        return ControlError(f"{what} over {self.transport}", hint="QEMU's gdb stub can: kshell gdb:HOST:PORT")

    # -- what everybody uses ---------------------------------------------------------------------------------------

    @property
    def stays(self) -> bool:
        """Whether the target stands until somebody resumes it, and not only for a question."""
        return not self._held and not self.is_running()

    def stop(self) -> None:
        """Stop the target until :meth:`resume`, also when it is only held for a question so far."""
        with self.lock:
            self._halt()
            self._held = False

    def resume(self) -> None:
        """Let the target run, whoever stopped it."""
        with self.lock:
            self.moment += 1
            self._ours = self._held = False
            self.go()

    def stopped_itself(self) -> None:
        """Take note that the target stopped without being asked: it stays so until :meth:`resume`."""
        with self.lock:
            self.moment += 1
            self._ours, self._held = True, False

    def _halt(self) -> bool:
        """Stop the target if it runs; whether it did."""
        if not self.is_running():
            return False
        self._ours = True
        self.halt()
        self.moment += 1
        return True

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Hold the target still for a ``with`` block; one that ran runs again behind it, whatever happens in it."""
        with self.lock:
            self._depth += 1
        try:
            with self.lock:
                if self._halt():
                    self._held = True
            yield
        finally:
            with self.lock:
                self._depth -= 1
                if self._depth == 0 and self._held:
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
            if self._ours and self.found_running:
                self.resume()
        self.disconnect()
