"""Lines broken at the page width: nothing is lost, nothing is longer, colours count for nothing."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.console import Console
from kshell.errors import KshellError
from kshell.output import Column, Output, Row, Table, Text
from kshell.render import TextRenderer
from kshell.session import Session
from kshell.wrap import Wrapper, fold, reflow

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@given(st.lists(st.text("ab \n", max_size=30) | st.sampled_from(["\x1b[1m", "\x1b[0;31m"])), st.integers(1, 20))
def test_nothing_is_lost_and_nothing_is_longer(pieces: list[str], width: int) -> None:
    wrapper = Wrapper()
    made = "".join(wrapper.wrap(piece, width) for piece in pieces)
    assert all(len(line) <= width for line in COLOUR.sub("", made).split("\n"))
    assert made.replace("\n", "") == "".join(pieces).replace("\n", "")
    whole = COLOUR.sub("", "".join(pieces)).split("\n")
    assert len(made.split("\n")) == sum(max(-(-len(line) // width), 1) for line in whole)


@pytest.mark.parametrize("text, shown", [
    ("\tab", "\tab"), ("1234567\t1", "1234567\t1"), ("123456789\t1", "123456789\n1"), ("\x1b", "\x1b"),
])
def test_tabs(text: str, shown: str) -> None:
    assert Wrapper().wrap(text, 10) == shown


def test_the_option() -> None:
    out = io.StringIO()
    session = Session()
    console = Console(session, out, out)
    session.options.width = 10
    console.show(iter([Text("0123456789abc")]))
    session.options.autowrap = True
    console.show(iter([Text("0123456789abc")]))
    assert out.getvalue() == "0123456789abc\n0123456789\nabc\n"


FOLDED = """\
DESCRIPTION
  With an address, the process or
  thread whose task_struct is there;
  with pids or names, those only. What
  goes on here belongs to it.
  This is a line of its own.

  -a    the address before each
        member; in a pipe addresses
"""


def test_prose_is_laid_out_anew_for_a_narrow_terminal() -> None:
    text = (
        "DESCRIPTION\n  With an address, the process or thread whose task_struct is there; with pids or names, "
        "those only. What\n  goes on here belongs to it.\n  This is a line of its own.\n\n"
        "  -a    the address before each member; in a pipe addresses\n")
    assert reflow(text, 38) == FOLDED
    assert reflow(text, 120) == text


def test_a_word_longer_than_the_page_stays_whole() -> None:
    assert fold("kshell: /a/very/long/path/of/a/dump: no such file", 20) == (
        "kshell:\n/a/very/long/path/of/a/dump:\nno such file")


def test_a_list_of_names_is_folded_under_what_they_are() -> None:
    rows: list[Output] = [
        Table((Column("NAME", 8), Column("SUMMARY")), joint=" - ", header=False),
        Row(None, ("ps", "List processes, or one, or some")), Row(None, ("args", "Show arguments"))]
    shown = [TextRenderer(terminal=terminal, width=lambda: 30) for terminal in (True, False)]
    assert ["".join(piece for row in rows for piece in renderer.render(row)) for renderer in shown] == [
        "ps       - List processes, or\n         one, or some\nargs     - Show arguments\n",
        "ps       - List processes, or one, or some\nargs     - Show arguments\n"]


def test_errors_are_folded_on_a_terminal_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    session = Session()
    session.options.width, session.options.width_fixed = 40, True
    error = KshellError("what could not be done, to what, and why it was not", hint="word " * 12)
    for err, shown in ((Terminal(), True), (io.StringIO(), False)):
        console = Console(session, io.StringIO(), err, terminal=True)
        console.error(error)
        assert (max(map(len, err.getvalue().splitlines())) <= 40) is shown
    assert "\n        word" in err.getvalue()
