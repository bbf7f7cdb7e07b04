"""The state of a session: target, process context, dot, variables, radix, options, journal of writes, log.

Reference: mdb-language.md 5 (dot, variables, radix). Nothing is global: two sessions in one process share nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from kshell.errors import (
    KshellError,
    NoProcessError,
    NotFoundError,
    SymbolNotFoundError,
    UsageError,
    repr_name,
)
from kshell.events import Events
from kshell.journal import JournalEntry, RegisterEntry, Writing
from kshell.lang.numbers import show_base
from kshell.memory.model import Memory
from kshell.options import Options
from kshell.output import Note, Output, Warn
from kshell.registry import Registry, Walker
from kshell.variables import ChosenCpu, Variables

if TYPE_CHECKING:
    from kshell.lang.ast import Expression
    from kshell.pipeline import Prepared, Status
    from kshell.render import Renderer
    from kshell.running import Runner
    from kshell.scripts import Script
    from kshell.target.target import Target


class Context(NamedTuple):
    """The process that user addresses go to: the most recent ``::getu``.

    :ivar task: its task_struct, 0 where the kernel cannot be read; :ivar mm: its mm_struct, likewise
    """

    pid: int
    comm: str
    space: Memory
    task: int = 0
    mm: int = 0


class Session(Writing):
    """What a dcmd gets as its first argument.

    :ivar dot: the current address; :ivar increment: bytes consumed by the last formatting command
    :ivar last_address: with which the last dcmd was invoked (``&``)
    :ivar radix: of numbers without a prefix, in and out
    :ivar context: the process context, None until ``::getu``
    :ivar status: of the last dcmd that ran; :ivar failed: whether any command failed
    """

    def __init__(self, target: Target | None = None, registry: Registry | None = None) -> None:
        self._target = target
        self._bare: Target | None = None
        self.registry = registry if registry is not None else Registry()
        self.dot = self.increment = self.last_address = 0
        self.radix = 16
        self.variables = Variables(self)
        self.cpu = ChosenCpu(self)
        self.events = Events()
        #: runs the target for ::cont at this moment
        self.runner: Runner | None = None
        #: the CPU and the address of the last stop that was told of
        self.told_at: tuple[int, int] | None = None
        self.options = Options()
        self.context: Context | None = None
        self.journal: list[JournalEntry | RegisterEntry] = []
        self._written = 0
        self.status: Status | None = None
        self.failed = False
        self.last: Prepared | None = None
        #: walk variables of the pipe value that is being worked on, None outside of pipes with such variables
        self.bindings: Mapping[str, int] | None = None
        self.done = False
        self.interactive = False
        #: where the statement that runs stands, in front of error messages: ``FILE:LINE: ``
        self.place = ""
        #: the file of commands that is being obeyed, the innermost one
        self.script: Script | None = None
        #: strings and files of commands that are being obeyed in one another
        self.nesting = 0
        self.why_no_target = ""
        self.log_path = ""
        self._log: TextIO | None = None
        #: where notes and errors go at once; the console sets it
        self.report: Callable[[Note | Warn, str], None] = _discard
        #: whether shell commands may write to our own standard output themselves
        self.direct_output = False
        #: writes to the terminal itself, for screens that are drawn over; None where there is none
        self.screen: Callable[[str], None] | None = None
        #: what ::snapshot kept, by name
        self.snapshots: dict[str, list[Any]] = {}
        #: writes are shown and not made (``--dry-run``)
        self.dry_run = False
        #: nothing is written for the time being (``::set +w``)
        self.protected = False
        #: makes the renderer for what goes to a shell command; None: plain text
        self.shell_renderer: Callable[[], Renderer] | None = None

    # -- the target and its spaces ------------------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        """The target.

        :raises KshellError: there is none (``kshell -n``, or the running system could not be opened)
        """
        if self._target is None:
            raise KshellError(self.why_no_target or "no target", hint="kshell DUMP opens one, kshell alone this system")
        return self._target

    @property
    def typed(self) -> Target:
        """The target, or one without any memory, in which types can be declared and asked for all the same."""
        if self._target is not None:
            return self._target
        if self._bare is None:
            from kshell.arch.x86_64 import X86_64
            from kshell.target.target import Target, Unavailable

            self._bare = Target("", "no target", X86_64())
            self._bare.findings["types"] = "no target; ::typedef declares types"
            for space in ("kernel", "physical"):
                setattr(self._bare, space, Unavailable(space, self.why_no_target or "no target"))
        return self._bare

    def attach(self, target: Target | None) -> None:
        """Make *target* the session's target."""
        self._target = target

    @property
    def has_target(self) -> bool:
        return self._target is not None

    def check(self) -> None:
        """Look whether the image is still the one that was opened; called before each statement.

        :raises FormatError: it changed on disk
        """
        if self._target is not None:
            self._target.check()

    def question(self) -> AbstractContextManager[None]:
        """The time of one statement: see :meth:`kshell.target.target.Target.question`."""
        if self._target is None or not self._target.live:
            return nullcontext()
        return self._target.question() if self.context is None or not self.context.mm else self._question()

    @contextmanager
    def _question(self) -> Iterator[None]:
        """A question with a process context in a kernel that moves: the process is looked at again first."""
        assert self._target is not None
        with self._target.question():
            self._renew_context(self._target)
            yield

    def _renew_context(self, target: Target) -> None:
        """Let the process context follow an execve(2), and end with its process."""
        from kshell.linux import processes, tasks

        context = self.context
        if context is None or not context.mm:
            return
        try:
            task = tasks.read_task(target, context.task)
            same = task.pid == context.pid and not task.is_zombie and bool(task.mm)
            if same and task.mm != context.mm:
                space = processes.user_memory(target, task)
                self.context = Context(task.pid, task.comm, space, task.address, task.mm)
        except KshellError:
            same = False
        if not same:
            self.context = None
            self.report(Warn(f"process {context.pid} ({context.comm}) is gone: no process context any more"), "")

    @property
    def kernel(self) -> Memory:
        """Kernel virtual memory. :raises KshellError: the target is no kernel"""
        if self.target.kind != "kernel":
            raise KshellError(f"there is no kernel memory: the target is a {self.target.kind}")
        return self.target.kernel

    @property
    def physical(self) -> Memory:
        """Physical memory."""
        return self.target.physical

    @property
    def user(self) -> Memory:
        """User memory of the process context.

        :raises NoProcessError: no context is set
        """
        if self.target.kind != "kernel":
            return self.target.kernel
        if self.context is None:
            raise NoProcessError("no process context", hint="::getu PID chooses the process (::ps lists them)")
        return self.context.space

    def space(self, address: int) -> Memory:
        """Return the memory that virtual *address* belongs to: the kernel's or the process context's, by its half.

        A target that is a process, a core or a file has one memory.

        :raises NoProcessError: it is a user address and no context is set
        """
        target = self.target
        if address >= target.arch.kernel_half or target.kind != "kernel":
            return target.kernel
        if self.context is None:
            raise NoProcessError(
                f"0x{address:x} is a user address and there is no process context", hint=self._why_user(address))
        return self.context.space

    def _why_user(self, address: int) -> str:
        """Return what to do about a user address: it may be the value of a per-CPU symbol."""
        choose = "::getu PID chooses the process (::ps lists them)"
        find = getattr(self.target.symbols, "per_cpu", None)
        found = find(address) if find is not None and address else None
        return choose if found is None else (
            f"{choose}\n0x{address:x} is the offset of the per-CPU symbol {found.name}: {found.name}::walk percpu")

    def memory(self, name: str, address: int = 0) -> Memory:
        """Return the memory called *name*: "kernel", "user", "physical", or "virtual" (by the half of *address*).

        :raises NotFoundError: there is no such space
        """
        if name == "virtual":
            return self.space(address)
        if name == "object":
            if self.target.object_file is not None:
                return self.target.object_file
            raise KshellError("operation not supported by target",
                              hint="there is no object file: / is memory; kshell DUMP VMLINUX has one")
        if name not in ("kernel", "user", "physical"):
            raise NotFoundError("address space", name)
        found: Memory = getattr(self, name)
        return found

    def set_context(self, context: Context | None) -> None:
        """Choose the process that user addresses go to."""
        self.context = context

    # -- expressions and numbers --------------------------------------------------------------------------------------

    def evaluate(self, text: str) -> int:
        """Return the value of the expression *text*, 64 bits unsigned.

        :raises ParseError: it is no expression
        :raises EvaluateError: it has no value
        """
        from kshell.lang.parser import parse_only_expression

        return self.value(parse_only_expression(text))

    def value(self, expression: Expression) -> int:
        """Return the value of a parsed expression. Raises as :meth:`evaluate`."""
        from kshell.evaluate import evaluate

        return evaluate(expression, self, self.near_symbols)

    def near_symbols(self, name: str) -> Sequence[str]:
        """Return names of symbols that look like *name*, which is none.

        :raises KshellError: there are no symbols at all; says why
        """
        try:
            dcmd = "quit" if name == "exit" else name
            if self.registry.has_dcmd(dcmd):
                return (f"::{dcmd}",)
            if self._target is not None:
                told = getattr(self._target, "findings", {}).get("symbols", "")
                if told.startswith("none"):
                    raise KshellError(f"unknown symbol name; symbols: {told}")
                head, _, members = name.partition(".")
                if members and self._target.symbols.get(head) is not None:
                    raise KshellError("unknown symbol name", hint=f"a member is printed with {head}::print {members}")
                self._target.symbol(name)
        except SymbolNotFoundError as error:
            return error.near
        return ()

    @property
    def byteorder(self) -> Literal["little", "big"]:
        return "little" if self._target is None else self._target.arch.byteorder

    @property
    def pointer_size(self) -> int:
        return 8 if self._target is None else self._target.arch.pointer_size

    def symbol(self, name: str, object: str | None = None) -> int | None:
        """Return the address of the symbol *name* (of the module *object*), or None when there is none."""
        if self._target is None:
            return None
        if object is None:
            found = self._target.symbols.get(name)
            return None if found is None else found.address
        try:
            if object in ("vmlinux", "kernel") and self._target.kind == "kernel":
                symbol = self._target.symbol(name)  # the kernel is asked before its modules
                return symbol.address if symbol.module is None else None
            return self._target.symbol(name, object).address
        except SymbolNotFoundError:
            return None

    def variable(self, name: str) -> int:
        """Return the value of the variable *name*.

        :raises KeyError: it is not defined; carries names that are near too
        """
        value = self.variables.get(name)
        if value is None:
            from kshell.types.model import near_names

            raise KeyError(name, *near_names(name, [variable.name for variable in self.variables]))
        return value

    def bind(self, bindings: Mapping[str, int] | None) -> None:
        """Give the walk variables the values that belong to the pipe value to come."""
        self.bindings = bindings
        for name, value in (bindings or {}).items():
            self.variables[name] = value

    def bind_also(self, name: str, value: int) -> Mapping[str, int]:
        """Set the walk variable *name* for what comes out of this stage from now on; return all that hold."""
        self.bind({**(self.bindings or {}), name: value})
        return self.bindings or {}

    def read(self, address: int, size: int, space: str = "virtual") -> bytes:
        """Return *size* bytes at *address* of the memory called *space* (see :meth:`memory`).

        :raises Fault: they are not all there
        :raises NoProcessError: a user address without a process context
        """
        return self.memory(space, address).read(address, size)

    def eval(self, text: str, dot: int | None = None) -> Generator[Output, None, Status]:
        """Obey the command line *text* with dot = *dot*, yielding its output; return the status of its last dcmd.

        :raises KshellError: the text cannot be parsed; what ran before the error has run
        """
        from kshell.pipeline import obey

        if dot is not None:
            self.dot = dot
        return obey(self, text)

    def obey_file(
        self, path: str, words: Sequence[str | int] = (), *, returns: bool = True, piped: bool = False,
    ) -> Generator[Output, None, Status]:
        """Obey the commands in the file *path*, yielding their output; return the status of the last dcmd.

        :param words: its arguments, expressions: the variables 1 to 8 while it runs; none leaves them as they are
        :param returns: False lets it take the place of the file that runs, if there is one (not in a pipe: *piped*)
        :raises KshellError: it cannot be opened or read
        """
        from kshell.scripts import obey_file

        return obey_file(self, path, words, returns=returns, piped=piped)

    def leave_file(self) -> None:
        """Obey no more of the file of commands that runs.

        :raises UsageError: none does
        """
        from kshell.scripts import leave

        leave(self)

    def eval_dot(self, text: str, dot: int) -> int:
        """Obey *text* with dot = *dot*, drop what it prints, and return the dot it leaves; the session's dot stays."""
        kept = self.dot, self.increment, self.direct_output
        self.direct_output = False
        try:
            for _ in self.eval(text, dot):
                pass
            return self.dot
        finally:
            self.dot, self.increment, self.direct_output = kept

    def walk(self, name: str, address: int | None = None) -> Iterator[Output]:
        """Yield what the walker *name* finds, from *address* if one is given.

        :raises NotFoundError: no such walker
        :raises UsageError: it needs an address, or takes none
        """
        from kshell.pipeline import walk

        try:
            walker = self.registry.find_walker(name)
        except NotFoundError:
            found = self._walk_family(name)
            if found is None:
                raise
            if address is not None:
                raise UsageError(f"walker {name} takes no address") from None
            walker, address = found
        return walk(self, walker, address)

    def _walk_family(self, name: str) -> tuple[Walker, int] | None:
        """Return the walker that serves *name*, a name of the target's own, and where it starts; None if none does."""
        if self._target is not None:
            for walker in self.registry.families():
                start = walker.family(self, name) if walker.family is not None else None
                if start is not None:
                    return walker, start
        return None

    def format_number(self, value: int) -> str:
        """Return *value* in the current radix with a prefix where it needs one (the show-base rule)."""
        return show_base(value, self.radix)

    def name_of(self, address: int) -> str:
        """Return ``symbol+0x1c`` for *address*, with its module in front, or a number when no symbol covers it."""
        found = self._target.symbolize(address) if self._target is not None else None
        if found is None:
            return self.format_number(address)
        symbol, offset = found
        name = symbol.shown
        return f"{name}+{self.format_number(offset)}" if offset else name

    def set_symbol_distance(self, distance: int) -> None:
        """Let symbols name what is less than *distance* bytes behind their beginning; 0: what their size covers."""
        self.options.symbol_distance = distance
        if self._target is not None:
            self._target.symbols.distance = distance

    def set_search_path(self, letter: str, path: str) -> None:
        """Set the path of ``-I`` (files of commands) or ``-L`` (plugins).

        :raises UsageError: it has an unknown token
        """
        from kshell.searchpath import folders

        if letter == "I":
            self.options.macro_path = folders(self, path, self.options.macro_path)
        else:
            self.options.module_path = folders(self, path, self.module_folders())

    def module_folders(self) -> tuple[str, ...]:
        """Return the folders in which ``::load name`` looks."""
        if self.options.module_path is not None:
            return self.options.module_path
        from kshell.loader import plugin_dir

        own = plugin_dir()
        return () if own is None else (str(own),)

    # -- the log, and the end -----------------------------------------------------------------------------------------

    def start_log(self, path: str) -> None:
        """Append input and output to the file *path* from now on."""
        try:
            log = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - kept open
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise KshellError(f"cannot log to {repr_name(path)}: {why}") from error
        self.stop_log()
        self._log, self.log_path = log, path

    def stop_log(self) -> None:
        """Stop logging; does nothing when no log is active."""
        if self._log is not None:
            self._log.close()
        self._log, self.log_path = None, ""

    def log(self, text: str) -> None:
        """Write *text* to the log, when there is one."""
        if self._log is not None:
            self._log.write(text)
            self._log.flush()

    def quit(self) -> None:
        """End the session after this command."""
        self.done = True

    def close(self) -> None:
        """Close log and target."""
        self.stop_log()
        if self._spill is not None:
            self._spill.close()
        if self._target is not None:
            self._target.close()


def _discard(_item: Note | Warn, _where: str) -> None:
    """Drop a note: a session without a console has nobody to tell."""


