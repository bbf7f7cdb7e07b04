"""The scanner's five states (mdb-language.md section 2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.lang.lexer import tokens
from kshell.lang.tokens import Kind

LINE = st.text(alphabet=st.sampled_from(list("0x1fta.`_ \t\n;/\\?@=:$<>[]()+-*%#&^|~!,'\"XsWé{\x00")), max_size=40)


def kinds(text: str) -> list[tuple[str, str]]:
    return [(token.kind.name, token.text) for token in tokens(text)]


@pytest.mark.parametrize(("text", "expected"), [
    ("0x_1", [("NUMBER", "0"), ("SYMBOL", "x_1")]),
    ("0i12", [("NUMBER", "0i1"), ("NUMBER", "2")]),
    ("0o89", [("NUMBER", "0"), ("SYMBOL", "o89")]),
    ("0tp", [("NUMBER", "0"), ("SYMBOL", "tp")]),
    ("0t1.5", [("NUMBER", "0t1.5")]),
    ("9dead", [("NUMBER", "9dead")]),
])
def test_2_3_numbers(text: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(text) == expected


@pytest.mark.parametrize(("text", "kind"), [
    ("f", "HEX_WORD"), ("feed_beef", "HEX_WORD"), ("Dead", "HEX_WORD"), ("deadlock", "SYMBOL"), ("a.out", "SYMBOL"),
    ("_007", "SYMBOL"), (".x", "SYMBOL"), (".3", "SYMBOL"), ("..", "SYMBOL"), (".", "DOT"), ("ext4`iget", "SYMBOL"),
])
def test_2_4_names(text: str, kind: str) -> None:
    assert kinds(text) == [(kind, text)]


@pytest.mark.parametrize("text", [".+8", ".-8", "./X", ".::dump"])
def test_2_4_dot_before_operators_and_verbs(text: str) -> None:
    assert kinds(text)[0] == ("DOT", ".")


def test_2_5_a_word_is_glued_of_pieces() -> None:
    (_, word, _) = tokens("""::x a"b c"'\\n'd e""")
    assert word.value == "ab c\\nd"
    assert [piece.quote for piece in word.pieces] == ["", '"', "'", ""]


def test_2_5_ordinary_characters() -> None:
    assert kinds("::x ><=/?\\:(),*&#@~[]{} y")[1:] == [("WORD", "><=/?\\:(),*&#@~[]{}"), ("WORD", "y")]


def test_2_5_immediates_are_not_glued() -> None:
    assert [kind for kind, _ in kinds("::x a$[1]b")] == ["DCMD", "WORD", "OPEN", "NUMBER", "CLOSE", "WORD"]


def test_2_6_variables() -> None:
    assert kinds("<10") == [("VARIABLE", "<1"), ("NUMBER", "0")]
    assert kinds("5>>a")[1] == ("OPERATOR", ">>")
    assert kinds("5>a")[1:] == [("ASSIGN", ">"), ("WORD", "a")]


@pytest.mark.parametrize(("text", "kind", "value"), [
    ("$c", "DCMD", "$c"), (":c", "DCMD", ":c"), ("$", "DCMD", "$?"), ("$<<", "DCMD", "$<<"), ("$<", "DCMD", "$<"),
    ("$>", "DCMD", "$>"), ("::a`b", "DCMD", "a`b"), (">/i/", "ASSIGN", "i"),
    ("/ W", "WRITE", "W"), ("?z", "WRITE", "z"),
    ("\\L", "SEARCH", "L"), ("@", "VERB", ""), ("=", "VERB", ""),
])
def test_2_7_verbs(text: str, kind: str, value: str) -> None:
    (token,) = tokens(text)
    assert (token.kind.name, token.value if kind != "VERB" else "") == (kind, value)


def test_2_7_write_letters_need_slash_backslash_or_question_mark() -> None:
    assert kinds("=W") == [("VERB", "="), ("FORMAT_CHAR", "W")]
    assert kinds("@W") == [("VERB", "@"), ("FORMAT_CHAR", "W")]
    assert kinds("/XW")[2] == ("FORMAT_CHAR", "W")


def test_2_2_comments() -> None:
    assert kinds("10//X") == [("NUMBER", "10"), ("COMMENT", "//X")]
    assert kinds("::x foo//bar //c") == [("DCMD", "::x"), ("WORD", "foo//bar"), ("COMMENT", "//c")]
    assert kinds("/X//c\n1")[2:] == [("COMMENT", "//c"), ("END", "\n"), ("NUMBER", "1")]


def test_2_2_semicolon_ends_every_state() -> None:
    for start in ("1", "/X", "::x y", "::x $[1", "! ls"):
        assert kinds(start + ";1")[-2:] == [("END", ";"), ("NUMBER", "1")]


def test_4_3_not_equal_is_one_token_else_the_shell() -> None:
    assert kinds("1!=2")[1] == ("OPERATOR", "!=")
    assert kinds("1!ls")[1:] == [("SHELL", "!"), ("SHELL_TEXT", "ls")]


def test_8_4_quoted_shell_command() -> None:
    (_, _, quoted, *rest) = tokens("""::x ! 'a; b\\'c' | ::y""")
    assert (quoted.kind, quoted.value) == (Kind.SHELL_QUOTED, "a; b'c")
    assert [token.kind for token in rest] == [Kind.PIPE, Kind.DCMD]
    (_, quoted) = tokens('! "a\\\\\'\\n"')
    assert quoted.value == "a\\'\n"


def test_9_4_a_lone_prefixed_count_is_one_token() -> None:
    assert kinds("0/0x40") [2:] == [("FORMAT_COUNT", "0x40")]
    assert kinds("0/0t64 ! ls")[2] == ("FORMAT_COUNT", "0t64")
    assert [text for _, text in kinds("0/0x40X")[2:]] == ["0", "x", "40", "X"]
    assert [text for _, text in kinds("0=0x40")[2:]] == ["0", "x", "40"]


@given(LINE | st.text(max_size=40))
def test_no_text_crashes_the_scanner_and_none_is_lost(text: str) -> None:
    end = 0
    for token in tokens(text):
        assert token.start >= end and token.end > token.start
        assert text[end : token.start].strip(" \t") == ""
        assert text[token.start : token.end] == token.text
        end = token.end
    assert text[end:].strip(" \t") == ""
