"""Section 11.6 of the reference: ::typedef, ::typelist, and declared types wherever types are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from kshell.builtin import make_registry
from kshell.console import Console
from kshell.session import Session
from kshell.shell.scripted import run_text


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> object:
    import io

    session = Session(None, make_registry(lambda _: None, plugins=False))

    def run(line: str) -> str:
        stream = io.StringIO()
        run_text(session, Console(session, stream, stream), line, string=True, recover=False)
        return stream.getvalue()

    return run


LIST = "::typedef 'struct list { struct list *next; int v[4]; }' list_t"


@pytest.mark.parametrize(("lines", "last"), [
    pytest.param([LIST, "::sizeof list_t"], "sizeof (list_t) = 0x18\n", id="11.6-struct-and-name"),
    pytest.param([LIST, "::sizeof struct list"], "sizeof (struct list) = 0x18\n", id="11.6-tag"),
    pytest.param([LIST, "::offsetof struct list v"], "offsetof (struct list, v) = 8, sizeof (...->v) = 0x10\n",
                 id="11.6-offsetof"),
    pytest.param(["::typedef 'unsigned int' u_t", "::sizeof u_t"], "sizeof (u_t) = 4\n", id="11.6-typedef"),
    pytest.param(["::typedef 'struct a { int v[10]; int w[0x10]; }'", "::sizeof struct a"],
                 "sizeof (struct a) = 0x68\n", id="11.6-array-lengths-are-c"),
    pytest.param([LIST, "::typedef -l"], "struct list\nlist_t\n", id="11.6-l"),
    pytest.param([LIST, "::typedef -d", "::typedef -l"], "", id="11.6-d"),
    pytest.param([LIST, "::typelist list"], "struct list\nlist_t\n", id="11.6-typelist"),
    pytest.param([LIST, "::typedelete struct list", "::typedef -l"], "list_t\n", id="11.6-typedelete"),
    pytest.param(["::typedef 'enum c { RED, BLUE = 3 }'", "3::enum c"], "      VALUE NAME\n          3 BLUE\n",
                 id="11.6-enum"),
    pytest.param(["::typedef 'struct f { unsigned a : 4, b : 12; }'", "1234::print -i 'struct f'"],
                 "{\n    a = 4\n    b = 0x123\n}\n", id="11.2-i-of-a-declared-type"),
    pytest.param(["::typedef -c ilp32", LIST, "::sizeof list_t"], "sizeof (list_t) = 0x14\n", id="11.6-c"),
    pytest.param(["::typedef 'struct loop { struct loop *self; struct loop **all; }'", "::sizeof struct loop"],
                 "sizeof (struct loop) = 0x10\n", id="11.6-a-type-that-points-to-itself"),
    pytest.param(["::typedef 'struct tail { int n; char rest[]; }'", "::sizeof struct tail"],
                 "sizeof (struct tail) = 4\n", id="11.6-arrays-of-no-length"),
    pytest.param(["::typedef 'struct zero { int n; long none[0]; }'", "::print -at struct zero"],
                 "0 struct zero {\n    0 int n \n    8 long int [0] none \n}\n", id="11.6-arrays-of-length-0"),
    pytest.param(["::sizeof 'struct { char c; int x; }'"], "sizeof (struct { char c; int x; }) = 8\n",
                 id="11.6-a-type-without-a-name"),
])
def test_declared_types(say: object, lines: list[str], last: str) -> None:
    for line in lines[:-1]:
        assert say(line) == ""  # type: ignore[operator]
    assert say(lines[-1]) == last  # type: ignore[operator]


@pytest.mark.parametrize(("line", "told"), [
    pytest.param("::typedef 'struct list { int a; }'", "already in use", id="11.6-in-use"),
    pytest.param("::typedef int list_t", "typedef name list_t already exists", id="11.6-exists"),
    pytest.param("::typedef nosuch x", "type nosuch does not exist", id="11.6-does-not-exist"),
    pytest.param("::typedef 'struct d { int a; int a; }'", "duplicate name detected: a", id="11.6-duplicate"),
    pytest.param("::typedef 'struct d { int a;'", "Missing closing brace", id="11.6-brace"),
    pytest.param("::typedef 'struct d { int a[-1]; }'", "Array lengths cannot be negative", id="11.6-negative"),
    pytest.param("::typedef int 1a", "The name 1a is not a valid C identifier.", id="11.6-identifier"),
    pytest.param("::typedef -c LLP64", "invalid data model: LLP64", id="11.6-model"),
    pytest.param("::typedef -r /nonexistent", "cannot read /nonexistent", id="11.6-r-missing"),
    pytest.param("::typedef", "Usage", id="11.6-usage"),
    pytest.param("::typedelete struct nosuch", "is not declared", id="11.6-typedelete-missing"),
])
def test_errors(say: object, line: str, told: str) -> None:
    say(LIST)  # type: ignore[operator]
    assert told in say(line)  # type: ignore[operator]


def test_files_are_written_and_read_back(say: object, tmp_path: Path) -> None:
    """11.6 -w and -r."""
    file = tmp_path / "types.h"
    say(LIST)  # type: ignore[operator]
    say("::typedef 'enum c { RED }'")  # type: ignore[operator]
    assert say(f"::typedef -w {file}") == ""  # type: ignore[operator]
    assert "is there already" in say(f"::typedef -w {file}")  # type: ignore[operator]
    say("::typedef -d")  # type: ignore[operator]
    assert "types declared" in say(f"::typedef -r {file}")  # type: ignore[operator]
    assert say("::typedef -l") == "struct list\nlist_t\nenum c\n"  # type: ignore[operator]
    assert say("::sizeof list_t") == "sizeof (list_t) = 0x18\n"  # type: ignore[operator]
