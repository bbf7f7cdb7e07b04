"""The words of ``::print``: where the type ends and the members begin (mdb-language.md 11.2)."""

from __future__ import annotations

import pytest

from kshell.errors import KshellError, TypeNotFoundError, UsageError
from kshell.types.model import StructType
from kshell.value.args import type_and_members, type_words
from tests.value.universe import INIT_TASK, PID_T, TASK, TYPES, FakeTarget, build_tasks
from tests.value.universe import TASK_AT as A


@pytest.fixture
def target() -> FakeTarget:
    return build_tasks()


@pytest.mark.parametrize(("words", "expected"), [
    (["struct", "task_struct", "pid"], ("struct task_struct", 2)), (["pid_t"], ("pid_t", 1)),
    (["struct task_struct", "pid"], ("struct task_struct", 1)), (["struct", "x", "*", "**", "y"], ("struct x * **", 4)),
    (["unsigned", "long", "x"], ("unsigned long", 2)), (["ext4`struct", "x", "y"], ("ext4`struct x", 2)),
    (["const", "struct", "x", "y"], ("const struct x", 3)), (["char*", "x"], ("char*", 1)), ([8], ("", 0)),
    (["struct"], ("struct", 1)), (["const"], ("const", 1)), ([], ("", 0)),
])
def test_type_words(words: list[str | int], expected: tuple[str, int]) -> None:
    assert type_words(words) == expected


def test_type_and_members(target: FakeTarget) -> None:
    typed = type_and_members(["struct", "task_struct", "pid", 8], target, A)
    assert (typed.type, typed.name, typed.members, typed.symbol) == (TASK, "struct task_struct", ("pid", 8), None)
    assert type_and_members(["task_struct", "pid"], target, None).members == ("pid",)
    symbol = type_and_members(["pid", "comm"], target, INIT_TASK)
    assert symbol.type is TASK and symbol.members == ("pid", "comm") and symbol.symbol is not None
    assert type_and_members([], target, INIT_TASK).type is TASK
    assert type_and_members([8], target, INIT_TASK).members == (8,)
    assert type_and_members(["->pid"], target, INIT_TASK).members == ("->pid",)


def test_a_member_that_is_a_tag_too(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """``init_task::print comm`` is the member though a bare tag would be found as well; ``struct comm`` is not."""
    monkeypatch.setitem(TYPES, "comm", StructType("comm", 8, []))
    monkeypatch.setitem(TYPES, "struct comm", StructType("comm", 8, []))
    assert type_and_members(["comm"], target, INIT_TASK).members == ("comm",)
    assert type_and_members(["comm"], target, A).members == ()
    assert type_and_members(["struct", "comm"], target, INIT_TASK).members == ()
    assert type_and_members(["pid_t"], target, INIT_TASK).type is PID_T


@pytest.mark.parametrize(("words", "address", "error", "text"), [
    (["nothing"], A, TypeNotFoundError, 'failed to look up type nothing: no such type'),
    (["nothing"], INIT_TASK + 8, TypeNotFoundError, 'failed to look up type nothing: no such type'),
    (["struct"], A, UsageError, "struct is not a valid type"), ([], None, UsageError, "a type is missing"),
    ([], 0x1234, KshellError, "no symbol information for 0x1234"),
    ([], INIT_TASK + 0x800, KshellError, "no type data available for jiffies"), (["-q"], A, UsageError, "-q"),
])
def test_wrong_words(
    target: FakeTarget, words: list[str | int], address: int | None, error: type[Exception], text: str,
) -> None:
    with pytest.raises(error, match=text):
        type_and_members(words, target, address)


def test_immediates_have_no_symbol(target: FakeTarget) -> None:
    with pytest.raises(UsageError):
        type_and_members([], target, INIT_TASK, immediate=True)
    with pytest.raises(TypeNotFoundError):
        type_and_members(["pid"], target, INIT_TASK, immediate=True)
