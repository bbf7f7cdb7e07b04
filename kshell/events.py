"""Breakpoints and watchpoints as the user means them: where, under which condition, what to do, how often.

Reference: mdb-language.md 11.1 (``::bp ::wp ::events ::delete ::evset``). An event is only a wish until the target runs
for ``::cont`` or ``::step`` (:mod:`kshell.running`): at all other times nothing of it is in the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from kshell.errors import KshellError, NotFoundError, SymbolNotFoundError

if TYPE_CHECKING:
    from kshell.lang.ast import Expression
    from kshell.session import Context, Session
    from kshell.target.control import PointKind

#: where modules are initialised, their symbols being there already: kernel/module/main.c, kernel/module.c before 5.19
MODULE_ENTRY = "do_init_module"
MAX_EVENTS = 1000


class Event:
    """One breakpoint or watchpoint.

    :ivar place: as the user named it
    :ivar address: None: the module that has *place* is not loaded yet
    :ivar process: the only process that it is about, None for all; a user address always has one
    :ivar condition: it counts only where this is true: an expression, or else a command line that yields something
    :ivar commands: obeyed at each hit; ``stops`` tells whether the target stays stopped behind them
    :ivar limit: it stops at the so-manieth hit and every one after it
    :ivar last: of a watchpoint, the bytes that were there when it was last looked at
    """

    def __init__(
        self, number: int, kind: PointKind, place: str, address: int | None, size: int = 1,
        process: Context | None = None,
    ) -> None:
        self.number, self.kind, self.place, self.address, self.size = number, kind, place, address, size
        self.process = process
        self.condition = self.commands = ""
        self.stops, self.temporary, self.enabled = True, False, True
        self.limit, self.hits = 1, 0
        self.last: bytes | None = None
        self.parsed: Expression | None = None

    @property
    def state(self) -> Literal["on", "off", "pending"]:
        if not self.enabled:
            return "off"
        return "pending" if self.address is None else "on"

    def describe(self) -> str:
        """Return what it is, for messages: ``breakpoint 1``."""
        return f"{'breakpoint' if self.kind == 'execute' else 'watchpoint'} {self.number}"


class Events:
    """The events of a session, by number."""

    def __init__(self) -> None:
        self._all: dict[int, Event] = {}
        self._next = 1

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def add(
        self, kind: PointKind, place: str, address: int | None, size: int = 1, process: Context | None = None,
    ) -> Event:
        """Add an event and return it.

        :raises KshellError: there are too many
        """
        if len(self._all) >= MAX_EVENTS:
            raise KshellError(f"there are {MAX_EVENTS} events already", hint="::delete all takes them away")
        event = Event(self._next, kind, place, address, size, process)
        self._all[event.number] = event
        self._next += 1
        return event

    def get(self, number: int) -> Event:
        """Return the event of this number.

        :raises NotFoundError: there is none
        """
        try:
            return self._all[number]
        except KeyError:
            raise NotFoundError("event", str(number), hint="::events lists them") from None

    def at(self, address: int) -> list[Event]:
        """Return the events at *address*."""
        return [event for event in self if event.address == address]

    def remove(self, event: Event) -> None:
        """Take an event away."""
        self._all.pop(event.number, None)


def resolve(session: Session, place: str) -> int | None:
    """Return the address that *place* means, an expression; None for ``module`name`` of a module that is not loaded.

    :raises KshellError: it means nothing
    """
    module, tick, name = place.rpartition("`")
    if tick and module not in ("vmlinux", "kernel") and "`" not in module and name.isidentifier():
        try:
            return session.target.symbol(name, module).address
        except SymbolNotFoundError:
            if not is_loaded(session, module):
                return None
            raise
    return session.evaluate(place)


def is_loaded(session: Session, module: str) -> bool:
    """Whether a kernel module is loaded, by the name that lsmod shows."""
    from kshell.target.modules import iter_modules

    wanted = module.replace("-", "_")
    return any(found["name"].string() == wanted for found in iter_modules(session.target))
