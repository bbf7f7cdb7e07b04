"""Ctrl-C where Python cannot raise: in a finalizer or the callback of a weak reference, as while a module is loaded."""

from __future__ import annotations

import _thread
import sys
import time

#: until a lost interrupt is sent again, in seconds
DELAY = 0.01


def keep_interrupts() -> None:
    """Have a ``KeyboardInterrupt`` that Python prints and drops (``sys.unraisablehook``) come again a moment later."""
    before = sys.unraisablehook

    def told(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            _thread.start_new_thread(_again, ())
        else:
            before(lost)

    sys.unraisablehook = told


def _again() -> None:
    """Send the interrupt again when the main thread has left the place where nothing can be raised."""
    import signal
    import threading

    time.sleep(DELAY)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)
