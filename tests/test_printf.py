"""``::printf`` (mdb-language.md 11.3): every conversion, what fits which member, and the error texts."""

from __future__ import annotations

import pytest

from kshell.errors import Fault, KshellError, UsageError
from kshell.printer.printf import Conversion, Printf, human, parse_printf
from kshell.types.model import ArrayType, CType, IntType, Member, StructType
from kshell.value import Value
from tests.value.universe import TASK, TIME64_T, U8, UINT, ULONG, build_tasks
from tests.value.universe import TASK_AT as A

U64 = IntType("unsigned long", 8, False)
ADDR6 = StructType("in6_addr", 16, [Member("s6_addr", ArrayType(U8, 16), 0)])
BOX = StructType("box", 48, [
    Member("ip", UINT, 0), Member("word", UINT, 32), Member("ip6", ADDR6, 64), Member("when", TIME64_T, 192),
    Member("size", U64, 256), Member("where", ULONG, 320),
])


def shown(format: str, *members: str | int, type: CType = TASK, address: int = A) -> str:
    return Printf(format, type, members).text(Value(build_tasks(), type, address))


@pytest.mark.parametrize(("format", "member", "text"), [
    ("%d", "pid", "-2"), ("%u", "pid", "4294967294"), ("%x", "pid", "fffffffe"), ("%X", "pid", "FFFFFFFE"),
    ("%o", "pid", "37777777776"), ("%q", "pid", "-2"), ("%r", "pid", "fffffffe"), ("%R", "level", "-1"),
    ("%d", "level", "-1"), ("%u", "level", "7"), ("%x", "wide", "5a5"), ("%d", "in_execve", "1"),
    ("%s", "comm", "kworker/0:1"), ("%s", "name", "hello"), ("%s", "kind", "PIDTYPE_PGID"), ("%d", "kind", "2"),
    ("%a", "parent", "init_task"), ("%A", "parent", "init_task"), ("%p", "mm", "ffff888003a6c000"),
    ("%a", "mm", "0xffff888003a6c000"), ("%A", "mm", ""), ("%a", "open", "ext4`ext4_iget+4"),
    ("%p", ".", f"{A:x}"), ("%x", ".", f"{A:x}"), ("%d", ".", str(A - (1 << 64))),
    ("[%6d]", "pid", "[    -2]"), ("[%-6d]", "pid", "[-2    ]"), ("[%06d]", "pid", "[-00002]"),
    ("[%14s]", "comm", "[   kworker/0:1]"), ("[%-14s]", "comm", "[kworker/0:1   ]"),
    ("[%?x]", "pid", "[        fffffffe]"), ("[%0?x]", "pid", "[00000000fffffffe]"), ("100%% %d%%", "pid", "100% -2%"),
])
def test_conversions_and_padding(format: str, member: str, text: str) -> None:
    assert shown(format, member) == text


def test_addresses_and_dates() -> None:
    target = build_tasks()
    data = bytes([10, 0, 2, 15]) + (1536).to_bytes(4, "little") + bytes(15) + b"\1" + (
        86400).to_bytes(8, "little") + (3 << 30).to_bytes(8, "little") + A.to_bytes(8, "little")
    box = Value.immediate(target, U64, 0)
    box = Value(target, BOX, 0, type(target.memory)({0: data}))
    text = Printf("%I %H %N %Y %H %p", BOX, ("ip", "word", "ip6", "when", "size", "where")).text(box)
    assert text == f"10.0.2.15 1.50K ::1 1970 Jan  2 00:00:00 3G {A:x}"


@pytest.mark.parametrize(("number", "text"), [
    (0, "0"), (1023, "1023"), (1024, "1K"), (1536, "1.50K"), (123 * 1024 + 1, "123K"), (15 << 20 | 1, "15.0M"),
    ((1 << 64) - 1, "16.0E"),
])
def test_human_numbers_have_five_characters(number: int, text: str) -> None:
    assert human(number) == text and len(text) <= 5


@pytest.mark.parametrize(("format", "members", "message"), [
    ("%z", ("pid",), r"illegal format string at or near 'z' \(position 2\)"),
    ("a%", ("pid",), r"illegal format string at or near '%' \(position 3\)"),
    ("%99999d", ("pid",), "illegal format string"),
    ("%d", ("pid", "comm"), r"missing format specifiers \(found 1, expected 2\)"),
    ("%d %d", ("pid",), r"extra format specifiers \(found 2, expected 1\)"),
    ("%d", ("comm",), "expected integer type"), ("%p", ("pid",), "expected pointer type"),
    ("%s", ("pid",), "expected string or enum type"), ("%s", ("tasks",), "expected string or enum type"),
    ("%s", (".",), "%s does not fit an address"), ("%I", ("mm",), "expected 32-bit type"),
    ("%N", ("pid",), "expected in6"),
    ("%d", ("nosuch",), "such member"),
])
def test_what_does_not_fit_is_refused(format: str, members: tuple[str, ...], message: str) -> None:
    with pytest.raises(KshellError, match=message):
        Printf(format, TASK, members)


def test_a_member_is_needed() -> None:
    with pytest.raises(UsageError, match="at least one member must be specified"):
        Printf("hello", TASK, ())


def test_what_cannot_be_read_is_an_error_not_text() -> None:
    with pytest.raises(Fault):
        shown("%d", "pid", address=0x1000)


def test_pieces() -> None:
    assert parse_printf("a%-08xb%%c%?p") == [
        "a", Conversion("x", 8, left=True, zeros=True), "b", "%", "c", Conversion("p", 16)]
