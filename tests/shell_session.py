"""A session on a fake target with dcmds of its own, and what it writes."""

from __future__ import annotations

import io
import re
from types import ModuleType
from typing import Any

from kshell.console import Console
from kshell.registry import Dcmd, Registry, Walker
from kshell.session import Session
from kshell.shell.scripted import run_text
from tests.fake_target import fake_target


class Shell:
    """Runs lines; :attr:`out` and :attr:`err` are what the last one wrote."""

    def __init__(
        self, *declared: Dcmd | Walker, target: bool = True, writable: bool = False, json: bool = False,
        quiet: bool = False,
    ) -> None:
        self.session = Session(fake_target(writable) if target else None, make_registry(*declared))
        self._out, self._err = io.StringIO(), io.StringIO()
        self.console = Console(self.session, self._out, self._err, json=json, quiet=quiet)
        self.out = self.err = ""

    def run(self, text: str, **how: Any) -> str:
        """Obey *text* as at a prompt and return its output."""
        how = {"string": False, "recover": False, **how}
        run_text(self.session, self.console, text, **how)
        # Formatting verbs pad the last field too, as mdb does; no test here is about that.
        self.out = re.sub(r" +(?=\n)", "", self._out.getvalue())
        self.err = self._err.getvalue()
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        return self.out


def make_registry(*declared: Dcmd | Walker, module: str = "testing") -> Registry:
    """Return a registry with one module that holds *declared*."""
    registry = Registry()
    registry.add_module(make_module(*declared, module=module))
    return registry


def make_module(*declared: Dcmd | Walker, module: str = "testing") -> ModuleType:
    """Return a module that defines *declared*."""
    made = ModuleType(module)
    for number, thing in enumerate(declared):
        assert not thing.function.__module__.startswith("kshell."), "would take it from its module for all later tests"
        thing.function.__module__ = module
        setattr(made, f"thing{number}", thing)
    return made
