"""Unwind tables: those of real files against pyelftools and readelf's numbers, damaged and rare ones from bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.dwarf.callframe import FDE, RegisterRule
from elftools.elf.elffile import ELFFile

from kshell.errors import KshellError
from kshell.memory.bytes import ByteMemory
from kshell.target.open import open_target
from kshell.unwind import cfi
from kshell.unwind.cfi import Entries, Fde, Row, row_at
from kshell.unwind.expression import evaluate
from kshell.unwind.frametable import ScannedTable, SortedTable, find_frames, loaded_at
from kshell.unwind.user import UserCode, walk_user
from tests.programs import compiled

KINDS = {RegisterRule.UNDEFINED: cfi.UNDEFINED, RegisterRule.SAME_VALUE: cfi.SAME, RegisterRule.OFFSET: cfi.OFFSET,
         RegisterRule.VAL_OFFSET: cfi.VAL_OFFSET, RegisterRule.REGISTER: cfi.REGISTER,
         RegisterRule.EXPRESSION: cfi.EXPRESSION, RegisterRule.VAL_EXPRESSION: cfi.VAL_EXPRESSION}


def files() -> Iterator[Path]:
    yield compiled("-O2", "-g", "-pthread", name="stacks", sources=("stacks.c",))
    yield from sorted(Path("/lib/x86_64-linux-gnu").glob("libc.so.6"))
    yield from sorted(Path("/lib/x86_64-linux-gnu").glob("libgcc_s.so.1"))


def same(told: Any, row: Row) -> None:
    """Compare a row of pyelftools' with ours."""
    base = told["cfa"]
    assert row.base == (bytes(base.expr) if base.expr is not None else (base.reg, base.offset))
    rules = {number: (KINDS[rule.type], bytes(rule.arg) if isinstance(rule.arg, list) else rule.arg or 0)
             for number, rule in told.items() if isinstance(number, int)}
    assert row.rules == rules


def test_every_row_is_that_of_pyelftools() -> None:
    """Found by the sorted table in what is loaded, with nothing but program headers; a part of those in large files."""
    rows = 0
    for path in files():
        with path.open("rb") as file, open_target(str(path)) as target:
            memory = target.kernel
            loaded = loaded_at(memory, min(one.start for one in memory.ranges()) & -4096)
            table = SortedTable(memory, loaded.frames)
            entries = [one for one in ELFFile(file).get_dwarf_info().EH_CFI_entries() if isinstance(one, FDE)]
            for entry in entries[:: 40 if len(entries) > 500 else 1]:
                start, size = entry["initial_location"], entry["address_range"]
                found = table.find(start)
                assert found is not None and (found.start, found.end) == (start, start + size)
                assert table.find(start + size - 1) == found
                try:
                    decoded = entry.get_decoded().table
                except ValueError:
                    continue  # DW_CFA_GNU_args_size, which pyelftools does not know
                for number, told in enumerate(decoded):
                    last = decoded[number + 1]["pc"] - 1 if number + 1 < len(decoded) else start + size - 1
                    if told["pc"] <= last:
                        for place in {told["pc"], last}:
                            same(told, row_at(found, place))
                        rows += 1
            assert table.find(0) is None and table.find(loaded.end + 1000) is None
    assert rows > 1000


def test_without_a_sorted_table() -> None:
    """A static program, whose .eh_frame no header may lead to: it is looked for, and all of it is read."""
    program = compiled("-O2", "-static", "-pthread", "-Wl,--no-eh-frame-hdr", name="static", sources=("stacks.c",))
    with program.open("rb") as file, open_target(str(program)) as target:
        section: Any = ELFFile(file).get_section_by_name(".eh_frame")
        told = {one["initial_location"]: one["address_range"]
                for one in ELFFile(file).get_dwarf_info().EH_CFI_entries() if isinstance(one, FDE)}
        found = find_frames(target.kernel, section["sh_addr"] - 64, section["sh_addr"] + section["sh_size"])
        assert found is not None
        assert found.find(0) is None
        for start in random.Random(1).sample(sorted(told), 200):
            if told[start]:
                entry = found.find(start)
                assert entry is not None and entry.start == start and entry.end == start + told[start]


def test_debug_frame() -> None:
    """Programs without asynchronous tables have .debug_frame, whose entries count from its start."""
    program = compiled("-O2", "-g", "-c", "-fno-asynchronous-unwind-tables", name="debug.o", sources=("stacks.c",))
    with program.open("rb") as file:
        elf = ELFFile(file)
        section: Any = elf.get_section_by_name(".debug_frame")
        entries = [one for one in elf.get_dwarf_info().CFI_entries() if isinstance(one, FDE)]
        # not linked: all functions begin at 0 here, and pyelftools has relocated what it read
        data = section.data()
    table = Entries(ByteMemory(data), 0, debug=True)
    for one in entries:
        found = table.entry(one.offset)
        assert found is not None and found.end - found.start == one["address_range"]
        assert found.cie.return_register == 16 and found.cie.data_align == -8


CIE = bytes([1]) + b"zR\0" + bytes([1, 0x78, 16, 1, 0x1B, 0x0C, 7, 8, 0x90, 1])


def section(*programs: bytes, cie: bytes = CIE) -> bytes:
    """Return an .eh_frame at 0 whose functions begin at 0x1000, 0x1100, ..., with 0x100 bytes each."""
    body = bytes(4) + cie
    body += bytes(-len(body) % 4)
    data = struct.pack("<I", len(body)) + body
    for number, program in enumerate(programs):
        begin = len(data) + 4
        body = struct.pack("<IiI", begin, 0x1000 + 0x100 * number - (begin + 4), 0x100) + b"\0" + program
        body += bytes(-len(body) % 4)
        data += struct.pack("<I", len(body)) + body
    return data + bytes(4)


def only(program: bytes, cie: bytes = CIE) -> Fde:
    found = ScannedTable(Entries(ByteMemory(section(program, cie=cie))), 0).find(0x1010)
    assert found is not None
    return found


def test_instructions() -> None:
    program = bytes([
        0x41, 0x0E, 16, 0x86, 2,        # advance 1, def_cfa_offset 16, offset rbp at -16
        0x02, 3, 0x0D, 6,               # advance1 3, def_cfa_register rbp
        0x0A,                           # remember_state
        0x44, 0x0C, 7, 8, 0xC6,         # advance 4, def_cfa rsp 8, restore rbp
        0x41, 0x0B,                     # advance 1, restore_state
        0x41, 0x07, 16, 0x08, 3,        # advance 1, undefined 16, same_value rbx
        0x41, 0x09, 12, 13, 0x14, 14, 2, 0x2F, 15, 1, 0x12, 7, 0x7E, 0x2E, 8,  # register, val_offset, negative, cfa_sf
    ])
    fde = only(program)
    assert row_at(fde, 0x1000) == Row((7, 8), {16: (cfi.OFFSET, -8)})
    assert row_at(fde, 0x1003) == Row((7, 16), {16: (cfi.OFFSET, -8), 6: (cfi.OFFSET, -16)})
    assert row_at(fde, 0x1004).base == (6, 16)
    assert row_at(fde, 0x1008) == Row((7, 8), {16: (cfi.OFFSET, -8)})
    assert row_at(fde, 0x1009) == Row((6, 16), {16: (cfi.OFFSET, -8), 6: (cfi.OFFSET, -16)})
    assert row_at(fde, 0x100A).rules[16] == (cfi.UNDEFINED, 0)
    last = row_at(fde, 0x10FF)
    assert last.base == (7, 16) and last.rules[12] == (cfi.REGISTER, 13) and last.rules[14] == (cfi.VAL_OFFSET, -16)
    assert last.rules[15] == (cfi.OFFSET, 8) and last.rules[3] == (cfi.SAME, 0)


@pytest.mark.parametrize("program", [
    b"\x3f\x01", b"\x0b", b"\x01\x00", b"\x0f\x01\x96\x0e\x08", b"\x0e" + b"\xff" * 12])
def test_damaged_instructions(program: bytes) -> None:
    with pytest.raises(KshellError):
        row_at(only(program), 0x10FF)


@pytest.mark.parametrize("cie", [b"\x02" + CIE[1:], CIE[:6], bytes([1]) + b"qQ\0" + CIE[4:], bytes([1]) + b"zR" * 9])
def test_damaged_entries(cie: bytes) -> None:
    with pytest.raises(KshellError):
        found = ScannedTable(Entries(ByteMemory(section(b"", cie=cie))), 0).find(0x1010)
        assert found is not None
        row_at(found, 0x1010)


def test_cut_and_flipped() -> None:
    """No damage but a named error, or no entry."""
    good = section(bytes([0x41, 0x0E, 16]), bytes([0x41, 0x0E, 24]))
    chance = random.Random(2)
    for size in range(len(good)):
        ScannedTable(Entries(ByteMemory(good[:size])), 0).find(0x1110)
    for _ in range(2000):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            found = ScannedTable(Entries(ByteMemory(bytes(data))), 0).find(0x1110)
            if found is not None:
                row_at(found, 0x1110)
        except KshellError:
            continue


@pytest.mark.parametrize("program, value", [
    (bytes([0x77, 8, 0x80, 0, 0x3F, 0x1A, 0x3B, 0x2A, 0x33, 0x24, 0x22]), 0x7008),   # .plt: rsp+8+((rip&15)>=11)<<3
    (bytes([0x08, 5, 0x09, 0xFF, 0x22]), 4), (bytes([0x10, 0x80, 1, 0x23, 2]), 130),
    (bytes([0x11, 0x7F]), (1 << 64) - 1),
    (bytes([0x31, 0x32, 0x16, 0x1C]), 1), (bytes([0x31, 0x32, 0x33, 0x17, 0x12, 0x1E, 0x22]), 5),
    (bytes([0x31, 0x28, 1, 0, 0x30, 0x35]), 5), (bytes([0x30, 0x20, 0x19]), 1), (bytes([0x39, 0x1F, 0x19]), 9),
    (bytes([0x0A, 0, 1, 0x06]), 0x1122334455667788), (bytes([0x0A, 0, 1, 0x94, 2]), 0x7788),
    (bytes([0x09, 0xF9, 0x32, 0x1B]), (1 << 64) - 3), (bytes([0x37, 0x32, 0x1D]), 1), (bytes([0x92, 7, 1]), 0x7001),
])
def test_expressions(program: bytes, value: int) -> None:
    memory = ByteMemory((0x1122334455667788).to_bytes(8, "little"), 0x100)
    assert evaluate(program, memory, lambda number: number << 12) == value


@pytest.mark.parametrize("program", [b"", b"\x12", b"\x22", b"\x2f\xfd\xff", b"\x2f\x00\x7f", b"\xe0", b"\x31\x30\x1b",
                                     b"\x31\x06", b"\x30" * 2000])
def test_damaged_expressions(program: bytes) -> None:
    with pytest.raises(KshellError):
        evaluate(program, ByteMemory(b""), lambda number: 0)


STACK = 0x7000


def walked(words: list[int], program: bytes = b"", rip: int = 0x1010, rbp: int = 0) -> Any:
    """Walk a stack of *words* at STACK; code of 0x1000 to 0x1fff, of which the first 0x200 have a table."""
    table = ScannedTable(Entries(ByteMemory(section(program, program))), 0)
    memory = ByteMemory(struct.pack(f"<{len(words) + 1}Q", 0x1020, *words), STACK - 8)
    code = UserCode(table.find, lambda address: 0x1000 <= address < 0x2000, lambda sp: STACK + 8 * len(words))
    return walk_user(memory, code, {"rip": rip, "rsp": STACK, "rbp": rbp})


def test_a_plain_stack() -> None:
    found = walked([0x1020, 0x1120, 0])
    assert [frame.pc for frame in found.frames] == [0x1010, 0x1020, 0x1120] and not found.end
    assert [frame.sp for frame in found.frames] == [STACK, STACK + 8, STACK + 16]


def test_where_it_cannot_be_followed() -> None:
    assert "is not in the program's code" in walked([0x5000]).end
    assert "cannot read the stack" in walked([0x1020]).end
    assert "goes back" in walked([0x1020, 0], program=bytes([0x0C, 7, 0])).end, "a table that does not move the frame"
    assert "no unwind table tells of 0x1810" in walked([0x5000, 0], rip=0x1810, rbp=1).end
    assert walked([0x1020, 0], rip=0x10).frames[1].pc == 0x1020, "a call of a wild pointer has pushed its return"
    assert walk_user(ByteMemory(b""), UserCode(lambda a: None, lambda a: True, lambda a: 0), {"rip": 1}).end
