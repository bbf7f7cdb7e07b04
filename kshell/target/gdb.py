"""A virtual machine by its gdb stub: its control, and the target made of it, without debuginfo.

QEMU stops the machine when a debugger connects; one that ran then runs again as soon as the question is answered, and
in any case when kshell ends: by itself at the end or after an error, by :mod:`kshell.memory.gdbguard` when killed.
Breakpoints are in the machine only while it runs for ``::cont`` and ``::step``.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any

from kshell.arch.model import Arch, arch_of_machine
from kshell.errors import KshellError, OpenError
from kshell.memory.gdbguard import INTERRUPT, Guard
from kshell.memory.gdbmachine import GdbMachine, Halt
from kshell.memory.gdbmemory import GdbMemory
from kshell.memory.gdbstub import Connection, StubError, dial, frame
from kshell.memory.model import Memory
from kshell.memory.overlay import Overlay
from kshell.target.control import Control, ControlError, Point, PointKind, Stop
from kshell.target.known import attach_machine
from kshell.target.ram import ram_of_kernel
from kshell.target.target import Cpu, Target

HALT_SECONDS = 10.0
RESCUE_SECONDS = 2.0
ARCHITECTURES = {"i386:x86-64": "x86_64", "aarch64": "aarch64", "riscv:rv64": "riscv"}
KINDS: dict[PointKind, tuple[int, ...]] = {"execute": (1, 0), "write": (2,), "read": (3,), "access": (4,)}
SIGINT, SIGTRAP = 2, 5
#: what is said for us should we be killed: stop, no breakpoints any more, run (in the two ways in which QEMU takes it)
FAREWELLS = [INTERRUPT + frame(b"?"), *(b"+" + frame(word) for word in (b"D", b"D;1"))]


class GdbControl(Control):
    """The control of the machine behind a gdb stub. Each question is asked of one that stands still.

    :ivar forget: called when the machine may have moved
    """

    transport = "the gdb stub"
    can_debug = True

    def __init__(self, machine: GdbMachine, guard: Guard) -> None:
        super().__init__(pause=True)
        self.machine, self.guard = machine, guard
        self.found_running = machine.found_running is not False
        self.forget: Callable[[], None] = lambda: None
        self._points: dict[Point, int] = {}  # and by which kind of the protocol each is in the machine
        self._asked = False  # a stop of ours is under way
        self._held = self._ours = self.found_running  # QEMU stopped it as we came
        machine.connection.on_loss = self._rescue
        guard.release(self.found_running)

    def _rescue(self) -> None:
        if self.found_running:
            _rescue(self.machine.connection.place, True)

    # -- running and stopping --------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        if self.machine.stands:
            return False
        with self.lock, _told():
            halt = self.machine.wait(0)
            if halt is None:
                return True
            if not self._asked:
                self.stopped_itself()
                # by somebody else, through QEMU's monitor perhaps: it stays stopped when we go
                self.found_running = self.found_running and halt.signal != SIGINT
            self._asked = False
            return False

    def halt(self) -> None:
        with self.lock, _told():
            self._asked = True
            self.machine.halt(HALT_SECONDS)
            self._asked = False

    def go(self) -> None:
        with self.lock, _told():
            if self.machine.stands:
                self.forget()
                if not self.found_running:
                    self.guard.release(True)
                self.machine.resume()

    def stop(self) -> None:
        super().stop()
        if not self.found_running:
            self.guard.release(False)

    def leave_stopped(self) -> None:
        """Leave the machine stopped at the end, although it was found running."""
        self.found_running = False
        self.guard.release(not self.machine.stands)

    def wait(self, seconds: float) -> Stop | None:
        with self.lock, _told():
            halt = self.machine.wait(seconds)
            if halt is None:
                return None
            self.stopped_itself()
            return self._stop(halt)

    def _stop(self, halt: Halt) -> Stop:
        cpu = self.machine.cpu_of(halt.thread)
        if cpu is None:
            cpu = self.cpu
        if halt.signal == SIGINT:
            return Stop("asked", cpu)
        return Stop("point" if halt.signal == SIGTRAP else "unknown", cpu, halt.watch)

    def step(self, cpu: int, seconds: float = 5.0) -> Stop | None:
        with self.lock, _told():
            self.forget()
            self.moment += 1
            self.machine.resume(cpu)
            halt = self.machine.wait(seconds)
            if halt is None:
                self.halt()
                return None
            found = self._stop(halt)
            return found._replace(kind="step") if found.kind == "point" and found.address is None else found

    # -- breakpoints -----------------------------------------------------------------------------------------------

    def insert(self, point: Point) -> None:
        if point in self._points:
            return
        with self.lock, _told():
            for kind in KINDS[point.kind]:
                if self.machine.point(True, kind, point.address, point.size):
                    self._points[point] = kind
                    return
        what = "breakpoint" if point.kind == "execute" else f"{point.kind} watchpoint"
        raise ControlError(f"the gdb stub takes no {what} at 0x{point.address:x}",
                           hint="processors have room for four at a time; ::delete makes some")

    def remove(self, point: Point) -> None:
        kind = self._points.pop(point, None)
        if kind is not None:
            with self.lock, _told():
                self.machine.point(False, kind, point.address, point.size)

    def in_memory(self, point: Point) -> bool:
        """Whether *point* may be an instruction in the machine's memory: a software breakpoint (under KVM it is)."""
        return self._points.get(point) == 0

    # -- registers -------------------------------------------------------------------------------------------------

    def read_cpus(self) -> list[Cpu]:
        with self.standing(), _told():
            return [Cpu(number, self.machine.registers(number), None, "gdb stub")
                    for number in range(len(self.machine.threads))]

    def set_register(self, cpu: int, name: str, value: int) -> None:
        register = self.machine.register(name)
        if register is None:
            raise ControlError(f"no register {name}", hint="::regs lists them")
        if value >> 8 * register.size:
            raise ControlError(f"{value:#x} is too big for {name}, which has {8 * register.size} bits")
        with self.standing(), _told():
            if not self.machine.set_register(cpu, register, value):
                raise ControlError(f"the gdb stub does not change {name}")
            self.moment += 1
            self.forget()

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        with self.lock:
            try:
                with contextlib.suppress(KshellError):
                    if self._points and self.is_running():  # something went wrong while it ran with breakpoints
                        self.halt()
                    if not self.is_running():
                        for point in list(self._points):
                            self.remove(point)
                        if self.found_running:
                            self.machine.detach()
            finally:
                self.disconnect()

    def disconnect(self) -> None:
        self.guard.dismiss()
        self.machine.connection.close()


class _told:
    """Errors of the stub become the control's; Ctrl-C waits until what is known of the machine is true again."""

    def __init__(self) -> None:
        self._before: Any = None
        self._interrupted = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            now = signal.getsignal(signal.SIGINT)
            if callable(now):
                self._before = now
                signal.signal(signal.SIGINT, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self._interrupted = True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            if self._interrupted and error is None:
                self._before(signal.SIGINT, None)
        if isinstance(error, StubError):
            raise ControlError(str(error), hint=error.hint) from error


def open_gdb(place: str, mode: str = "r", *, stay_stopped: bool = False) -> Target:
    """Open the machine whose gdb stub listens at *place*: ``HOST:PORT`` or the path of a Unix socket.

    :param mode: "r", "r+", or "c": writes to memory are kept here
    :param stay_stopped: leave it stopped at the end, even if it runs now
    :raises OpenError: there is no stub, it lacks what is needed, or no Linux kernel runs in the machine
    """
    connection = Connection(place, dial(place))
    connection.on_loss = lambda: None if stay_stopped else _rescue(place, connection.stopped)
    guard = Guard(connection.fileno(), FAREWELLS)
    try:
        try:
            machine = GdbMachine(connection)
            machine.clear_points()
        except StubError as error:
            guard.abandon()  # the stub may take the connection later, and stop the machine for it
            raise OpenError("", str(error), kind="missing", hint=error.hint) from error
        if stay_stopped and machine.found_running is None:
            machine.found_running = False  # whoever asks for this must be able to have it never run
        control = GdbControl(machine, guard)
    except BaseException:
        _let_go(connection)
        guard.dismiss()
        connection.close()
        raise
    try:
        if stay_stopped:
            control.leave_stopped()
        with control.standing():  # once, and not for each read
            return _target(f"gdb:{place}", machine, control, mode)
    except BaseException:
        control.close()
        raise


def _rescue(place: str, ran: bool) -> None:
    """A connection is lost, and QEMU leaves the machine stopped, our breakpoints in it: let it go by another one.

    :param ran: it is known to have run; else that is so where QEMU does not tell (8.1 and later)
    """
    with contextlib.suppress(KshellError):
        connection = Connection(place, dial(place), RESCUE_SECONDS)
        try:
            if ran or GdbMachine(connection).found_running is None:
                _let_go(connection)
        finally:
            connection.close()


def _let_go(connection: Connection) -> None:
    """Let a machine run that we cannot use, without the breakpoints that are in it."""
    with contextlib.suppress(StubError):
        connection.tell("?")  # QEMU takes them out when it is asked why it stands
        heard = connection.wait_stop(1.0)
        for word in ("D", "D;1") if heard is not None else ():
            if connection.ask(word, 1.0) == b"OK":
                return


def _target(path: str, machine: GdbMachine, control: GdbControl, mode: str) -> Target:
    version = ".".join(map(str, machine.version)) if any(machine.version) else "unknown version"
    arch = _arch(path, machine)
    target = Target(path, f"virtual machine (QEMU {version}), {len(machine.threads)} CPUs", arch, mode=mode, live=True)
    target.control = control
    target.on_close(control.close)
    memory = GdbMemory(machine, control.standing, writable=mode == "r+")
    control.forget = target.forget
    physical: Memory = Overlay(memory) if mode == "c" else memory
    if not attach_machine(target, physical, target.cpus):
        raise OpenError(path, "no Linux kernel is found by the page tables of its CPUs", kind="symbols",
                        hint="perhaps it is still booting, or in its firmware")
    memory.set_ram(ram_of_kernel(target))
    if machine.found_running is None and control.found_running:
        target.findings["found"] = (f"QEMU {version} does not tell whether it ran: it runs when kshell goes, unless "
                                    "--stay-stopped is given")
    target.findings["machine"] = f"{target.description}, by {control.transport}"
    target.settled()
    return target


def _arch(path: str, machine: GdbMachine) -> Arch:
    told = machine.description.architecture
    try:
        return arch_of_machine(ARCHITECTURES.get(told, told or "an unknown architecture"))
    except OpenError as error:
        raise OpenError(path, str(error), kind=error.kind) from error
