"""Pipe dcmds on a session without a kernel: streaming, variables of walks, JSON."""

from __future__ import annotations

from collections.abc import Iterator

from kshell.api import Session
from kshell.commands import _index
from kshell.registry import walker
from tests.shell_session import Shell

ASKED: list[int] = []


@walker("numbers")
def numbers(session: Session) -> Iterator[int]:
    for number in (3, 1, 2, 3):
        ASKED.append(number)
        yield number


def shell(json: bool = False) -> Shell:
    made = Shell(numbers, target=False, json=json)
    made.session.registry.add_index("kshell.commands", _index.DCMDS, _index.WALKERS)
    return made


def test_values_are_counted_added_sorted_and_made_unique() -> None:
    run = shell().run
    assert run("::walk numbers | ::count") == "4\n"
    assert run("::walk numbers | ::sum") == "9\n"
    assert run("::walk numbers | ::tail -2") == "2\n3\n"
    assert run("::walk numbers | ::sort -r") == "3\n3\n2\n1\n"
    assert run("::walk numbers | ::uniq") == "3\n1\n2\n"
    assert run("::walk numbers | ::uniq -c") == "   COUNT VALUE\n       2 3\n       1 1\n       1 2\n"


def test_a_sum_is_exact_and_a_pipe_gets_64_bits_of_it() -> None:
    run = shell().run
    assert run("::walk numbers | ::map .-4 | ::sum") == f"{4 * (1 << 64) - 7}\n"
    assert run("::walk numbers | ::map .-4 | ::sum | ::map 0-.") == "7\n"


def test_uniq_passes_on_as_values_come() -> None:
    ASKED.clear()
    assert shell().run("::walk numbers | ::uniq | ::head -1") == "3\n"
    assert ASKED == [3]


def test_json() -> None:
    run = shell(json=True).run
    assert run("::walk numbers | ::count") == '{"count": 4}\n'
    assert run("::walk numbers | ::sum") == '{"sum": 9}\n'


def test_a_variable_of_a_walk_holds_its_element_in_every_later_stage() -> None:
    run = shell().run
    assert run("::walk numbers n | ::map .+10 | ::map .+<n") == "0x16\n0x12\n0x14\n0x16\n"


def test_numbers_that_are_none_are_refused() -> None:
    session = shell()
    session.run("::walk numbers | ::tail -n -1")
    assert "is not a number of values" in session.err
    session.run("::walk numbers | ::tail abc")
    assert "-NUM or -n NUM" in session.err
    assert session.run("::walk numbers | ::tail -n 0") == ""
