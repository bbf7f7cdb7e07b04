"""Address spaces against a map of bytes: any page tables, any reads and writes, one at a time and many."""

from __future__ import annotations

import itertools
import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.errors import Fault
from kshell.memory.overlay import Overlay
from kshell.target.space import AddressSpace, Linear
from tests.memory.tables import PAGE, TABLES, Tables

V = 0x7F00_1234_5000
WINDOW = 0x7E00_0000_0000
RAM = 0x4000_0000  # where the pages that are mapped lie
PAGES = 12


def content(number: int) -> bytes:
    """Return a page that is unlike any other."""
    return b"".join(struct.pack("<II", number, offset) for offset in range(0, PAGE, 8))


@st.composite
def spaces(draw: st.DrawFn) -> tuple[Tables, AddressSpace, dict[int, bytes]]:
    """Pages from V on, mapped to few physical ones, some of which are not there; a window, perhaps; their content."""
    held = {RAM + number * PAGE: content(number) for number in range(PAGES) if draw(st.integers(0, 5))}
    tables = Tables(held, writable=True)
    frames = draw(st.one_of(
        st.lists(st.integers(-1, PAGES), min_size=PAGES, max_size=PAGES),
        st.just(list(range(PAGES))),  # in a row, so that pages are joined
    ))
    model: dict[int, bytes] = {}
    for number, frame in enumerate(frames):
        if frame >= 0:
            tables.map(V + number * PAGE, RAM + frame * PAGE)
            if RAM + frame * PAGE in held:
                model[V + number * PAGE] = held[RAM + frame * PAGE]
    linear = [Linear(WINDOW, WINDOW + PAGES * PAGE, RAM)] if draw(st.booleans()) else []
    if linear:
        model.update((WINDOW + paddr - RAM, data) for paddr, data in held.items())
    return tables, tables.space(linear=linear), model


def expect(model: dict[int, bytes], address: int, size: int) -> bytes:
    """Return the bytes from *address* on up to the first that is not there."""
    found = b""
    while len(found) < size:
        at = address + len(found)
        page = model.get(at & -PAGE, b"")
        if not page:
            break
        found += page[at % PAGE :]
    return found[:size]


ADDRESSES = st.builds(
    lambda base, page, near: base + page * PAGE + near, st.sampled_from([V, V, V, WINDOW]), st.integers(0, PAGES),
    st.one_of(st.integers(-9, 9), st.integers(0, PAGE)),
)
SIZES = st.sampled_from([0, 1, 4, 8, 16, 100, 4096, 5000, 9000])


@settings(max_examples=40, deadline=None)
@given(spaces(), st.lists(st.tuples(ADDRESSES, SIZES), min_size=1, max_size=12))
def test_reads(made: tuple[Tables, AddressSpace, dict[int, bytes]], wanted: list[tuple[int, int]]) -> None:
    _, space, model = made
    for address, size in wanted * 2:  # the second time from what was kept
        expected = expect(model, address, size)
        data, fault = space.read_upto(address, size)
        assert data == expected and (fault is None) == (len(expected) == size)
        if fault is not None:
            assert (fault.address, fault.done, fault.partial) == (address + len(data), len(data), data)
        buffer = bytearray(b"\xee" * size)
        fault = space.read_into(address, memoryview(buffer))
        done = size if fault is None else fault.done
        assert done == len(expected) and buffer == expected + b"\xee" * (size - done)
        if fault is None:
            assert bytes(space.view(address, size)) == expected
        window = space.window(address)
        if window is None:
            assert not expect(model, address, 1)
        else:
            assert window.start <= address < window.end
            assert bytes(window.view) == expect(model, window.start, window.end - window.start)
        run = space.file_run(address)
        assert run is None, "there is no file"
    for size in (0, 1, 8, 24, 5000):
        rows, ok = space.gather(np.array([address for address, _ in wanted], np.uint64), size)
        for (address, _), row, good in zip(wanted, rows, ok.tolist(), strict=True):
            expected = expect(model, address, size)
            assert good == (len(expected) == size) or not size
            assert not good or bytes(row) == expected


@settings(max_examples=40, deadline=None)
@given(spaces(), st.lists(st.tuples(ADDRESSES, st.binary(min_size=1, max_size=5000)), min_size=1, max_size=4),
       st.booleans())
def test_writes(
    made: tuple[Tables, AddressSpace, dict[int, bytes]], writes: list[tuple[int, bytes]], cow: bool,
) -> None:
    """In place or copy on write; what was written before a hole stays written, and every way of reading shows it."""
    tables, space, model = made
    before = {start: bytes(data) for start, data in tables.memory.runs.items()}
    if cow:
        space = AddressSpace(Overlay(tables.memory), space.format, space.root, linear=space._linear)
    for address, data in writes:
        for _ in range(3):  # so that pages and translations are kept
            space.read_upto(address, 8)
        held = len(expect(model, address, len(data)))
        try:
            space.write(address, data)
            done = len(data)
        except Fault as fault:
            done = fault.done
            assert (fault.address, fault.verb, fault.size) == (address + done, "write", len(data))
        assert done == held
        # two virtual pages may be one physical page: the last byte that was written there stays
        last = {space.translate(address + number): data[number] for number in range(done)}
        for paddr, byte in list(last.items())[::61]:
            assert space.physical.read(paddr, 1)[0] == byte
        for number in range(0, done - 8, 509):
            at = address + number
            whole = space.read(at, 8)
            assert whole == bytes(last[space.translate(at + step)] for step in range(8))
            assert struct.pack("<Q", space.u64(at)) == bytes(space.gather([at], 8).data[0]) == whole
            assert bytes(space.view(at, 8)) == whole and struct.pack("<I", space.u32(at)) == whole[:4]
    if cow:
        assert {start: bytes(data) for start, data in tables.memory.runs.items()} == before


ENTRIES = st.builds(
    lambda table, bits, high: TABLES + table * PAGE | bits | high << 59, st.sampled_from([0, 1, 2, 3, 70]),
    st.sampled_from([0, 1, 3, 3, 3, 0x81, 0x101, 0x100, 0x180, 0x80, 0x67]), st.sampled_from([0, 0, 16, 31]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 300, 511]), ENTRIES), min_size=8, max_size=40),
       st.sampled_from([4, 5]))
def test_tables_that_lead_anywhere(entries: list[tuple[int, int, int]], levels: int) -> None:
    """Entries that lead to each other's tables, to themselves and nowhere: many at once is each, and all ends."""
    tables = Tables({}, levels)
    for table, slot, entry in entries:
        tables.put(TABLES + table * PAGE + 8 * slot, entry)
    addresses = []
    for number, slots in enumerate(itertools.product([0, 1, 300, 511], repeat=4)):
        address = sum(slot << (12 + 9 * level) for level, slot in enumerate(slots)) | number
        top = 12 + 9 * levels
        addresses.append(address | (1 << 64) - (1 << top) if address >> (top - 1) else address)
    space = tables.space()
    found, mapped = space.translate_all(np.array(addresses, np.uint64))
    for address, paddr, ok in zip(addresses, found.tolist(), mapped.tolist(), strict=True):
        try:
            expected = space.translate(address)
        except Fault:
            assert not ok
        else:
            assert ok and paddr == expected
    for count, mapping in enumerate(space.mappings()):
        assert mapping.start < mapping.end and count < 100_000
