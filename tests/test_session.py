"""Spaces, writes and their journal, variables, radix, log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kshell.errors import Fault, KshellError, NoProcessError, NotFoundError, Reason
from kshell.journal import HEAD, WRITE_PIECE, JournalEntry
from kshell.session import Context, Session
from tests.fake_target import DATA, KERNEL, Bytes, fake_target


@pytest.fixture
def session() -> Session:
    return Session(fake_target(writable=True))


def test_space_by_the_half_of_the_address(session: Session) -> None:
    assert session.space(KERNEL).space == "kernel"
    with pytest.raises(NoProcessError, match="0x400000 is a user address and there is no process context"):
        session.space(0x400000)
    user = Bytes("user", 0x400000, b"x")
    session.set_context(Context(7, "x", user))
    assert session.space(0x400000) is user
    assert session.space(KERNEL).space == "kernel"
    assert session.memory("physical").space == "physical"
    with pytest.raises(NotFoundError, match="address space"):
        session.memory("target")


def test_without_a_target() -> None:
    with pytest.raises(KshellError, match="no target"):
        _ = Session().target
    assert Session().evaluate("1+2") == 3


def test_write_and_undo(session: Session) -> None:
    first = session.write("kernel", KERNEL + 4, b"\xaa\xbb")
    second = session.write(session.physical, 8, b"\xcc")
    assert (first.number, first.old, first.new, first.space) == (1, b"\x04\x05", b"\xaa\xbb", "kernel")
    assert session.read(KERNEL, 8) == b"\0\1\2\3\xaa\xbb\6\7"
    assert session.journal == [first, second]
    assert session.undo() is second
    assert session.undo() is first
    assert session.read(KERNEL, 8) == DATA[:8]
    with pytest.raises(KshellError, match="nothing to undo"):
        session.undo()


def test_undo_of_memory_that_has_changed_since(session: Session) -> None:
    session.write("kernel", KERNEL, b"\xaa")
    session.kernel.write(KERNEL, b"\xbb")
    with pytest.raises(KshellError, match="the memory has changed since"):
        session.undo()
    assert len(session.journal) == 1


def test_partial_write_is_recorded(session: Session) -> None:
    class Half(Bytes):
        def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
            super().write(address, data[:2])
            raise Fault(address + 2, len(data), Reason.IO, done=2, space=self.space, verb="write")

    half = Half("kernel", KERNEL, DATA, True)
    with pytest.raises(Fault):
        session.write(half, KERNEL, b"\xff" * 4)
    assert [entry[3:5] for entry in session.journal] == [(b"\0\1", b"\xff\xff")]
    assert half.data[:4] == b"\xff\xff\2\3"


LARGE = 9 * WRITE_PIECE + 77


def large(writable: type[Bytes] = Bytes) -> tuple[Session, Bytes, bytes]:
    """A session on memory of some size, and what is to be written into it."""
    memory = writable("kernel", KERNEL, bytes(range(256)) * (10 * WRITE_PIECE // 256), True)
    return Session(fake_target(writable=True)), memory, os.urandom(LARGE)


def test_a_large_write_is_taken_back_from_a_file() -> None:
    session, memory, data = large()
    before = bytes(memory.data)
    entry = session.write(memory, KERNEL + 3, data)
    assert memory.data == before[:3] + data + before[3 + LARGE :]
    assert (entry.size, entry.new, entry.old) == (LARGE, data[:HEAD], before[3 : 3 + HEAD])
    small = session.write(memory, KERNEL + 100, b"x")
    assert session.undo() is small
    assert session.undo() is entry
    assert memory.data == before


def test_a_large_write_that_was_changed_is_not_taken_back() -> None:
    session, memory, data = large()
    session.write(memory, KERNEL, data)
    changed = bytearray(memory.data)
    changed[7 * WRITE_PIECE] ^= 1
    memory.data = changed
    with pytest.raises(KshellError, match=f"at 0x{KERNEL + 7 * WRITE_PIECE:x} cannot be undone"):
        session.undo()
    assert memory.data == changed


@pytest.mark.parametrize("error", [
    Fault(KERNEL + 6 * WRITE_PIECE + 5, 4, Reason.IO, verb="write"), KeyboardInterrupt()])
def test_a_large_write_that_ends_in_the_middle(error: BaseException) -> None:
    class Ends(Bytes):
        fails = True

        def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
            if address < KERNEL + 6 * WRITE_PIECE or not self.fails:
                super().write(address, data)
                return
            super().write(address, bytes(data[:5]))
            raise error

    session, memory, data = large(Ends)
    before = bytes(memory.data)
    with pytest.raises(type(error)):
        session.write(memory, KERNEL, data)
    assert memory.data == data[: 6 * WRITE_PIECE + 5] + before[6 * WRITE_PIECE + 5 :]
    entry = session.journal[0]
    assert isinstance(entry, JournalEntry)
    assert entry.size == 6 * WRITE_PIECE + 5
    memory.fails = False  # type: ignore[attr-defined]
    session.undo()
    assert memory.data == before


def test_no_room_for_what_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    session, memory, data = large()
    before = bytes(memory.data)
    full = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(session, "spill", lambda: full)
    with full, pytest.raises(KshellError, match="cannot be kept for ::undo: No space left"):
        session.write(memory, KERNEL, data)
    assert memory.data == data[: 4 * WRITE_PIECE] + before[4 * WRITE_PIECE :]
    session.undo()
    assert memory.data == before


def test_writes_are_refused_without_w() -> None:
    session = Session(fake_target())
    with pytest.raises(Fault, match="target is not open for writing") as caught:
        session.write("kernel", KERNEL, b"x")
    assert caught.value.hint is not None
    assert "-w" in caught.value.hint
    with pytest.raises(Fault, match="no mapping"):
        Session(fake_target(writable=True)).write("kernel", 0x8000_0000_0000_0000, b"x")
    with pytest.raises(Fault, match="past the end"):
        Session(fake_target(writable=True)).write("kernel", (1 << 64) - 1, b"xy")


def test_variables(session: Session) -> None:
    session.variables["x"] = -1
    assert session.evaluate("<x") == (1 << 64) - 1
    session.variables["."] = 5
    assert session.dot == 5
    assert session.variables["m"] == 0x464C457F
    session.variables["m"] = 1
    assert session.variables["m"] == 1
    session.variables.unset("m")
    assert session.variables["m"] == 0x464C457F, "what it is when nobody has set it"
    with pytest.raises(KshellError, match="cannot modify read-only variable 'thread'"):
        session.variables["thread"] = 1
    with pytest.raises(KshellError, match="not a name"):
        session.variables["a b"] = 1
    with pytest.raises(NotFoundError, match='no variable "nosuch"'):
        _ = session.variables["nosuch"]
    session.variables.unset("x")
    assert "x" not in session.variables
    with pytest.raises(KshellError, match="cannot be unset"):
        session.variables.unset("0")
    names = [variable.name for variable in session.variables]
    assert names[0] == "."
    assert {"0", "9", "b", "hits"} <= set(names)


def test_registers_are_variables(session: Session) -> None:
    from types import SimpleNamespace

    session.target.cpus.append(SimpleNamespace(number=0, registers={"rip": 0x10}))  # type: ignore[arg-type]
    assert session.evaluate("<rip") == 0x10
    with pytest.raises(KshellError, match="read-only"):
        session.variables["rip"] = 1


def test_names_and_numbers(session: Session) -> None:
    assert session.name_of(KERNEL + 0x100) == "init_task"
    assert session.name_of(KERNEL + 0x11C) == "init_task+0x1c"
    assert session.name_of(KERNEL + 0x308) == "mod`helper+8"
    assert session.name_of(0x50) == "0x50"
    session.radix = 10
    assert session.format_number(0x50) == "0t80"
    assert session.evaluate("10") == 10
    assert session.symbol("jiffies") == KERNEL + 0x200
    assert session.symbol("jiffies", "mod") is None
    assert session.near_symbols("jifies") == ("jiffies",)


def test_log(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "log"
    session.start_log(str(path))
    session.log("a\udc80b\n")
    session.stop_log()
    session.log("not this")
    assert path.read_text() == "a\\udc80b\n"
    with pytest.raises(KshellError, match="cannot log to"):
        session.start_log(str(tmp_path / "no" / "log"))


def test_eval_dot_keeps_dot(session: Session) -> None:
    session.dot, session.increment = 1, 2
    assert session.eval_dot(".+4", 8) == 12
    assert (session.dot, session.increment) == (1, 2)
    assert session.evaluate(".") == 1
