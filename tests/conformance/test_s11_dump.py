"""mdb-language.md 11.4 and 11.5: ::dump, whose examples are the reference's own, and ::dis."""

from __future__ import annotations

import pytest

from tests.conformance.run import KERNEL, Machine, together

BYTES = bytes(range(256)) * 16


def physical(line: str) -> str:
    """Run *line*, whose ``@`` is ``::dump -p``: the reference's examples have small addresses."""
    return Machine(typed=True).run(line.replace("@", "::dump -p")).out


@pytest.mark.parametrize("line, out", [
    pytest.param("25,30@", together([
        "      0 1 2 3  4\\/ 6 7  8 9 a b  c d e f  01234v6789abcdef",
        "20:  20212223 24252627 28292a2b 2c2d2e2f   !\"#$%&'()*+,-./",
        "30:  30313233 34353637 38393a3b 3c3d3e3f  0123456789:;<=>?",
        "40:  40414243 44454647 48494a4b 4c4d4e4f  @ABCDEFGHIJKLMNO",
        "50:  50515253 54555657 58595a5b 5c5d5e5f  PQRSTUVWXYZ[\\]^_"]), id="11.4-lines-are-whole"),
    pytest.param("25,30@ -t", together([
        "      0 1 2 3  4\\/ 6 7  8 9 a b  c d e f  01234v6789abcdef",
        "20:             252627 28292a2b 2c2d2e2f       %&'()*+,-./",
        "30:  30313233 34353637 38393a3b 3c3d3e3f  0123456789:;<=>?",
        "40:  40414243 44454647 48494a4b 4c4d4e4f  @ABCDEFGHIJKLMNO",
        "50:  50515253 54                          PQRST"]), id="11.4-t"),
    pytest.param("25,20@ -r", together([
        "      0 1 2 3  4 5 6 7  8 9 a b  c d e f  0123456789abcdef",
        "00:  25262728 292a2b2c 2d2e2f30 31323334  %&'()*+,-./01234",
        "10:  35363738 393a3b3c 3d3e3f40 41424344  56789:;<=>?@ABCD"]), id="11.4-r"),
    pytest.param("20,20@ -e", together([
        "20:  23222120 27262524 2b2a2928 2f2e2d2c", "30:  33323130 37363534 3b3a3938 3f3e3d3c"]), id="11.4-e"),
    pytest.param("20,10@ -eg8", "20:  2726252423222120 2f2e2d2c2b2a2928\n", id="11.4-e-in-groups-of-8"),
    pytest.param("20,10@ -q", together([
        "     \\/ 1 2 3  4 5 6 7  8 9 a b  c d e f", "20:  20212223 24252627 28292a2b 2c2d2e2f"]), id="11.4-q"),
    pytest.param("20,10@ -g 2", together([
        "     \\/ 1  2 3  4 5  6 7  8 9  a b  c d  e f  v123456789abcdef",
        "20:  2021 2223 2425 2627 2829 2a2b 2c2d 2e2f   !\"#$%&'()*+,-./"]), id="11.4-g"),
    pytest.param("20,10@ -g 1", together([
        "     \\/  1  2  3  4  5  6  7   8  9  a  b  c  d  e  f  v123456789abcdef",
        "20:  20 21 22 23 24 25 26 27  28 29 2a 2b 2c 2d 2e 2f   !\"#$%&'()*+,-./"]), id="11.4-g-1-has-a-gap"),
    pytest.param("23,10@ -u", together([
        "      3 4 5 6  7 8 9 a  b c d e  f 0 1 2  3456789abcdef012",
        "23:  23242526 2728292a 2b2c2d2e 2f303132  #$%&'()*+,-./012"]), id="11.4-u-rotates-the-digits"),
    pytest.param("20,20@ -w 2", together([
        "     \\/ 1 2 3  4 5 6 7  8 9 a b  c d e f  0 1 2 3  4 5 6 7  8 9 a b  c d e f"
        "  v123456789abcdef0123456789abcdef",
        "20:  20212223 24252627 28292a2b 2c2d2e2f 30313233 34353637 38393a3b 3c3d3e3f"
        "   !\"#$%&'()*+,-./0123456789:;<=>?"]),
        id="11.4-w"),
    pytest.param("8@", together([
        "     0 1 2 3  4 5 6 7 \\/ 9 a b  c d e f  01234567v9abcdef",
        "0:  00010203 04050607 08090a0b 0c0d0e0f  ................"]), id="11.4-one-byte-is-its-line"),
    pytest.param("20@ -l 11", together([
        "     \\/ 1 2 3  4 5 6 7  8 9 a b  c d e f  v123456789abcdef",
        "20:  20212223 24252627 28292a2b 2c2d2e2f   !\"#$%&'()*+,-./",
        "30:  30313233 34353637 38393a3b 3c3d3e3f  0123456789:;<=>?"]), id="11.4-l"),
    pytest.param("init_task-init_task+20,10@ -q", together([
        "     \\/ 1 2 3  4 5 6 7  8 9 a b  c d e f", "20:  20212223 24252627 28292a2b 2c2d2e2f"]), id="11.4-p"),
])
def test_layout(line: str, out: str) -> None:
    assert physical(line) == out


def test_11_4_repeated_lines_are_one_star() -> None:
    said = Machine(typed=bytes(0x100)).run(f"{KERNEL:x},50::dump -s").out.splitlines()
    assert said[2] == "*"
    assert said[1].startswith(f"{KERNEL:x}:  00000000")
    assert said[3].startswith(f"{KERNEL + 0x40:x}:")
    assert len(said) == 4


def test_11_4_v_has_16_digits_of_address() -> None:
    assert physical("8@ -v").splitlines()[1].startswith("0000000000000000:  ")


def test_11_4_the_count_is_the_length_and_the_loop_runs_once() -> None:
    machine = Machine(typed=True)
    said = machine.run(f"{KERNEL:x},40::dump")
    assert len(said.out.splitlines()) == 5
    assert (machine.session.dot, machine.session.increment) == (KERNEL + 0x40, 0)


def test_11_4_a_length_given_twice_is_wrong_use() -> None:
    said = Machine(typed=True).run("init_task,20::dump -l 20")
    assert "given twice" in said.err
    assert "Usage: [address][,count]::dump" in said.err


def test_11_4_what_cannot_be_read_ends_it() -> None:
    said = Machine(typed=True).run(f"{KERNEL + 0xff0:x},20::dump")
    assert said.errors == [f"::dump: failed to read data at 0x{KERNEL + 0x1000:x}: no mapping for address"]
    assert len(said.out.splitlines()) == 2
    assert Machine(typed=True).run("init_task,20::dump -f").errors == ["::dump: operation not supported by target"]


#: push %rbp; mov %rsp,%rbp; nop; pop %rbp; ret, as main, which has 0x20 bytes
CODE = bytes.fromhex("55 4889e5 90 5d c3") + b"\x90" * 0x19


def machine() -> Machine:
    return Machine(typed=bytes(0x280) + CODE + bytes(0x100))


@pytest.mark.parametrize("line, out", [
    pytest.param("main::dis -n 2", ["main:", "main+1:", "main+4:"], id="11.5-n-shows-one-more"),
    pytest.param("main::dis -n 0", ["main:"], id="11.5-n-0"),
    pytest.param("::dis -n 1 main", ["main:", "main+1:"], id="11.5-a-symbol-as-argument"),
    pytest.param("main+4::dis -n 1", ["main+1:", "main+4:", "main+5:"], id="11.5-elsewhere-a-window"),
    pytest.param("main::dis -a -n 0", [f"0x{KERNEL + 0x280:x}:"], id="11.5-a"),
    pytest.param("main::dis -b -n 0", [f"0x{KERNEL + 0x280:x}", "main:"], id="11.5-b"),
])
def test_dis(line: str, out: list[str]) -> None:
    said = machine().run(line)
    assert not said.err
    words = [word for text in said.out.splitlines() for word in text[:48].split()]
    labels = [word for word in words if word.startswith(("main", "0xffff"))]
    assert labels == out


def test_11_5_a_whole_function_and_where_dot_is_then() -> None:
    made = machine()
    said = made.run("main::dis")
    assert said.out.splitlines()[0] == "main:                           push   %rbp"
    assert len(said.out.splitlines()) == 5 + 0x19
    assert made.session.dot == KERNEL + 0x2A0


def test_11_5_without_an_address_it_goes_on_from_dot() -> None:
    made = machine()
    made.run("main::dis -n 1")
    assert made.run("::dis -n 1").out.splitlines()[0].startswith("main+4:")
    assert made.run("::dis").out.count("\n") == 11


def test_11_5_errors() -> None:
    assert "unknown symbol name" in machine().run("::dis nosuch").err
    assert "no mapping for address" in machine().run("f000000000000000::dis -n 1").err + machine().run(
        "f000000000000000::dis -n 1").out
