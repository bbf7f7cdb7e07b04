"""Declaring, finding and loading dcmds and walkers; arguments bound to parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from kshell.api import (
    API_VERSION,
    Argument,
    Call,
    Expr,
    Flag,
    KshellError,
    NotFoundError,
    Number,
    Option,
    Output,
    Pid,
    Session,
    TypeName,
    UsageError,
    Values,
    Word,
    dcmd,
    walker,
)
from kshell.binding import bind
from kshell.builtin import make_registry as builtin_registry
from kshell.loader import entry_points, load, load_plugins
from kshell.registry import Dcmd, Registry
from tests.shell_session import make_module, make_registry


@dcmd("many", aliases=("$m",))
def many(
    session: Session, address: int | None, all_: Annotated[bool, Flag("-a", "everything")],
    verbose: Annotated[int, Flag("-v")], length: Annotated[int | None, Option("-l", "len")],
    columns: Annotated[list[str], Option("-o", "columns")], pids: list[Pid],
) -> Iterator[Output]:
    """Take many things.

    More help.
    """
    yield ""


@dcmd("typed")
def typed(
    session: Session, address: int, type_: TypeName, where: Expr, rest: list[Argument],
    how: Annotated[str, Word("how")] = "x",
) -> None:
    """Take a type."""


def bound(declared: Dcmd, *words: str | int, radix: int = 16) -> dict[str, Any]:
    return bind(declared.parameters, words, lambda text: int(text, 16) + 1, radix)


def test_declaration() -> None:
    assert (many.name, many.verb, many.summary, many.address) == ("many", "::many", "Take many things", "optional")
    assert typed.address == "required"
    assert many.usage == "[address]::many [-av] [-l len] [-o columns] ... [pid ...]"
    assert typed.usage == "address::typed type expr [rest ...] [how]"


def test_options() -> None:
    assert bound(many, "-avv", "-l10", "-o", "a", "-ob", "12", "0x10") == {
        "all_": True, "verbose": 2, "length": 16, "columns": ["a", "b"], "pids": [12, 16]}
    assert bound(many, "-l", "0t10")["length"] == 10
    assert bound(many, "-l10", radix=10)["length"] == 10
    assert bound(many, "-l", 7)["length"] == 7
    assert bound(many, "--", "12")["pids"] == [12]
    assert bound(many) == {"all_": False, "verbose": 0, "length": None, "columns": [], "pids": []}
    assert bound(many)["columns"] is not bound(many)["columns"]


@pytest.mark.parametrize("words, error", [
    (("-z",), "illegal option -- z"), (("-az",), "illegal option -- z"), (("-l",), "option requires an argument -- l"),
    (("-lzz",), '-l: "zz" is not a hexadecimal number'), (("ff",), '"ff" is not a decimal number'),
    (("-o", 5), "string argument required for -o"),
])
def test_wrong_options(words: tuple[str | int, ...], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        bound(many, *words)


def test_words() -> None:
    assert bound(typed, "struct", "list_head", "*", "10", "a", 5) == {
        "type_": "struct list_head *", "where": 0x11, "rest": ["a", 5], "how": "x"}
    with pytest.raises(UsageError, match="expr is missing"):
        bound(typed, "int")


def test_minus_number_is_a_word() -> None:
    @dcmd("head")
    def head(session: Session, values: Values, count: Annotated[str | None, Word("-num")]) -> None:
        """Pass some."""

    assert bound(head, "-5") == {"count": "-5"}


def test_too_many_words() -> None:
    @dcmd("one")
    def one(session: Session, call: Call, word: str | None) -> None:
        """Take one."""

    assert one.address == "refused"
    with pytest.raises(UsageError, match="too many arguments: b c"):
        bound(one, "a", "b", "c")


def test_names() -> None:
    registry = make_registry(many, typed)
    assert registry.find_dcmd("$m") is many
    assert registry.find_dcmd("testing`many") is many
    with pytest.raises(NotFoundError, match='no dcmd "mnay"; did you mean "many"'):
        registry.find_dcmd("mnay")
    with pytest.raises(NotFoundError, match='no loaded module "other"'):
        registry.find_dcmd("other`many")
    with pytest.raises(ValueError, match="not a name"):
        dcmd("a b")


def test_first_module_wins_and_the_other_takes_over() -> None:
    @dcmd("same")
    def first(session: Session) -> None:
        """First."""

    @dcmd("same")
    def second(session: Session) -> None:
        """Second."""

    registry = make_registry(first, module="one")
    registry.add_module(make_module(second, module="two"))
    assert registry.find_dcmds("same") == [first, second]
    assert registry.find_dcmd("two`same") is second
    module = registry.modules["one"]
    assert module is not None
    sys.modules["one"] = module
    registry.remove_module("one")
    assert registry.find_dcmd("same") is second


def test_a_module_that_cannot_be_loaded() -> None:
    registry = make_registry(many)
    newer = make_module(typed, module="newer")
    newer.API_VERSION = API_VERSION + 1  # type: ignore[attr-defined]
    with pytest.raises(KshellError, match=f"module newer requires kshell API version {API_VERSION + 1}"):
        registry.add_module(newer)
    with pytest.raises(KshellError, match="already loaded"):
        registry.add_module(make_module(typed))
    with pytest.raises(KshellError, match="defines 'many' twice"):
        registry.add_module(make_module(many, many, module="twice"))


def test_builtin_names_resolve() -> None:
    registry = builtin_registry(pytest.fail, plugins=False)
    for entry in list(registry.dcmds()):
        assert registry.find_dcmd(f"{entry.module}`{entry.name}").summary == entry.summary
    for entry in list(registry.walkers()):
        assert registry.find_walker(f"{entry.module}`{entry.name}").summary == entry.summary


# -- plugins ----------------------------------------------------------------------------------------------------------

GOOD = '''
from kshell.api import Session, dcmd, walker

@dcmd("hello")
def hello(session: Session, address: int | None, name: str = "world"):
    """Greet."""
    yield f"hello, {name}"
'''


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "kshell" / "plugins"
    folder.mkdir(parents=True)
    return folder


def test_plugin_file(plugins: Path) -> None:
    (plugins / "greet.py").write_text(GOOD)
    registry = Registry()
    registry.add_pending(lambda: load_plugins(registry, pytest.fail))
    assert registry.find_dcmd("hello").module == "greet"
    registry.remove_module("greet")
    assert not registry.has_dcmd("hello")
    assert load(registry, "greet") == 1
    with pytest.raises(KshellError, match="already loaded"):
        load(registry, str(plugins / "greet.py"))


@pytest.mark.parametrize("text, reason", [
    ("1/0", r"module broken failed to initialize: ZeroDivisionError: division by zero \(line 1\)"),
    ("def x(:", "SyntaxError"), ("raise SystemExit(3)", "SystemExit: 3"), ("\0", "null bytes"),
    ("API_VERSION = 99", "requires kshell API version 99"), ("import nosuchmodule", "No module named"),
    (GOOD.replace("int | None", "Nonsense"), "Nonsense"),
])
def test_broken_plugin_is_named_and_skipped(plugins: Path, text: str, reason: str) -> None:
    import re

    (plugins / "broken.py").write_text(text)
    (plugins / "greet.py").write_text(GOOD)
    registry, said = Registry(), list[str]()
    load_plugins(registry, said.append)
    assert len(said) == 1
    assert said[0].startswith(f"plugin {plugins}/broken.py skipped: ")
    assert re.search(reason, said[0])
    assert registry.has_dcmd("hello")


def test_plugin_that_everybody_may_write(plugins: Path) -> None:
    (plugins / "greet.py").write_text(GOOD)
    (plugins / "greet.py").chmod(0o666)
    registry, said = Registry(), list[str]()
    load_plugins(registry, said.append)
    assert not registry.has_dcmd("hello")
    assert "may be written by everybody" in said[0]


def test_nothing_from_the_current_directory(plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greet.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match='no module "greet"'):
        load(Registry(), "greet")
    assert load(Registry(), "./greet.py") == 1


def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "thing-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(
        "[console_scripts]\nthing = thing:main\n\n[kshell.plugins]\nthing = greet_plugin\n"
        "broken = nosuch_module_at_all\n")
    (tmp_path / "greet_plugin.py").write_text(GOOD)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "empty"))
    assert {entry.name: entry.module for entry in entry_points()} == {
        "thing": "greet_plugin", "broken": "nosuch_module_at_all"}
    registry, said = Registry(), list[str]()
    load_plugins(registry, said.append)
    assert registry.find_dcmd("hello").module == "thing"
    assert len(said) == 1
    assert "plugin broken skipped" in said[0]


def test_number_kinds() -> None:
    @walker("w")
    def walk(session: Session, address: int) -> Iterator[int]:
        """Walk."""
        yield 1

    @dcmd("n")
    def numbers(session: Session, plain: int, number: Number, optional: int | None = None) -> None:
        """Count."""

    assert walk.address == "required"
    assert bound(numbers, "10", "0t10") == {"plain": 16, "number": 10, "optional": None}
