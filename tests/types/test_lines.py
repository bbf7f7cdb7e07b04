"""Source lines and inlined functions, against addr2line of binutils; line numbers that are damaged."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from kshell.errors import FormatError
from kshell.types.dwarf_units import Units
from kshell.types.elffile import ElfFile
from kshell.types.elfsym import read_symbols
from kshell.types.lines import Lines
from tests.programs import compiled
from tests.target.test_vmlinux import debug_file

FORMS = {
    "5": ("-g", "-O2"), "4": ("-g", "-gdwarf-4", "-O2"), "3": ("-g", "-gdwarf-3", "-gstrict-dwarf", "-O1"),
    "compressed": ("-g", "-gz", "-O2"), "sections": ("-g", "-O2", "-ffunction-sections"), "plain": ("-g", "-O0"),
}
Place = tuple[str, str]


def addr2line(path: Path, addresses: list[int]) -> list[list[Place]]:
    """Return (function, file:line) of each address and of what it was inlined into."""
    if shutil.which("addr2line") is None:
        pytest.skip("no addr2line (binutils)")
    done = subprocess.run(["addr2line", "-a", "-f", "-i", "-e", str(path)], input="\n".join(map(hex, addresses)),
                          capture_output=True, text=True, check=True)
    found: list[list[Place]] = []
    lines = iter(done.stdout.splitlines())
    for line in lines:
        if line.startswith("0x"):
            found.append([])
        else:
            place = next(lines).split(" (discriminator")[0]
            found[-1].append((line, os.path.normpath(place)))
    assert len(found) == len(addresses)
    return found


def ours(lines: Lines, address: int) -> list[Place]:
    return [(one.function, os.path.normpath(f"{one.file}:{one.line or '?'}")) for one in lines.at(address)]


@pytest.mark.parametrize("form", list(FORMS))
def test_every_address_of_a_program(form: str) -> None:
    path = compiled(*FORMS[form])
    elf = ElfFile(str(path))
    lines = Lines(Units(elf))
    wanted = [symbol for symbol in read_symbols(elf) if symbol.name in ("main", "compute", "other")]
    addresses = [symbol.address + at for symbol in wanted for at in range(symbol.size)]
    expected = addr2line(path, addresses)
    assert len(wanted) == 3 and (form == "plain" or any(len(one) == 3 for one in expected))
    for address, places in zip(addresses, expected, strict=True):
        assert ours(lines, address) == places, hex(address)
    chain = max((lines.at(address) for address in addresses), key=len)
    assert [one.inlined for one in chain] == [*[True] * (len(chain) - 1), False]
    assert str(chain[0]).rpartition(":")[0].endswith("tests/programs/rec.c")


def test_without_aranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """clang writes none: the units' own ranges are asked."""
    path = compiled(*FORMS["sections"])
    lines = Lines(Units(ElfFile(str(path))))
    monkeypatch.setattr("kshell.types.lines.read_aranges", lambda units: [])
    bare = Lines(Units(ElfFile(str(path))))
    address = next(symbol.address for symbol in read_symbols(ElfFile(str(path))) if symbol.name == "compute")
    assert bare.at(address + 4) == lines.at(address + 4) != []


def test_addresses_of_nothing() -> None:
    lines = Lines(Units(ElfFile(str(compiled(*FORMS["5"])))))
    for address in (0, 1, 0xFFFF_FFFF_FFFF_FFFF, 1 << 47):
        assert lines.at(address) == []


@pytest.mark.parametrize("section", [".debug_line", ".debug_aranges", ".debug_rnglists", ".debug_info"])
def test_flipped_bits(section: str, tmp_path: Path) -> None:
    path = compiled(*FORMS["5"])
    elf = ElfFile(str(path))
    found = elf.section(section)
    assert found is not None
    wanted = [symbol.address + 5 for symbol in read_symbols(elf) if symbol.name in ("main", "compute", "other")]
    whole, draw, begun = path.read_bytes(), random.Random(2), time.monotonic()
    for number in range(120):
        damaged = bytearray(whole)
        damaged[found.offset + draw.randrange(found.size)] ^= 1 << number % 8
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            lines = Lines(Units(ElfFile(str(tmp_path / "damaged"))))
            for address in wanted:
                lines.at(address)
        except FormatError:
            continue
    assert time.monotonic() - begun < 60


def test_a_vmlinux() -> None:
    path = Path(debug_file("vmlinux"))
    elf = ElfFile(str(path))
    lines, draw = Lines(Units(elf)), random.Random(3)
    functions = [one for one in read_symbols(elf) if one.type in "tT" and one.size > 8 and one.address >> 63]
    addresses = [one.address + draw.randrange(one.size) for one in draw.sample(functions, 60)]
    same = 0
    for address, places in zip(addresses, addr2line(path, addresses), strict=True):
        found = ours(lines, address)
        # addr2line takes the name of a symbol where no function is, and the unit's file for functions that are made in
        # a header (TRACE_EVENT); gdb says the header, as we do
        if found and found[-1][0] and "include/trace" not in found[0][1]:
            assert found == places, hex(address)
            same += len(places) > 1
    assert same > 10, "some are in inlined functions"
