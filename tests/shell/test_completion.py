"""What Tab offers behind a symbol and behind a pipe, where the type is known; and the options of ::set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from kshell.builtin import make_registry
from kshell.lang.complete import context_at
from kshell.session import Session
from kshell.shell.completion import KshellCompleter
from kshell.target.open import open_target
from tests.guest.image import GuestImage

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def completer(guest_61: GuestImage) -> Iterator[KshellCompleter]:
    with open_target(str(guest_61.elf)) as target:
        yield KshellCompleter(Session(target, make_registry(pytest.fail, plugins=False)))


@pytest.mark.parametrize("line, offered", [
    ("init_task::print com", "comm"), ("init_task::print mm->pg", "mm->pgd"), ("1=X; init_task::print -d com", "comm"),
    ("init_task::print ", "pid"), ("::ps | ::print com", "comm"),
    ("::walk proc | ::head -2 | ::print mm->pg", "mm->pgd"),
    ("::walk dentry | ::print d_in", "d_inode"), ("::walk proc | ::select pi", "pid"), ("::ps | ::sort -r pi", "pid"),
    ("::walk proc | ::where pi", "pid"), ("::walk modctl | ::printf '%s' na", "name"), ("::ps | ::tojson com", "comm"),
    ("::set -o re", "repeatlast"), ("::set -o pager,re", "pager,repeatlast"), ("::set +o wr", "write_readback"),
    ("::set -o array_m", "array_mem_limit="),
])
def test_what_fits_is_offered(completer: KshellCompleter, line: str, offered: str) -> None:
    assert offered in [text for text, _ in completer.offers(context_at(line))]


@pytest.mark.parametrize("line", [
    "nosuch::print com", "::walk nosuch | ::print com", "::echo 5 | ::print nosuch->x", "::print nosuchtype com",
    "::walk proc | ::print nosuch->com", "init_task+8::print com", "::ps ! cat | ::print com", "| ::print com",
])
def test_what_is_not_known_offers_no_member(completer: KshellCompleter, line: str) -> None:
    found = context_at(line)
    try:
        names = [text for text, _ in completer.offers(found)]
    except Exception as error:
        assert type(error).__module__ == "kshell.errors", error  # which the prompt takes as no offer
        return
    assert "comm" not in names


def test_files(completer: KshellCompleter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.txt").touch()
    (tmp_path / "only").mkdir()
    (tmp_path / "odd").symlink_to("odd")  # leads to itself
    monkeypatch.setenv("HOME", str(tmp_path))
    for start in (f"{tmp_path}/", "~/"):
        found = [text for text, _ in completer.offers(context_at(f"::load {start}o"))]
        assert found == [f"{start}{name}" for name in ("odd", "one.txt", "only/")]
    assert list(completer.offers(context_at("::load ~nosuchuser/a"))) == []
    assert list(completer.offers(context_at(f"::load {tmp_path}/nosuch/a"))) == []


def test_a_bug_costs_the_offers_and_not_the_line(
    completer: KshellCompleter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> Iterator[tuple[str, str]]:
        raise ZeroDivisionError("in a table of names")

    monkeypatch.setattr(completer, "offers", broken)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert list(completer.get_completions(Document("::p"), CompleteEvent())) == []
    assert "in a table of names" in (tmp_path / "kshell/last-error.txt").read_text()
