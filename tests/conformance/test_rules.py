"""Every rule of the reference has a test: the table rules.txt is complete, and what it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent
#: the sections of the reference that have rules
SECTIONS = """
1 2 2.1 2.2 2.3 2.4 2.5 2.6 2.7 3 4.1 4.2 4.3 5.1 5.2 5.3 6 7.1 7.2 7.3 7.4 7.5 8.1 8.2 8.3 8.4 9.1 9.2 9.3 9.4 9.5 9.6
9.7 10 11.1 11.2 11.3 11.4 11.5 11.6 11.7 11.8 12.1 12.1a 12.2 12.3 12.4 12.5 13 14 15 16 17 18.1 18.3
"""
ROW = re.compile(r"(?P<section>[\d.]+a?) (?P<tag>[CSR]) (?P<rule>.+?) :: (?P<tests>.+)")
ID = re.compile(r"\d+(\.\d+)*a?-\S+")


def rows() -> list[re.Match[str]]:
    found = []
    for line in (HERE / "rules.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            match = ROW.fullmatch(line)
            assert match is not None, line
            found.append(match)
    return found


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@cache
def ids() -> frozenset[str]:
    """Return the ids of parameters and the names of test functions of the conformance modules."""
    found: set[str] = set()
    for path in HERE.glob("test_s*.py"):
        found |= {name for name in functions(path) if name.startswith("test_")}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ID.match(node.value):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant) \
                    and str(node.values[0].value).startswith("11.1-"):  # ids=lambda text: f"11.1-{text}"
                found |= {f"11.1-{name}" for name in ("calls", "replaced", "leaves", "comment", "exits")}
    return frozenset(found)


@cache
def shown() -> str:
    """Return all command lines of the transcripts."""
    texts = [path.read_text() for path in (TESTS / "commands" / "transcripts").glob("*.txt")]
    return "\n".join(line[2:] for text in texts for line in text.splitlines() if line.startswith("> "))


def there(test: str) -> bool:
    if test.startswith("> walk "):
        return re.search(rf"::walk {re.escape(test[7:])}\b", shown()) is not None
    if test.startswith("> "):
        name = re.escape(test[2:]) if test[2] in "$:" else f"::{re.escape(test[2:])}"
        return re.search(rf"{name}(?![\w$])", shown()) is not None
    if ":" in test:
        file, _, name = test.partition(":")
        path = TESTS / file
        return path.is_file() and any(one.startswith(name.removesuffix("*")) if name.endswith("*") else one == name
                                      for one in functions(path))
    wanted = test.removesuffix("*")
    return any(one.startswith(wanted) for one in ids()) if test.endswith("*") else test in ids()


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['section']}-{row['rule'][:50]}")
def test_every_core_and_common_rule_has_a_test(row: re.Match[str]) -> None:
    if row["tests"].startswith("absent: "):
        assert row["tag"] != "C", "what is core is there"
        return
    missing = [test for test in row["tests"].split("; ") if not there(test)]
    assert not missing, f"{row['section']} {row['rule']}: no such tests"


def test_every_section_has_rules() -> None:
    assert sorted({row["section"] for row in rows()}) == sorted(SECTIONS.split())


def test_every_dcmd_of_the_reference_that_is_absent_is_told_to_users() -> None:
    text = (TESTS.parent / "docs" / "coming-from.md").read_text()
    for row in rows():
        if row["tests"].startswith("absent: "):
            names = re.findall(r"::\w+", row["rule"]) or re.findall(r"(?:^| )(-\w|\w+)", row["rule"])
            assert [name for name in names if name not in text] == [], row["rule"]


def test_every_test_of_a_rule_has_a_section_of_the_reference() -> None:
    known = {*SECTIONS.split(), "4", *("18.3." + str(number) for number in range(1, 19))}
    found = {match[1] for name in ids() if (match := re.match(r"(\d+(?:\.\d+)+a?)-", name))}
    assert found <= known
