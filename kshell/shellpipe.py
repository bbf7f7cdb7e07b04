"""Shell commands: ``! text``, at the end of a pipeline or quoted as a stage of one.

Reference: mdb-language.md 8.4. Output streams into the command and back; a command that ends early stops the producer.
Commands run in ``$SHELL -c``, as in mdb.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import IO, TYPE_CHECKING, Any

from kshell.errors import KshellError
from kshell.lang import ast
from kshell.output import Block, Flush, Output, Warn
from kshell.render import TextRenderer

if TYPE_CHECKING:
    import subprocess

    from kshell.pipeline import Status
    from kshell.session import Session

_CHUNK = 1 << 16
_MOST = 1 << 24  # bytes of commands that !< obeys
_GRACE = 0.5  # seconds in which a command ends whose output nobody wants any more
_PIPE, _NOTHING = -1, -3  # subprocess.PIPE and DEVNULL, which is imported when a command runs


def _start(
    session: Session, text: str, *, stdin: int | None, stdout: int | None, apart: bool = False,
) -> subprocess.Popen[bytes]:
    """Start ``$SHELL -c text``; *apart* in a process group of its own, so that all of it can be ended.

    On a terminal it stays in ours all the same: only there may it ask for keys, and Ctrl-C reaches it by itself.
    """
    import subprocess

    shell = os.environ.get("SHELL") or "/bin/sh"
    if not (os.path.isfile(shell) and os.access(shell, os.X_OK)):
        raise KshellError(f"cannot access {shell}", hint="set SHELL to a shell that can be run")
    try:
        # Without buffers of ours: nothing is left to be written when an interrupt comes.
        group = 0 if apart and not os.isatty(2) else None
        return subprocess.Popen([shell, "-c", text], stdin=stdin, stdout=stdout, bufsize=0, process_group=group)
    except OSError as error:
        raise KshellError(f"cannot run {shell}: {error.strerror}") from error


def run_alone(session: Session, escape: ast.ShellEscape) -> Generator[Output, None, Status]:
    """Run ``! text`` on its own; the status is OK whatever the command returns, as in mdb."""
    from kshell.pipeline import Status

    if escape.obey:
        return (yield from _obey(session, _captured(session, escape.text, None)))
    if session.direct_output:
        import subprocess

        yield Flush()
        child = _start(session, escape.text, stdin=None if session.interactive else subprocess.DEVNULL, stdout=None)
        _wait(child)
    else:
        yield from _blocks(_captured(session, escape.text, None))
    return Status.OK


def feed_shell(session: Session, escape: ast.ShellEscape, outputs: Iterator[Output]) -> Iterator[Output]:
    """Write *outputs* as text to the command, and yield what it prints when it cannot print itself."""
    if escape.obey:
        yield from _obey(session, _captured(session, escape.text, outputs))
    elif session.direct_output:
        import subprocess

        yield Flush()
        child = _start(session, escape.text, stdin=subprocess.PIPE, stdout=None)
        assert child.stdin is not None
        try:
            for piece in _text(session, outputs, last=True):
                rest = memoryview(piece)
                while rest:
                    rest = rest[child.stdin.write(rest):]
        except BrokenPipeError:
            _close(outputs)
        except SystemExit:  # SIGTERM: a machine that stands for this command is not to wait for the child's end
            _close_pipe(child.stdin)
            _end(child)
            raise
        finally:
            _close_pipe(child.stdin)
            _wait(child)
    else:
        yield from _blocks(_captured(session, escape.text, outputs))


def shell_stage(session: Session, text: str, outputs: Iterator[Output] | None) -> Iterator[Output]:
    """Run a quoted shell command as a stage: *outputs* (None: nothing) are its input, its output is yielded.

    :raises Stopped: it cannot be run (reported)
    """
    from kshell.pipeline import Status, Stopped

    try:
        child = _start(session, text, stdin=_PIPE if outputs is not None else _NOTHING, stdout=_PIPE, apart=True)
    except KshellError as error:
        session.failed, session.status = True, Status.ABORT
        session.report(Warn(error), "!")
        raise Stopped from None
    yield from _blocks(_exchange(session, child, outputs, last=False))


def _obey(session: Session, pieces: Iterator[bytes]) -> Generator[Output, None, Status]:
    """Obey what a command has printed, once it has ended, as a file of commands.

    :raises KshellError: it is too much
    """
    from kshell.scripts import Script, obey_script

    captured = bytearray()
    for piece in pieces:
        captured += piece
        if len(captured) > _MOST:
            raise KshellError(f"the command printed more than {_MOST >> 20} MiB; none of it is obeyed")
    return (yield from obey_script(session, Script(bytes(captured).splitlines(), "(!<)", string=True)))


def _blocks(pieces: Iterator[bytes]) -> Iterator[Output]:
    for piece in pieces:
        yield Block(piece)


def _text(session: Session, outputs: Iterator[Output], *, last: bool) -> Iterator[bytes]:
    """Yield *outputs* as bytes for a command: plain text, or NDJSON behind the last stage if the session writes it."""
    made = session.shell_renderer() if session.shell_renderer is not None and last else None
    renderer = made or TextRenderer(lambda: session.radix)
    for item in outputs:
        for piece in renderer.render(item):
            yield piece.encode("utf-8", "surrogateescape")
    for piece in renderer.finish():
        yield piece.encode("utf-8", "surrogateescape")


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Wait for *child* as system(3) does: it has the terminal, so interrupts are its business until it ends.

    :raises KeyboardInterrupt: an interrupt has ended it
    """
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        child.wait()
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = child.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    if status in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt


def _end(child: subprocess.Popen[bytes]) -> None:
    """End *child*, whose output nobody wants any more: most notice when they write, the others are told.

    What it has started itself is told too, where they are a process group: it might hold our caller's pipes open.
    """
    import signal
    import subprocess

    apart = os.getpgid(child.pid) == child.pid
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            child.wait(_GRACE)
            return
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, number) if apart else child.send_signal(number)


def _close(outputs: Iterator[Output] | None) -> None:
    close = getattr(outputs, "close", None)
    if close is not None:
        close()


def _close_pipe(pipe: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


def _captured(session: Session, text: str, outputs: Iterator[Output] | None) -> Iterator[bytes]:
    child = _start(session, text, stdin=_PIPE if outputs is not None else _NOTHING, stdout=_PIPE, apart=True)
    yield from _exchange(session, child, outputs, last=True)


def _exchange(
    session: Session, child: subprocess.Popen[bytes], outputs: Iterator[Output] | None, *, last: bool,
) -> Iterator[bytes]:
    """Write *outputs* to *child* and yield what it prints, in one thread and without a deadlock."""
    import selectors

    assert child.stdout is not None
    selector = selectors.DefaultSelector()
    pending = b""
    ended = False
    source: Iterator[bytes] = iter(()) if outputs is None else _text(session, outputs, last=last)
    try:
        selector.register(child.stdout, selectors.EVENT_READ)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            selector.register(child.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            for key, _ in selector.select():
                pipe: Any = key.fileobj
                if pipe is child.stdout:
                    piece = os.read(child.stdout.fileno(), _CHUNK)
                    if not piece:
                        ended = True
                        selector.unregister(pipe)
                    else:
                        yield piece
                    continue
                assert child.stdin is not None
                try:
                    pending = pending or next(source, b"")
                    if pending:
                        pending = pending[os.write(child.stdin.fileno(), pending):]
                        continue
                except BrokenPipeError:
                    _close(outputs)
                selector.unregister(pipe)
                _close_pipe(child.stdin)
    finally:
        selector.close()
        if child.stdin is not None and not child.stdin.closed:
            _close_pipe(child.stdin)
        child.stdout.close()
        if not ended:
            _end(child)
        _wait(child)
