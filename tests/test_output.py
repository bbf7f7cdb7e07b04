"""Tables, text and NDJSON: what the engine makes of the outputs of a dcmd."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from kshell.api import (
    ADDRESS,
    COUNT,
    DECIMAL,
    HEX,
    OCTAL,
    Block,
    Column,
    Fault,
    Item,
    KshellError,
    Output,
    Reason,
    Record,
    Row,
    Session,
    Table,
    Text,
    dcmd,
)
from kshell.render import JsonRenderer, Renderer, TextRenderer
from tests.shell_session import Shell

FAULT = Fault(0x1000, 8, Reason.EXCLUDED, space="kernel")
COLUMNS = (
    Column("PID", 6, DECIMAL, "<"), Column("FLAGS", 8, HEX, zeros=4), Column("MODE", 6, OCTAL),
    Column("ADDR", kind=ADDRESS), Column("SIZE", 8, COUNT, key="bytes"), Column("NAME", 10, key="comm"), Column("REST"),
)


def rendered(renderer: Renderer, items: Iterable[Output]) -> str:
    pieces: list[str] = []
    for item in items:
        pieces += renderer.render(item)
    return "".join([*pieces, *renderer.finish()])


def test_table() -> None:
    rows: list[Output] = [
        Table(COLUMNS),
        Row(1, (1, 0x40, 0o755, 0xFFFF_8880_0000_0000, 4096, "init", "all the rest")),
        Row(2, (-1, 0, 0, 0, 0, "a long name indeed", None)),
        Row(3, (None, FAULT, FAULT, FAULT, True, "", "")),
    ]
    assert rendered(TextRenderer(), rows) == (
        "PID       FLAGS   MODE ADDR                 SIZE NAME       REST\n"
        "1          0040    755 ffff888000000000     4096 init       all the rest\n"
        "-1         0000      0 0000000000000000        0 a long name indeed\n"
        "              ?      ? ?                     yes\n")


def test_free_text_is_cut_on_a_terminal_only_and_addresses_never() -> None:
    items: list[Output] = [Table((Column("NAME", 6), Column("ADDR", 4, ADDRESS), Column("LAST", 4))),
             Row(1, ("abcdefghij", 0xFFFF_8880_0000_0000, "not cut at all"))]
    assert rendered(TextRenderer(terminal=True), items).splitlines()[1] == "abcde… ffff888000000000 not cut at all"
    assert rendered(TextRenderer(), items).splitlines()[1] == "abcdefghij ffff888000000000 not cut at all"


def test_one_header_a_command_and_none_without_rows() -> None:
    two = (Column("A"),), (Column("B"),)
    renderer = TextRenderer()
    items: list[Output] = [
        Table(two[0]), Row(1, (1,)), Table(two[0]), Row(1, (2,)), Table(two[1]), Row(1, (3,)), Table(two[0])]
    assert rendered(renderer, items) == "A\n1\n2\nB\n3\n"
    assert rendered(renderer, items[:2]) == "A\n1\n", "a new command has a header of its own"


def test_text_lines_are_ended_once() -> None:
    assert rendered(TextRenderer(), [Text("a", end=""), Text("b", end=""), "c"]) == "abc\n"
    assert rendered(TextRenderer(), [Text("a", end="")]) == "a\n"
    assert rendered(TextRenderer(), [Text("a", end=""), Item(0x1F), Block(b"x\n"), 10]) == "a\n0x1f\nx\n0xa\n"
    assert rendered(TextRenderer(lambda: 10), [Item(0x1F), Item(9)]) == "0t31\n9\n"
    assert rendered(TextRenderer(), [Text("")]) == "\n"


def json_lines(items: Iterable[Output]) -> list[Any]:
    return [json.loads(line) for line in rendered(JsonRenderer(), items).splitlines()]


def test_json() -> None:
    record = Record(iter(["a = 1"]), lambda: {"a": 1, "_addr": "0x10"}, 0x10)
    assert json_lines([
        Table(COLUMNS), Row(1, (1, 0x40, 0o755, 0xFFFF_8880_0000_0000, 4096, "init\x1b", None)),
        Row(2, (1 << 60, FAULT, KshellError("why"), FAULT, True, "é", "")),
        Item(0x10, "struct x"), Text("part", end=""), Text("ial\nline"), record, Block("x\ny"),
    ]) == [
        {"pid": 1, "flags": 64, "mode": 493, "addr": "0xffff888000000000", "bytes": 4096, "comm": "init\\x1b",
         "rest": None},
        {"pid": "0x1000000000000000", "flags": {"error": "page excluded from the dump", "addr": "0x1000"},
         "mode": {"error": "why"}, "addr": {"error": "page excluded from the dump", "addr": "0x1000"}, "bytes": True,
         "comm": "é", "rest": ""},
        {"addr": "0x10", "type": "struct x"}, {"text": "partial"}, {"text": "line"}, {"a": 1, "_addr": "0x10"},
        {"text": "x"}, {"text": "y"},
    ]


def test_json_of_bytes_that_are_no_text() -> None:
    line = rendered(JsonRenderer(), [Table((Column("COMM"),)), Row(1, ("caf\udce9",))])
    assert json.loads(line) == {"comm": "caf\\xe9"}
    line.encode()


def test_json_errors_go_to_stderr() -> None:
    @dcmd("fail", columns=(Column("A"),))
    def fail(session: Session) -> Iterator[Output]:
        """Fail."""
        yield Row(1, (1,))
        raise FAULT

    shell = Shell(fail, json=True)
    assert shell.run("::fail; ::fail; ::nosuch") == '{"a": 1}\n{"a": 1}\n'
    errors = [json.loads(line) for line in shell.err.splitlines()]
    assert errors[0] == {"error": str(FAULT), "command": "::fail", "addr": "0x1000"}
    assert "unknown dcmd" in errors[2]["error"]


def test_rows_of_the_wrong_length_are_a_bug() -> None:
    with pytest.raises(ValueError, match="shorter"):
        rendered(TextRenderer(), [Table((Column("A"), Column("B"))), Row(1, (1,))])


def test_the_first_row_appears_before_the_second_is_computed() -> None:
    seen: list[str] = []

    @dcmd("slow", columns=(Column("A"),))
    def slow(session: Session) -> Iterator[Output]:
        """Take time."""
        yield Row(1, ("one",))
        seen.append(shell._out.getvalue())
        yield Row(2, ("two",))

    shell = Shell(slow)
    shell.run("::slow")
    assert seen == ["A\none\n"]
