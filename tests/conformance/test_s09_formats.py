"""mdb-language.md section 9: the formatting verbs. Letters alone are in tests/test_formatverb.py and tests/lang too."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.lang.formats import FORMATS
from tests.conformance.run import DATA, KERNEL, Case, Machine, cases, check, together
from tests.fake_target import Bytes

K = f"{KERNEL + 0x80:x}"
TEXT = b"hello\0world\0" + bytes(4) + b"a\tb\xff\0" + bytes(range(256))


@cases(
    ("9.1-slash-reads-virtual-memory", "init_task/X", "init_task:\ninit_task:      3020100\n"),
    ("9.1-backslash-reads-physical-memory", "10\\X", "0x10:           13121110\n"),
    ("9.1-at-reads-physical-memory", "10@X", "0x10:           13121110\n"),
    ("9.1-equals-shows-dot", "1234=X", "                1234\n"),
    ("9.1-a-count-applies-to-the-next-letter", "10@2XB", "0x10:           13121110        17161514        18\n"),
    ("9.1-letters-repeated", "10@XX", "0x10:           13121110        17161514\n"),
    ("9.1-a-computed-count", "10@$[1+1]X", "0x10:           13121110        17161514\n"),
    ("9.1-counts-are-decimal", "10=10B", "10 10 10 10 10 10 10 10 10 10"),
    ("9.2-a-header-of-a-number", "8@B", "8:              8\n"),
    ("9.2-a-header-of-two-digits", "10@B", "0x10:           10\n"),
    ("9.2-a-symbol-has-a-line-of-its-own", "jiffies/x", "jiffies:\njiffies:        100\n"),
    ("9.2-not-behind-an-offset", "jiffies+2/x", "jiffies+2:      302\n"),
    ("9.2-rounds-ending-in-n", "10,3@XXn", together([
        "0x10:           13121110        17161514", "                1b1a1918        1f1e1d1c",
        "                23222120        27262524"])),
    ("9.2-rounds-on-one-line", "10,3@X", "0x10:           13121110        17161514        1b1a1918\n"),
    ("9.2-wrapped-by-whole-fields", "10@5X", together([
        "0x10:           13121110        17161514        1b1a1918        1f1e1d1c", "                23222120"])),
    ("9.2-equals-reads-the-same-value-again", "12345678=XxB", "                12345678        5678    78\n"),
    ("9.2-equals-of-a-negative-number", "-1=d", "                -1\n"),
    Case("9.2-equals-without-a-format", "1=", error="=: expected one or more format characters following '='"),
    ("9.2-nothing-is-X-back-up-and-an-instruction", "55@", "0x55:           58575655        = push   %rbp\n"),
    ("9.2-ai-ends-the-header-line", "55@ai", "0x55:\n0x55:           push   %rbp\n"),
    Case("9.2-an-unknown-letter", "1=AX", "                1\n", "=: invalid format character -- 'A'"),
    Case("9.2-errors-end-their-item", "f000000000000000/X", "0xf000000000000000:\n",
         "/: failed to read data from target: no mapping for address"),
    ("9.2-variable-0-is-the-last-value", "10@XX; <0=X", "0x10: 13121110 17161514 17161514"),
    ("9.2-a-variable-turns-names-off", "1>_; jiffies/x", f"0x{KERNEL + 0x200:x}:{' ' * 13}100\n"),
)
def test_verbs(case: Case) -> None:
    check(case._replace(typed="@" in case.line or "jiffies" in case.line))


@cases(
    ("9.3-B", "1ff=B", "ff"), ("9.3-b", "8=b", "010"), ("9.3-V", "-1=V", "255"), ("9.3-v", "-1=v", "-1"),
    ("9.3-c", "41=c", "A"), ("9.3-C", "0=C; ff=C; a=C", "\\0 \\377 \\n"), ("9.3-x", "1234=x", "1234"),
    ("9.3-d", "-1=d", "-1"), ("9.3-u", "-1=u", "65535"), ("9.3-o", "-1=o", "0177777"), ("9.3-q", "-1=q", "0-1"),
    ("9.3-w", "1234=w", "1234"), ("9.3-h", "1234=h", "3412"), ("9.3-X", "10=X", "10"), ("9.3-D", "ffffffff=D", "-1"),
    ("9.3-U", "-1=U", "4294967295"), ("9.3-O", "8=O", "010"), ("9.3-Q", "-1=Q", "0-1"), ("9.3-W", "10=W", "10"),
    ("9.3-H", "12345678=H", "78563412"), ("9.3-f", "3fc00000=f", "+1.5000000e+00"),
    ("9.3-J", "-1=J", "ffffffffffffffff"), ("9.3-K", "-1=K", "ffffffffffffffff"), ("9.3-Z", "5=Z", "5"),
    ("9.3-E", "-1=E", "18446744073709551615"), ("9.3-e", "-1=e", "-1"), ("9.3-G", "8=G", "10"),
    ("9.3-g", "-8=g", "-10"),
    ("9.3-R", "5=R", "101"), ("9.3-F", "0t10.5=F", "+1.0500000000000000e+01"),
    ("9.3-y-out-of-range", "7fffffffffffffff=y", "7fffffffffffffff"),
    ("9.3-p", "init_task+8=p; 8=p; 18=p", "init_task+8 8 0x18"), ("9.3-P", "init_task=P", "init_task"),
    ("9.3-w-in-another-radix", "0t10$d; 20=w", "20"), ("9.3-r", '1="a"4r"b"', "a b"),
    ("9.3-n", "1=BnB", "                1\n                1\n"),
    ("9.3-N-with-a-count", "1=B2NB", "                1\n\n                1\n"),
    ("9.3-t", "1=B32tB", "                1               1\n"),
    ("9.3-j-of-zero", "0=j", "                0\n"),
    ("9.3-j", "1d=j", together([
        "                11101", "                ||| |", "                ||| +-- bit 0 mask 0x01",
        "                ||+---- bit 2 mask 0x04", "                |+----- bit 3 mask 0x08",
        "                +------ bit 4 mask 0x10"])),
    ("9.3-j-two-digits", "401=j", together([
        "                10000000001", "                |         |", "                |         +-- bit 0  mask 0x001",
        "                +------------ bit 10 mask 0x400"])),
    ("9.5-a-string-is-printed", '1="a="X"b="B', "                a=1               b=1\n"),
    ("9.5-a-newline-in-a-string-begins-a-margin-line", '1="a\\nb"', "                a\n                b\n"),
    ("9.5-a-string-resets-the-count", '1=3"x"B', "                x1\n"),
)
def test_letters(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("line, out", [
    pytest.param("/s", "hello", id="9.3-s"), pytest.param("/2s", "hello\\0world", id="9.3-s-with-a-count"),
    pytest.param("/S", "hello", id="9.3-S"), pytest.param("+10/S", "a\\tb\\377", id="9.3-S-with-escapes"),
    pytest.param('/s"|"X', "hello|6c726f77", id="9.3-s-moves-past-the-NUL"),
    pytest.param("/5c", "hello", id="9.3-c"), pytest.param("/6C", "hello\\0", id="9.3-C"),
    pytest.param("/X^x", "6c6c6568 6568", id="9.3-hat-goes-back-over-the-item-before"),
    pytest.param("/X4-B", "6c6c6568 68", id="9.3-minus"), pytest.param("/4+B", "6f", id="9.3-plus"),
])
def test_memory_as_text(line: str, out: str) -> None:
    words = Machine(typed=TEXT).run(f"{KERNEL:x}{line}").words
    assert words.split(":", 1)[1].strip() == out


@given(st.sampled_from("BbVvxduoXDUOJEeGg"), st.integers(0, 0xF00), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_9_3_memory_against_struct(letter: str, offset: int, count: int) -> None:
    size = FORMATS[letter].size
    code = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]
    signed = letter in "vdDeg"
    spec = {"B": "x", "x": "x", "X": "x", "J": "x", "b": "o", "o": "o", "O": "o", "G": "o", "g": "o"}.get(letter, "d")
    values = struct.unpack_from(f"<{count}{code.lower() if signed else code}", DATA, offset)
    lead = "0" if letter in "boO" else ""
    shown = Machine(typed=True).run(f"{KERNEL + offset:x}/{count}{letter}").words
    assert shown.rpartition(":")[2].split() == [
        lead + f"{value:{spec}}" if value else "0" for value in values]


def with_file(writable: bool = False) -> Machine:
    """A machine whose object file has other bytes than its memory."""
    machine = Machine(typed=True, writable=writable)
    machine.session.target.object_file = Bytes("object", KERNEL, DATA[::-1], writable)
    return machine


def test_9_1_question_mark_reads_the_object_file() -> None:
    machine = with_file()
    assert machine.run("init_task?X").out == "init_task:\ninit_task:      fcfdfeff\n"
    assert machine.run("init_task/X").out == "init_task:\ninit_task:      3020100\n"
    assert machine.run("+?2B").words == "init_task+4: fb fa"
    assert machine.run("init_task?16").out.splitlines()[1] == (
        f"{KERNEL + 0x100:x}:  fffefdfc fbfaf9f8 f7f6f5f4 f3f2f1f0  ................")
    assert machine.run("init_task,4::dump -f -q").out.splitlines()[1] == (
        f"{KERNEL + 0x100:x}:  fffefdfc fbfaf9f8 f7f6f5f4 f3f2f1f0")
    assert machine.run("init_task?l fafb").words == "init_task+4"
    assert machine.run("%init_task=J; %/2/init_task=X; *init_task=J").words == "f8f9fafbfcfdfeff feff 706050403020100"


def test_9_1_question_mark_without_an_object_file() -> None:
    for line in ("init_task?X", "init_task?16", "init_task?W 5", "init_task?L 5", "init_task::dump -f"):
        said = Machine(typed=True, writable=True).run(line)
        assert "operation not supported by target" in said.errors[0]
        assert said.words in ("", "init_task: init_task:")


def test_9_6_question_mark_writes_the_object_file() -> None:
    machine = with_file(writable=True)
    assert machine.run("init_task?W 5").words == "init_task: 0xfcfdfeff = 0x5"
    assert machine.run("jiffies::write -o 7; jiffies?J").words.endswith("jiffies: jiffies: 7")
    assert machine.run("jiffies/x; init_task/x").words == "jiffies: jiffies: 100 init_task: init_task: 100"
    assert machine.run("::undo; ::undo; init_task?X").words.endswith("init_task: fcfdfeff")
    assert with_file().run("init_task?W 5").errors == [
        f"?W: failed to write 5 at address 0x{KERNEL + 0x100:x}: target is not open for writing"]


@pytest.mark.parametrize("line, lines, last", [
    pytest.param("20", 2, 0x94, id="9.4-a-bare-count-is-decimal"),
    pytest.param("0x20", 2, 0xA0, id="9.4-hexadecimal"), pytest.param("0t20", 2, 0x94, id="9.4-0t"),
    pytest.param("0o40", 2, 0xA0, id="9.4-octal"), pytest.param("$[20]", 2, 0xA0, id="9.4-computed"),
])
def test_9_4_a_hex_dump(line: str, lines: int, last: int) -> None:
    machine = Machine(typed=True)
    said = machine.run(f"{K}/{line}")
    assert len(said.out.splitlines()) == 1 + lines
    assert said.out.splitlines()[1] == f"{KERNEL + 0x80:x}:  80818283 84858687 88898a8b 8c8d8e8f  ................"
    assert (machine.session.dot, machine.session.increment) == (KERNEL + 0x80, last - 0x80)


def test_9_4_goes_on_and_repeats() -> None:
    machine = Machine(typed=True)
    first = machine.run(f"{K}/16").out.splitlines()[1]
    second = machine.run("+/16").out.splitlines()[1]
    assert second.startswith(f"{KERNEL + 0x90:x}:  90919293")
    assert machine.run(f"{K},2/16").out.splitlines()[1:] == [first, second]


@cases(
    ("9.4-a-letter-behind-it-is-mdbs", "10@2 X", "0x10:           13121110        17161514\n"),
    ("9.4-without-a-blank-too", "10@2x", "0x10:           1110    1312\n"),
    ("9.4-equals-keeps-mdbs", "1=40", ""),
)
def test_9_4_the_rest_is_mdbs(case: Case) -> None:
    check(case._replace(typed=True))


@pytest.mark.parametrize("letter, width, size", [("v", 8, 1), ("w", 8, 2), ("W", 16, 4), ("Z", 24, 8)])
def test_9_6_writes_are_shown_as_old_and_new(letter: str, width: int, size: int) -> None:
    old = int.from_bytes(DATA[0x40:0x40 + size], "little")
    machine = Machine(typed=True, writable=True)
    said = machine.run(f"{KERNEL + 0x40:x}/{letter} 5 0")
    first, second = said.out.splitlines()
    label = f"0x{KERNEL + 0x40:x}:"
    assert first == f"{label:<32}" + f"{f'0x{old:x}':<{width}}=" + " " * (8 - (width + 1) % 8) + "0x5"
    assert second.split()[-1] == "0x0"
    assert machine.session.increment == size
    assert machine.run(f"{KERNEL + 0x40:x}\\X").words  # virtual only: the physical bytes of this machine are others
    assert machine.session.read(KERNEL + 0x40, 2 * size) == (5).to_bytes(size, "little") + bytes(size)


@cases(
    ("9.6-words-are-expressions", "5>v; jiffies/v 10+8 <v $[1+1] jiffies",
     "jiffies: 0 = 0x18 jiffies+1: 0x1 = 0x5 jiffies+2: 0x2 = 0x2 jiffies+3: 0x3 = 0x0"),
    ("9.6-blanks-before-the-letter", "jiffies/ w 1", "jiffies: 0x100 = 0x1"),
    ("9.6-low-bytes-are-used", "jiffies/v 1234", "jiffies: 0 = 0x34"),
    ("9.6-physical", "10\\W 5", "0x10: 0x13121110 = 0x5"),
    ("9.6-an-old-zero-is-0", "jiffies/v 1", "jiffies: 0 = 0x1"),
    Case("9.6-a-value-is-expected", "jiffies/W", error="/W: expected value to write following W"),
    ("9.6-silent", "::set +o write_readback; jiffies/W 5; jiffies/x", "jiffies: jiffies: 5"),
    ("9.6-later-in-the-list-it-displays", "jiffies/XW", "jiffies: jiffies: 3020100 7060504"),
    ("9.6-equals-displays", "5=W", "5"),
)
def test_writing(case: Case) -> None:
    check(case._replace(typed=True, writable=True))


def test_9_6_z_writes_as_many_bytes_as_the_type_has() -> None:
    machine = Machine(typed=True, writable=True)
    machine.run("::typedef -c LP64")
    machine.run("jiffies/z 5")
    assert machine.session.read(KERNEL + 0x200, 8) == (5).to_bytes(8, "little")


def test_9_6_what_is_read_only_is_told() -> None:
    assert Machine(typed=True).run("jiffies/W 5").errors[0] == (
        f"/W: failed to write 5 at address 0x{KERNEL + 0x200:x}: target is not open for writing")


@cases(
    ("9.7-l-steps-by-2", "init_task/l 0908; .-init_task=X", "init_task+8 8"),
    ("9.7-L-steps-by-4", "init_task/L 13121110", "init_task+0x10"),
    ("9.7-M-steps-by-8", "init_task/M 1f1e1d1c1b1a1918", "init_task+0x18"),
    ("9.7-with-a-mask", "init_task/L 10000000 f0000000", "init_task+0x10"),
    ("9.7-not-between-the-steps", "init_task/L 0d0c0b0a; .-init_task=X", "f00"),
    ("9.7-not-found-prints-nothing", "init_task/L 12345678", ""),
    ("9.7-a-number-where-no-symbol-is", f"{K}/l 8382", f"0x{KERNEL + 0x82:x}"),
    ("9.7-the-count-is-ignored", "init_task,5/L 07060504", "init_task+4"),
    Case("9.7-a-value-is-expected", "init_task/L", error="/L: expected value following L"),
    Case("9.7-two-words-at-most", "init_task/L 1 2 3", error="/L: only value and mask may follow L"),
)
def test_searching(case: Case) -> None:
    check(case._replace(typed=True))


@cases(
    ("9.3-formats-lists-letters", "::formats ! grep -c ' - '", "56"),
    ("9.3-formats-X", "::formats ! grep '^X'", "X - hexadecimal int (4 bytes)\n"),
    ("9.3-formats-c", "::formats ! grep '^c'", "c - character (1 byte)\n"),
    ("9.3-formats-n", "::formats ! grep '^n'", "n - newline\n"),
    ("9.3-formats-L", "::formats ! grep '^L'", "L - match int (4 bytes)\n"),
    ("9.3-formats-W", "::formats ! grep '^W - write'", "W - write default radix unsigned int (4 bytes)\n"),
    ("9.3-formats-s", "::formats ! grep '^s'", "s - raw string (variable size)\n"),
)
def test_formats(case: Case) -> None:
    check(case)
