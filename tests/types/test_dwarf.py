"""DWARF as compilers write it, against pyelftools, which reads it in its own way; and damaged in every way."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from kshell.errors import FormatError, KshellError
from kshell.target.open import open_target
from kshell.types import dwarf_index
from kshell.types.dwarf import Dwarf
from kshell.types.elffile import ElfFile
from kshell.types.model import EnumType, Kind, StructType
from kshell.types.names import TypeIndex
from kshell.value.args import type_and_members
from tests.programs import compiled

FORMS = {
    "5": ("-g", "-gdwarf-5", "-O1"), "4": ("-g", "-gdwarf-4", "-O1"), "3": ("-g", "-gdwarf-3", "-gstrict-dwarf"),
    "2": ("-g", "-gdwarf-2", "-gstrict-dwarf"), "compressed": ("-g", "-gz", "-O1"),
    "gnu-compressed": ("-g", "-gz=zlib-gnu", "-O1"), "object": ("-g", "-c", "-O1"), "64-bit": ("-g", "-gdwarf64"),
    "type units 5": ("-g", "-gdwarf-5", "-fdebug-types-section"),
    "type units 4": ("-g", "-gdwarf-4", "-fdebug-types-section"),
}


def made(form: str) -> Path:
    if form == "gnu-compressed":
        return compiled(*FORMS[form], "-Wl,--compress-debug-sections=zlib-gnu")
    return compiled(*FORMS[form])


@pytest.fixture(params=list(FORMS))
def dwarf(request: pytest.FixtureRequest) -> Iterator[Dwarf]:
    elf = ElfFile(str(made(request.param)))
    yield Dwarf(elf)
    elf.close()


def layout(kind: object) -> list[tuple[str | None, int, int | None, str]]:
    assert isinstance(kind, StructType)
    return [(m.name, m.bit_offset, m.bit_size, m.type.declare(m.name or "")) for m in kind.members]


def test_every_sort_of_member(dwarf: Dwarf) -> None:
    rec = dwarf.find("struct", "rec")
    assert rec is not None and rec.size == 144
    assert layout(rec) == [
        ("next", 0, None, "struct rec *next"), ("name", 64, None, "char name[16]"),
        ("a", 192, 3, "unsigned int a"), ("b", 195, 5, "unsigned int b"), ("c", 200, 7, "int c"),
        ("wide", 207, 40, "uint64_t wide"), (None, 256, None, "union <anon>"),
        ("pair", 288, None, "struct <anon> pair[2][3]"), ("handler", 704, None, "handler_t handler"),
        ("color", 768, None, "enum color color"), ("in", 832, None, layout(rec)[10][3]),
        ("flag", 896, None, "_Bool flag"), ("d", 960, None, "double d"), ("big", 1024, None, "ulong_t big"),
        ("opaque", 1088, None, "struct forward *opaque"), ("tail", 1152, None, "char tail[0]"),
    ]
    assert layout(rec)[10][3] in ("const volatile struct inner *in", "volatile const struct inner *in")
    assert isinstance(rec, StructType) and rec.member("hi").offset == 34, "inside two anonymous ones"


def test_functions_enums_and_variables(dwarf: Dwarf) -> None:
    handler = dwarf.find("", "handler_t")
    assert handler is not None and handler.strip().declare("h") == "int (*h)(struct forward *, const char *, ...)"
    found = dwarf.function("compute")
    assert found is not None and found.declare("compute") == "int compute(int n, const char *why)"
    color, big = dwarf.find("enum", "color"), dwarf.find("enum", "big")
    assert isinstance(color, EnumType) and isinstance(big, EnumType)
    assert [tuple(one) for one in color.enumerators] == [("RED", 0), ("GREEN", 5), ("BLUE", -1)]
    assert big.enumerators[1].value == 0xFFFF_FFFF
    assert layout(dwarf.variable_type("first")) == layout(dwarf.find("struct", "rec")) != []
    assert str(dwarf.variable_type("numbers")) == "int [5]", "declared without its length first"
    assert str(dwarf.variable_type("first")) == "struct rec" and str(dwarf.variable_type("huge")) == "enum big"
    assert dwarf.variable_type("nothing") is None and dwarf.function("first") is None
    types = TypeIndex([dwarf])
    assert str(types.find("struct rec **")) == "struct rec **" and types.find("unsigned long").size == 8
    assert types.near(["struct", "recc"]) == ["struct rec"]


def test_the_complete_type_is_in_another_unit() -> None:
    dwarf = Dwarf(ElfFile(str(compiled(*FORMS["5"]))))
    rec = dwarf.find("struct", "rec")
    assert isinstance(rec, StructType)
    behind = rec.member("opaque").type.target  # type: ignore[attr-defined]
    assert behind.size == 16 and behind.has("self")


def test_statics_of_one_name_are_told_apart_by_their_address() -> None:
    path = compiled(*FORMS["5"])
    dwarf = Dwarf(ElfFile(str(path)))
    lines = subprocess.run(["nm", "-S", str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
    sizes = {int(words[1], 16): int(words[0], 16) for line in lines if (words := line.split())[-1] == "hidden"}
    for size, name in ((4, "volatile int"), (1, "volatile char")):
        assert str(dwarf.variable_type("hidden", sizes[size])) == name


def _pyelftools(path: Path) -> dict[str, list[tuple[str, int]]]:
    """Return the members of each named structure by pyelftools: (name, offset)."""
    found: dict[str, list[tuple[str, int]]] = {}

    def text(die: Any) -> str:
        return str(die.attributes["DW_AT_name"].value.decode()) if "DW_AT_name" in die.attributes else ""

    with path.open("rb") as file:
        for unit in ELFFile(file).get_dwarf_info().iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                if die.tag == "DW_TAG_structure_type" and text(die) and "DW_AT_declaration" not in die.attributes:
                    found.setdefault(text(die), [
                        (text(m), m.attributes["DW_AT_data_member_location"].value) for m in die.iter_children()
                        if "DW_AT_data_member_location" in m.attributes and "DW_AT_bit_size" not in m.attributes])
    return found


@pytest.mark.parametrize("form", ["5", "4", "object"])
def test_as_pyelftools_reads_it(form: str) -> None:
    path = made(form)
    dwarf, expected = Dwarf(ElfFile(str(path))), _pyelftools(path)
    assert len(expected) >= 3
    for name, members in expected.items():
        kind = dwarf.find("struct", name)
        assert isinstance(kind, StructType)
        assert [(m.name or "", m.offset) for m in kind.members if m.bit_size is None] == members, name


def test_names(dwarf: Dwarf) -> None:
    names = set(dwarf.names())
    assert {("struct", "rec"), ("struct", "inner"), ("enum", "color"), ("", "ulong_t"), ("", "int")} <= names
    assert dwarf.starting("struct", "re", 5) == ["rec"] and len(dwarf) == len(list(dwarf.names()))


def test_namespaces_of_cplusplus(tmp_path: Path) -> None:
    source = tmp_path / "n.cc"
    source.write_text("namespace a { namespace { struct hid { int q; }; } struct s { static int t; int m; hid h; };"
                      "struct d : s { char c; }; d v; int s::t; } a::d *p;")
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    subprocess.run(["g++", "-g", "-c", "-o", str(tmp_path / "n.o"), str(source)], check=True)
    dwarf = Dwarf(ElfFile(str(tmp_path / "n.o")))
    kind = dwarf.find("struct", "a::d")
    assert isinstance(kind, StructType) and kind.member("m").offset == 0 and kind.member("c").offset == 8
    assert not kind.has("t"), "a static member lies elsewhere"
    assert str(dwarf.variable_type("_ZN1a1vE")) == str(dwarf.variable_type("v")) == "struct d"


def test_types_and_variables_of_cplusplus(tmp_path: Path) -> None:
    """Namespaces whose names are in .debug_str; types by the names that C++ gives them."""
    source = tmp_path / "n.cc"
    source.write_text("namespace outside { struct Record { int number; }; template<class T> struct Box { T value; };"
                      "Record first{7}; Box<long> box{42}; } int main() { return outside::first.number; }")
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    subprocess.run(["g++", "-g", "-o", str(tmp_path / "n"), str(source)], check=True)
    with open_target(str(tmp_path / "n")) as target:
        assert target.object("_ZN7outside5firstE")["number"].integer() == 7
        assert target.object("_ZN7outside3boxE")["value"].integer() == 42
        for name in ("outside::Record", "struct outside::Record", "const struct outside::Record"):
            assert target.type(name).size == 4
        assert target.type("struct outside::Box<long int>").size == 8
        assert target.type("outside::Record *").size == 8


def test_without_sibling_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As clang writes it: what is below an entry has to be passed over one by one."""
    whole = dwarf_index._plan

    def without(abbrev: Any, unit: Any) -> Any:
        return whole(abbrev, unit)._replace(sibling=-1)

    elf = ElfFile(str(made("5")))
    expected = set(Dwarf(elf).names())
    monkeypatch.setattr(dwarf_index, "_plan", without)
    found = Dwarf(elf)
    assert set(found.names()) == expected
    assert not found.index.find("var", "r"), "a local variable is no global one"


def test_the_index_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(dwarf_index, "WORTH_KEEPING", 0)
    path = str(made("5"))
    first = Dwarf(ElfFile(path))
    names = list(first.names())
    (kept,) = (tmp_path / "kshell/index").iterdir()
    monkeypatch.setattr(dwarf_index, "_Pass", None)     # a second pass would fail
    again = Dwarf(ElfFile(path))
    assert list(again.names()) == names and str(again.variable_type("first")) == "struct rec"
    monkeypatch.undo()
    kept.write_bytes(kept.read_bytes()[:-4] + b"\0\0\0\0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert list(Dwarf(ElfFile(path)).names()) == names


def test_files_without_dwarf(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no DWARF"):
        Dwarf(ElfFile(str(compiled("-g0"))))
    split = Dwarf(ElfFile(str(compiled("-g", "-gsplit-dwarf"))))
    assert (split.split or "").endswith(".dwo") and split.find("struct", "rec") is None
    for flags in ((), ("-gdwarf-4",), ("-fdebug-types-section",)):
        path = str(compiled("-g", "-gsplit-dwarf", *flags))
        with open_target(path) as target:
            for words in (["struct", "rec"], []):
                with pytest.raises(KshellError) as caught:
                    type_and_members(words, target, target.symbol("first").address)
                hint = caught.value.hint or ""
                assert ".dwo" in hint and "built with -gsplit-dwarf" in hint
            assert ".dwo" in target.findings["missing types"]


def test_type_units() -> None:
    dwarf = Dwarf(ElfFile(str(compiled("-g", "-gdwarf-5", "-fdebug-types-section"))))
    rec = dwarf.find("struct", "rec")
    assert rec is not None and rec.size == 144 and layout(rec)[0][3] == "struct rec *next"
    assert str(dwarf.variable_type("first")) == "struct rec"


def use(path: Path) -> None:
    """Ask everything of a file that may be damaged."""
    elf = ElfFile(str(path))
    try:
        dwarf = Dwarf(elf)
        for kind, name in list(dwarf.names())[:200]:
            try:
                found = dwarf.find(kind, name)
                if found is None:
                    continue  # a name that is not UTF-8 is shown with replacement characters
                found.declare("x")
                bare = found.strip()
                if isinstance(bare, StructType):
                    list(bare.names())
                if bare.kind is Kind.ENUM:
                    assert isinstance(bare, EnumType) and bare.enumerators is not None
            except KshellError:
                continue
        for name in ("first", "numbers", "hidden", "compute"):
            try:
                dwarf.variable_type(name, 0)
                dwarf.function(name)
            except KshellError:
                continue
    finally:
        elf.close()


@pytest.mark.parametrize("section", [".debug_info", ".debug_abbrev", ".debug_str", "headers"])
def test_flipped_bits_never_hang_or_escape(section: str, tmp_path: Path) -> None:
    whole = made("5").read_bytes()
    elf = ElfFile(str(made("5")))
    found = elf.section(section)
    low, high = (found.offset, found.offset + found.size) if found is not None else (0, 64)
    if found is None:
        places = [*range(64), *range(len(whole) - 64 * len(elf.sections), len(whole), 37)]
    else:
        places = random.Random(5).sample(range(low, high), min(high - low, 120))
    target = tmp_path / "damaged"
    begun = time.monotonic()
    for number, at in enumerate(places):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << number % 8
        target.write_bytes(damaged)
        try:
            use(target)
        except FormatError:
            continue
    assert time.monotonic() - begun < 60


def test_cut_files(tmp_path: Path) -> None:
    whole, target = made("5").read_bytes(), tmp_path / "cut"
    for size in range(0, len(whole), len(whole) // 60):
        target.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            use(target)


def test_a_type_that_is_made_of_itself(tmp_path: Path) -> None:
    """``struct inner`` gets a member of its own type; ``ulong_t`` becomes a typedef of itself."""
    path = made("5")
    whole = bytearray(path.read_bytes())
    elf = ElfFile(str(path))
    dwarf = Dwarf(elf)
    section = elf.section(".debug_info")
    assert section is not None
    for kind, name, member in (("struct", "inner", True), ("", "ulong_t", False)):
        place = dwarf.index.find(kind, name)[0]
        unit = dwarf.units.unit_of(place)
        die = dwarf.units.die(unit, place)
        if member:
            die = next(dwarf.units.children(unit, die))
        form, value = die.values[0x49]
        assert form == 0x13 and isinstance(value, int)
        at = bytes(whole).index(value.to_bytes(4, "little"), section.offset + die.offset)
        whole[at : at + 4] = (place - unit.start).to_bytes(4, "little")
    (tmp_path / "loop").write_bytes(whole)
    damaged = Dwarf(ElfFile(str(tmp_path / "loop")))
    inner = damaged.find("struct", "inner")
    assert isinstance(inner, StructType)
    with pytest.raises(FormatError, match="contains itself"):
        list(inner.names())
    with pytest.raises(FormatError, match="made of itself"):
        damaged.find("", "ulong_t")
