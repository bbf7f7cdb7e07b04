"""Debugging data in files of its own: by build id, by debug link, packed into the file, and in common with others."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from kshell.errors import FormatError
from kshell.target.loaded import LoadObject
from kshell.types.debugfiles import alternate_file, debug_file, mini_file
from kshell.types.dwarf import Dwarf
from kshell.types.elffile import ElfFile
from kshell.types.elfsym import read_symbols
from tests.programs import compiled


def tool(*words: str) -> None:
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} (binutils)")
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    """A stripped program, and its debugging data beside it."""
    program, debug = tmp_path / "program", tmp_path / "data.debug"
    shutil.copy(compiled("-g", "-O1"), program)
    tool("objcopy", "--only-keep-debug", str(program), str(debug))
    tool("strip", str(program))
    return program, debug


def loaded(program: Path) -> LoadObject:
    return LoadObject(None, str(program), 0, 1 << 40, 0, ElfFile(str(program)))


def test_none(parts: tuple[Path, Path], tmp_path: Path) -> None:
    elf = ElfFile(str(parts[0]))
    assert debug_file(elf, str(tmp_path)) is None and mini_file(elf) is None and alternate_file(elf) is None
    assert elf.section(".symtab") is None


def test_by_build_id(parts: tuple[Path, Path], tmp_path: Path) -> None:
    elf = ElfFile(str(parts[0]))
    built = elf.build_id
    assert built is not None
    place = tmp_path / "debug/.build-id" / built[:2] / f"{built[2:]}.debug"
    place.parent.mkdir(parents=True)
    shutil.copy(parts[1], place)
    found = debug_file(elf, str(tmp_path / "debug"))
    assert found is not None and Dwarf(found).find("struct", "rec") is not None
    tool("objcopy", "--only-keep-debug", str(compiled("-g", "-O2")), str(place))  # another program's in its place
    assert debug_file(elf, str(tmp_path / "debug")) is None


@pytest.mark.parametrize("folder", ["", ".debug"])
def test_by_debug_link(parts: tuple[Path, Path], tmp_path: Path, folder: str) -> None:
    program, debug = parts
    tool("objcopy", f"--add-gnu-debuglink={debug}", str(program))
    (tmp_path / folder).mkdir(exist_ok=True)
    if folder:
        debug.rename(tmp_path / folder / debug.name)
    made = loaded(program)
    assert made.debug is not None and made.debug.path.endswith("data.debug")
    assert {"compute", "hidden", "first"} <= {symbol.name for symbol in made.symbols}
    dwarf = made.dwarf
    assert dwarf is not None and str(dwarf.variable_type("first")) == "struct rec"
    address = next(symbol.address for symbol in made.symbols if symbol.name == "compute")
    assert made.source_lines(address)[-1].function == "compute"
    made.close()


def test_a_debug_link_whose_checksum_is_wrong(parts: tuple[Path, Path]) -> None:
    """Without build ids it is all there is to go by."""
    program, debug = parts
    tool("objcopy", "--remove-section=.note.gnu.build-id", str(program))
    tool("objcopy", f"--add-gnu-debuglink={debug}", str(program))
    assert debug_file(ElfFile(str(program))) is not None
    debug.write_bytes(debug.read_bytes() + b"x")
    assert debug_file(ElfFile(str(program))) is None


def test_packed_symbols(parts: tuple[Path, Path], tmp_path: Path) -> None:
    """As Fedora makes it: a symbol table in an ELF file, xz-compressed, in a section."""
    program, debug = parts
    mini = tmp_path / "mini"
    tool("objcopy", "-S", "--keep-symbol=compute", "--keep-symbol=hidden", str(debug), str(mini))
    (tmp_path / "mini.xz").write_bytes(lzma.compress(mini.read_bytes()))
    tool("objcopy", f"--add-section=.gnu_debugdata={tmp_path / 'mini.xz'}", str(program))
    found = mini_file(ElfFile(str(program)))
    assert found is not None
    whole = {symbol.name: symbol.address for symbol in read_symbols(ElfFile(str(compiled("-g", "-O1"))))}
    assert {symbol.name: symbol.address for symbol in read_symbols(found)}["compute"] == whole["compute"]
    assert "compute" in {symbol.name for symbol in loaded(program).symbols}
    tool("objcopy", f"--update-section=.gnu_debugdata={mini}", str(program))  # not compressed
    with pytest.raises(FormatError, match="cannot be unpacked"):
        mini_file(ElfFile(str(program)))


def test_what_two_files_have_in_common(tmp_path: Path) -> None:
    """dwz(1) moves types that two files share into a third."""
    if shutil.which("dwz") is None:
        pytest.skip("no dwz")
    paths = [tmp_path / name for name in ("one", "two")]
    shutil.copy(compiled("-g", "-O1"), paths[0])
    shutil.copy(compiled("-g", "-O2"), paths[1])
    subprocess.run(["dwz", "-m", "common", "-M", "common", "one", "two"], cwd=tmp_path, check=True)
    elf = ElfFile(str(paths[0]))
    assert elf.section(".gnu_debugaltlink") is not None and alternate_file(elf) is not None
    made = loaded(paths[0])
    assert made.dwarf is not None
    kind = made.dwarf.variable_type("first")
    assert kind is not None and kind.size == 144
    rec = made.dwarf.find("struct", "rec")
    assert rec is not None and ("struct", "rec") in set(made.dwarf.names())
    assert made.dwarf.starting("struct", "re", 9) == ["rec"]
    (tmp_path / "common").unlink()
    bare = Dwarf(ElfFile(str(paths[0])), lambda: None)
    assert bare.variable_type("first") is None, "its name is in the file that is gone"
    unit = bare.units.units[0]
    with pytest.raises(FormatError, match="gnu_debugaltlink"):
        for die in bare.units.children(unit, bare.units.root(unit)):
            bare._type_of(unit, die)
