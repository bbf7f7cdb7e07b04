"""A target that runs for ``::cont`` and ``::step``: events put into it, waited for, looked at, and taken out again.

The machine stops for every CPU that comes to a breakpoint, in whatever process. What was not meant (another process, a
condition that is not true) goes on at once: its instruction is executed with the breakpoint taken out while all other
CPUs stand, so that none of them slips through. Whatever happens, nothing is left in the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError, ParseError
from kshell.events import MODULE_ENTRY, Event, resolve
from kshell.execution import debugger_of
from kshell.output import Flush, Note, Output, Warn
from kshell.target.control import ControlError, Point, Stop

if TYPE_CHECKING:
    from kshell.session import Session
    from kshell.target.target import Cpu

SLICE = 0.2  # seconds of one wait: in between Python takes note of signals
MAX_SPURIOUS = 1000  # stops in a row that nobody knows a reason for
FRAME = 0x000F_FFFF_FFFF_F000
PTI_USER = 1 << 12


class Halted(NamedTuple):
    """Why ``::cont`` or ``::step`` came to an end.

    :ivar reason: for people: ``breakpoint 1``, ``step``, ``interrupted``
    :ivar events: those that were hit
    :ivar notes: what else there is to say: what a watchpoint saw
    """

    reason: str
    events: tuple[Event, ...] = ()
    notes: tuple[str, ...] = ()


#: Tells of the CPU that stopped whether that is what was waited for, besides events.
Done = Callable[["Cpu"], bool]


class Runner:
    """The target of a session while it runs.

    :ivar wanted: commands of a breakpoint said that it is to stop (``::stop``)
    """

    def __init__(self, session: Session) -> None:
        self.session, self.control = session, debugger_of(session)
        self.wanted = False
        self._inserted: set[Point] = set()
        self._extra: tuple[Point, ...] = ()

    def run(self, extra: tuple[Point, ...] = (), done: Done = lambda cpu: False, seconds: float | None = None,
            ) -> Iterator[Output | Halted]:
        """Run until an event stops the target, *done* at one of the *extra* points, Ctrl-C, or *seconds* are over.

        Yields the outputs of what is obeyed meanwhile, and at last a Halted; none when the time is over: it runs then.

        :raises ControlError: the target is gone, or does not take a breakpoint
        """
        if self.session.runner is not None:
            raise KshellError("the commands of a breakpoint cannot run the target",
                              hint="it goes on by itself behind them, and stays with ::stop or -s")
        self.session.runner, self._extra = self, extra
        context = self.session.context
        try:
            with self._armed():
                try:
                    self._pass_own()
                    found = yield from self._until(done, seconds)
                except KeyboardInterrupt:  # also one that came in a condition, or in commands
                    self.control.stop()
                    found = Halted("interrupted")
            if found is None:
                self.session.set_context(context)
                self.control.resume()
            else:
                yield found
        finally:
            self.session.runner = None

    # -- in and out of the machine ---------------------------------------------------------------------------------

    @contextmanager
    def _armed(self) -> Iterator[None]:
        """Have events in the machine for a ``with`` block; it stands before and behind it."""
        self.control.stop()
        try:
            self._arm()
            yield
        finally:
            try:
                self.control.stop()
                for point in list(self._inserted):
                    self._take_out(point)
            except ControlError:
                self._inserted.clear()  # it is gone, and they with it
                raise

    def _arm(self) -> None:
        """Have in the machine what is to be there now."""
        wanted = self._wanted()
        for event in self.session.events:
            if event.enabled and event.kind != "execute" and event.address is not None and event.last is None:
                event.last = self._peek(event)
        for point in self._inserted - wanted:
            self._take_out(point)
        for point in sorted(wanted - self._inserted):
            self.control.insert(point)
            self._inserted.add(point)

    def _wanted(self) -> set[Point]:
        """Return what is to be in the machine while it runs."""
        wanted = set(self._extra)
        for event in self.session.events:
            if event.enabled and event.address is not None:
                wanted.add(Point(event.kind, event.address, event.size))
        if self._waiting():
            wanted.add(self._module_entry())
        return wanted

    def _take_out(self, point: Point) -> None:
        self.control.remove(point)
        self._inserted.discard(point)

    def _waiting(self) -> list[Event]:
        return [event for event in self.session.events if event.state == "pending"]

    def _module_entry(self) -> Point:
        return Point("execute", self.session.target.symbol(MODULE_ENTRY).address)

    def _peek(self, event: Event) -> bytes | None:
        """Return the bytes under a watchpoint, None when they cannot be read."""
        assert event.address is not None
        try:
            space = event.process.space if event.process is not None else self.session.space(event.address)
            return space.read(event.address, event.size)
        except KshellError:
            return None

    # -- running ---------------------------------------------------------------------------------------------------

    def _until(self, done: Done, seconds: float | None) -> Generator[Output, None, Halted | None]:
        deadline = None if seconds is None else time.monotonic() + seconds
        spurious = 0
        while True:
            self.wanted = False
            stop = self._go(deadline)
            if stop is None:
                return None
            if stop.kind == "asked":
                return Halted("stopped by somebody else")
            self.session.cpu.choose(stop.cpu)
            cpu = self._cpu()
            reached = self._reached(stop, cpu)
            known = bool(reached) or Point("execute", cpu.registers["rip"]) in self._inserted
            self._clear_memory()
            spurious = 0 if known else spurious + 1
            if spurious > MAX_SPURIOUS:
                return Halted("stopped again and again, and nobody knows why")
            if self._waiting() and self._module_entry().address == cpu.registers["rip"]:
                yield from self._module_loads(cpu)
            found = (yield from self._hits(reached, cpu)) if reached else None
            if found is None and done(cpu):
                found = Halted("step")
            if found is not None:
                return found
            self._pass(cpu)
            self._arm()

    def _go(self, deadline: float | None) -> Stop | None:
        """Let it run and return why it stopped; None: *deadline* has come."""
        self.control.resume()
        while True:
            left = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            if left <= 0:
                return None
            stop = self.control.wait(left)
            if stop is not None:
                return stop

    def _cpu(self) -> Cpu:
        number = self.session.cpu.number
        return next(cpu for cpu in self.session.target.cpus if cpu.number == number)

    def _reached(self, stop: Stop, cpu: Cpu) -> list[Event]:
        """Return the events at which a CPU has stopped."""
        events = [event for event in self.session.events if event.enabled and event.address is not None]
        if stop.address is None:
            rip = cpu.registers["rip"]
            return [event for event in events if event.kind == "execute" and event.address == rip]
        return [event for event in events if event.kind != "execute" and event.address is not None
                and event.address <= stop.address < event.address + event.size]

    def _clear_memory(self) -> None:
        """Take out the breakpoints that are instructions in the machine's memory, for what reads and writes it now.

        :meth:`_arm` puts them back before it runs on, into what has been written meanwhile.
        """
        for point in [point for point in self._inserted if self.control.in_memory(point)]:
            self._take_out(point)

    def _pass(self, cpu: Cpu) -> None:
        """Have *cpu* execute the instruction that it stands at, with no breakpoint there; the others stand."""
        point = Point("execute", cpu.registers["rip"])
        if point in self._wanted():
            if point in self._inserted:
                self._take_out(point)
            self._clear_memory()
            self.control.step(cpu.number)

    def _pass_own(self) -> None:
        """Let the CPU that stopped at a breakpoint the last time leave it: that hit has been told of."""
        cpu = self._cpu()
        if self.session.told_at == (cpu.number, cpu.registers["rip"]):
            self._pass(cpu)
            self._arm()
        self.session.told_at = None

    # -- what was hit ----------------------------------------------------------------------------------------------

    def _hits(self, reached: list[Event], cpu: Cpu) -> Generator[Output, None, Halted | None]:
        """Look at the events that were reached, obey their commands; return why the target is to stand, or None."""
        session = self.session
        context, dot = session.context, session.dot
        lasting: list[Event] = []
        notes: list[str] = []
        for event in reached:
            seen = self._seen(event)
            if not self._is_in(event, cpu):
                continue
            enter_process(session, cpu)
            session.dot = cpu.registers["rip"]
            try:
                if not holds(session, event):
                    continue
            except KshellError as error:
                yield Warn(f"the condition of {event.describe()} cannot be evaluated: {error}")
                self.wanted = True
            event.hits += 1
            session.variables["hits"] = event.hits
            notes += seen
            if event.commands and not self.wanted:
                try:
                    yield from session.eval(event.commands)
                    yield Flush()  # the next hit may be long in coming
                except KshellError as error:
                    yield Warn(f"{event.describe()}: {error}")
                    self.wanted = True
            if self.wanted or (event.stops and event.hits >= event.limit):
                lasting.append(event)
                if event.temporary:
                    session.events.remove(event)
        if lasting:
            return Halted(", ".join(event.describe() for event in lasting), tuple(lasting), tuple(notes))
        session.set_context(context)
        session.dot = dot
        return None

    def _seen(self, event: Event) -> list[str]:
        """Return what a watchpoint saw change."""
        if event.kind == "execute":
            return []
        before, event.last = event.last, self._peek(event)
        if before is None or event.last is None or before == event.last:
            return []
        order = self.session.byteorder
        if event.size <= 8:
            return [f"{event.place}: {int.from_bytes(before, order):#x} -> {int.from_bytes(event.last, order):#x}"]
        return [f"{event.place}: changed"]

    def _is_in(self, event: Event, cpu: Cpu) -> bool:
        """Whether the process of *event* is the one on *cpu*: by its page tables, then by its task."""
        process = event.process
        if process is None:
            return True
        root = getattr(process.space, "root", None)
        user = event.address is not None and event.address < self.session.target.arch.kernel_half
        if user and root is not None and cpu.registers.get("cr3", 0) & FRAME & ~PTI_USER != root & ~PTI_USER:
            return False
        from kshell.linux.current import current_address
        from kshell.linux.tasks import read_task

        task = read_task(self.session.target, current_address(self.session.target, cpu))
        return task.tgid == process.pid and (not process.mm or task.mm == process.mm)

    # -- modules ---------------------------------------------------------------------------------------------------

    def _module_loads(self, cpu: Cpu) -> Iterator[Output]:
        """A module is about to be initialised: its symbols are there, and events that waited get their address."""
        target = self.session.target
        try:
            module = target.value("struct module", cpu.registers["rdi"])  # do_init_module(struct module *mod)
            name = module["name"].string()
            waiting = [event for event in self._waiting() if event.place.rpartition("`")[0].replace("-", "_") == name]
            if not waiting:
                return
            for event in waiting:
                event.address = resolve(self.session, event.place)
                yield Note(f"{name} is being loaded: {event.describe()} is at {event.address or 0:x}")
        except KshellError as error:
            yield Warn(f"the symbols of a module that is being loaded cannot be read: {error}")
            self.wanted = True


def holds(session: Session, event: Event) -> bool:
    """Whether the condition of *event* is true: an expression that is not 0, or a command line that yields something.

    :raises KshellError: it cannot be evaluated
    """
    if not event.condition:
        return True
    if event.parsed is None and "::" not in event.condition:
        from kshell.lang.parser import parse_only_expression

        event.parsed = parse_only_expression(event.condition)
    if event.parsed is not None:
        return session.value(event.parsed) != 0
    found = False
    for item in session.eval(event.condition):
        if isinstance(item, Warn):
            raise KshellError(str(item.problem))
        found = found or not isinstance(item, Note)
    return found


def check_condition(text: str) -> None:
    """See that a condition can be parsed.

    :raises ParseError: it is neither an expression nor a command line
    """
    from kshell.lang.parser import Parser, parse_only_expression

    if "::" not in text:
        parse_only_expression(text)
        return
    for _ in Parser(text, lambda name: None):
        pass


def enter_process(session: Session, cpu: Cpu) -> None:
    """Make the process on *cpu* the process context; a kernel thread leaves the context as it is."""
    from kshell.linux.current import current_address
    from kshell.linux.processes import user_memory
    from kshell.linux.tasks import read_task
    from kshell.session import Context

    try:
        task = read_task(session.target, current_address(session.target, cpu))
        if task.mm and not task.is_kernel_thread:
            space = user_memory(session.target, task)
            session.set_context(Context(task.tgid, task.comm, space, task.address, task.mm))
    except KshellError:
        return  # what needs it says that there is none


__all__ = ["Halted", "ParseError", "Runner", "check_condition", "enter_process", "holds"]
