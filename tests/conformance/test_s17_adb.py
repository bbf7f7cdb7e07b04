"""mdb-language.md section 17: what is left of adb, and what has become of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.run import KERNEL, Case, Machine, cases, check


@cases(
    ("17-not-left-to-right", "2+3*4=D", "14"),
    ("17-the-variables", "<m=X", "464c457f"),
    ("17-no-adb", "::obey", "No adb here."),
    ("17-macros-are-listed", "$M ! grep -c modules", "1"),
)
def test_leftovers(case: Case) -> None:
    check(case._replace(typed=True))


@pytest.mark.parametrize("line, out", [
    pytest.param("node", "next = 0 value = 5", id="17-a-type"), pytest.param("thing", "next = 0 value = 5",
                 id="17-NAME_t"),
    pytest.param("other", "next = 0 value = 5", id="17-NAMEs"),
])
def test_a_macro_that_is_a_type(line: str, out: str) -> None:
    machine = Machine(typed=bytes(8) + b"\5" + bytes(0x100))
    machine.run("::typedef -c LP64; ::typedef 'struct node { struct node *next; int value; }; "
                "typedef struct node thing_t; typedef struct node others;'")
    said = machine.run(f"{KERNEL:x}$<{line}")
    assert said.words == f"{{ {out} }}"


def test_17_a_file_comes_before_a_macro(tmp_path: Path) -> None:
    file = tmp_path / "modules"
    file.write_text("::echo from the file\n")
    assert Machine(typed=True).run(f"$<{file}").words == "from the file"


def test_17_neither_file_nor_macro() -> None:
    said = Machine(typed=True).run("5$<nosuchname")
    assert said.errors == ['$<: failed to open "nosuchname": No such file or directory']


def test_17_a_count_runs_the_macro_so_often() -> None:
    machine = Machine(typed=True)
    machine.run("::typedef -c LP64")
    assert machine.run(f"{KERNEL:x},2$<int").words == "0x3020100 0x7060504"
    assert machine.run(f"{KERNEL:x},0$<int").out == ""
