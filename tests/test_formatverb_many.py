"""Formats of many numbers: the ways that make whole screens show what number by number would, holes included."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell import formatverb, screens
from kshell.errors import Fault, KshellError, Reason
from kshell.formatverb import FormatRun, Step
from kshell.lang.formats import FORMATS, field_width
from kshell.page import Page

BASE = 0xFFFF888000000000


class Memory:
    """Bytes from BASE on, a target of the formatting verbs; *holes* are pages that are not there."""

    byteorder = "little"
    pointer_size = 8

    def __init__(self, data: bytes, holes: frozenset[int] = frozenset(), order: str = "little") -> None:
        self.data, self.holes, self.byteorder = data, holes, order

    def read(self, space: str, address: int, size: int) -> bytes:
        start = address - BASE
        for at in range(start, start + size):
            if not 0 <= at < len(self.data) or at >> 8 in self.holes:
                raise Fault(BASE + at, size, Reason.NOT_MAPPED, partial=self.data[start:at], space="kernel")
        return self.data[start : start + size]

    def symbolize(self, address: int) -> None:
        return None

    def disassemble(self, space: str, address: int) -> tuple[str, int]:
        raise KshellError("no")


def shown(target: Any, steps: list[Step], count: int, width: int | None, dot: int = BASE) -> tuple[Any, ...]:
    run = FormatRun("/", steps, target, dot, count=count, page_width=width)
    pieces: list[str] = []
    for item in run:  # errors keep their place among the text
        if isinstance(item, str) and pieces and not pieces[-1].startswith("!"):
            pieces[-1] += item
        else:
            pieces.append(item if isinstance(item, str) else f"!{item}")
    return [piece for piece in pieces if piece], run.dot, run.increment, run.last_value, run.failed


NUMBERS = st.sampled_from("BxXJKZVuUEvdDe")
STEPS = st.one_of(
    st.lists(st.builds(Step, NUMBERS, st.integers(1, 3)), min_size=1, max_size=3).map(lambda s: [*s, Step("n")]),
    NUMBERS.flatmap(
        lambda letter: st.lists(st.builds(Step, st.just(letter), st.integers(1, 4)), min_size=1, max_size=3)),
    st.tuples(NUMBERS, st.text("ab% ", min_size=1, max_size=5), NUMBERS).map(
        lambda t: [Step("", text=t[1]), Step(t[0]), Step("r", 2), Step(t[2], 2), Step("n")]),
    st.lists(st.one_of(st.builds(Step, NUMBERS, st.integers(1, 3)), st.just(Step("+", 4)), st.just(Step("^")),
                       st.just(Step("n")), st.just(Step("t", 8))), min_size=1, max_size=4),
)


def small_and_large(size: int, seed: int) -> bytes:
    """Return random words of all lengths: most numbers in memory are small or pointers."""
    source = random.Random(seed)
    words = (source.getrandbits(source.choice((0, 4, 8, 20, 32, 60, 61, 64))) for _ in range(size // 8))
    return b"".join(word.to_bytes(8, "little") for word in words)


@settings(max_examples=120, deadline=None)
@given(STEPS, st.integers(1, 400), st.sets(st.integers(1, 12), max_size=2), st.sampled_from([80, 132, 40, None]),
       st.integers(0, 1000), st.sampled_from(["little", "big"]))
def test_many_rounds_show_what_single_ones_show(
    steps: list[Step], count: int, holes: set[int], width: int | None, seed: int, order: str,
) -> None:
    target = Memory(small_and_large(3072, seed), frozenset(holes), order)
    patched = pytest.MonkeyPatch()
    try:
        patched.setattr(formatverb, "_FEW", 1)
        fast = shown(target, steps, count, width)
        patched.setattr(formatverb, "_FEW", 1 << 60)
        assert fast == shown(target, steps, count, width)
    finally:
        patched.undo()


@pytest.mark.parametrize("width", [80, 132, 79, None])
@pytest.mark.parametrize("letter", list("BxXJKZ"))
def test_screens_show_what_single_numbers_show(letter: str, width: int | None) -> None:
    size = {"B": 1, "x": 2, "X": 4}.get(letter, 8)
    for data in (small_and_large(8 * 700, 1), bytes(8 * 700), b"\xff" * 8 * 700, bytes(8 * 350) + b"\xee" * 8 * 350):
        for order in ("<", ">"):
            fast, slow = Page(width), Page(width)
            for page in (fast, slow):
                page.outdented("label:", 16, 16)
            fast.hexadecimal(data, size, order, FORMATS[letter].width, letter in "JKZ")
            for at in range(0, len(data), size):
                text = f"{int.from_bytes(data[at : at + size], 'little' if order == '<' else 'big'):x}"
                slow.field(text, field_width(letter, text))
            assert fast.flush() == slow.flush()


def test_screens_are_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = screens.Cells.__init__

    def counted(self: Any, data: bytes, size: int, order: str) -> None:
        made.append(len(data))
        real(self, data, size, order)

    monkeypatch.setattr(screens.Cells, "__init__", counted)
    memory = Memory(bytes(1 << 20))
    monkeypatch.setattr(memory, "read", lambda space, address, size: bytes(size))
    shown(memory, [Step("X")], 1 << 18, 80)
    assert sum(made) > 1 << 19
