"""Vectors: the same answers with and without numpy, faults in the rows that have no answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kshell.errors import Fault, MemberError, Reason, ValueTypeError
from kshell.types.model import Member, StructType
from kshell.value import Value, Vector
from kshell.value import vector as module
from tests.value.universe import INIT_TASK, INT, TASK, UINT, Bytes, FakeTarget, u32, u64

START = 0xFFFF888000000000
STEP = 0x200


@pytest.fixture(autouse=True)
def _many_is_200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", 200)
    monkeypatch.setattr(module, "SMALL_LOADED", 200)


def build(count: int) -> tuple[FakeTarget, list[int]]:
    """Tasks one after the other; each one's parent is the one before; every third has an mm."""
    memory = Bytes({START: bytes(count * STEP), START + (1 << 32): u64(*range(300)), INIT_TASK: bytes(0x200)})
    target = FakeTarget(memory)
    addresses = [START + i * STEP for i in range(count)]
    for i, address in enumerate(addresses):
        parent = addresses[i - 1] if i else INIT_TASK
        mm = START + (1 << 32) + 8 * i if i % 3 == 0 and i < 290 else 0
        memory.put(address + 16, u32(i - 5, i % 4) + f"task{i}".encode().ljust(16, b"\0") + u64(parent, mm))
        memory.put(address + 72, ((i & 1) | (i & 7) << 1 | (i * 37 & 0x7FF) << 6).to_bytes(4, "little"))
        memory.put(address + 152, b"\0\0\xc0\x3f")
    return target, addresses


@pytest.mark.parametrize("count", [3, 250])
def test_columns(count: int) -> None:
    target, addresses = build(count)
    vector = Vector(target, TASK, addresses)
    pid, comm, parent, level, wide, load, kind = vector.columns(
        "pid", "comm", "parent->pid", "level", "wide", "load", "kind"
    )
    assert pid == [i - 5 for i in range(count)] == vector.column("pid")
    assert comm == [f"task{i}" for i in range(count)]
    assert parent == [0, *pid[:-1]]
    assert level == [(i & 7) - 8 * (i & 7 > 3) for i in range(count)]
    assert wide == [i * 37 & 0x7FF for i in range(count)]
    assert load == [1.5] * count and kind == [i % 4 for i in range(count)]
    assert all(type(number) is int for number in [*pid, *parent, *level, *wide, *kind])


@pytest.mark.parametrize("count", [4, 250])
def test_unreadable_rows_are_faults(count: int) -> None:
    target, addresses = build(count)
    addresses[1] = 0x1000
    addresses[2] = 0
    pid, base = Vector(target, TASK, addresses).columns("pid", "mm->mmap_base")
    assert pid[0] == -5 and pid[3] == -2
    for row in (1, 2):
        assert isinstance(pid[row], Fault) and pid[row].reason is Reason.NOT_MAPPED
        assert pid[row].address == addresses[row] + 16
    assert base[0] == 0 and base[3] == 3 and isinstance(base[1], Fault)
    assert all(isinstance(base[row], Fault) == (row % 3 != 0 or row >= 290) for row in range(3, count))


@pytest.mark.parametrize("count", [4, 250])
def test_follow_and_member(count: int) -> None:
    target, addresses = build(count)
    vector = Vector(target, TASK, addresses)
    parents = vector.follow("parent")
    assert list(map(int, parents.addresses)) == [INIT_TASK, *addresses[:-1]]
    assert str(parents.type) == "struct task_struct"
    mms = vector.follow("mm")
    assert int(mms.addresses[1]) == 0 and int(mms.addresses[3]) == START + (1 << 32) + 24
    assert list(map(int, vector.member("tasks.prev").addresses)) == [a + 64 for a in addresses]
    assert list(map(int, vector.member("mm->pgd").addresses))[:4] == [
        START + (1 << 32) + 8, 0, 0, START + (1 << 32) + 32]
    assert [int(a) for a in mms.member("pgd").addresses][:2] == [START + (1 << 32) + 8, 0]
    assert vector[1].pid == -4 and next(iter(vector)).comm.string() == "task0" and len(vector) == count
    with pytest.raises(ValueTypeError):
        vector.follow("pid")


def test_array() -> None:
    target, addresses = build(5)
    addresses[4] = 16
    numbers, ok = Vector(target, TASK, addresses).array("pid")
    assert numbers[:4].tolist() == [-5, -4, -3, -2] and ok.tolist() == [True] * 4 + [False]
    assert str(numbers.dtype) == "int32"
    wide, _ = Vector(target, TASK, addresses).array("wide")
    assert wide[:4].tolist() == [0, 37, 74, 111]
    raw, ok = Vector(target, TASK, addresses).array("tasks")
    assert raw.shape == (5, 16) and not ok[4]


@pytest.mark.parametrize(("path", "error"), [
    ("nothing", MemberError), ("tasks", ValueTypeError), ("lists", ValueTypeError),
])
def test_what_is_no_column(path: str, error: type[Exception]) -> None:
    target, addresses = build(2)
    with pytest.raises(error):
        Vector(target, TASK, addresses).column(path)


def test_empty() -> None:
    target, _ = build(1)
    assert Vector(target, TASK, []).columns("pid", "comm") == [[], []]


def test_small_and_large_agree_on_bit_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [Member(f"f{start}_{width}", INT if width % 2 else UINT, start, width)
               for start in range(0, 64) for width in (1, 2, 7, 8, 13, 31)]
    struct = StructType("bits", 16, members)
    target, addresses = build(40)
    vector = Vector(target, struct, addresses)
    paths = [member.name or "" for member in members]
    small = vector.columns(*paths)
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "SMALL_LOADED", 0)
    assert vector.columns(*paths) == small
    assert [[value.integer(path) for value in vector] for path in paths] == small


def test_few_objects_do_not_import_numpy() -> None:
    code = ("import sys; from tests.value.test_vector import build, TASK, Vector\n"
            "target, addresses = build(150); Vector(target, TASK, addresses).columns('pid', 'parent->pid', 'comm')\n"
            "assert 'numpy' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_values_of_a_vector_are_in_its_space() -> None:
    target, addresses = build(2)
    other = Bytes({addresses[0]: bytes(0x200)})
    assert Vector(target, TASK, addresses[:1], other)[0].pid == 0
    assert Value(target, TASK, addresses[0]).pid == -5
