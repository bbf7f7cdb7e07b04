"""Hints for those who type commands of crash, gdb and drgn."""

from __future__ import annotations

import re

import pytest

from kshell import foreign
from kshell.builtin import make_registry
from kshell.lang.parser import parse
from tests.shell_session import Shell


def test_every_command_and_walker_in_the_hints_is_there() -> None:
    registry = make_registry(pytest.fail)
    text = "\n".join(hint for _, hint in foreign._SAME)
    commands = re.findall(r"::([a-z_]+)|(\$q)", text)
    assert len(commands) > 60
    for name, short in commands:
        if name != "COMMAND":
            assert registry.find_dcmds(name or short)
    for walker in re.findall(r"::walk ([a-z]+)", text):
        assert registry.find_walker(walker)


def test_no_hint_stands_in_the_way_of_a_command_of_ours() -> None:
    for word in " ".join(words for words, _ in foreign._SAME).split():
        assert [statement.pipeline for statement in parse(word)] == [None], word


@pytest.mark.parametrize(("line", "hint"), [
    ("bt", "::stack prints a stack"), ("  struct task_struct", "::print -at struct NAME"), ("info registers", "::regs"),
    ("for t in x:", "from kshell import kvm"), ("1=X; p foo", "::print prints"), ("nothing_of_theirs", ""), ("btf", ""),
    ("bt.x", ""),
])
def test_hint_under_the_error(line: str, hint: str) -> None:
    shell = Shell()
    shell.run(line)
    assert "kshell: " in shell.err
    assert hint in shell.err
    assert ("::" in shell.err or "docs/" in shell.err) == bool(hint)


def test_the_line_with_the_error_counts_not_the_first() -> None:
    shell = Shell()
    shell.run("1=X\nbt", recover=True)
    assert "::stack prints a stack" in shell.err


def test_hint_in_json() -> None:
    shell = Shell(json=True)
    shell.run("bt")
    assert '"hint": "::stack prints a stack' in shell.err


def test_member_behind_a_dot() -> None:
    shell = Shell()
    shell.run("init_task.pid.x=X")
    assert "a member is printed with init_task::print pid.x" in shell.err
