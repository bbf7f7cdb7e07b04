"""How far a symbol without a size reaches: to the next one, but in read-only data, with its string literals, a page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.types.procsyms import SymbolList
from tests.commands.asking import ask
from tests.guest.fixtures import have
from tests.guest.spec import named_spec

TOP = 0xFFFFFFFF81000000
ROWS: list[tuple[int, str, str, str | None]] = [
    (TOP, "T", "_stext", None), (TOP + 0x10, "T", "large", None), (TOP + 0x9000, "T", "small", None),
    (TOP + 0x10000, "R", "__start_rodata", None), (TOP + 0x10010, "d", "table", None),
    (TOP + 0x30000, "d", "behind", None), (TOP + 0x40000, "R", "__end_rodata", None),
    (TOP + 0x50000, "b", "buffer", None), (TOP + 0x80000, "b", "last", None),
]


@pytest.mark.parametrize(("offset", "name"), [
    (0x10, "large"), (0x8fff, "large"), (0x10010, "table"), (0x1100F, "table"), (0x11010, None), (0x2ffff, None),
    (0x30fff, "behind"), (0x31000, None), (0x50001, "buffer"), (0x7ffff, "buffer"),
])  # fmt: skip
def test_far_symbols(offset: int, name: str | None) -> None:
    symbols = SymbolList(ROWS)
    found = symbols.at(TOP + offset)
    assert (found and found.name) == name
    assert symbols.find("table")[0].size == 0x30000 - 0x10010, "the size that is told stays what it is"
    below = symbols.below(TOP + offset)
    assert below is not None, "an absolute distance ($s) asks for the nearest one, however far"


@pytest.fixture(scope="module", params=["6.1", "6.12", "5.10"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with open_target(str(have(named_spec(request.param)).elf)) as opened:
        yield opened


def test_names_of_file_systems_are_literals_and_not_far_behind_a_table(target: Target) -> None:
    text = ask(target, "*file_systems::list struct file_system_type next | ::print struct file_system_type name")
    literals = re.findall(r'^name = 0x[0-9a-f]+ "(\w+)"$', text, re.MULTILINE)
    assert {"sysfs", "proc", "tmpfs", "ramfs"} <= set(literals)
    assert all(int(offset, 16) < 0x1000 for offset in re.findall(r"\+0x([0-9a-f]+) \"", text))
    assert "`" not in "".join(line for line in text.splitlines() if "sysfs" in line)


def test_near_ones_and_functions_keep_their_names(target: Target) -> None:
    assert ask(target, "linux_banner+4=p").split() == ["linux_banner+4"]
    assert ask(target, "__schedule+0t1000=p").split() == ["__schedule+0x3e8"]
    assert ask(target, "1000000$s; *file_systems::print struct file_system_type name").count("+0x") == 1
