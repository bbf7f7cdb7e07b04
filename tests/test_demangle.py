"""Names of C++ and Rust: as they were written, whatever a file says they are."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest

from kshell import demangle
from kshell.demangle import demangled
from tests.programs import compiled
from tests.target.asking import ask


@pytest.mark.parametrize(("mangled", "name"), [
    ("_Z3fooi", "foo(int)"), ("_ZTVN3zoo4CageE", "vtable for zoo::Cage"),
    ("_ZN3zoo4CageIiE4holdERKSt6vectorIiSaIiEE", "zoo::Cage<int>::hold(std::vector<int, std::allocator<int>> const&)"),
    ("_ZN3foo3barEv.constprop.0", "foo::bar() (.constprop.0)"),
    ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
    ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
    ("_ZN50_$LT$i32$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE", None),
    ("_ZN44_$LT$$RF$T$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE", "<&T as core::fmt::Display>::fmt"),
    ("main", None), ("_start", None), ("_Z", None), ("_Zebra", None), ("_R", None), ("__x64_sys_read", None),
    ("_Z3foo\x1b[2J", None), ("_Z3foo\n_Z3bari", None), ("_ZRéi", None), ("_Z" + "P" * 5000 + "i", None),
])
def test_names(mangled: str, name: str | None) -> None:
    assert demangled(mangled) == (name or mangled)


def bomb(doublings: int) -> str:
    """Return a name that is short, and stands for 2 ** *doublings* times as much."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "_Z1fSt4pairIiiE" + "".join(f"S_IS{digit}_S{digit}_E" for digit in digits[:doublings])


def test_crafted_names_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demangle, "_helper", demangle._Helper())
    assert demangled(bomb(2)).startswith("f(std::pair<int, int>, std::pair<std::pair<int, int>")
    deep = "_Z3foo" + "N1aI" * 1000, "_RNvC" + "B_" * 1500, "_Z3fooIX" + "ng" * 2000
    for name in (bomb(8), bomb(14), bomb(30), *deep):
        assert demangled(name) == name
    assert demangled("_Z5afteri") == "after(int)", "it has died of one, and answers the next one"


def test_one_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = demangle._Helper()
    for number in range(demangle.MAX_DEATHS):
        assert helper.ask(f"_Z3foo{'i' * (number + 1)}")
        assert helper._process is not None
        helper._process.kill()
        assert helper.ask(f"_Z3bar{'i' * (number + 1)}") == ""
    assert helper.ask("_Z3fool") == "" and helper._process is None, "it is not started for ever"
    monkeypatch.setattr(demangle, "PATIENCE", 0.2)
    helper = demangle._Helper()
    while not helper.ask("_Z3fool"):  # however long it takes to start
        assert helper._deaths < demangle.MAX_DEATHS
    assert helper._process is not None
    os.kill(helper._process.pid, signal.SIGSTOP)
    assert helper.ask("_Z3food") == "", "it is waited for, but not for long"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demangle, "_helper", demangle._Helper())
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert demangled("_Z7missingi") == "_Z7missingi"


def test_in_the_shell() -> None:
    with subprocess.Popen([str(compiled("-O1", "-g", "-fno-optimize-sibling-calls", name="mangled",
                                        sources=("mangled.c",)))], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            time.sleep(0.1)
            place = f"pid:{child.pid}"
            said = ask(place, "$c; ::stacks; _ZN3zoo5cagesE=a; _ZN3zoo5cagesE/D; _ZN3zoo5cagesE::whatis; main::dis;"
                              "::nm -f name,mangled zoo; ::stacks -c _RNvNtCs1234_7mycrate3foo3bar")
            assert not said.errors
            lines = said.out.splitlines()
            hold = "zoo::Cage<int>::hold(std::vector<int, std::allocator<int>> const&)"
            own = [line for line in lines[1:] if "`" not in line and not line.startswith("0x")]  # not the C library's
            stack = [re.sub(r"\+0x\w+", "", line) for line in own]
            assert stack[:4] == ["mycrate::foo::bar()", "core::fmt::Write::write_fmt()", hold, "main()"]
            assert said.out.count(f"                 {hold}+0x") == 2, "in both ::stacks"
            assert "zoo::cages:" in said.out and re.search(rf"call\s+0x\w+\s+<{re.escape(hold)}>", said.out)
            assert f"{hold}|_ZN3zoo4CageIiE4holdERKSt6vectorIiSaIiEE" in said.out
            rows = [json.loads(line) for line in ask(place, "$c", json=True).out.splitlines()]
            typed = "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"
            assert typed in [row["symbol"] for row in rows], "what can be typed"
        finally:
            child.kill()
