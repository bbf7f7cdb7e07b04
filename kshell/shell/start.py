"""From the command line's options to a running session: target, registry, console, and the source of the commands."""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING, NamedTuple

from kshell.builtin import make_registry
from kshell.console import Console
from kshell.errors import KshellError, OpenError, UsageError
from kshell.output import Warn
from kshell.render import JsonRenderer
from kshell.scripts import script_arguments
from kshell.session import Session
from kshell.shell.interrupts import keep_interrupts
from kshell.shell.scripted import run_file, run_startup, run_strings

if TYPE_CHECKING:
    from kshell.target.target import Target


class Settings(NamedTuple):
    """What ``::set`` would be told: options to switch on and off, paths, the prompt, the distance behind symbols."""

    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    macros: str | None = None
    modules: str | None = None
    prompt: str | None = None
    distance: int | None = None

    def apply(self, session: Session) -> None:
        """Change *session*, whose target is open.

        :raises UsageError: an option or path is wrong
        """
        for words, on in [(words, True) for words in self.on] + [(words, False) for words in self.off]:
            session.options.switch(words, on)
        if self.macros is not None:
            session.set_search_path("I", self.macros)
        if self.modules is not None:
            session.set_search_path("L", self.modules)
        if self.prompt is not None:
            session.options.prompt = self.prompt[:35]
        if self.distance is not None:
            session.set_symbol_distance(self.distance)


class Request(NamedTuple):
    """What the command line asks for.

    :ivar mode: "r", "r+" (``-w``) or "c" (``--cow``)
    :ivar raw: the target is raw memory; ``phys_base`` and ``map`` tell where its bytes belong
    :ivar parts: the other files of a split dump; :ivar kernel: which of several kernels
    :ivar stay_stopped: a machine that kshell stopped is left so
    :ivar arguments: of the script; :ivar startup: obey the startup file first
    :ivar dry_run: writes are shown and not made
    :ivar want_kernel: a target without readable kernel memory is an error
    :ivar options: of the session
    :ivar pause: a virtual machine or a process is stopped for each question
    """

    commands: tuple[str, ...] = ()
    script: str | None = None
    mode: str = "r"
    no_target: bool = False
    json: bool = False
    quiet: bool = False
    stop_on_error: bool = False
    plugins: bool = True
    target: str | None = None
    vmlinux: str | None = None
    raw: bool = False
    phys_base: int = 0
    map: str | None = None
    parts: tuple[str, ...] = ()
    kernel: int | None = None
    stay_stopped: bool = False
    arguments: tuple[str, ...] = ()
    startup: bool = True
    pause: bool = False
    want_kernel: bool = False
    dry_run: bool = False
    options: Settings = Settings()


def start(request: Request) -> int:
    """Do what *request* asks; return the exit status."""
    keep_interrupts()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    interactive = not request.commands and request.script is None and sys.stdin.isatty()
    script: IO[bytes] | None = None
    if request.script is not None and request.script != "-":
        try:
            script = open(request.script, "rb")  # noqa: SIM115 - read as it is needed
        except OSError as error:
            sys.stderr.write(f"kshell: cannot open {request.script}: {error.strerror}\n")
            return 1
    session = Session()
    console = Console(session, sys.stdout, sys.stderr, json=request.json, quiet=request.quiet,
                      terminal=sys.stdout.isatty())
    if request.target is not None and ":" in request.target:
        _end_in_order()
    session.direct_output = True
    session.dry_run = request.dry_run
    if sys.stdout.isatty() and not request.json and os.environ.get("TERM", "dumb") != "dumb":
        session.screen = _draw
    session.shell_renderer = JsonRenderer if request.json else None
    try:
        target = None if request.no_target else _open(request, console)
    except KshellError as error:
        console.error(error)
        console.end_command()
        return 1
    except Exception as error:  # a dump may be crafted: what it brings about is told in a line all the same
        from kshell.bugs import keep_trace

        console.error(keep_trace(error, "kshell"))
        console.end_command()
        return 1
    session.attach(target)
    try:
        request.options.apply(session)
    except UsageError as error:
        session.close()
        console.error(error)
        return 2
    session.registry = make_registry(lambda problem: session.report(Warn(problem), ""), plugins=request.plugins)
    try:
        if request.startup and (startup := _startup_file(console)):
            run_startup(session, console, startup)
            if session.done:
                return 0
        arguments = script_arguments(session, request.arguments) if request.arguments else None
        if interactive:
            from kshell.shell.interactive import run_interactive

            with session.question():  # a machine that was stopped to be opened runs while the user thinks
                pass
            return run_interactive(session, console, banner=not request.quiet)
        if request.commands:
            return run_strings(session, console, request.commands, stop_on_error=request.stop_on_error)
        source = script if script is not None else sys.stdin.buffer
        return run_file(session, console, source, strict=request.script is not None,
                        stop_on_error=request.stop_on_error, arguments=arguments)
    except KshellError as error:
        console.error(error)
        console.end_command()
        return 1
    except BrokenPipeError:
        return _drop_output(0)
    except OSError as error:  # dcmds' own are caught: this is our output
        sys.stderr.write(f"kshell: cannot write the output: {error.strerror}\n")
        return _drop_output(1)
    finally:
        session.close()
        if script is not None:
            script.close()


def _draw(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _end_in_order() -> None:
    """Let SIGTERM and SIGHUP end us by the way of every ``finally``: a machine that we stopped has to run again."""
    import signal

    def leave(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, leave)


def _startup_file(console: Console) -> str | None:
    """Return the startup file if there is one and it belongs to the user: ``kshell/startup`` in the XDG folder."""
    from kshell.loader import config_dir, unsafe

    folder = config_dir()
    if folder is None or not os.path.lexists(folder / "startup"):
        return None
    for path in (folder, folder / "startup"):
        why = unsafe(path)
        if why:
            console.error(f"the startup file {folder / 'startup'} is not obeyed: {path} {why}")
            console.end_command()
            return None
    return str(folder / "startup")


def _drop_output(status: int) -> int:
    """Send what is still in the buffers nowhere: its reader is gone, or the disk is full. Return *status*."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _open(request: Request, console: Console) -> Target:
    from kshell.shell.bar import Bar
    from kshell.target.formats import Options
    from kshell.target.open import open_target

    bar = Bar(shown=not request.quiet and sys.stderr.isatty(), after=0.5)
    options = Options(raw=request.raw, phys_base=request.phys_base, map=request.map, parts=request.parts,
                      kernel=request.kernel, pause=request.pause, stay_stopped=request.stay_stopped,
                      progress=bar.show)
    try:
        target = open_target(request.target, request.vmlinux, request.mode, options)
    finally:
        bar.clear()
    if request.want_kernel:
        from kshell.target.target import Unavailable

        if isinstance(target.kernel, Unavailable):
            why, hint = target.kernel.why, target.kernel.hint
            target.close()
            raise OpenError("", f"the kernel's memory cannot be read: {why}", kind="permission", hint=hint)
    target.progress = bar.show
    console.wipe = bar.clear
    return target

