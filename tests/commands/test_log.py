"""``::msgbuf``: levels, patterns, times, colours, and the log of a live kernel followed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.linux import clock, printk
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask, objects
from tests.guest.image import GuestImage


@pytest.fixture(scope="module")
def target(guest_null: GuestImage) -> Iterator[Target]:
    with open_target(str(guest_null.elf)) as opened:
        yield opened


def test_levels(target: Target) -> None:
    every = objects(target, "::msgbuf -v")
    worse = objects(target, "::msgbuf -v -l err")
    assert worse == [one for one in every if one["level"] in ("emerg", "alert", "crit", "err")]
    assert 0 < len(worse) < len(every)
    exact = objects(target, "::msgbuf -v -l warn,info")
    assert {one["level"] for one in exact} - {None} == {"warn", "info"}  # None: more lines of a record
    assert "the levels are emerg" in ask(target, "::msgbuf -l bad")


def test_pattern_and_the_last(target: Target) -> None:
    found = objects(target, "::msgbuf -t -g '^BUG: .*NULL'")
    assert found == [{"message": "BUG: kernel NULL pointer dereference, address: 0000000000000028"}]
    every = objects(target, "::msgbuf")
    assert objects(target, "::msgbuf -n 3") == every[-3:]
    assert "-g [" in ask(target, "::msgbuf -g [")


def test_wall_time(target: Target) -> None:
    now = clock.read_clock(target)
    (last,) = objects(target, "::msgbuf -T -v -n 1")
    panic = list(printk.iter_records(target))[-1]
    assert last["time"] == printk.wall_time(now.boot_time + panic.timestamp)
    assert abs(now.wall - (now.boot_time + panic.timestamp)) < 10 * clock.NS
    assert printk.wall_time(1 << 90).endswith(" s")


def test_colours_on_a_terminal_only(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    shown = ask(target, "::msgbuf -t -g '^BUG: '", terminal=True)
    assert "\x1b[31mBUG: kernel NULL pointer dereference, address: 0000000000000028\x1b[0m\n" in shown
    assert "\x1b" not in ask(target, "::msgbuf -t -g '^BUG: '")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in ask(target, "::msgbuf -t -g '^BUG: '", terminal=True)


def test_follow(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not move" in ask(target, "::msgbuf -f")
    records = list(printk.iter_records(target))
    times = iter((10, 12, 12, 15))

    def growing(_: Target) -> Iterator[printk.Record]:
        length = next(times, None)
        if length is None:
            raise KeyboardInterrupt
        return iter(records[:length])

    monkeypatch.setattr(target, "live", True)
    monkeypatch.setattr(target, "forget", lambda: None)
    monkeypatch.setattr(printk, "iter_records", growing)
    monkeypatch.setattr("time.sleep", lambda _: None)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        from kshell.builtin import make_registry
        from kshell.session import Session

        session = Session(target, make_registry(lambda _: None, plugins=False))
        function = session.registry.find_dcmd("msgbuf").function
        for row in function(session, False, False, False, None, None, None, True):
            lines.append(row.cells[0])
    assert lines == [line for record in records[:15] for line in record.lines()]
