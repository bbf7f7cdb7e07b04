"""mdb-language.md section 14: modules of dcmds and walkers, and what their functions are told and may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest

from kshell.api import (
    Address,
    Argument,
    Call,
    Flag,
    KshellError,
    Next,
    Number,
    Option,
    Output,
    Session,
    Text,
    Warn,
    dcmd,
)
from kshell.registry import API_VERSION
from tests.conformance.run import KERNEL, Machine
from tests.shell_session import make_module


@dcmd("opts")
def opts(
    session: Session, address: int | None, a: Annotated[bool, Flag("-a", "a flag")], v: Annotated[bool, Flag("-v", "")],
    length: Annotated[Number | None, Option("-l", "bytes", "a number")],
    name: Annotated[str | None, Option("-c", "text", "a string")], words: list[Argument],
) -> Iterator[Output]:
    """Show what it was given."""
    yield Text(f"{a:d} {v:d} {length} {name} {words}")


@dcmd("same")
def first_same(session: Session, address: int | None) -> Iterator[Output]:
    """Let the next one do it when there is no address."""
    if address is None:
        raise Next
    yield Text("first")


@dcmd("same")
def second_same(session: Session, address: int | None) -> Iterator[Output]:
    """Be the second of the name."""
    yield Text("second")


@dcmd("warns")
def warns(session: Session) -> Iterator[Output]:
    """Warn and go on."""
    yield Text("before")
    yield Warn(KshellError("something is wrong"))
    yield Text("behind")


@dcmd("serves")
def serves(session: Session, call: Call, which: Address) -> Iterator[Output]:
    """Use what the API serves."""
    yield Text(f"{session.read(which, 4).hex()} {session.symbol('jiffies'):x} {session.name_of(which)} "
               f"{session.evaluate('2+3')} {call.pipe_out:d}")
    yield from session.eval("::echo obeyed")
    yield from session.walk("nothing_at_all")


def machine() -> Machine:
    return Machine(make_module(opts, first_same, warns, serves, module="one"), make_module(second_same, module="two"),
                   typed=True)


@pytest.mark.parametrize("words, out", [
    pytest.param("", "0 0 None None []", id="14-nothing"), pytest.param("-a", "1 0 None None []", id="14-a-flag"),
    pytest.param("-av", "1 1 None None []", id="14-flags-in-a-group"),
    pytest.param("-l 10", "0 0 16 None []", id="14-a-number-in-the-default-radix"),
    pytest.param("-l10", "0 0 16 None []", id="14-a-glued-value"), pytest.param("-l 0t10", "0 0 10 None []",
                 id="14-prefix"),
    pytest.param("-l $[8+8]", "0 0 16 None []", id="14-a-computed-number"),
    pytest.param("-al10", "1 0 16 None []", id="14-a-group-that-ends-in-a-value"),
    pytest.param("-c 'a b' x", "0 0 None a b ['x']", id="14-a-string"),
    pytest.param("x -a", "0 0 None None ['x', '-a']", id="14-the-first-word-ends-the-options"),
    pytest.param("- -a", "0 0 None None ['-', '-a']", id="14-so-does-a-dash"),
    pytest.param("$[5] x", "0 0 None None [5, 'x']", id="14-numbers-are-told-from-strings"),
])
def test_options(words: str, out: str) -> None:
    said = machine().run(f"::opts {words}")
    assert (said.out, said.errors) == (out + "\n", [])


@pytest.mark.parametrize("words, error", [
    pytest.param("-z", "illegal option -- z", id="15-illegal"),
    pytest.param("-l", "option requires an argument -- l", id="15-argument"),
])
def test_bad_options(words: str, error: str) -> None:
    said = machine().run(f"::opts {words}")
    assert said.errors == [f"::opts: {error}"]
    assert "Usage: [address]::opts [-av] [-l bytes] [-c text] [words ...]" in said.err
    assert "try '::help opts' for more information" in said.err


@pytest.mark.parametrize("line, out", [
    pytest.param("5::same", "first", id="14-the-first-loaded-wins"),
    pytest.param("::two`same", "second", id="14-the-other-by-its-module"),
    pytest.param("::same", "second", id="14-NEXT-falls-through"),
])
def test_one_name_in_two_modules(line: str, out: str) -> None:
    assert machine().run(line).words == out


def test_14_the_other_takes_over_when_the_first_is_unloaded() -> None:
    made = machine()
    made.session.registry.remove_module("one")
    assert made.run("5::same").words == "second"
    assert "unknown dcmd name" in made.run("::opts").err


def test_14_a_warning_is_told_on_stderr_and_the_status_is_ERR() -> None:
    said = machine().run("::warns")
    assert said.out == "before\nbehind\n"
    assert said.errors == ["::warns: something is wrong"]
    assert said.status is not None
    assert said.status.name == "ERR"


def test_14_services() -> None:
    said = machine().run(f"::serves {KERNEL + 0x108:x}")
    assert said.out == f"08090a0b {KERNEL + 0x200:x} init_task+8 5 0\nobeyed \n".replace(" \n", "\n")
    assert said.errors == ["::serves: failed to perform walk: unknown walk name"]


GOOD = '''
from kshell.api import dcmd
@dcmd("hello")
def hello(session):
    """Greet."""
    yield "hello"
'''


@pytest.mark.parametrize("text, error", [
    pytest.param(f"API_VERSION = {API_VERSION + 1}\n{GOOD}", "requires kshell API version", id="14-newer-api"),
    pytest.param(GOOD + GOOD.replace("def hello", "def again"), "hello", id="14-one-name-twice"),
    pytest.param(GOOD.replace('"hello"', '"he llo"', 1), "not a name", id="14-metacharacters"),
    pytest.param("1/0", "division by zero", id="14-a-module-that-fails"),
])
def test_modules_that_are_refused(text: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "greeting.py"
    path.write_text(text)
    said = machine().run(f"::load {path}")
    assert error in said.err
    assert "unknown dcmd name" in machine().run("::hello").err


def test_14_load_use_and_unload(tmp_path: Path) -> None:
    path = tmp_path / "greeting.py"
    path.write_text(GOOD)
    made = machine()
    assert "1 dcmds" in made.run(f"::load {path}").out
    assert made.run("::hello").out == "hello\n"
    assert "already loaded" in made.run(f"::load {path}").err
    assert made.run("::unload greeting").out == "greeting unloaded\n"
    assert "unknown dcmd name" in made.run("::hello").err


def test_14_a_name_that_is_taken_is_told(tmp_path: Path) -> None:
    path = tmp_path / "greeting.py"
    path.write_text(GOOD + GOOD.replace("hello", "echo"))
    said = machine().run(f"::load {path}; ::echo a; ::greeting`echo")
    assert said.out.splitlines()[1:] == ["a", "echo"]
    assert said.err == "::echo is still that of language; this one is ::greeting`echo\n"


def test_14_builtin_modules_stay() -> None:
    assert "cannot unload built-in module pipes" in machine().run("::unload pipes").err
    assert 'no module "nosuch"' in machine().run("::unload nosuch").err
    assert "could be found" in machine().run("::load /nosuch/thing.py").err
