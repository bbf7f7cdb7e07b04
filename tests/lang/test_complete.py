"""What stands at the cursor of an unfinished line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.lang.complete import CompletionContext, Want, context_at


@pytest.mark.parametrize(("line", "want", "word", "start"), [
    ("", Want.SYMBOL, "", 0),
    ("init_t", Want.SYMBOL, "init_t", 0),
    ("*fe", Want.SYMBOL, "fe", 1),
    ("ext4`io", Want.SYMBOL, "ext4`io", 0),
    ("1+", Want.SYMBOL, "", 2),
    ("12", Want.NOTHING, "", 2),
    ("foo::", Want.DCMD, "", 3),
    ("foo::pri", Want.DCMD, "pri", 3),
    ("::walk proc | ::pr", Want.DCMD, "pr", 14),
    ("::walk proc | ", Want.DCMD, "", 14),
    ("$", Want.DCMD, "$?", 0),
    ("<th", Want.VARIABLE, "th", 1),
    ("1+<", Want.VARIABLE, "", 3),
    ("5>na", Want.VARIABLE, "na", 2),
    ("::walk ta", Want.WALKER, "ta", 7),
    ("::walk ", Want.WALKER, "", 7),
    ("::echo $[jif", Want.SYMBOL, "jif", 9),
    ("foo/X", Want.NOTHING, "", 5),
    ("foo/W ji", Want.SYMBOL, "ji", 6),
    ("! ls /t", Want.NOTHING, "", 7),
    ("// abc", Want.NOTHING, "", 6),
])
def test_context(line: str, want: Want, word: str, start: int) -> None:
    context = context_at(line)
    assert (context.want, context.word, context.start) == (want, word, start)


def test_arguments() -> None:
    assert context_at("a::print -t 'struct page' lr") == CompletionContext(
        Want.ARGUMENT, "lr", 26, "print", ("-t", "struct page"), symbol="a")
    assert context_at("::walk proc | ::head -2 | ::print pi").stages == (("head", ("-2",)), ("walk", ("proc",)))
    assert context_at("5=X; a+8::print pi").symbol == ""
    assert context_at("::print task_struct ") == CompletionContext(
        Want.ARGUMENT, "", 20, "print", ("task_struct",), blank_at_end=True)
    assert context_at("::list x $[1+2] ").before == ("x", "$[1+2]")


def test_open_quotes() -> None:
    assert context_at('::print "struct li') == CompletionContext(
        Want.ARGUMENT, "struct li", 8, "print", quote='"')
    assert context_at("""::print a "b"c'd e""").word == "bcd e"


def test_after_a_dcmd_without_blank_is_the_name() -> None:
    assert context_at("::ps").want is Want.DCMD
    assert context_at("::ps -").want is Want.ARGUMENT


def test_cursor_in_the_middle() -> None:
    assert context_at("::pri foo", 5).word == "pri"


@given(st.text(alphabet=list("01fgx.` ;/\\=:$<>[]()+*|!,'\"XW")) | st.text())
def test_no_line_crashes_completion(text: str) -> None:
    context = context_at(text)
    assert 0 <= context.start <= len(text)
