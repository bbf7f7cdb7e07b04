"""Names joined over sources: symbols with their modules, type names parsed, and what is offered for a wrong one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.errors import KshellError, SymbolNotFoundError, TypeNotFoundError
from kshell.types.btf import Btf
from kshell.types.known import known_type
from kshell.types.model import Kind, Symbol
from kshell.types.names import SPELLINGS, SymbolIndex, TypeIndex
from kshell.types.procsyms import SymbolList
from tests.types.encode_btf import STRUCT, VAR, Blob

TEXT = 0xFFFF_FFFF_8100_0000


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHELL_CACHE", "off")


def kernel() -> SymbolList:
    return SymbolList([(TEXT, "T", "_stext", None), (TEXT + 0x100, "t", "probe", None),
                       (TEXT + 0x200, "t", "probe", None), (TEXT + 0x300, "D", "init_task", None),
                       (TEXT + 0x400, "b", "__end", None)])


def veth() -> SymbolList:
    base = 0xFFFF_FFFF_C000_0000
    return SymbolList([(base, "t", "veth_init", "veth"), (base + 0x10, "t", "probe", "veth"),
                       (base + 0x20, "t", "last", "veth")])


# -- symbols ----------------------------------------------------------------------------------------------------------


def test_the_kernel_comes_before_its_modules() -> None:
    index = SymbolIndex([kernel(), veth()])
    assert index.lookup("probe").address == TEXT + 0x100
    assert index.lookup("probe", "veth").module == "veth"
    assert index.lookup("veth`probe").module == "veth"
    assert [symbol.module for symbol in index.find_all("probe")] == [None, None, "veth"]


def test_modules_join_when_they_are_needed_and_once() -> None:
    asked = []

    def more() -> Iterator[SymbolList]:
        asked.append(1)
        yield veth()

    index = SymbolIndex([kernel()], more)
    assert index.lookup("init_task") and index.at(TEXT + 0x301) == (index.lookup("init_task"), 1)
    assert asked == []
    assert index.lookup("veth_init").module == "veth"
    assert index.get("nothing") is None and len(list(index)) == 8
    assert asked == [1]


def test_a_wrong_symbol_is_told_what_is_near() -> None:
    with pytest.raises(SymbolNotFoundError, match='no symbol "init_tsk"; did you mean "init_task"') as caught:
        SymbolIndex([kernel()]).lookup("init_tsk")
    assert caught.value.near == ("init_task",)
    with pytest.raises(SymbolNotFoundError, match="veth`init_task"):
        SymbolIndex([kernel(), veth()]).lookup("veth`init_task")
    with pytest.raises(SymbolNotFoundError, match="veth_init"):
        SymbolIndex([kernel()], lambda: [veth()]).lookup("veth_inti")
    with pytest.raises(SymbolNotFoundError):
        SymbolIndex([]).lookup("")


def test_completion_joins_and_sorts() -> None:
    index = SymbolIndex([kernel(), veth()])
    assert index.starting("_", 9) == ["__end", "_stext"]
    assert index.starting("", 2) == ["__end", "_stext"]


# -- types ------------------------------------------------------------------------------------------------------------


def blob() -> Blob:
    found = Blob()
    for name, size, encoding in (
        ("int", 4, 1), ("unsigned int", 4, 0), ("long int", 8, 1), ("long unsigned int", 8, 0), ("char", 1, 0),
        ("signed char", 1, 1), ("unsigned char", 1, 0), ("short int", 2, 1), ("short unsigned int", 2, 0),
        ("long long int", 8, 1), ("long long unsigned int", 8, 0), ("_Bool", 1, 4), ("__int128 unsigned", 16, 0),
        ("__int128", 16, 1),
    ):
        found.integer(name, size, encoding)
    found.typedef("u64", 11)
    found.struct("list_head", 16, [])
    found.struct("task_struct", 64, [])
    found.struct("page", 64, [], kind=STRUCT)
    found.enum("hrtimer_mode", 4, [("HRTIMER_MODE_ABS", 0)])
    variable = found.add(VAR, "runqueues", 16, 1)
    found.section(".data..percpu", [(variable, 0, 16)])
    return found


@pytest.fixture
def types() -> TypeIndex:
    return TypeIndex([Btf(blob().bytes())])


@pytest.mark.parametrize("spelled, told", [
    ("struct task_struct", "struct task_struct"), ("task_struct", "struct task_struct"),
    ("struct list_head *", "struct list_head *"), ("struct page **", "struct page **"),
    ("struct page*", "struct page *"), ("hrtimer_mode", "enum hrtimer_mode"),
    ("  struct   page\t*\n", "struct page *"), ("char [16]", "char [16]"), ("char[4][2]", "char [4][2]"),
    ("char *[0x10]", "char *[16]"), ("const char *", "const char *"), ("char const *", "const char *"), ("u64", "u64"),
    ("void *", "void *"), ("void", "void"), ("enum hrtimer_mode", "enum hrtimer_mode"),
    ("unsigned long", "long unsigned int"), ("unsigned", "unsigned int"), ("long", "long int"), ("short", "short int"),
    ("unsigned long long int", "long long unsigned int"), ("long long", "long long int"), ("signed", "int"),
    ("unsigned short int", "short unsigned int"), ("long int", "long int"), ("signed long", "long int"),
    ("signed char", "signed char"), ("unsigned char", "unsigned char"), ("bool", "_Bool"), ("_Bool", "_Bool"),
    ("unsigned __int128", "__int128 unsigned"), ("__int128", "__int128"), ("signed short", "short int"),
    ("signed long long", "long long int"), ("signed short int", "short int"), ("signed long int", "long int"),
    ("char []", "char [0]"),
])
def test_type_names(types: TypeIndex, spelled: str, told: str) -> None:
    assert str(types.find(spelled)) == told
    assert types.get(spelled) is types.find(spelled)


@pytest.mark.parametrize("wrong", [
    "", " ", "struct", "struct *", "*", "[3]", "struct nothing", "int int", "long long long", "unsigned float",
    "struct list_head x", "int [", "int [3", "int []]", "int [-1]", "int [x]", "int [99999999999999999999]", "int ;",
    "struct task_struct " + "*" * 5000, "union task_struct", "\x00", "int\x00", "char ]", "struct\ud800", "veth`int",
])
def test_what_is_no_type(types: TypeIndex, wrong: str) -> None:
    assert types.get(wrong) is None
    with pytest.raises(TypeNotFoundError):
        types.find(wrong)


@given(st.lists(st.sampled_from("struct page * [ ] 3 const unsigned long signed int ( ) `".split())))
def test_no_words_do_harm(words: list[str]) -> None:
    index = TypeIndex([BTF])
    try:
        str(index.find(" ".join(words)))
    except KshellError:
        return


BTF = Btf(blob().bytes())


def test_every_spelling_of_c_is_sorted() -> None:
    assert all(key == " ".join(sorted(key.split())) for key in SPELLINGS)


def test_a_wrong_type_is_told_what_is_near(types: TypeIndex) -> None:
    with pytest.raises(TypeNotFoundError) as caught:
        types.find("struct task_strut *")
    assert caught.value.near == ("struct task_struct",)


def test_modules_types_join_when_needed() -> None:
    kernel_blob = blob()
    base = Btf(kernel_blob.bytes())
    module = Blob(kernel_blob)
    module.struct("veth_priv", 8, [("page", 18, 0)])
    asked = []

    def more() -> Iterator[tuple[Btf, str]]:
        asked.append(1)
        yield Btf(module.bytes(), base), "veth"

    index = TypeIndex([base], more)
    assert index.base is base and index.find("struct page") and asked == []
    assert str(index.find("struct veth_priv *")) == "struct veth_priv *"
    assert index.find("veth`struct veth_priv") and index.get("other`struct veth_priv") is None
    assert asked == [1] and len(index) == 2


def test_modules_join_a_kernel_without_types_later() -> None:
    """Asking before the kernel's own types are there must not lose the modules'."""
    base = Btf(blob().bytes())
    index = TypeIndex([], lambda: [(base, "veth")])
    assert index.get("struct page") is None
    index.add(base)
    assert index.get("struct page") is not None and index.get("veth`struct page") is not None


def test_completion(types: TypeIndex) -> None:
    assert types.complete("struct ta", 5) == ["struct task_struct"]
    assert types.complete("u", 9) == ["union", "u64", "unsigned char", "unsigned int"]
    assert types.complete("unsigned ", 1) == ["unsigned char"]


def test_types_of_globals(types: TypeIndex) -> None:
    def told(name: str, size: int = 0, module: str | None = None) -> str:
        return str(types.of_symbol(Symbol(name, TEXT, size, "D", module)))

    assert told("init_task") == "struct task_struct"
    assert told("modules") == "struct list_head"
    assert told("__per_cpu_offset", 64) == "long unsigned int [8]"
    assert told("linux_banner", 120) == "char [120]"
    assert told("saved_command_line") == "char *"
    assert told("runqueues") == "struct list_head"  # BTF's own, a per-CPU variable
    assert told("no_such_global") == "None" and told("init_task", module="veth") == "None"
    assert told("slab_caches") == "struct list_head" and told("init_net") == "None"  # a type this kernel lacks


def test_the_shipped_table_is_well_formed(types: TypeIndex) -> None:
    from kshell.types import known

    known_type("init_task")
    table = known._types
    assert table is not None and len(table) >= 100
    for name, spelled in table.items():
        assert name.isidentifier(), name
        words = spelled.replace("*", " ").replace("[]", " ").split()
        assert words and all(word.isidentifier() for word in words), spelled
    assert types.find("u64").kind is Kind.TYPEDEF
