"""Sections 5.2, 10 and 11.1: the dcmds about variables, ``$w`` and ``::which -v``."""

from __future__ import annotations

import pytest

from kshell.pipeline import Status
from tests.conformance.run import Case, Machine, cases, check


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_5_2_dollar_v_lists_what_is_not_zero(machine: Machine) -> None:
    out = machine.run("0>nothing; 1f>mine; $v").out
    assert "mine = 0x1f\n" in out
    assert "nothing" not in out and "hits" not in out


def test_11_1_typeset_takes_the_explicit_address_not_dot(machine: Machine) -> None:
    assert machine.run("20::typeset aa bb; <aa+<bb=X").words == "40"
    assert machine.run("1234>.; ::typeset fresh aa; <fresh=X; <aa=X").words == "0 20"


def test_11_1_typeset_tags_and_untags(machine: Machine) -> None:
    assert machine.run("7::typeset -t mine; ::vars -t").out == "mine = 7\n"
    assert machine.run("::typeset +t mine; ::vars -t").out == ""


def test_11_1_typeset_of_a_read_only_variable_is_an_error(machine: Machine) -> None:
    for line in ("1::typeset thread", "::typeset -t thread"):
        said = machine.run(line)
        assert said.errors == ["::typeset: cannot modify read-only variable 'thread'"]
        assert said.status is Status.ERR


def test_11_1_unset_names_the_unknown_and_goes_on(machine: Machine) -> None:
    said = machine.run("5>mine; ::unset nosuch mine")
    assert said.errors == ["::unset: variable 'nosuch' not defined"]
    assert machine.run("<mine=X").errors == ["variable 'mine' is not defined"]
    assert machine.run("::unset hits").errors == ["::unset: variable 'hits' cannot be unset"]


def test_10_page_width_is_shown_and_set(machine: Machine) -> None:
    assert machine.run("$w").out == "output page width = 80\n"
    assert machine.run("0t40$w; $w").out == "output page width = 40\n"
    assert machine.run("init_task,10/b").out.count("\n") > 3
    assert "between 16 and 65536" in machine.run("1$w").err


def test_11_1_which_v_lists_the_definitions(machine: Machine) -> None:
    assert machine.run("::which -v list").out == (
        "list is a dcmd from module print\n  [1] print`list\n"
        "list is a walker from module containers\n  [1] containers`list\n")
    said = machine.run("::which nosuch ps")
    assert said.out == "ps is a dcmd from module processes\n"
    assert said.errors == ["::which: nosuch not found"]


@cases(
    ("5.2-names", "5>a_b.c; <a_b.c=J", "5"),
    ("5.2-names-of-30-characters", f"5>{'n' * 30}; <{'n' * 30}=J", "5"),
    ("5.2-names-with-digits", "5>x12; <x12=J", "5"),
    ("5.2-adbs-variables-can-be-set", "5>t; 6>b; <t+<b=J", "b"),
    ("5.2-adbs-variables-in-a-walk", "::echo 5 | ::eval '.>e' ; <e=J", "5"),
    ("5.2-dot-is-a-variable", "7>.; .=J", "7"),
)
def test_names_of_variables(case: Case) -> None:
    check(case._replace(target=False))


@pytest.mark.parametrize("line", [f"5>{'n' * 31}", "5>a-b", "5>a:b", "5>'a b'", "5>", "5>a b"])
def test_5_2_what_is_no_name(line: str) -> None:
    machine = Machine(target=False)
    said = machine.run(line)
    assert said.errors or line == "5>", line
    assert not [one.name for one in machine.session.variables if one.name.startswith(("n", "a"))]
