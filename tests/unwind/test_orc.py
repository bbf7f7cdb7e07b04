"""ORC tables of every layout, built from bytes."""

from __future__ import annotations

import struct

import pytest

from kshell.errors import Fault, FormatError
from kshell.unwind import orc
from kshell.unwind.orc import Entry, OrcTable, by_evidence, decode
from tests.fake_target import Bytes

BASE = 0xFFFF_FFFF_8100_0000
TABLE = 0xFFFF_FFFF_8200_0000
CALL_16 = Entry(orc.CALL, orc.SP, 16, orc.PREV_SP, -16, False)


def pack(layout: int, entry: Entry) -> bytes:
    """Return *entry* as objtool of that layout writes it, from the kernel's orc_types.h, not from the decoder."""
    base, bp = entry.base, entry.bp
    if layout == 4:
        numbers = {orc.NONE: 0, orc.AX: 1, orc.DX: 2, orc.SP: 3, orc.BP: 4, orc.DI: 5, orc.R10: 6, orc.R13: 7,
                   orc.PREV_SP: 8, orc.SP_INDIRECT: 9, orc.BP_INDIRECT: 10}
        base, bp = numbers[base], numbers[bp]
    if layout >= 3:
        flags = base | bp << 4 | entry.kind << 8 | entry.signal << 11
    else:
        kind = {orc.CALL: 0, orc.REGS: 1, orc.PARTIAL: 2, orc.END: 0, orc.UNDEFINED: 0}[entry.kind]
        end = entry.kind == orc.END
        flags = base | bp << 4 | kind << 8 | (end << 10 if layout == 1 else entry.signal << 10 | end << 11)
    return struct.pack("<hhH", entry.offset, entry.bp_offset, flags)


def table(layout: int, rows: list[tuple[int, Entry]], told: int = 0) -> OrcTable:
    """Return a table in memory: the addresses at TABLE, the entries behind them."""
    ips = b"".join(struct.pack("<i", address - (TABLE + 4 * number)) for number, (address, _) in enumerate(rows))
    memory = Bytes("kernel", TABLE, ips + b"".join(pack(layout, entry) for _, entry in rows))
    return OrcTable(memory, TABLE, TABLE + len(ips), len(rows), told)


@pytest.mark.parametrize("layout", [1, 2, 3, 4])
@pytest.mark.parametrize("entry", [
    CALL_16,
    Entry(orc.CALL, orc.BP, 16, orc.PREV_SP, -16, False),
    Entry(orc.CALL, orc.SP_INDIRECT, 8, orc.NONE, 0, False),
    Entry(orc.REGS, orc.SP, 0, orc.NONE, 0, True),
    Entry(orc.PARTIAL, orc.SP, 8, orc.NONE, 0, True),
    Entry(orc.END, orc.NONE, 0, orc.NONE, 0, False),
    Entry(orc.UNDEFINED, orc.NONE, 0, orc.NONE, 0, False),
    Entry(orc.CALL, orc.R10, 0, orc.BP, -8, False),
])
def test_an_entry_means_the_same_in_every_layout(layout: int, entry: Entry) -> None:
    assert decode(pack(layout, entry), layout) == entry


def test_registers_saved_without_a_signal() -> None:
    """Since 6.3 a frame of saved registers need not be an interrupt's: entry code saves them for a system call."""
    entry = Entry(orc.REGS, orc.SP, 0, orc.NONE, 0, False)
    for layout in (2, 3, 4):
        assert decode(pack(layout, entry), layout) == entry
    assert decode(pack(1, entry), 1) == entry._replace(signal=True)


@pytest.mark.parametrize("data", [b"\0\0\0\0\x0b\0", b"\0\0\0\0\xf5\0"])
def test_no_such_register(data: bytes) -> None:
    with pytest.raises(FormatError, match="no such register"):
        decode(data, 3)


def test_no_such_type() -> None:
    with pytest.raises(FormatError, match="no such type"):
        decode(b"\0\0\0\0\x05\x07", 3)


@pytest.mark.parametrize("layout", [1, 2, 3, 4])
def test_the_layout_is_seen_in_the_entries(layout: int) -> None:
    end = Entry(orc.END, orc.NONE, 0, orc.NONE, 0, False)
    rows = [(BASE + 16 * number, end if number % 10 == 0 else CALL_16) for number in range(500)]
    found = table(layout, rows)
    assert found.layout == layout
    assert found.find(BASE + 16 * 11 + 3) == CALL_16
    assert found.find(BASE + 16 * 10) == end


def test_noise_has_no_layout() -> None:
    with pytest.raises(FormatError, match="no known layout"):
        by_evidence([word * 2654435761 >> 7 & 0xFFFF for word in range(500)])
    with pytest.raises(FormatError, match="empty"):
        by_evidence([])


def test_lookup_takes_the_last_entry_not_above() -> None:
    rows = [(BASE + 0x10 * number, Entry(orc.CALL, orc.SP, 8 * number, orc.NONE, 0, False)) for number in range(37)]
    found = table(3, rows, told=3)
    assert found.find(BASE - 1) is None
    for address in range(BASE, BASE + 0x10 * 40, 3):
        entry = found.find(address)
        assert entry is not None and entry.offset == 8 * min((address - BASE) // 16, 36)


def test_a_table_out_of_order_is_refused() -> None:
    rows = [(BASE + 16 * number, CALL_16) for number in range(100)]
    rows[49], rows[3] = (BASE + 0x9999, CALL_16), (BASE + 0x9000, CALL_16)
    with pytest.raises(FormatError, match="not in order"):
        for address in range(BASE, BASE + 1600, 16):
            table(3, rows, told=3).find(address)


def test_a_table_that_is_cut_is_a_fault() -> None:
    memory = Bytes("kernel", TABLE, struct.pack("<i", BASE - TABLE))
    with pytest.raises(Fault):
        OrcTable(memory, TABLE, TABLE + 0x10000, 64).find(BASE)


@pytest.mark.parametrize("count", [0, -1, 1 << 40])
def test_impossible_sizes(count: int) -> None:
    with pytest.raises(FormatError):
        OrcTable(Bytes("kernel", TABLE, b""), TABLE, TABLE, count)


def test_headers() -> None:
    assert orc.layout_of(bytes.fromhex("fe5d32bf581bd63b2ca9a5c65ba5a625eab3fe24")) == 3
    assert orc.layout_of(bytes(20)) == 0


@pytest.mark.parametrize(("number", "wrong", "pc"), [
    (75, BASE - 0x1000, BASE + 16 * 90), (25, BASE + 0x9000, BASE + 8)])
def test_an_address_out_of_order_is_seen_from_either_side(number: int, wrong: int, pc: int) -> None:
    rows = [(BASE + 16 * each, CALL_16) for each in range(100)]
    rows[number] = (wrong, CALL_16)
    with pytest.raises(FormatError, match=f"not in order at entry {number}"):
        table(3, rows, told=3).find(pc)
