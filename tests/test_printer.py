"""``::print``, ``::sizeof``, ``::offsetof``: the examples and rules of mdb-language.md 11.2 and 11.3, line by line."""

from __future__ import annotations

from typing import Any

import pytest

from kshell.errors import Fault, KshellError, MemberError, ValueTypeError
from kshell.printer import (
    PrintOptions,
    Selection,
    format_layout,
    format_value,
    offsetof_text,
    offsetof_value,
    pipe_value,
    sizeof_text,
)
from kshell.printer.scalars import character, date
from kshell.types.model import (
    ArrayType,
    CType,
    Enumerator,
    EnumType,
    FloatType,
    IntType,
    Kind,
    Member,
    PointerType,
    QualifiedType,
    StructType,
    TypedefType,
)
from kshell.value import Value
from tests.value.universe import (
    BASE,
    CHAR,
    FLAGS,
    INIT_TASK,
    INT,
    LIST_HEAD,
    PID_T,
    PID_TYPE,
    TASK,
    U8,
    UINT,
    ULONG,
    FakeTarget,
    build_tasks,
    u32,
    u64,
)
from tests.value.universe import TASK_AT as A

FULL = f"""\
{{
    thread_info = {{
        flags = 0x4000
        status = 7
    }}
    pid = 0xfffffffe
    kind = 2 (PIDTYPE_PGID)
    comm = [ "kworker/0:1" ]
    parent = init_task
    mm = 0xffff888003a6c000
    tasks = {{
        next = 0x{A + 56:x}
        prev = init_task+0x38
    }}
    in_execve = 1
    level = -0t1
    wide = 0x5a5
    <anon> = {{
        rcu_users = 3
        rcu = 3
    }}
    name = jiffies "hello"
    open = ext4`ext4_iget+4
    table = [
        [ 0x10, 0xfffe ]
        [ 3, 4 ]
    ]
    lists = [
        {{
            next = 0
            prev = 0
        }},
        {{
            next = 0
            prev = 0x1f
        }},
    ]
    start = 2025 Aug  6 12:00:00
    load = +1.5000000e+00
    ready = 1
    letter = 'A'
    data = schedule
    rest = [ ... ]
}}
"""


@pytest.fixture
def target() -> FakeTarget:
    return build_tasks()


def show(value: Value, **options: Any) -> str:
    return "".join(f"{line}\n" for line in format_value(value, PrintOptions(**options)))


def one(target: FakeTarget, type: CType, data: bytes, **options: Any) -> str:
    """Print *data* as *type* without the newline."""
    target.memory.put(BASE + 0x800, data)
    return show(Value(target, type, BASE + 0x800), **options)[:-1]


# -- the examples of the reference ---------------------------------------------------------------------------------


def test_example_members(target: FakeTarget) -> None:
    lines = Selection(TASK, ["pid", "comm", "parent"]).lines(Value(target, TASK, INIT_TASK))
    assert list(lines) == ["pid = 0", 'comm = [ "swapper/0" ]', "parent = init_task"]


def test_example_list_head(target: FakeTarget) -> None:
    target.memory.put(BASE, u64(BASE + 16, BASE + 16))
    value = Value(target, LIST_HEAD, BASE)
    assert show(value) == """\
{
    next = 0xffff888003a5c010
    prev = 0xffff888003a5c010
}
"""
    assert show(value, addresses=True, types=True) == """\
ffff888003a5c000 struct list_head {
    ffff888003a5c000 struct list_head *next = 0xffff888003a5c010
    ffff888003a5c008 struct list_head *prev = 0xffff888003a5c010
}
"""


def test_example_sizes() -> None:
    assert sizeof_text("struct list_head", LIST_HEAD) == "sizeof (struct list_head) = 0x10"
    assert sizeof_text("int", INT) == "sizeof (int) = 4"
    assert sizeof_text("struct list_head", LIST_HEAD, radix=10) == "sizeof (struct list_head) = 0t16"
    page = StructType("page", 64, [Member("flags", ULONG, 0), Member("lru", LIST_HEAD, 64), Member("f", UINT, 163, 2)])
    assert offsetof_text("struct page", page, "lru") == "offsetof (struct page, lru) = 8, sizeof (...->lru) = 0x10"
    assert offsetof_text("struct page", page, "f") == "offsetof (struct page, f) = 0x14.3"
    assert offsetof_value("struct page", page, "lru") == 8
    with pytest.raises(KshellError, match="member f of type struct page is not byte-aligned"):
        offsetof_value("struct page", page, "f")
    with pytest.raises(MemberError):
        offsetof_text("struct page", page, "foo")


# -- every kind ----------------------------------------------------------------------------------------------------


def test_all_kinds(target: FakeTarget) -> None:
    assert show(Value(target, TASK, A)) == FULL


def test_types_and_addresses(target: FakeTarget) -> None:
    lines = show(Value(target, TASK, A), addresses=True, types=True).splitlines()
    a = f"{A:x}"[:-2]
    assert lines[0] == f"{A:x} struct task_struct {{"
    assert f"    {A + 16:x} pid_t pid = 0xfffffffe" in lines
    assert f"    {a}28 char [16] comm = [ \"kworker/0:1\" ]".replace(f"{a}28", f"{A + 24:x}") in lines
    assert f"    {A + 72:x} unsigned int in_execve :1 = 1" in lines
    assert f"    {A + 72:x}.1 int level :3 = -0t1" in lines
    assert f"    {A + 72:x}.6 unsigned int wide :11 = 0x5a5" in lines
    assert f"    {A + 80:x} union <anon> <anon> = {{" in lines
    assert f"    {A + 96:x} int (*)(struct task_struct *task) open = ext4`ext4_iget+4" in lines
    assert f"        {A + 112:x} struct list_head {{" in lines
    assert f"    {A + 88:x} const char *name = jiffies \"hello\"" in lines


def test_base_types(target: FakeTarget) -> None:
    lines = show(Value(target, TASK, A), base_types=True).splitlines()
    assert "    pid_t <<int>> pid = 0xfffffffe" in lines
    assert "    time64_t <<long>> start = 2025 Aug  6 12:00:00" in lines
    assert "    struct list_head tasks = {" in lines
    assert Selection(TASK, ["mm->users"]).layout(target, PrintOptions(base_types=True)).__next__() == (
        "atomic_t mm->users {")      # an anonymous structure behind it says nothing


def test_numbers_in_decimal_and_hexadecimal(target: FakeTarget) -> None:
    value = Value(target, TASK, A)
    paths = ["pid", "level", "wide", "kind", "start", "thread_info.status", "table"]
    selection = Selection(TASK, paths)
    assert list(selection.lines(value, PrintOptions(decimal=True))) == [
        "pid = -0t2", "level = -0t1", "wide = 0t1445", "kind = 2 (PIDTYPE_PGID)", "start = 0t1754481600",
        "thread_info.status = 7", "table = [", "    [ 0t16, -0t2 ]", "    [ 3, 4 ]", "]",
    ]
    assert list(selection.lines(value, PrintOptions(hexadecimal=True, decimal=True)))[:5] == [
        "pid = 0xfffffffe", "level = 7", "wide = 0x5a5", "kind = 2 (PIDTYPE_PGID)", "start = 0x689343c0",
    ]


def test_layout(target: FakeTarget) -> None:
    lines = list(format_layout(target, TASK))
    assert lines[:6] == ["{", "    thread_info {", "        flags ", "        status ", "    }", "    pid "]
    lines = list(format_layout(target, TASK, PrintOptions(addresses=True, types=True)))
    assert lines[0] == "0 struct task_struct {" and "    18 char [16] comm " in lines and lines[-1] == "}"
    assert "    28 struct task_struct *parent " in lines and "    48.6 unsigned int wide :11 " in lines
    assert "    70 struct list_head [2] lists " in lines


def test_depth(target: FakeTarget) -> None:
    value = Value(target, TASK, A)
    assert show(value, depth=0) == "{ ... }\n"
    lines = show(value, depth=1).splitlines()
    assert "    thread_info = { ... }" in lines and "    comm = [ ... ]" in lines and "    pid = 0xfffffffe" in lines
    assert lines[0] == "{" and lines[-1] == "}" and "    <anon> = { ... }" in lines
    lines = show(value, depth=2).splitlines()
    assert lines[lines.index("    lists = [") :][:4] == ["    lists = [", "        { ... }", "        { ... }", "    ]"]
    assert lines[lines.index("    table = [") :][:3] == ["    table = [", "        [ ... ]", "        [ ... ]"]
    assert show(value["lists"], depth=0) == "[ ... ]\n"


def test_array_limits(target: FakeTarget) -> None:
    numbers = ArrayType(INT, 40)
    data = u32(*range(40))
    assert one(target, numbers, data).endswith("0x1e, 0x1f, ... ]")
    assert one(target, numbers, data, limit=2) == "[ 0, 1, ... ]"
    assert one(target, numbers, data, limit=None).endswith("0x26, 0x27 ]")
    assert one(target, numbers, data, limit=0) == "[ ... ]"
    assert one(target, ArrayType(LIST_HEAD, 3), bytes(48), limit=1) == """\
[
    {
        next = 0
        prev = 0
    },
... ]"""


def test_pointers_to_unsigned_char_show_text_but_not_to_u8(target: FakeTarget) -> None:
    target.memory.put(BASE, b"name\0")
    assert one(target, PointerType(QualifiedType("const", U8)), u64(BASE)) == f'0x{BASE:x} "name"'
    assert one(target, PointerType(TypedefType("u8", U8)), u64(BASE)) == f"0x{BASE:x}"


def test_char_arrays(target: FakeTarget) -> None:
    text = ArrayType(CHAR, 4)
    assert one(target, text, b"ab\0\xff") == '[ "ab" ]'
    assert one(target, text, b"abcd") == '[ "abcd" ]'
    assert one(target, text, bytes(4)) == r"[ '\0', '\0', '\0', '\0' ]"
    assert one(target, text, b"a\n\xaa'") == r"[ 'a', '\n', '\252', '\'' ]"
    assert one(target, text, b"ab\0\0", string_limit=2) == r"[ 'a', 'b', '\0', '\0' ]"
    assert one(target, ArrayType(CHAR, 2000), b"x" * 1100 + bytes(900)).startswith("[ 'x', 'x', ")
    assert one(target, ArrayType(CHAR, 2000), b"x" * 3 + bytes(1997), string_limit=None) == '[ "xxx" ]'
    assert one(target, ArrayType(U8, 4), b"ab\0\0") == '[ "ab" ]'  # unsigned char, as d_iname is declared
    assert one(target, ArrayType(U8, 3), b"\1a\0") == "[ 1, 0x61, 0 ]"
    assert one(target, ArrayType(U8, 2), bytes(2)) == "[ 0, 0 ]"
    assert one(target, ArrayType(TypedefType("u8", U8), 2), b"ab") == "[ 0x61, 0x62 ]"
    assert one(target, text, "ü\u00a0".encode()) == r"[ '\303', '\274', '\302', '\240' ]"    # not printable
    assert one(target, text, b"\xc3\xbc\0\0") == '[ "ü" ]'
    assert [character(n) for n in (0, 170, 7, 65, 92)] == [r"\0", r"\252", r"\a", "A", "\\\\"]


def test_char_pointers(target: FakeTarget) -> None:
    pointer = PointerType(CHAR)
    put = target.memory.put
    put(BASE, bytes(0x400))
    put(BASE, b"\x1b[31m\0")
    assert one(target, pointer, u64(BASE)) == f"0x{BASE:x}"                         # not printable
    assert one(target, pointer, u64(BASE + 0x300)) == f'0x{BASE + 0x300:x} ""'
    assert one(target, pointer, u64(0x10)) == "0x10"                                # not readable
    put(BASE, b"y" * 255 + b"\0")
    assert one(target, pointer, u64(BASE)) == f'0x{BASE:x} "{"y" * 255}"'
    put(BASE, b"y" * 256 + b"\0")
    assert one(target, pointer, u64(BASE)) == f'0x{BASE:x} "{"y" * 251} ..."'
    put(BASE + 0xFFE, b"ab")
    assert one(target, pointer, u64(BASE + 0xFFE)) == f"0x{BASE + 0xFFE:x}"         # runs into a gap
    put(BASE + 0xFFE, b"a\0")
    assert one(target, pointer, u64(BASE + 0xFFE)) == f'0x{BASE + 0xFFE:x} "a"'
    assert one(target, pointer, u64(INIT_TASK), plain=True) == f"0x{INIT_TASK:x}"
    assert one(target, pointer, u64(0), plain=True) == "0"


def test_enums(target: FakeTarget) -> None:
    assert one(target, PID_TYPE, u32(12)) == "0t12 (PIDTYPE_MAX)"
    assert one(target, PID_TYPE, u32(-1)) == "0t4294967295 (???)"
    assert one(target, PID_TYPE, u32(12), hexadecimal=True) == "0xc (PIDTYPE_MAX)"
    assert one(target, FLAGS, u32(0x13)) == "0x13 (FL_{A|B|C})"
    assert one(target, FLAGS, u32(0x21), decimal=True) == "0x21 (FL_A|0x20)"
    assert one(target, FLAGS, u32(0)) == "0 (FL_NONE)"
    evil = EnumType("e", 4, True, [Enumerator("\x1b[2J", 1), Enumerator("x", 3)])
    assert one(target, evil, u32(1)) == r"1 (\x1b[2J)"
    assert one(target, evil, u32(-3)) == "-0t3 (???)"


def test_structures_with_a_form_of_their_own(target: FakeTarget) -> None:
    v4, v6 = StructType("in_addr", 4, [Member("s_addr", UINT, 0)]), StructType("in6_addr", 16, [])
    assert one(target, v4, bytes([127, 0, 0, 1])) == "127.0.0.1"
    assert one(target, v6, bytes(15) + b"\1") == "::1"
    assert one(target, ArrayType(v4, 2), bytes(8)) == "[\n    0.0.0.0\n    0.0.0.0\n]"
    assert date(0) is None and date(-1) is None and date(1 << 60) is None


def test_incomplete_and_empty_structures(target: FakeTarget) -> None:
    assert one(target, StructType("gone", None, []), b"") == "; <forward declaration of struct gone>"
    holder = StructType("h", 4, [Member("key", StructType("key", 0, []), 0), Member("x", INT, 0)])
    assert one(target, holder, u32(1)) == "{\n    key = {\n    }\n    x = 1\n}"
    looped = StructType("l", 8, lambda: [Member("again", looped, 0)])
    assert one(target, looped, bytes(8)).count("{") == 101


def test_odd_numbers(target: FakeTarget) -> None:
    assert one(target, FloatType("double", 8), b"\x18\x2d\x44\x54\xfb\x21\x09\x40") == "+3.1415927e+00"
    assert one(target, IntType("__int128", 16, False), u64(0, 1)) == "0x10000000000000000"
    byte = StructType("b", 4, [Member("x", INT, 0, 8), Member("y", CHAR, 8, 8), Member("z", INT, 16, 16)])
    # A bit-field that fills whole bytes is an integer of that size.
    assert one(target, byte, b"\xffA\xfe\xff") == "{\n    x = 0xff\n    y = 'A'\n    z = 0xfffe\n}"
    assert one(target, byte, b"\xffA\xfe\xff", types=True).splitlines()[1:3] == [
        "    int x :8 = 0xff", "    char y = 'A'"]


def test_holes(target: FakeTarget) -> None:
    struct = StructType("s", 48, [
        Member("a", U8, 0), Member("b", ULONG, 64), Member("c", UINT, 128, 3), Member("d", U8, 160),
        Member("e", StructType("in", 8, [Member("f", INT, 0)]), 192), Member("g", ULONG, 320),
    ])
    data = b"\1" + b"\x22" * 7 + u64(9) + u32(0xFD) + b"\3\0\0\0" + u32(5, 6) + u64(7) + u64(8)
    assert one(target, struct, data, holes=True) == """\
{
    a = 1
    <<HOLE>> = 0x22222222222222
    b = 9
    c = 5
    <<HOLE>> = 0x1f
    d = 3
    <<HOLE>> = 0
    e = {
        f = 5
        <<HOLE>> = 6
    }
    <<HOLE>> = 7
    g = 8
}"""
    at = BASE + 0x800
    lines = one(target, struct, data, holes=True, types=True, addresses=True).splitlines()
    assert f"    {at + 1:x} unsigned <<HOLE>> :56 = 0x22222222222222" in lines
    assert f"    {at + 16:x}.3 unsigned <<HOLE>> :29 = 0x1f" in lines
    assert f"        {at + 28:x} uint32_t <<HOLE>> = 6" in lines
    long = StructType("l", 24, [Member("a", UINT, 0), Member("b", UINT, 160)])
    assert one(target, long, u32(*range(1, 7)), holes=True).splitlines()[2:4] == [
        "    <<HOLE>> = 2", "    <<HOLE>> = 0x400000003"]
    assert "    <<HOLE>> " in list(format_layout(target, long, PrintOptions(holes=True)))
    union = StructType("u", 8, [Member("a", U8, 0), Member("b", ULONG, 0)], Kind.UNION)
    assert "HOLE" not in one(target, union, bytes(8), holes=True)


# -- what cannot be read -------------------------------------------------------------------------------------------


def test_unreadable_parts(target: FakeTarget) -> None:
    at = BASE + 0x1000 - 20
    target.memory.put(at, u64(0x55) + u32(6, 0) + u32(3))
    assert show(Value(target, TASK, at)).splitlines()[:9] == [
        "{", "    thread_info = {", "        flags = 0x55", "        status = 6", "    }", "    pid = 3",
        "    kind = ??? (no mapping for address)", "    comm = ??? (no mapping for address)",
        "    parent = ??? (no mapping for address)",
    ]
    text = show(Value(target, TASK, at))
    assert "    tasks = ??? (no mapping for address)\n" in text and text.endswith("}\n")
    numbers = Value(target, ArrayType(INT, 4), BASE + 0xFF8)
    assert show(numbers) == "[ 0, 3, ??? (no mapping for address), ??? (no mapping for address) ]\n"
    pairs = Value(target, ArrayType(LIST_HEAD, 3), BASE + 0xFE8)
    assert show(pairs).splitlines()[5:] == [
        "    {", f"        next = 0x{3 << 32:x}", "        prev = ??? (no mapping for address)", "    },",
        "    ??? (no mapping for address)", "]",
    ]


def test_nothing_to_read(target: FakeTarget) -> None:
    with pytest.raises(Fault) as caught:
        list(format_value(Value(target, TASK, 0x1000)))
    assert caught.value.address == 0x1000
    with pytest.raises(Fault):
        list(Selection(TASK, ["pid", "mm->pgd"]).lines(Value(target, TASK, 0x1000)))


def test_a_pointer_that_leads_nowhere(target: FakeTarget) -> None:
    selection = Selection(TASK, ["mm->pgd", "comm", "mm->mmap_base"])
    assert list(selection.lines(Value(target, TASK, INIT_TASK))) == [
        "mm->pgd = ??? (no mapping for address)", 'comm = [ "swapper/0" ]',
        "mm->mmap_base = ??? (no mapping for address)",
    ]


# -- members -------------------------------------------------------------------------------------------------------


def test_prefixes(target: FakeTarget) -> None:
    value = Value(target, TASK, A)
    assert list(Selection(TASK, ["tasks", "parent[0]", ".mm->users"]).lines(value, PrintOptions(depth=1)))[:6] == [
        "tasks = {", f"    tasks.next = 0x{A + 56:x}", "    tasks.prev = init_task+0x38", "}",
        "parent = {", "    parent->thread_info = { ... }",
    ]
    assert list(Selection(TASK, ["lists"]).lines(value))[:3] == ["lists = [", "    {", "        next = 0"]
    assert list(Selection(TASK, ["lists[1]"]).lines(value)) == [
        "lists[1] = {", "    lists[1].next = 0", "    lists[1].prev = 0x1f", "}"]
    assert list(Selection(TASK, ["tasks"]).lines(value, PrintOptions(types=True, addresses=True)))[:2] == [
        f"{A + 56:x} struct list_head tasks = {{",
        f"    {A + 56:x} struct list_head *tasks.next = 0x{A + 56:x}",
    ]
    assert list(Selection(TASK, ["parent"]).lines(value, PrintOptions(types=True))) == [
        "struct task_struct *parent = init_task"]
    assert list(Selection(PointerType(LIST_HEAD), ["next"]).layout(target)) == ["next "]
    assert show(value["parent"], types=True) == "struct task_struct * init_task\n"
    part = Selection(PointerType(LIST_HEAD), ["[0]"]).parts[0]
    assert (part.name, part.suffix) == ("[0]", ".")


def test_offsets_and_indexes(target: FakeTarget) -> None:
    value = Value(target, TASK, A)
    assert list(Selection(TASK, [8, 72, 106]).lines(value)) == [
        "thread_info.status = 7", "in_execve = 1", "table[0][1] = 0xfffe"]
    assert Selection(ArrayType(INT, 20), ["[10]"]).parts[0].route.offset == 64          # indexes are hexadecimal
    assert Selection(ArrayType(INT, 20), ["[10]"], 10).parts[0].route.offset == 40
    selection = Selection(TASK, ["table[9][1]"])
    assert selection.warnings == ["index 9 is outside of array bounds [0 .. 1]"]
    with pytest.raises(KshellError, match="invalid offset c"):
        Selection(TASK, [12])


def test_pipe_values(target: FakeTarget) -> None:
    value = Value(target, TASK, A)
    selection = Selection(TASK, ["pid", "kind", "parent", "comm", "tasks", "wide", "level", "load", "mm->pgd", "open"])
    assert list(selection.pipe(value)) == [
        0xFFFFFFFE, 2, INIT_TASK, A + 24, A + 56, 0x5A5, 7, A + 152, 0, 0xFFFFFFFFC0000004]
    assert list(selection.pipe(value, addresses=True))[:3] == [A + 16, A + 20, A + 40]
    assert pipe_value(value) == A and pipe_value(Value.immediate(target, PID_T, -1)) == 0xFFFFFFFF
    with pytest.raises(Fault):
        list(Selection(TASK, ["mm->pgd"]).pipe(Value(target, TASK, INIT_TASK)))


def test_immediate_and_physical(target: FakeTarget) -> None:
    assert show(Value.immediate(target, FLAGS, 3)) == "3 (FL_{A|B})\n"
    assert show(Value.immediate(target, PointerType(CHAR), INIT_TASK + 0x800)) == 'jiffies "hello"\n'
    selection = Selection(PointerType(TASK), ["comm"])
    assert list(selection.lines(Value.immediate(target, PointerType(TASK), A))) == ['comm = [ "kworker/0:1" ]']


def test_wrong_members() -> None:
    with pytest.raises(MemberError, match="foo"):
        Selection(TASK, ["pid", "foo"])
    with pytest.raises(ValueTypeError):
        Selection(TASK, ["pid->x"])
