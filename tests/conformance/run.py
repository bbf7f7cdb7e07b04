"""What the conformance modules run lines with: kshell's own dcmds over a small memory of known bytes.

A module is a table of (id, line, output) where it can be: the id begins with the section of the rule it holds, such as
``2.3-underscores``; :func:`cases` makes pytest parameters of them and :func:`check` compares. The memory is that of
``tests.fake_target``: bytes 0 1 2 ... ff, 4096 of them, at KERNEL (virtual) and at 0 (physical), with the symbols
``init_task`` (+0x100), ``jiffies`` (+0x200) and ``mod`helper`` (+0x300). A *typed* machine has the same as a real
:class:`~kshell.target.target.Target`, in which ``::typedef`` declares types.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import pytest

from kshell.arch.x86_64 import X86_64
from kshell.builtin import make_registry
from kshell.console import Console
from kshell.pipeline import Status
from kshell.session import Session
from kshell.shell.scripted import run_file, run_text
from kshell.target.target import Target
from kshell.types.names import SymbolIndex
from kshell.types.procsyms import SymbolList
from tests.fake_target import DATA, KERNEL, Bytes, fake_target

__all__ = ["DATA", "KERNEL", "Case", "Machine", "Said", "cases", "check", "together"]

#: How a line reaches the session: typed at the prompt, as ``-e`` gives it, or as a line of a script.
How = Literal["terminal", "string", "script"]


class Said(NamedTuple):
    """What running some text did.

    :ivar raw: the output, byte for byte; :ivar err: what went to stderr
    :ivar good: a terminal or a string: all could be parsed and evaluated; a script: its exit status was 0
    :ivar status: of the last dcmd that ran
    """

    raw: str
    err: str
    good: bool
    status: Status | None

    @property
    def out(self) -> str:
        """The output without the blanks at the ends of lines, which the padding of formats leaves."""
        return re.sub(r"[ \t]+(?=\n)", "", self.raw)

    @property
    def words(self) -> str:
        """All words of the output, one blank between."""
        return " ".join(self.raw.split())

    @property
    def errors(self) -> list[str]:
        """The messages on stderr, without ``kshell:``, the lines under which they point and the hints."""
        return re.findall(r"^(?:\S+:\d+: )?kshell: (.*)$", self.err, re.MULTILINE)


class Machine:
    """A session with the dcmds that come with kshell.

    :param target: the memory described above; False is ``kshell -n``
    :param typed: the same memory, or these bytes, as a real target
    :param modules: modules made by ``tests.shell_session.make_module``, with dcmds and walkers of the test's own
    """

    def __init__(
        self, *modules: Any, target: bool = True, writable: bool = False, json: bool = False, quiet: bool = False,
        typed: bool | bytes = False,
    ) -> None:
        made = real_target(typed if isinstance(typed, bytes) else DATA, writable) if typed else fake_target(writable)
        self.session = Session(made if target else None, make_registry(lambda _problem: None, plugins=False))
        for module in modules:
            self.session.registry.add_module(module)
        self._out, self._err = io.StringIO(), io.StringIO()
        self.console = Console(self.session, self._out, self._err, json=json, quiet=quiet)

    def run(self, text: str, how: How = "terminal") -> Said:
        """Obey *text* and return what it did; the session goes on."""
        self.session.status = None
        if how == "script":
            good = run_file(self.session, self.console, io.BytesIO(text.encode()), strict=True) == 0
        else:
            good = run_text(self.session, self.console, text, string=how == "string", recover=False)
        said = Said(self._out.getvalue(), self._err.getvalue(), good, self.session.status)
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        return said


def real_target(data: bytes, writable: bool = False) -> Target:
    """Return a Target with *data* as its memory, the symbols of the fake one, and no types but those declared."""
    target = Target("fake", "fake memory", X86_64(), mode="r+" if writable else "r")
    target.kernel = Bytes("kernel", KERNEL, data, writable)
    target.physical = Bytes("physical", 0, data, writable)
    kernel = SymbolList([(KERNEL + 0x100, "D", "init_task", None), (KERNEL + 0x140, "d", "behind_it", None),
                         (KERNEL + 0x200, "D", "jiffies", None), (KERNEL + 0x208, "d", "beyond", None),
                         (KERNEL + 0x280, "T", "main", None), (KERNEL + 0x2a0, "T", "_end", None)])
    module = SymbolList([(KERNEL + 0x300, "t", "helper", "mod"), (KERNEL + 0x310, "t", "jiffies", "mod"),
                         (KERNEL + 0x320, "d", "__this_module", "mod")])
    target.make_symbols = lambda _target: SymbolIndex([kernel, module])
    return target


class Case(NamedTuple):
    """A row of a table: *line* prints *out* and nothing else, or fails with *error* behind having printed *out*.

    :ivar out: without blanks at the ends of lines; a text without a newline is compared word by word
    :ivar error: the whole message, without ``kshell:``; None: nothing may go to stderr
    """

    rule: str
    line: str
    out: str = ""
    error: str | None = None
    how: How = "terminal"
    target: bool = True
    typed: bool = False
    writable: bool = False


def cases(*rows: Case | tuple[str, ...]) -> pytest.MarkDecorator:
    """Return a decorator that runs a test for each of *rows*, as its parameter ``case``; ids are their rules."""
    made = [row if isinstance(row, Case) else Case(*row) for row in rows]  # type: ignore[arg-type]
    names = [case.rule for case in made]
    double = {name for name in names if names.count(name) > 1}
    assert not double, f"two rows have the id {sorted(double)}"
    return pytest.mark.parametrize("case", made, ids=names)


def check(case: Case, machine: Machine | None = None) -> None:
    """Run *case* in a fresh session, or in *machine*, and compare."""
    made = machine or Machine(target=case.target, typed=case.typed, writable=case.writable)
    said = made.run(case.line, case.how)
    found = said.out if not case.out or "\n" in case.out else said.words
    assert found == case.out, said.err
    assert said.errors == ([] if case.error is None else [case.error])


def together(lines: Iterable[str]) -> str:
    """Return lines as output has them."""
    return "".join(line + "\n" for line in lines)
