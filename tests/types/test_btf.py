"""BTF: every kind of type, split BTF, the cache, and blobs that were made to hurt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kshell.errors import FormatError, KshellError
from kshell.types.btf import Btf
from kshell.types.model import CType, Enumerator, EnumType, Kind, StructType
from tests.types import encode_btf as e
from tests.types.encode_btf import Blob


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHELL_CACHE", "off")


def small() -> Blob:
    """A blob with a little of everything: int, char, list_head, task_struct, ..."""
    blob = Blob()
    number, char = blob.integer("int"), blob.integer("char", 1)
    pointer = blob.pointer(4)
    blob.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    comm = blob.array(char, 16)
    inner = blob.struct("", 8, [("tgid", number, 0), ("stamp", number, 32)], kind=e.UNION)
    blob.struct("task_struct", 48, [("pid", number, 0), ("", inner, 64), ("tasks", 4, 128), ("comm", comm, 256)])
    blob.typedef("pid_t", number)
    return blob


def struct(btf: Btf, name: str, kind: str = "struct") -> StructType:
    found = btf.find(kind, name)
    assert isinstance(found, StructType)
    return found


def test_structures() -> None:
    task = struct(Btf(small().bytes()), "task_struct")
    assert task.size == 48 and str(task) == "struct task_struct"
    assert [(m.name, m.offset) for m in task.members] == [("pid", 0), (None, 8), ("tasks", 16), ("comm", 32)]
    assert task.member("stamp").offset == 12  # inside the anonymous union
    assert task.member("comm").type.size == 16 and str(task.member("comm").type) == "char [16]"
    tasks = task.member("tasks").type
    assert isinstance(tasks, StructType) and str(tasks.member("next").type) == "struct list_head *"


def test_one_id_is_one_object() -> None:
    btf = Btf(small().bytes())
    assert btf.by_id(4) is btf.find("struct", "list_head") is struct(btf, "task_struct").member("tasks").type


def test_name_spaces_are_c_s() -> None:
    blob = Blob()
    number = blob.integer("int")
    blob.struct("thing", 4, [("a", number, 0)])
    blob.typedef("thing", number)
    blob.struct("thing", 4, [("b", number, 0)], kind=e.UNION)
    blob.enum("thing", 4, [("THING", 1)])
    btf = Btf(blob.bytes())
    kinds = {kind: getattr(btf.find(kind, "thing"), "kind", None) for kind in ("", "struct", "union", "enum")}
    assert kinds == {"": Kind.TYPEDEF, "struct": Kind.STRUCT, "union": Kind.UNION, "enum": Kind.ENUM}
    assert sorted(btf.names()) == [("", "int"), *((kind, "thing") for kind in ("", "enum", "struct", "union"))]
    assert btf.find("struct", "thin") is None and btf.find("struct", "") is None


def test_base_types() -> None:
    blob = Blob()
    blob.integer("int")
    blob.integer("unsigned char", 1, 0)
    blob.integer("_Bool", 1, 4)
    blob.integer("char", 1, 0)
    blob.add(e.FLOAT, "double", 8)
    blob.integer("__int128", 16)
    btf = Btf(blob.bytes())

    def facts(name: str) -> tuple[Kind, int | None]:
        found = btf.find("", name)
        assert found is not None
        return found.kind, found.size

    assert [facts(name) for name in ("int", "unsigned char", "_Bool", "char", "double", "__int128")] == [
        (Kind.INT, 4), (Kind.CHAR, 1), (Kind.BOOL, 1), (Kind.CHAR, 1), (Kind.FLOAT, 8), (Kind.INT, 16)]
    assert btf.by_id(0).kind is Kind.VOID


def test_bit_fields_with_kind_flag() -> None:
    blob = Blob()
    word = blob.integer("unsigned int", 4, 0)
    blob.struct("flags", 4, [("a", word, 3 << 24 | 0), ("b", word, 7 << 24 | 3), ("plain", word, 0)], flag=True)
    a, b, plain = struct(Btf(blob.bytes()), "flags").members
    assert [(m.bit_offset, m.bit_size) for m in (a, b, plain)] == [(0, 3), (3, 7), (0, None)]


def test_bit_fields_before_kind_flag() -> None:
    """A bit-field was an integer of so many bits, which may itself begin at some bit."""
    blob = Blob()
    three = blob.integer("unsigned int", 4, 0, bits=3, offset=2)
    blob.struct("flags", 4, [("a", three, 8)])
    (a,) = struct(Btf(blob.bytes()), "flags").members
    assert (a.bit_offset, a.bit_size, a.type.size, str(a.type)) == (10, 3, 4, "unsigned int")


def test_enums() -> None:
    blob = Blob()
    blob.enum("small", 4, [("MINUS", -1), ("ONE", 1)], signed=True)
    blob.enum("unsigned", 4, [("ALL", 0xFFFF_FFFF)])
    blob.enum("wide", 8, [("TOP", 1 << 63), ("LOW", 5)], wide=True)
    blob.enum("wide_signed", 8, [("BOTTOM", -(1 << 63))], wide=True, signed=True)
    btf = Btf(blob.bytes())

    def values(name: str) -> list[Enumerator]:
        found = btf.find("enum", name)
        assert isinstance(found, EnumType)
        return list(found.enumerators)

    assert values("small") == [("MINUS", -1), ("ONE", 1)]
    assert values("unsigned") == [("ALL", 0xFFFF_FFFF)]
    assert values("wide") == [("TOP", 1 << 63), ("LOW", 5)]
    assert values("wide_signed") == [("BOTTOM", -(1 << 63))]


def test_derived_types_and_tags() -> None:
    blob = Blob()
    number = blob.integer("int")
    tagged = blob.add(e.TYPE_TAG, "user", number)
    pointer = blob.pointer(blob.add(e.CONST, "", tagged))
    blob.struct("holder", 16, [("p", pointer, 0), ("grid", blob.array(blob.array(number, 3), 2), 64)])
    blob.add(e.DECL_TAG, "percpu", number, 0xFFFF_FFFF)
    p, grid = struct(Btf(blob.bytes()), "holder").members
    assert str(p.type) == "const int *"
    assert (p.type.declare("p"), grid.type.declare("grid"), grid.type.size) == ("const int *p", "int grid[2][3]", 24)


def test_forward_declarations() -> None:
    blob = Blob()
    blob.add(e.FWD, "secret", 0)
    blob.add(e.FWD, "either", 0, flag=True)
    blob.add(e.FWD, "known", 0)
    blob.struct("known", 8, [])
    btf = Btf(blob.bytes())
    assert struct(btf, "secret").size is None and struct(btf, "either", "union").kind is Kind.UNION
    assert struct(btf, "known").size == 8  # the definition, not the declaration


def test_functions() -> None:
    blob = Blob()
    number = blob.integer("int")
    blob.add(e.FUNC, "printk", blob.prototype(number, [("fmt", blob.pointer(number)), ("", 0)]), vlen=1)
    btf = Btf(blob.bytes())
    found = btf.function("printk")
    assert found is not None and found.variadic
    assert found.declare("printk") == "int printk(int *fmt, ...)"
    assert btf.function("prink") is None


def test_per_cpu_variables() -> None:
    blob = small()
    runqueues = blob.add(e.VAR, "runqueues", 4, 1)
    other = blob.add(e.VAR, "current_task", 3, 1)
    blob.section(".data..percpu", [(runqueues, 0x40, 16), (other, 0x1000, 8)])
    btf = Btf(blob.bytes())
    assert {name: (offset, str(ctype)) for name, (offset, ctype) in btf.percpu().items()} == {
        "runqueues": (0x40, "struct list_head"), "current_task": (0x1000, "struct list_head *")}
    assert Btf(small().bytes()).percpu() == {}


# -- split BTF --------------------------------------------------------------------------------------------------------


def test_split_btf_goes_on_after_its_base() -> None:
    base = small()
    module = Blob(base)
    assert module.first == base.last
    module.struct("veth_priv", 24, [("list", 4, 0), ("peer", module.pointer(base.last + 1), 128)])
    # A name that the kernel has a string for is that string: pahole joins equal strings.
    module.struct("comm", 4, [("pid", 1, 0)])
    kernel = Btf(base.bytes())
    btf = Btf(module.bytes(), kernel)
    priv = struct(btf, "veth_priv")
    assert priv.member("list").type is kernel.find("struct", "list_head")
    assert struct(btf, "comm").member("pid").type is kernel.by_id(1)
    assert sorted(btf.names()) == [("struct", "comm"), ("struct", "veth_priv")]
    assert btf.find("struct", "task_struct") is None  # that is the kernel's, and found there
    assert len(btf) == 3


# -- the cache --------------------------------------------------------------------------------------------------------


def test_a_cached_index_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHELL_CACHE", "on")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = small()
    module = Blob(base)
    module.struct("comm", 4, [("pid", 1, 0)])
    module.add(e.FUNC, "task_struct", module.prototype(1, []))
    answers = []
    for _ in range(2):
        kernel = Btf(base.bytes())
        btf = Btf(module.bytes(), kernel)
        found = btf.function("task_struct")
        types = [str(btf.by_id(number)) for number in range(10)]
        answers.append((sorted(kernel.names()), sorted(btf.names()), str(found), types))
    assert answers[0] == answers[1]
    # another base below the same module is another content
    other = Blob()
    for _ in base.types:
        other.integer("int")
    other.strings += bytes(len(base.strings) - len(other.strings) - 5) + b"xid\0\0"
    renamed = Btf(module.bytes(), Btf(other.bytes()))
    assert sorted(renamed.names()) != answers[0][1]


# -- blobs made to hurt -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [
    {"magic": 0x9FEB}, {"version": 2}, {"type_len": 1 << 30}, {"str_len": 1 << 30}, {"str_off": 0xFFFF_FFFF},
    {"type_len": 5}, {"type_off": 0xFFFF_FFF0}, {"hdr_len": 0xFFFF_FFFF}, {"hdr_len": 8},
])
def test_headers_that_lie(header: dict[str, int]) -> None:
    with pytest.raises(FormatError, match="BTF"):
        Btf(small().bytes(**header))


@pytest.mark.parametrize("size", [0, 1, 23, 24, 60, 200])
def test_a_blob_that_ends_early(size: int) -> None:
    with pytest.raises(FormatError, match="BTF"):
        Btf(small().bytes()[:size])


def test_a_type_of_unknown_kind() -> None:
    blob = small()
    blob.add(27, "new", 0)
    with pytest.raises(FormatError, match=f"BTF type {blob.last - 1} is of the unknown kind 27"):
        Btf(blob.bytes())


def test_a_structure_with_more_members_than_bytes() -> None:
    blob = small()
    blob.add(e.STRUCT, "huge", 8, vlen=0xFFFF)
    with pytest.raises(FormatError, match="does not fit"):
        Btf(blob.bytes())


def walk(btf: Btf, ctype: CType) -> None:
    """Ask of a type all that a command may ask."""
    str(ctype)
    assert ctype.size is None or ctype.size >= 0
    ctype.strip()
    if isinstance(ctype, StructType):
        list(ctype.names())
        ctype.has("x")
    if isinstance(ctype, EnumType):
        assert len(ctype.enumerators) >= 0


def circles() -> dict[str, Blob]:
    found: dict[str, Blob] = {}

    def blob(name: str) -> Blob:
        found[name] = Blob()
        found[name].integer("int")
        return found[name]

    blob("typedef of itself").typedef("a", 2)
    blob("const of itself").add(e.CONST, "", 2)
    two = blob("two typedefs")
    two.typedef("a", 3)
    two.typedef("b", 2)
    blob("array of itself").array(2, 2)
    blob("pointer to itself").pointer(2)
    blob("function of itself").add(e.FUNC, "f", 2)
    blob("prototype returning itself").prototype(2, [])
    blob("prototype taking itself").prototype(1, [("x", 2)])
    blob("anonymous structure in itself").struct("a", 4, [("", 2, 0)])
    blob("structure in itself").struct("a", 4, [("x", 2, 0)])
    nested = blob("structures in each other")
    nested.struct("a", 4, [("x", 3, 0)])
    nested.struct("b", 4, [("", 2, 0)])
    array = blob("array of itself in a structure")
    array.struct("a", 4, [("x", 3, 0)])
    array.array(2, 1)
    larger = blob("structure with a larger one in it")
    larger.struct("a", 4, [("x", 3, 0)])
    larger.struct("b", 8, [])
    doubling = blob("prototypes that double")
    for number in range(40):
        doubling.prototype(doubling.last - 1, [("x", doubling.last - 1), ("y", doubling.last - 1 - (number > 2))])
    return found


@pytest.mark.parametrize("blob", circles().values(), ids=circles())
def test_types_in_a_circle_are_an_error_and_not_a_hang(blob: Blob) -> None:
    btf = Btf(blob.bytes())
    with pytest.raises(FormatError, match="BTF type"):
        for number in range(blob.last):
            walk(btf, btf.by_id(number))


@pytest.mark.parametrize("number", [99, 1 << 31, -1])
def test_ids_that_do_not_exist(number: int) -> None:
    with pytest.raises(FormatError, match="does not exist"):
        Btf(small().bytes()).by_id(number)


def test_strings_without_an_end() -> None:
    blob = small()
    blob.typedef("last", 1)
    blob.strings = blob.strings[:-1] + b"x"
    with pytest.raises(FormatError, match="string"):
        Btf(blob.bytes())


def test_a_member_of_a_type_that_does_not_exist() -> None:
    blob = small()
    blob.struct("broken", 8, [("x", 4242, 0)])
    btf = Btf(blob.bytes())
    assert struct(btf, "task_struct").size == 48  # the damage costs what needs it only
    with pytest.raises(FormatError, match="4242"):
        list(struct(btf, "broken").members)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_are_never_more_than_a_named_error(data: st.DataObject) -> None:
    whole = bytearray(small().bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        btf = Btf(bytes(whole))
    except FormatError:
        return
    for number in range(len(btf) + 2):
        try:
            walk(btf, btf.by_id(number))
        except KshellError:
            continue
