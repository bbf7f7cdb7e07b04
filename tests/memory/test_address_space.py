"""Address spaces over built page tables: where an address leads, why it does not, and moving bytes through them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.errors import Fault, Reason
from kshell.memory.overlay import Overlay
from kshell.target.space import AddressSpace, ChaseError
from tests.memory.held import Held
from tests.memory.tables import KERNEL_HALF, MASK, PAGE, PROTNONE, RWU, TABLES, Tables, linear

DIRECT = 0xFFFF_8880_0000_0000
VMALLOC = 0xFFFF_C900_0000_0000
LOW = 0x80_4020_3000  # PGD[1] PUD[1] PMD[1] PTE[3]


def why(space: AddressSpace, address: int, size: int = 1) -> tuple[Reason, int, str]:
    """Return the reason, the bytes before and the detail of a read that fails; scalar and bulk must agree."""
    with pytest.raises(Fault) as caught:
        space.read(address, size)
    fault = caught.value
    assert (fault.address, fault.space, len(fault.partial)) == (address + fault.done, space.space, fault.done)
    assert not space.gather([address], size).ok[0]
    return fault.reason, fault.done, fault.detail


@pytest.mark.parametrize("levels, address, level, paddr, offset", [
    (4, LOW, 1, 0x1_5000, 4),
    (4, LOW & -(2 << 20), 2, 0x4060_0000, 0x1_2345),
    (4, 0x80_4000_0000, 3, 0x1_8000_0000, 0x1234_5678),
    (4, 0xFFFF_FFFF_8100_0000, 2, 0x100_0000, 0x10),
    (5, 0xFF11_0000_0000_0000, 3, 0x1_8000_0000, 0x1234_5678),
    (5, 0x00AB_CDEF_1234_5000, 1, 0x1_5000, 0xFFF),
])
@pytest.mark.parametrize("sme", [0, 1 << 47, 1 << 51])
def test_where_an_address_leads(levels: int, address: int, level: int, paddr: int, offset: int, sme: int) -> None:
    tables = Tables({}, levels, sme=sme)
    tables.map(address, paddr, level)
    space = tables.space()
    assert space.translate(address + offset) == paddr + offset
    assert space.translate(address + offset) == paddr + offset  # from the TLB
    found, ok = space.translate_all([address + offset, address - 1, address])
    assert (found.tolist(), ok.tolist()) == ([paddr + offset, 0, paddr], [True, False, True])
    rows = space.walk(address)
    assert [row.level for row in rows] == list(range(levels, level - 1, -1))
    assert rows[0].table == TABLES
    assert rows[-1].entry & MASK & ~sme == paddr
    assert [(m.start, m.end, m.paddr) for m in space.mappings()] == [
        (address, address + (1 << tables.format.shift(level)), paddr),
    ]


def test_protnone_is_resident() -> None:
    tables = Tables({0x5000: b"hidden" + bytes(PAGE - 6)})
    tables.put(tables.entry(LOW, 1), ~0x5000 & MASK | PROTNONE)
    assert tables.space().read(LOW, 6) == b"hidden"


def test_reasons_are_kept_apart() -> None:
    memory = Tables({0x5000: bytes(100)})
    memory.map(LOW, 0x5000)                                      # 100 bytes of it are held
    memory.put(memory.entry(LOW + PAGE, 1), 3 << 59 | (~0x77 & (1 << 50) - 1) << 9)
    memory.map(LOW + 2 * PAGE, 0x9000)                           # outside RAM
    memory.map(LOW + 3 * PAGE, 0xA000)                           # left out of the dump
    memory.map(LOW + 4 * PAGE, 0xB000)                           # in the part of the file that is missing
    memory.memory.why = {0xA000: Reason.EXCLUDED, 0xB000: Reason.TRUNCATED, 0x7000: Reason.EXCLUDED}
    memory.put(memory.entry(0x7000_0000_0000, 3), 0x7000 | RWU)   # its table is left out
    memory.put(memory.entry(0x7100_0000_0000, 3), 0xFFFF_F000_0000 | RWU)  # its table is outside RAM
    memory.put(memory.entry(0x7200_0000_0000, 4), 0x5000 | RWU | 0x80)     # a page of 512 GiB
    space = memory.space(space="user", half=(0, 1 << 47))
    assert why(space, LOW + 4 * PAGE) == (Reason.TRUNCATED, 0, "")
    assert why(space, LOW + 3 * PAGE) == (Reason.EXCLUDED, 0, "")
    assert why(space, LOW + 2 * PAGE) == (Reason.OUTSIDE, 0, "")
    assert why(space, LOW + PAGE, 8) == (Reason.SWAPPED, 0, "swap device 3, page 0x77")
    assert why(space, LOW + 90, 20) == (Reason.OUTSIDE, 10, "")
    assert why(space, LOW + 5 * PAGE) == (Reason.NOT_MAPPED, 0, "")
    assert why(space, 0x1234) == (Reason.NOT_MAPPED, 0, "")
    assert why(space, 0x7000_0000_0000)[0] is Reason.EXCLUDED
    assert "level 2 page table at physical 0x7000" in why(space, 0x7000_0000_0000)[2]
    assert why(space, 0x7100_0000_0000)[0] is Reason.CORRUPT
    assert why(space, 0x7200_0000_0000)[0] is Reason.CORRUPT
    assert why(space, 0x8000_0000_0000) == (Reason.NOT_MAPPED, 0, "non-canonical")
    assert why(space, DIRECT) == (Reason.NOT_MAPPED, 0, "not a user address")
    assert why(space, (1 << 64) - 1, 2)[:2] == (Reason.NOT_MAPPED, 0)
    with pytest.raises(Fault) as caught:
        space.walk(0x7100_0000_0000)
    assert caught.value.reason is Reason.CORRUPT


def test_halves() -> None:
    tables = Tables({0x5000: b"x" * PAGE})
    tables.map(LOW, 0x5000)
    tables.map(VMALLOC, 0x5000)
    kernel, user = tables.space(half=KERNEL_HALF), tables.space(space="user", half=(0, 1 << 47))
    assert kernel.read(VMALLOC, 1) == user.read(LOW, 1) == b"x"
    assert why(kernel, LOW)[2] == "not a kernel address"
    assert why(user, VMALLOC)[2] == "not a user address"
    assert [m.start for m in kernel.mappings()] == [VMALLOC]
    assert [m.start for m in user.mappings()] == [LOW]


def test_never_wraps_past_the_top() -> None:
    top = (1 << 64) - PAGE
    tables = Tables({0x5000: b"t" * PAGE})
    tables.map(top, 0x5000)
    tables.map(0, 0x5000)
    space = tables.space()
    assert space.read(top, PAGE) == b"t" * PAGE
    assert why(space, top + PAGE - 2, 4)[:2] == (Reason.NOT_MAPPED, 2)
    assert space.gather([top + PAGE - 8, top + PAGE - 7, 0], 8).ok.tolist() == [True, False, True]
    assert space.gather([top], PAGE).ok.tolist() == [True]


def pages(count: int) -> Tables:
    """Return tables that map *count* pages at VMALLOC and the same RAM at DIRECT; pages 3 and 4 swapped in place."""
    data = b"".join(bytes([number]) * PAGE for number in range(count))
    tables = Tables({0x10000: data}, writable=True)
    order = list(range(count))
    order[3:5] = [4, 3]
    for virtual, physical in enumerate(order):
        tables.map(VMALLOC + virtual * PAGE, 0x10000 + physical * PAGE)
    return tables


def test_runs_are_joined() -> None:
    tables = pages(8)
    space = tables.space()
    tables.memory.reads = 0
    data = space.read(VMALLOC, 8 * PAGE)
    assert [data[number * PAGE] for number in range(8)] == [0, 1, 2, 4, 3, 5, 6, 7]
    assert tables.memory.reads == 4 + 4  # four tables and four runs
    assert [(m.start - VMALLOC) // PAGE for m in space.mappings()] == [0, 3, 4, 5]
    assert [(m.end - m.start) // PAGE for m in space.mappings(VMALLOC + PAGE, VMALLOC + 4 * PAGE)] == [2, 1]


SIZE = 8 * PAGE


@given(st.integers(0, SIZE), st.integers(0, SIZE), st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
@settings(max_examples=100, deadline=None)
def test_reads_are_those_of_a_model(address: int, size: int, unmapped: set[int], missing: set[int]) -> None:
    data = {0x10000 + n * PAGE: bytes([n + 1]) * PAGE for n in range(8) if n not in missing}
    tables = Tables(data)
    for number in set(range(8)) - unmapped:
        tables.map(VMALLOC + number * PAGE, 0x10000 + (number ^ 1) * PAGE)
    space = tables.space(half=KERNEL_HALF)

    def model(start: int, count: int) -> tuple[bytes, Reason | None]:
        found = bytearray()
        while len(found) < count:
            page = (start + len(found)) // PAGE
            if page > 7 or page in unmapped:
                return bytes(found), Reason.NOT_MAPPED
            if page ^ 1 in missing:
                return bytes(found), Reason.OUTSIDE
            found.append((page ^ 1) + 1)
        return bytes(found), None

    for _ in range(3):  # the first time a page is asked for nothing is kept, the second time it is, then it is used
        for count in (size, 8):
            expected, reason = model(address, count)
            got, fault = space.read_upto(VMALLOC + address, count)
            assert got == expected
            assert (fault.reason if fault else None) is reason
            buffer = bytearray(count)
            fault = space.read_into(VMALLOC + address, memoryview(buffer))
            assert (fault.reason if fault else None) is reason
            assert buffer[: len(expected)] == expected
            assert fault is None or fault.done == len(expected)
        for move, width in ((space.u64, 8), (space.u32, 4)):
            expected, reason = model(address, width)
            if reason is None:
                assert move(VMALLOC + address) == int.from_bytes(expected, "little")
            else:
                with pytest.raises(Fault):
                    move(VMALLOC + address)
    rows = [*range(0, SIZE, 1021), address, SIZE - 4]
    for width in (1, 8, 600, PAGE, 2 * PAGE + 7):
        got_all = space.gather([VMALLOC + row for row in rows], width)
        for number, row in enumerate(rows):
            expected, reason = model(row, width)
            assert bool(got_all.ok[number]) == (reason is None)
            assert reason is not None or got_all.data[number].tobytes() == expected


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=30), st.lists(st.integers(0, 1 << 23), max_size=30))
@settings(max_examples=100, deadline=None)
def test_many_are_translated_as_one(anywhere: list[int], near: list[int]) -> None:
    tables = Tables({})
    for number in (0, 1, 5, 511):
        tables.map(VMALLOC + number * PAGE, 0x7_0000 + number * 3 * PAGE)
    tables.map(VMALLOC + (2 << 20), 0x4000_0000, 2)
    tables.map(VMALLOC + (6 << 20), 0x3000)
    tables.map(0x4000_0000, 0x8000_0000, 3)
    spaces = [tables.space(), tables.space(half=KERNEL_HALF), tables.space(linear=linear(DIRECT, DIRECT + (1 << 40)))]
    wanted = [*anywhere, *(VMALLOC + n for n in near), *(DIRECT + n for n in near), *(0x4000_0000 + n for n in near)]
    for space in spaces:
        found, ok = space.translate_all(wanted)
        for number, address in enumerate(wanted):
            try:
                one = space.translate(address)
            except Fault:
                assert not ok[number]
            else:
                assert (bool(ok[number]), int(found[number])) == (True, one)


def test_sparse_addresses_do_not_need_whole_tables() -> None:
    count = 400
    memory = Held({TABLES: bytes((2 + 2 * count) * PAGE)})

    def put(table: int, slot: int, entry: int) -> None:
        memory.runs[TABLES][table * PAGE + slot * 8 : table * PAGE + slot * 8 + 8] = entry.to_bytes(8, "little")

    for number in range(count):  # one level 3, 2 and 1 table for each; PGD[256 + number % 200] and so on
        if number < 200:
            put(0, 256 + number, TABLES + (2 + number) * PAGE | 3)
            put(2 + number, 1, TABLES + (2 + 200 + number) * PAGE | 3)
            put(202 + number, 2, TABLES + (2 + 400 + number) * PAGE | 3)
            put(402 + number, 3, 0x5000 + number * PAGE | 3)
    space = AddressSpace(memory, Tables({}).format, TABLES)
    wanted = [(0xFFFF << 48 | (256 + n) << 39 | 1 << 30 | 2 << 21 | 3 << 12) + n for n in range(200)]
    found, ok = space.translate_all([*wanted, wanted[0] + PAGE])
    assert ok.tolist() == [True] * 200 + [False]
    assert found.tolist()[:200] == [0x5000 + n * PAGE + n for n in range(200)]


def test_windows_are_arithmetic() -> None:
    memory = Held({0: bytes(range(256)) * 64})
    space = AddressSpace(memory, Tables({}).format, 0xDEAD000, linear=linear(DIRECT, DIRECT + 8 * PAGE))
    assert space.translate(DIRECT + 0x1234) == 0x1234
    assert space.read(DIRECT + 0x1001, 3) == b"\1\2\3"
    assert space.u64(DIRECT + 8) == int.from_bytes(bytes(range(8, 16)), "little")
    assert why(space, DIRECT + 4 * PAGE - 2, 4)[:2] == (Reason.OUTSIDE, 2)
    assert why(space, DIRECT + 8 * PAGE)[0] is Reason.CORRUPT
    assert space.gather([DIRECT + 100, DIRECT + 3 * PAGE], PAGE + 9).ok.tolist() == [True, False]


@pytest.mark.parametrize("below", [lambda memory: memory, Overlay])
def test_writes_are_seen_by_every_space(below: Callable[[Held], Held]) -> None:
    tables = pages(8)
    physical = below(tables.memory)
    first = AddressSpace(physical, tables.format, tables.root, half=KERNEL_HALF)
    second = AddressSpace(physical, tables.format, tables.root, linear=linear(DIRECT, DIRECT + (1 << 22)))
    for _ in range(3):
        assert first.u64(VMALLOC) == second.u64(DIRECT + 0x10000) == 0
    second.write(DIRECT + 0x10000, b"\x2a")
    assert first.u64(VMALLOC) == second.u64(DIRECT + 0x10000) == 0x2A
    assert first.u32(VMALLOC) == 0x2A
    assert first.read(VMALLOC, 2) == b"\x2a\0"
    assert first.gather([VMALLOC], 1).data.tolist() == [[0x2A]]
    # a page table that is written is walked anew
    assert first.translate(VMALLOC + 5 * PAGE) == 0x15000
    second.write(DIRECT + tables.entry(VMALLOC + 5 * PAGE, 1), (0x11000 | 3).to_bytes(8, "little"))
    assert first.translate(VMALLOC + 5 * PAGE) == 0x11000
    assert first.translate_all([VMALLOC + 5 * PAGE])[0].tolist() == [0x11000]


def test_a_write_that_stops_says_where() -> None:
    tables = pages(8)
    space = tables.space(half=KERNEL_HALF)
    space.write(VMALLOC + 3 * PAGE - 2, b"abcd")
    assert tables.memory.read(0x10000 + 3 * PAGE - 2, 2) == b"ab"
    assert tables.memory.read(0x10000 + 4 * PAGE, 2) == b"cd"
    with pytest.raises(Fault) as caught:
        space.write(VMALLOC + 8 * PAGE - 3, b"12345")
    fault = caught.value
    assert (fault.reason, fault.done, fault.address) == (Reason.NOT_MAPPED, 3, VMALLOC + 8 * PAGE)
    assert (fault.verb, fault.space, fault.partial) == ("write", "kernel", b"")
    assert space.read(VMALLOC + 8 * PAGE - 3, 3) == b"123"
    tables.memory.writable = False
    with pytest.raises(Fault) as caught:
        tables.space().write(VMALLOC, b"x")
    assert (caught.value.reason, caught.value.done) == (Reason.READ_ONLY, 0)


def test_nothing_is_kept_of_memory_that_moves() -> None:
    tables = pages(2)
    tables.memory.live = True
    space = tables.space()
    for value in range(4):
        tables.memory.runs[0x10000][0] = value
        assert space.u64(VMALLOC) & 0xFF == value
    tables.put(tables.entry(VMALLOC, 1), 0x11000 | 3)
    space.flush()
    assert space.u64(VMALLOC) & 0xFF == 1


def test_windows_and_views() -> None:
    space = pages(8).space()
    window = space.window(VMALLOC + 3 * PAGE + 5)
    assert window is not None
    assert (window.start, window.end, window.view[0]) == (VMALLOC + 3 * PAGE, VMALLOC + 4 * PAGE, 4)
    assert space.window(VMALLOC + 8 * PAGE) is None
    assert bytes(space.view(VMALLOC + PAGE, 2 * PAGE)) == b"\1" * PAGE + b"\2" * PAGE
    assert bytes(space.view(VMALLOC + 2 * PAGE, 2 * PAGE)) == b"\2" * PAGE + b"\4" * PAGE
    assert bytes(space.view(VMALLOC + 8 * PAGE, 0)) == b""
    with pytest.raises(Fault) as caught:
        space.view(VMALLOC + 7 * PAGE, 2 * PAGE)
    assert caught.value.done == PAGE


# -- lists ---------------------------------------------------------------------------------------------------------


def chain(addresses: list[int], offset: int = 0, size: int = 1 << 16) -> AddressSpace:
    """Return a space whose direct map holds a list through *addresses* (from DIRECT on): each to the next."""
    data = bytearray(size)
    for here, there in pairwise(addresses):
        data[here + offset : here + offset + 8] = (DIRECT + there if there >= 0 else 0).to_bytes(8, "little")
    return AddressSpace(Held({0: bytes(data)}), Tables({}).format, 0, linear=linear(DIRECT, DIRECT + 2 * size))


def test_a_ring_and_a_chain_that_ends() -> None:
    stops = [0x100, 0x2000, 0x5008, 0x40]
    nodes = [DIRECT + stop for stop in stops[1:]]
    assert chain([*stops, 0x100]).chase(DIRECT + 0x100) == nodes
    assert chain([*stops, -1], 16).chase(DIRECT + 0x100, 16) == nodes
    assert chain([0x100, 0x100]).chase(DIRECT + 0x100) == []
    assert chain([0x100, -1]).chase(DIRECT + 0x100) == []
    assert chain([*stops, 0x100]).chase(DIRECT + 0x100, limit=3) == nodes


@pytest.mark.parametrize("before, loop", [(1, 1), (1, 2), (3, 5), (200, 3), (3, 200)])
def test_a_ring_that_misses_its_head(before: int, loop: int) -> None:
    stops = [16 * number for number in range(1, before + loop + 1)]
    with pytest.raises(ChaseError, match="loops without") as caught:
        chain([*stops, stops[before]]).chase(DIRECT + 16)
    assert caught.value.visited == [DIRECT + stop for stop in stops[1:]]


def test_a_list_that_is_too_long_or_breaks() -> None:
    stops = [16 * number for number in range(1, 100)]
    with pytest.raises(ChaseError, match="more than 10") as caught:
        chain([*stops, 16]).chase(DIRECT + 16, limit=10)
    assert caught.value.visited == [DIRECT + stop for stop in stops[1:11]]
    with pytest.raises(Fault) as fault:
        chain([0x100, 0x200, 0x18000]).chase(DIRECT + 0x100)
    assert (fault.value.reason, fault.value.address) == (Reason.OUTSIDE, DIRECT + 0x18000)
    assert fault.value.visited == [DIRECT + 0x200, DIRECT + 0x18000]


# -- hostile tables ------------------------------------------------------------------------------------------------


def test_tables_that_hold_themselves() -> None:
    tables = Tables({})
    for slot in range(512):
        tables.put(TABLES + 8 * slot, TABLES | RWU)
    space = tables.space()
    found = list(space.mappings())
    assert 0 < len(found) < 20000
    assert any(mapping.flags == "shared table" for mapping in found)
    assert space.translate(0x1234) == TABLES + 0x234
    assert space.translate_all([0x1234])[0].tolist() == [TABLES + 0x234]


def test_entries_at_random_never_raise_anything_else() -> None:
    import random

    draw = random.Random(7)
    for seed in range(20):
        tables = Tables({})
        base = tables.memory.runs[TABLES]
        for slot in range(0, len(base), 8):
            entry = draw.getrandbits(64) if seed % 2 else TABLES + draw.randrange(80) * PAGE | draw.getrandbits(9)
            base[slot : slot + 8] = entry.to_bytes(8, "little")
        space = tables.space()
        wanted = [draw.getrandbits(47) for _ in range(50)]
        found, ok = space.translate_all(wanted)
        for number, address in enumerate(wanted):
            try:
                one = space.translate(address)
            except Fault:
                assert not ok[number]
            else:
                assert (bool(ok[number]), int(found[number])) == (True, one)
        for count, _ in enumerate(space.mappings()):
            if count > 1000:
                break
