"""mdb-language.md section 10: the page, wrapping, and the conversions of printf. The pager: tests/shell."""

from __future__ import annotations

import time

import pytest

from tests.conformance.run import KERNEL, Case, Machine, cases, check, together

WIDE = "0x10:           13121110        17161514        1b1a1918        1f1e1d1c        23222120\n"


@cases(
    ("10-the-page-has-80-columns", "$w", "output page width = 80\n"),
    ("10-the-width-is-set", "0t60$w; $w", "output page width = 60\n"),
    ("10-verbs-wrap-at-it", "0t40$w; 10@2X", together(["0x10:           13121110", "                17161514"])),
    ("10-a-wider-page", "0t100$w; 10@5X", WIDE),
    ("10-nothing-is-wrapped-into-a-shell", "10@5X ! cat", WIDE),
    ("10-but-what-would-be-a-line-of-more-than-1024-columns", "init_task,80/X ! sed -n 2,4p | wc -lL", "3 72"),
    ("10-or-a-line-of-the-format-would", "init_task,2/79X n ! tail -n +2 | wc -lL", "40 72"),
    ("10-each-line-counts-for-itself", "init_task,0t100/XXXXXn ! wc -lL", "101 96"),
    ("10-nothing-is-wrapped-into-a-pipe", "30=90c | ::map .", "0"),
    ("10-nothing-but-verbs-wraps", f"::echo {'x' * 100}", "x" * 100 + "\n"),
)
def test_page(case: Case) -> None:
    check(case._replace(typed=True))


DECLARE = ("::typedef -c LP64; ::typedef 'struct t { char *p; int d; unsigned u; long q; char s[8]; unsigned ip; "
           "unsigned char six[16]; }'")


@pytest.mark.parametrize("conversion, member, out", [
    pytest.param("%d", "d", "185207048", id="10-d"), pytest.param("%u", "u", "252579084", id="10-u"),
    pytest.param("%x", "u", "f0e0d0c", id="10-x"), pytest.param("%X", "u", "F0E0D0C", id="10-X"),
    pytest.param("%o", "u", "1703406414", id="10-o"), pytest.param("%r", "u", "f0e0d0c", id="10-r"),
    pytest.param("%R", "d", "b0a0908", id="10-R"), pytest.param("%q", "d", "1302404410", id="10-q"),
    pytest.param("%p", ".", f"{KERNEL:x}", id="10-p"), pytest.param("%H", "u", "241M", id="10-H"),
    pytest.param("%-12d|", "d", "185207048   |", id="10-left"),
    pytest.param("%12d|", "d", "   185207048|", id="10-width"),
    pytest.param("%012d|", "d", "000185207048|", id="10-zeros"),
    pytest.param("%?x|", "u", "         f0e0d0c|", id="10-?"),
    pytest.param("%I", "u", "12.13.14.15", id="10-I"),
    pytest.param("%%%d", "d", "%185207048", id="10-percent"),
])
def test_conversions(conversion: str, member: str, out: str) -> None:
    machine = Machine(typed=True)
    machine.run(DECLARE)
    assert machine.run(f"{KERNEL:x}::printf '{conversion}' 'struct t' {member}").raw == out + "\n"


def test_10_a_symbol_or_a_number() -> None:
    machine = Machine(typed=(KERNEL + 0x108).to_bytes(8, "little") + bytes(0x300))
    machine.run(DECLARE)
    assert machine.run(f"{KERNEL:x}::printf '%a %A %p' 'struct t' p p p").raw == (
        f"init_task+8 init_task+8 {KERNEL + 0x108:x}\n")
    assert machine.run(f"{KERNEL + 8:x}::printf '%a|%A|' 'struct t' p p").raw == "0||\n"


def test_10_a_time() -> None:
    machine = Machine(typed=(1_000_000_000).to_bytes(8, "little") + bytes(0x300))
    machine.run("::typedef -c LP64; ::typedef 'struct w { long when; }'")
    shown = time.strftime("%Y %b %e %H:%M:%S", time.gmtime(1_000_000_000))
    assert machine.run(f"{KERNEL:x}::printf '%Y' 'struct w' when").words == " ".join(shown.split())


def test_10_a_table_has_its_header_once_and_is_not_underlined_off_a_terminal() -> None:
    said = Machine(typed=True).run("::nm -v")
    assert said.out.count("Value") == 1
    assert "\x1b" not in said.raw
