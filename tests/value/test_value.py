"""Values: C meaning of every kind of type, reads no more than needed, faults where the memory has gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.errors import Fault, MemberError, ParseError, Reason, ValueTypeError
from kshell.types.model import ArrayType, FloatType, IntType, Kind, Member, PointerType, StructType
from kshell.value import Value, offsetof, parse_path, sizeof
from kshell.value.path import route, route_at
from kshell.value.shape import decode, shape_of
from tests.value.universe import (
    BASE,
    CHAR,
    DOUBLE,
    FLAGS,
    INIT_TASK,
    INT,
    LIST_HEAD,
    MM,
    PID_TYPE,
    S16,
    TASK,
    U8,
    ULONG,
    VOID,
    FakeTarget,
    build,
    u32,
    u64,
)

A = BASE + 0x100
MM_AT = BASE + 0x10000


@pytest.fixture
def target() -> FakeTarget:
    target = build()
    put = target.memory.put
    put(A, u64(0x4000) + u32(7, 0) + u32(-2, 2) + b"k\xc3\xbc\xffx\0garbage\0\0\0" + u64(INIT_TASK, MM_AT))
    put(A + 56, u64(A + 56, A + 56))
    put(A + 72, ((0b1_01 | 0b111 << 1) | 0x5A5 << 6).to_bytes(4, "little"))
    put(A + 80, u32(3, 0) + u64(BASE + 0xF00, 0xFFFFFFFF81000000))
    put(A + 104, (1).to_bytes(2, "little") + (0xFFFE).to_bytes(2, "little") + b"\3\0\4\0")
    put(A + 144, u64(1754481600) + b"\0\0\xc0\x3f" + b"\1A")
    put(BASE + 0xF00, b"hello\0")
    put(MM_AT, u64(0x7F0000000000, 0x1234) + u32(2))
    put(INIT_TASK + 16, u32(0))
    return target


@pytest.fixture
def task(target: FakeTarget) -> Value:
    return Value(target, TASK, A)


def test_numbers(task: Value) -> None:
    assert task["pid"].integer() == task.integer("pid") == int(task.pid) == -2
    assert task["thread_info.flags"].integer() == 0x4000
    assert task.thread_info.status == 7
    assert task["kind"].enumerator() == "PIDTYPE_PGID"
    assert task.integer("ready") == 1 and bool(task.ready)
    assert task.integer("letter") == ord("A")
    assert float(task.load) == 1.5 and bool(task.load)
    assert task.parent.integer() == INIT_TASK
    assert not task.data
    assert bool(task.thread_info)


def test_bit_fields(task: Value) -> None:
    assert task.integer("in_execve") == 1
    assert task.integer("level") == -1                  # 3 bits, signed
    assert task["wide"].integer() == task.integer("wide") == 0x5A5
    assert (task["wide"].bit_offset, task["wide"].bit_size, task["wide"].address) == (6, 11, A + 72)
    with pytest.raises(ValueTypeError):
        task["wide"].address_value()


def test_strings(task: Value) -> None:
    assert task.comm.string() == "kü\udcffx"
    assert task.comm.string(limit=1) == "k"
    assert task.name.string() == "hello"
    assert task.comm.bytes()[:2] == b"k\xc3"
    with pytest.raises(ValueTypeError):
        task.pid.string()


def test_string_that_runs_into_a_gap(target: FakeTarget) -> None:
    target.memory.put(BASE + 0xFFD, b"abc")
    pointer = Value.immediate(target, PointerType(CHAR), BASE + 0xFFD)
    with pytest.raises(Fault) as caught:
        pointer.string()
    assert (caught.value.partial, caught.value.address) == (b"abc", BASE + 0x1000)
    assert caught.value.reason is Reason.NOT_MAPPED
    target.memory.put(BASE + 0xFFD, b"ab\0")
    assert pointer.string() == "ab"


def test_paths(task: Value) -> None:
    assert task["mm->mmap_base"].integer() == task.integer("mm->mmap_base") == 0x7F0000000000
    assert task["mm"]["mmap_base"] == task.mm.mmap_base == 0x7F0000000000
    assert task["mm->users.counter"] == 2
    assert task["table[0][1]"] == -2 and task["table"][1][0] == 3
    assert task["parent->pid"] == 0
    assert task["rcu_users"].integer() == task.rcu.integer() == 3
    assert task["mm[0].pgd"].address == MM_AT + 8
    assert task["parent[1]"].address == INIT_TASK + TASK.size  # type: ignore[operator]
    assert task["lists"][1].address == A + 128


def test_null_on_the_way(task: Value, target: FakeTarget) -> None:
    init = Value(target, TASK, INIT_TASK)
    with pytest.raises(Fault) as caught:
        init.integer("mm->pgd")
    assert (caught.value.reason, caught.value.address) == (Reason.NOT_MAPPED, 8)
    found = init["mm"].deref()["pgd"]       # nothing is read yet
    assert init["mm->pgd"].address == 8
    with pytest.raises(Fault) as caught:
        found.integer()
    assert caught.value.address == 8


@pytest.mark.parametrize(("path", "error", "text"), [
    ("foo", MemberError, 'failed to find member foo of struct task_struct: no such member'),
    ("pid->x", ValueTypeError, "pid_t is not a pointer type"),
    ("mm.pgd", ValueTypeError, "struct mm_struct * is not a struct or union type"),
    ("pid.x", ValueTypeError, "pid_t is not a struct or union type"),
    ("pid[0]", ValueTypeError, "cannot index into non-array, non-pointer type"),
    ("data[0]", ValueTypeError, "cannot dereference void type"),
    ("table[1", ParseError, "no trailing ']'"),
    ("pid%x", ParseError, "'%' is not a valid delimiter"),
    ("table[]", ParseError, "no number in '[]'"),
    ("table[zz]", ParseError, "digit 'z' is invalid in current base"),
    ("mm->", ParseError, "no member name after '->'"),
])
def test_wrong_paths(task: Value, path: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text.replace("*", r"\*").replace("[", r"\[").replace("]", r"\]")):
        task[path]
    assert error is ParseError or not task.has(path)


def test_path_text() -> None:
    assert [tuple(step) for step in parse_path("->a.b[0x10]")] == [
        ("->", "a", 0, 0, 3), (".", "b", 0, 3, 5), ("[", "", 16, 5, 11),
    ]
    assert parse_path("x[10]", 16)[1].number == 16 and parse_path("x[10]")[1].number == 10
    assert parse_path("") == ()
    found = route(TASK, "table[9]", 16)
    assert found.warnings == ("index 9 is outside of array bounds [0 .. 1]",) and found.offset == 104 + 36


def test_attributes_are_members(task: Value) -> None:
    assert hasattr(task, "pid") and not hasattr(task, "nothing") and not hasattr(task.pid, "pid")
    with pytest.raises(MemberError, match='did you mean "parent"'):
        _ = task.parnt
    with pytest.raises(AttributeError):
        _ = task.__array_interface__


def test_pointers(task: Value, target: FakeTarget) -> None:
    assert task.parent.deref().address == task.parent[0].address == INIT_TASK
    assert task.tasks.next.container_of("struct task_struct", "tasks").address == A
    assert task.tasks.container_of(TASK, "tasks").address == A
    assert task.address_value().deref().pid == -2
    assert str(task.address_value().type) == "struct task_struct *"
    assert task.parent.cast("unsigned long").integer() == INIT_TASK
    assert task.cast("struct list_head").next.integer() == 0x4000
    assert Value.immediate(target, INT, 0x1_FFFF_FFFF) == -1
    assert Value.immediate(target, "struct task_struct *", A)["pid"] == -2
    assert task["open"].deref().integer() == 0xFFFFFFFF81000000     # a function is its address
    with pytest.raises(ValueTypeError):
        task.pid.deref()
    with pytest.raises(ValueTypeError):
        task.data.deref().integer()
    with pytest.raises(ValueTypeError):
        task.comm.integer()


def test_equality(task: Value, target: FakeTarget) -> None:
    assert task == Value(target, TASK, A) and task != Value(target, TASK, INIT_TASK)
    assert task.pid == task.pid.cast(S16) and task.pid != 2 and task != "x"
    assert task.snapshot() == task
    with pytest.raises(TypeError):
        hash(task)


def test_arrays(task: Value) -> None:
    assert len(task.table) == 2 and [int(v) for v in task.table[1]] == [3, 4]
    assert [v.address for v in task.lists] == [A + 112, A + 128]
    assert task.comm[0:3].column("") == [ord("k"), ord("\xc3") - 256, ord("\xbc") - 256]
    assert list(task.rest) == [] and len(task.rest) == 0
    assert task.rest[2].address == A + 170
    assert task.rest[0:2].addresses == [A + 168, A + 169]
    with pytest.raises(ValueTypeError):
        task.rest[0:]
    with pytest.raises(ValueTypeError):
        len(task)


def test_snapshot_reads_once(task: Value, target: FakeTarget) -> None:
    copy = task.snapshot()
    target.memory.reads = 0
    assert copy.pid == -2 and copy.integer("wide") == 0x5A5 and copy.comm.string() == task.comm.string()
    assert target.memory.reads == 1                     # that of task.comm
    target.memory.put(A + 16, u32(5))
    assert copy.pid == -2 and task.pid == 5
    assert copy.mm.mmap_base == 0x7F0000000000          # pointers lead into the memory itself
    assert copy.tasks.container_of(TASK, "tasks").pid == 5


def test_snapshot_of_a_half_readable_object(target: FakeTarget) -> None:
    target.memory.put(BASE + 0xFF0, u64(1, 2))
    copy = Value(target, TASK, BASE + 0xFF0).snapshot()
    assert copy.thread_info.flags == 1
    with pytest.raises(Fault) as caught:
        copy.integer("pid")
    assert caught.value.address == BASE + 0x1000


def test_physical_pointers_lead_into_the_kernel(target: FakeTarget) -> None:
    physical = type(target.memory)({0x1000: bytes(64) + u64(0) * 20})
    physical.space = "physical"
    physical.put(0x1000 + 48, u64(MM_AT))
    value = Value(target, TASK, 0x1000, physical)
    assert value["mm->mmap_base"] == value.mm.mmap_base == 0x7F0000000000
    assert value.integer("mm->mmap_base") == 0x7F0000000000


def test_sizeof_and_offsetof() -> None:
    assert sizeof(TASK, "comm") == 16 and sizeof(LIST_HEAD) == 16 and sizeof(TASK, "mm->users") == 4
    assert offsetof(TASK, "tasks.prev") == (64, 0) and offsetof(TASK, "rcu") == (80, 0)
    assert offsetof(TASK, "wide") == (72, 6)
    with pytest.raises(ValueTypeError, match="bit-field wide has no size"):
        sizeof(TASK, "wide")
    with pytest.raises(ValueTypeError, match="void has no size"):
        sizeof(VOID)
    with pytest.raises(ValueTypeError, match="behind a pointer"):
        offsetof(TASK, "mm->pgd")


@pytest.mark.parametrize(("offset", "path"), [
    (8, "thread_info.status"), (16, "pid"), (24, "comm[0]"), (39, "comm[15]"), (73, "wide"), (80, "rcu_users"),
    (84, "rcu"), (106, "table[0][1]"), (136, "lists[1].prev"),
])
def test_member_at_an_offset(offset: int, path: str) -> None:
    name, found = route_at(TASK, offset)
    assert name == path
    assert (found.offset, found.bit) == offsetof(TASK, path)


@pytest.mark.parametrize("offset", [12, 75, 168, 5000])
def test_no_member_at_an_offset(offset: int) -> None:
    with pytest.raises(Exception, match=f"invalid offset {offset:x}"):
        route_at(TASK, offset)


@given(st.binary(min_size=17, max_size=17), st.integers(0, 63), st.integers(1, 64), st.booleans(), st.booleans())
def test_bit_fields_against_a_reference(data: bytes, start: int, width: int, signed: bool, big: bool) -> None:
    """Every bit taken by itself, from the end that the byte order counts from."""
    bits = [byte >> (7 - i if big else i) & 1 for byte in data for i in range(8)][start : start + width]
    expected = 0
    for bit in bits if big else reversed(bits):
        expected = expected << 1 | bit
    if signed and (bits[0] if big else bits[-1]):
        expected -= 1 << width
    number = IntType("x", 8, signed)
    struct = StructType("s", 17, [Member("f", number, start, width)])
    target = build()
    target.arch.byteorder = "big" if big else "little"
    target.memory.put(BASE, data)
    assert Value(target, struct, BASE).integer("f") == Value(target, struct, BASE)["f"].integer() == expected


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_immediates_are_cut_as_in_c(number: int, size: int, signed: bool) -> None:
    got = Value.immediate(build(), IntType("x", size, signed), number).integer()
    assert (got - number) % (1 << 8 * size) == 0
    assert (-(1 << 8 * size - 1) <= got < 1 << 8 * size - 1) if signed else 0 <= got < 1 << 8 * size


def test_floats() -> None:
    target = build()
    target.memory.put(BASE, b"\x18\x2d\x44\x54\xfb\x21\x09\x40")
    assert float(Value(target, DOUBLE, BASE)) == pytest.approx(3.141592653589793)
    target.memory.put(BASE, (0x8000000000000000).to_bytes(8, "little") + (0xBFFF).to_bytes(2, "little") + bytes(6))
    assert float(Value(target, FloatType("long double", 16), BASE)) == -1.0
    with pytest.raises(ValueTypeError):
        Value(target, FloatType("odd", 3), BASE).number()
    assert Value(target, ArrayType(DOUBLE, 2), BASE)[0].number() == Value(target, DOUBLE, BASE).number()


def test_enum_names() -> None:
    names = shape_of(FLAGS).names
    assert names.flags and names.prefix == 3
    assert [names.text(n) for n in (0, 1, 3, 19, 4, 5, 7)] == [
        "FL_NONE", "FL_A", "FL_{A|B}", "FL_{A|B|C}", "4", "FL_A|4", "FL_{A|B}|4",
    ]
    plain = shape_of(PID_TYPE).names
    assert not plain.flags and [plain.text(n) for n in (2, 12, 5)] == ["PIDTYPE_PGID", "PIDTYPE_MAX", "???"]


def test_char_is_told_by_name() -> None:
    assert shape_of(CHAR).char and shape_of(IntType("char", 1, False)).char and not shape_of(U8).char
    assert not shape_of(IntType("char", 1, False, Kind.CHAR)).signed
    assert decode(b"\xff", shape_of(CHAR), "little") == -1
    assert shape_of(MM).routes is shape_of(MM).routes and shape_of(ULONG).size == 8
