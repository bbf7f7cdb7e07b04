"""The variables of a session: mdb's own, the registers, and the user's.

Reference: mdb-language.md 5.2. A variable may be computed when it is used; such ones are read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError, NotFoundError, repr_name

if TYPE_CHECKING:
    from kshell.session import Session
    from kshell.target.user import Facts

_FORBIDDEN = frozenset("#%^&*-+=,:$/\\?<>;|!`'\"[](){} \t\n")
_MASK = (1 << 64) - 1


class Variable(NamedTuple):
    """A variable: its value, and whether it may be changed, unset or is tagged."""

    name: str
    value: int = 0
    read_only: bool = False
    persistent: bool = False
    tagged: bool = False


class ChosenCpu:
    """The CPU whose registers are meant where none is named: the chosen one, else the first that has any.

    Of a process or a core it is a thread, and the number is its id.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._number: int | None = None

    @property
    def number(self) -> int:
        """Its number; 0 where there are no CPUs."""
        if not self._session.has_target:
            return 0
        target = self._session.target
        if target.control is not None:
            return target.control.cpu
        if self._number is not None:
            return self._number
        own = self._own()
        if own is not None:
            return next((one.tid for one in own.threads()), own.pid)
        return next((cpu.number for cpu in target.cpus if cpu.registers), 0)

    @property
    def chosen(self) -> int | None:
        """The number of one that somebody or, in a live machine, the last stop has chosen; None: nobody has."""
        if self._session.has_target and self._session.target.control is not None:
            return self._session.target.control.cpu
        return self._number

    def choose(self, number: int) -> None:
        """Choose another."""
        self._number = number
        if self._session.has_target and self._session.target.control is not None:
            self._session.target.control.cpu = number

    def _own(self) -> Facts | None:
        if not self._session.has_target or self._session.target.kind == "kernel":
            return None
        from kshell.linux.userland import user_facts

        return user_facts(self._session.target)

    @property
    def thread(self) -> int | None:
        """The id of the thread that somebody has chosen, of a process or core; None: nobody has, or it is a kernel."""
        own = self._own()
        return None if own is None else self.chosen

    def names(self) -> Sequence[str]:
        """Return the names of the registers that there are; of a running process nothing is stopped for that."""
        own = self._own()
        if own is not None and not own.standing:
            return self._session.target.arch.thread_registers
        return tuple(self.registers())

    def told(self) -> Mapping[str, int]:
        """Return the registers as far as nothing has to be stopped for them."""
        own = self._own()
        return self.registers() if own is None or own.standing else {}

    def registers(self) -> Mapping[str, int]:
        """Return its registers by name; none where nothing tells them. A process that runs is stopped for that."""
        own = self._own()
        if own is not None:
            if not self._session.target.live and not own.threads():
                return {}  # a file, or a core without notes of threads
            return own.registers(self.chosen)[1]
        cpus = self._session.target.cpus if self._session.has_target else []
        if not cpus:
            return {}
        number = self.number
        return next((cpu.registers for cpu in cpus if cpu.number == number), {})

    def set_register(self, name: str, value: int) -> None:
        """Change one of its registers.

        :raises KshellError: the target is a dump, or was not opened for writing
        """
        from kshell.execution import debugger_of

        if not self._session.has_target or self._session.target.control is None:
            raise KshellError(f"cannot modify read-only variable '{name}'")
        own = self._own()
        control = debugger_of(self._session) if own is None else self._session.target.control
        if self._session.dry_run:
            from kshell.output import Note

            what = "CPU" if own is None else "thread"
            self._session.report(Note(f"a dry run: {name} of {what} {self.number} is not changed"), "")
            return
        if self._session.target.mode != "r+" or self._session.protected:
            raise KshellError(f"cannot modify register {name}: target is not open for writing",
                              hint="::set -w allows it again" if self._session.protected else "start kshell with -w")
        if own is not None and not own.standing:
            raise KshellError(f"cannot modify register {name}: thread {self.number} runs",
                              hint="::stop holds the process still until ::cont; --pause for each command")
        with control.standing():
            old = self.registers()[name]
            control.set_register(self.number, name, value)
        self._session.record_register(self.number, name, old, value)


#: adb's variables: computed until somebody gives them a value of his own, as in ``::walk thread t``
ADB = frozenset("bdemt")


class Variables:
    """A mapping of names to 64-bit values, with mdb's rules."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._set = {name: Variable(name, persistent=True) for name in ("0", "1", "2", "9", "_", "hits")}
        self._computed: dict[str, Callable[[], int | None]] = {
            "b": lambda: self._symbol("_sdata"),
            "d": lambda: self._between("_sdata", "_edata"),
            "e": lambda: self._symbol("startup_64", "_stext"),
            "t": lambda: self._between("_stext", "_etext"),
            "m": lambda: 0x464C457F,
            "thread": self._thread,
            "cpuid": self._cpuid,
        }

    def _symbol(self, *names: str) -> int | None:
        if not self._session.has_target:
            return None
        for name in names:
            found = self._session.target.symbols.get(name)
            if found is not None:
                return found.address
        return None

    def _between(self, first: str, last: str) -> int | None:
        start, end = self._symbol(first), self._symbol(last)
        return None if start is None or end is None else end - start

    def get(self, name: str) -> int | None:
        """Return the value of the variable *name*, or None when it is not defined."""
        if name == ".":
            return self._session.dot
        found = self._set.get(name)
        if found is not None:
            return found.value
        make = self._computed.get(name)
        if make is not None:
            return make() or 0
        return self._register(name)

    def _register(self, name: str) -> int | None:
        cpu = self._session.cpu
        return cpu.registers().get(name) if name in cpu.names() else None

    def _is_process(self) -> bool:
        return self._session.has_target and self._session.target.kind != "kernel"

    def _cpuid(self) -> int | None:
        return None if self._is_process() or not self._session.cpu.told() else self._session.cpu.number

    def _thread(self) -> int | None:
        """Return the task on the CPU whose registers are shown, of a process or core the id of the thread."""
        if self._is_process():
            return self._session.cpu.number
        if not self._session.cpu.told():
            return None
        from kshell.linux.tasks import iter_current

        try:
            return dict(iter_current(self._session.target)).get(self._session.cpu.number)
        except KshellError:
            return None  # a kernel whose run queues cannot be read

    def __getitem__(self, name: str) -> int:
        value = self.get(name)
        if value is None:
            raise NotFoundError("variable", name, hint="value>name defines one")
        return value

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __setitem__(self, name: str, value: int) -> None:
        """Set the variable, defining it if needed.

        :raises KshellError: it is read-only, or the name is not one
        """
        if name == ".":
            self._session.dot = value & _MASK
            return
        if not name or len(name) > 30 or _FORBIDDEN & set(name):
            raise KshellError(f"{repr_name(name)} is not a name for a variable")
        old = self._set.get(name)
        if old is None and name not in self._computed and name in self._session.cpu.names():
            self._session.cpu.set_register(name, value & _MASK)
            return
        if old.read_only if old is not None else name in self._computed and name not in ADB:
            raise KshellError(f"cannot modify read-only variable '{name}'")
        self._set[name] = (old or Variable(name))._replace(value=value & _MASK)

    def tag(self, name: str, tagged: bool) -> None:
        """Tag or untag a variable that is set.

        :raises KshellError: it is computed, or a register
        """
        if name not in self._set:
            raise KshellError(f"cannot modify read-only variable '{name}'")
        self._set[name] = self._set[name]._replace(tagged=tagged)

    def unset(self, name: str) -> None:
        """Remove a variable.

        :raises KshellError: it is not defined, or one of mdb's own
        """
        found = self._set.get(name)
        if found is None and name not in self:
            raise NotFoundError("variable", name)
        if found is None or (found.persistent and name not in ADB):
            raise KshellError(f"variable '{name}' cannot be unset")
        del self._set[name]

    def __iter__(self) -> Iterator[Variable]:
        """Yield all variables, sorted by name; registers last."""
        yield Variable(".", self._session.dot, persistent=True)
        for name in sorted({*self._set, *self._computed}):
            yield self._set.get(name) or Variable(name, self.get(name) or 0, True, True)
        for name, value in self._session.cpu.told().items():
            yield Variable(name, value, True, True)
