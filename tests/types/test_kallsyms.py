"""kallsyms tables of every layout, whole and damaged; the cache in front of them; modules' tables."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kshell import cache
from kshell.errors import FormatError, KshellError
from kshell.types.kallsyms import Kallsyms, ModuleSymbols, expand, hop, load_kallsyms
from kshell.types.model import Symbol
from tests.types.encode_kallsyms import IMAGE, LAYOUTS, Encoded, Layout, encode

TEXT = 0xFFFF_FFFF_8100_0000
LONG = "_RNv" + "x" * 200  # more than 127 tokens: a length that only ULEB128 has
LONGER = "r" * 140  # and one whose length is 0x80..0xff in one byte, before 6.1


def symbols(count: int = 600, *, percpu: bool = True, long: bool = False) -> list[tuple[str, str, int]]:
    """Return *count* symbols by address, some of one name and some at one address."""
    low = [("__per_cpu_start", "A", 0), ("runqueues", "A", 0x2_0000), ("__per_cpu_end", "A", 0x3_0000)]
    rows = low if percpu else []
    rows += [("_stext", "T", TEXT), ("_text", "T", TEXT), ("init_task", "D", TEXT + 0x40)]
    rows += [(f"task_{number % 500:03}", "t", TEXT + 0x100 + 16 * number) for number in range(count)]
    if long:
        rows[7:7] = [(LONG, "t", TEXT + 0x80)]
    return rows


def load(encoded: Encoded) -> Kallsyms:
    return load_kallsyms(encoded.memory, encoded.symbol)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHELL_CACHE", "off")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("count", [1, 250, 251, 600])
def test_every_layout(layout: Layout, count: int) -> None:
    rows = symbols(count, percpu=layout.encoding in ("percpu", "addresses"))
    table = load(encode(rows, layout))
    assert [(s.name, s.type, s.address) for s in table] == rows
    assert len(table) == len(rows)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS.values() if layout.uleb])
def test_long_names_have_two_byte_lengths_since_6_1(layout: Layout) -> None:
    rows = symbols(percpu=False, long=True)
    assert [(s.name, s.type, s.address) for s in load(encode(rows, layout))] == rows


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS.values() if not layout.uleb])
def test_a_length_of_0x80_and_more_in_one_byte_before_6_1(layout: Layout) -> None:
    rows = symbols(percpu=False)
    rows[4:4] = [(LONGER, "t", TEXT + 0x10)]
    assert [(s.name, s.type, s.address) for s in load(encode(rows, layout))] == rows


def test_find_gives_all_of_a_name_in_table_order() -> None:
    table = load(encode(symbols(), LAYOUTS["6.4"]))
    assert [s.address for s in table.find("task_007")] == [TEXT + 0x100 + 16 * 7, TEXT + 0x100 + 16 * 507]
    assert table.find("task_") == [] and table.find("") == [] and table.find("\udc80\0") == []


def test_size_is_to_the_next_different_address() -> None:
    table = load(encode(symbols(), LAYOUTS["6.4"]))
    assert [s.size for s in table.find("_stext") + table.find("_text")] == [0x40, 0x40]
    assert table.find("runqueues") == [Symbol("runqueues", 0x2_0000, 0x1_0000, "A")]
    assert table.find("__per_cpu_end")[0].size == 0  # the next one is in the other half of the address space
    assert table.find("task_099")[-1].size == 0  # nothing after the last one tells


def test_at_finds_the_symbol_that_covers_an_address() -> None:
    table = load(encode(symbols(), LAYOUTS["6.4"]))
    for address in (TEXT, TEXT + 0x3F):
        found = table.at(address)
        assert found is not None and (found.name, found.address) == ("_stext", TEXT)
    assert table.at(TEXT - 1) is None
    last = table.find("task_099")[-1].address
    assert table.at(last) is not None and table.at(last + 1) is None


def test_a_small_number_is_not_a_per_cpu_variable() -> None:
    """An offset of 0x18 from NULL must not come out as a symbol: per-CPU symbols are no addresses."""
    assert load(encode(symbols(), LAYOUTS["6.4"])).at(0x18) is None


def test_starting_is_sorted_and_without_repeats() -> None:
    table = load(encode(symbols(), LAYOUTS["6.4"]))
    assert table.starting("task_00", 3) == ["task_000", "task_001", "task_002"]
    assert table.starting("zz", 3) == []


def test_kaslr_is_this_boots() -> None:
    """The cached part knows no addresses: the same tables at another base give that base's addresses."""
    moved = [(name, letter, address + 0x1600_0000 if address >> 63 else address) for name, letter, address in symbols()]
    for rows in (symbols(), moved):
        assert [s.address for s in load(encode(rows, LAYOUTS["6.4"]))] == [address for _, _, address in rows]


def test_offsets_to_a_base_are_unsigned() -> None:
    rows = [("_stext", "T", TEXT - (1 << 32)), ("far", "D", TEXT - (1 << 32) + 0x9000_0000)]
    assert [s.address for s in load(encode(rows, LAYOUTS["6.15"]))] == [address for _, _, address in rows]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.booleans(), st.booleans())
def test_names_expand_as_token_by_token(data: st.DataObject, wide: bool, every: bool) -> None:
    """Also where no token is unused, so that lengths have no number of their own to be marked with."""
    tokens = [b"<%d>" % number for number in range(256)]
    names = data.draw(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=20))
    names += [bytes(range(start, start + 16)) for start in range(0, 256, 16)] * 3 if every else []
    names += data.draw(st.lists(st.binary(min_size=128, max_size=200), min_size=1, max_size=3)) if wide else []
    names = data.draw(st.permutations(names))
    region, starts = bytearray(), []
    for name in names:
        starts.append(len(region))
        long = wide and len(name) > 0x7F
        region += bytes((len(name) & 0x7F | 0x80, len(name) >> 7)) if long else bytes((len(name),))
        region += name
    starts.append(len(region))
    expected = ["".join(f"<{token}>" for token in name) for name in names]
    assert hop(bytes(region), len(names), wide) == starts
    assert expand(bytes(region), starts, wide, tokens) == expected


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 0xFFFF_FFFF, 1 << 30, 605, 607])
def test_a_wrong_count_names_its_table(count: int) -> None:
    encoded = encode(symbols(600), LAYOUTS["6.4"])
    encoded.damage("num_syms", 0, struct.pack("<I", count))
    with pytest.raises(KshellError, match="kallsyms_n"):
        load(encoded)
    assert encoded.memory.largest < 1 << 20


@pytest.mark.parametrize("offset", [0, 300, 4000])
def test_a_wrong_length_names_its_table(offset: int) -> None:
    encoded = encode(symbols(), LAYOUTS["6.4"])
    lengths, at = [], 0
    names = encoded.memory.data[encoded.every["names"][0] - IMAGE :]
    while at < encoded.every["names"][1]:
        lengths.append(at)
        at += names[at] + 1
    where = next(at for at in lengths if at >= offset)
    encoded.damage("names", where, bytes((names[where] + 1,)))
    with pytest.raises(FormatError, match="kallsyms_names"):
        load(encoded)


def test_one_wrong_marker_is_enough() -> None:
    encoded = encode(symbols(), LAYOUTS["6.4"])
    encoded.damage("markers", 4, b"\x01")
    with pytest.raises(FormatError, match="markers"):
        load(encoded)


def test_wrong_offsets_name_their_table() -> None:
    encoded = encode(symbols(), LAYOUTS["6.4"])
    encoded.damage("relative_base", 0, struct.pack("<Q", 0x1234))
    with pytest.raises(FormatError, match="kallsyms_offsets"):
        load(encoded)


def test_a_token_index_that_leads_outside_names_its_table() -> None:
    encoded = encode(symbols(), LAYOUTS["6.4"])
    encoded.damage("token_index", 2 * ord("t"), b"\xff\xff")
    with pytest.raises(KshellError, match="kallsyms_token_index"):
        load(encoded)


@pytest.mark.parametrize("missing", ["names", "num_syms", "token_table", "token_index", "offsets"])
def test_what_vmcoreinfo_does_not_tell_is_named(missing: str) -> None:
    encoded = encode(symbols(), LAYOUTS["6.4"])
    del encoded.places[f"kallsyms_{missing}"]
    with pytest.raises(FormatError, match=f"kallsyms_{missing}"):
        load(encoded)


def test_a_table_that_ends_early_is_a_fault() -> None:
    encoded = encode(symbols(), LAYOUTS["6.4"])
    del encoded.memory.data[encoded.every["offsets"][0] - IMAGE + 8 :]
    with pytest.raises(KshellError, match="cannot read"):
        load(encoded)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_flipped_bytes_are_never_more_than_a_named_error(name: str, data: st.DataObject) -> None:
    encoded = encode(symbols(40, percpu=False), LAYOUTS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(encoded.memory.data) - 1))
        encoded.memory.data[at] ^= data.draw(st.integers(1, 255))
    try:
        table = load(encoded)
    except KshellError:
        return
    for symbol in table:
        assert 0 <= symbol.address < 1 << 64 and symbol.size >= 0
    table.find("_stext")
    table.at(TEXT)


# -- the cache --------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KSHELL_CACHE", "on")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_cached_table_answers_the_same(with_cache: Path) -> None:
    rows = symbols(long=True)
    encoded = encode(rows, LAYOUTS["6.4"])
    for _ in range(2):
        table = load(encoded)
        assert [(s.name, s.type, s.address) for s in table] == rows
        assert table.starting("init", 5) == ["init_task"]
    assert len([path for path in with_cache.rglob("*") if path.is_file()]) == 1


def test_a_cached_table_of_another_shape_is_rewritten(with_cache: Path) -> None:
    encoded = encode(symbols(), LAYOUTS["6.4"])
    load(encoded)
    (path,) = (path for path in with_cache.rglob("*") if path.is_file())
    whole = path.read_bytes()
    for payload in (b"", b"\0" * 16, b"\xff" * 64, whole[-2000:]):
        cache.store(*_kept(path), payload)
        assert path.read_bytes() != whole
        assert [(s.name, s.type, s.address) for s in load(encoded)] == symbols()
        assert path.read_bytes() == whole


def _kept(path: Path) -> tuple[str, str, int]:
    """Return kind, key and version of the cache file *path*."""
    from kshell.types.kallsyms import CACHE_VERSION

    kind, _, key = path.name.rpartition("-")
    return kind, key, CACHE_VERSION


# -- modules ----------------------------------------------------------------------------------------------------------


def elf_symbols(rows: list[tuple[str, int, int, int, int]]) -> tuple[bytes, bytes]:
    """Return symtab and strtab of (name, info, section, value, size); the first entry is ELF's null symbol."""
    strings, table = bytearray(b"\0"), bytearray(24)
    for name, info, section, value, size in rows:
        table += struct.pack("<IBBHQQ", len(strings), info, 0, section, value, size)
        strings += name.encode() + b"\0"
    return bytes(table), bytes(strings)


def test_a_modules_symbols() -> None:
    rows = [("b_data", 0x11, 5, 0x4010, 8), ("a_text", 0x12, 1, 0x1000, 0x30), ("printk", 0x10, 0, 0, 0)]
    table = ModuleSymbols("veth", *elf_symbols(rows), b"?dtU")
    assert list(table) == [Symbol("a_text", 0x1000, 0x30, "t", "veth"), Symbol("b_data", 0x4010, 8, "d", "veth")]
    assert table.find("printk") == []  # an undefined symbol is another module's


def test_between_a_modules_sections_lies_something_else() -> None:
    rows = [("label", 0x10, 1, TEXT + 0xF80, 0), ("text", 0x12, 1, TEXT + 0x100, 0x40),
            ("data", 0x11, 5, TEXT + 0x8000, 8)]
    table = ModuleSymbols("veth", *elf_symbols(rows), b"?ttd")
    found = {address: table.at(TEXT + address) for address in (0x13F, 0x140, 0xFFF, 0x1000, 0x7FFF, 0x8007, 0x8008)}
    assert {address: symbol and symbol.name for address, symbol in found.items()} == {
        0x13F: "text", 0x140: None, 0xFFF: "label", 0x1000: None, 0x7FFF: None, 0x8007: "data", 0x8008: None}


def test_before_5_2_the_letter_is_in_st_info() -> None:
    symtab, strtab = elf_symbols([("a_text", ord("t"), 1, 0x1000, 4)])
    assert [s.type for s in ModuleSymbols("veth", symtab, strtab, None)] == ["t"]


@pytest.mark.parametrize("symtab, strtab, letters", [
    (b"\0" * 25, b"\0", b"??"),  # not a whole number of entries
    (struct.pack("<IBBHQQ", 1, 0, 0, 1, 2, 3), b"\0unended", b"t"),
    (struct.pack("<IBBHQQ", 99, 0, 0, 1, 2, 3), b"\0", b"t"),
    (struct.pack("<IBBHQQ", 1, 0, 0, 1, 2, 3), b"\0a\0", b""),  # fewer letters than symbols
])
def test_a_damaged_module_table_is_an_error_or_no_symbol(symtab: bytes, strtab: bytes, letters: bytes) -> None:
    try:
        assert list(ModuleSymbols("veth", symtab, strtab, letters)) == []
    except FormatError as error:
        assert "veth" in str(error)
