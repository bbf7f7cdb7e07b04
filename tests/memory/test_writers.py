"""Images written and read again: every format and codec, partial and unreadable pages, files that appear whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.arch.model import arch_of_elf
from kshell.errors import Fault, FormatError, Reason
from kshell.memory import bitmap
from kshell.memory.elfcore import ElfCore, open_elfcore
from kshell.memory.kdump import Kdump, open_kdump
from kshell.memory.model import Memory, Range
from kshell.memory.notes import Note, iter_notes, pack_notes
from kshell.memory.output import OutputError, OutputFile
from kshell.memory.plan import Plan, make_plan
from kshell.memory.write_elf import write_elf, write_lime, write_raw
from kshell.memory.write_kdump import write_kdump
from tests.memory.held import Held

PAGE = 4096
X86 = arch_of_elf(62, "")
CODECS = ["zlib", "lzo", "snappy", "zstd", "none"]
INFO = b"OSRELEASE=6.1.0\n"


class Ram(Held):
    """Runs of bytes, RAM that is left out, and pages that should be there and cannot be read."""

    def __init__(self, runs: dict[int, bytes], left_out: list[tuple[int, int]], bad: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        super().__init__(runs)
        self.left_out, self.bad = left_out, bad

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        data, fault = super().read_upto(address, size)
        for frame in sorted(self.bad):
            if address <= frame * PAGE + PAGE - 1 and frame * PAGE < address + len(data):
                data = data[: max(frame * PAGE - address, 0)]
                return data, Fault(address + len(data), size, Reason.IO, partial=data, detail="zlib: bad")
        return data, fault

    def ranges(self) -> Iterator[Range]:
        yield from sorted([*super().ranges(), *(Range(a, b, False, Reason.EXCLUDED) for a, b in self.left_out)])


def content(frame: int) -> bytes:
    return bytes(PAGE) if frame % 5 == 2 else (b"%08d" % frame) * 512 if frame % 5 else os.urandom(PAGE)


RUNS = {first * PAGE: b"".join(map(content, range(first, last))) for first, last in ((1, 8), (300, 1000), (1500, 1501))}
LEFT_OUT = [(8 * PAGE, 20 * PAGE), (1000 * PAGE, 1400 * PAGE), (1600 * PAGE, 1700 * PAGE)]


def plan_of(source: Memory) -> Plan:
    plan = make_plan(source, X86)
    plan.notes = [Note("CORE", 1, bytes(336)), Note("QEMU", 0, b"cpu"), Note("VMCOREINFO", 0, INFO)]
    plan.vmcoreinfo, plan.utsname = INFO, b"Linux".ljust(260, b"\0") + b"x86_64"
    return plan


def written(plan: Plan, path: Path, to: str) -> Kdump | ElfCore:
    done: list[int] = []
    with OutputFile(str(path)) as file:
        write_elf(plan, file, done.append) if to == "elf" else write_kdump(plan, file, to, done.append)
    assert sum(done) == bitmap.count(plan.kept)
    return open_elfcore(str(path)) if to == "elf" else open_kdump(str(path))


@pytest.mark.parametrize("to", [*CODECS, "elf"])
def test_what_is_written_reads_as_its_source(tmp_path: Path, to: str) -> None:
    source = Ram(RUNS, LEFT_OUT)
    with written(plan_of(source), tmp_path / "out", to) as image:
        for start, data in RUNS.items():
            assert image.read(start, len(data)) == data
        assert list(image.ranges()) == list(source.ranges())
        assert [(note.name, note.desc) for note in image.notes] == [
            ("CORE", bytes(336)), ("QEMU", b"cpu"), ("VMCOREINFO", INFO)]
        assert image.complete is None
        if isinstance(image, Kdump):
            assert image.vmcoreinfo == INFO
            assert image.arch.name == "x86_64"


def test_pages_of_zeroes_share_one_place(tmp_path: Path) -> None:
    with written(plan_of(Ram({0: bytes(PAGE * 1000)}, [])), tmp_path / "out", "none") as image:
        assert image.read(0, 1000 * PAGE) == bytes(1000 * PAGE)
    assert (tmp_path / "out").stat().st_size < 40 * 1024 + PAGE


def test_raw_and_lime(tmp_path: Path) -> None:
    plan = plan_of(Ram(RUNS, LEFT_OUT))
    with OutputFile(str(tmp_path / "raw")) as file:
        write_raw(plan, file, lambda pages: None)
    with OutputFile(str(tmp_path / "lime")) as file:
        write_lime(plan, file, lambda pages: None)
    raw, lime = (tmp_path / "raw").read_bytes(), (tmp_path / "lime").read_bytes()
    expected = bytearray(1700 * PAGE)
    for start, data in RUNS.items():
        expected[start : start + len(data)] = data
    assert raw == expected
    for start, data in RUNS.items():
        head = b"EMiL\1\0\0\0" + start.to_bytes(8, "little") + (start + len(data) - 1).to_bytes(8, "little") + bytes(8)
        assert lime.startswith(head + data)
        lime = lime[len(head) + len(data) :]
    assert lime == b""


def test_pages_held_in_part_are_filled_up_and_counted(tmp_path: Path) -> None:
    runs = {PAGE: b"a" * (PAGE + 1024), 9 * PAGE + 512: b"b" * (PAGE - 512), 20 * PAGE: b"c" * 100,
            20 * PAGE + 100: b"d" * (PAGE - 100)}
    plan = plan_of(Ram(runs, []))
    assert plan.partial == 2
    with written(plan, tmp_path / "out", "zlib") as image:
        assert image.read(PAGE, 2 * PAGE) == b"a" * (PAGE + 1024) + bytes(PAGE - 1024)
        assert image.read(9 * PAGE, PAGE) == bytes(512) + b"b" * (PAGE - 512)
        assert image.read(20 * PAGE, PAGE) == b"c" * 100 + b"d" * (PAGE - 100)
    assert plan.lost == {}


def test_pages_that_cannot_be_read_are_told() -> None:
    plan = plan_of(Ram(RUNS, [], {303, 304, 999}))
    for _ in plan.pieces():
        pass
    assert sorted(plan.lost) == [303, 304, 999]
    assert "zlib: bad" in plan.lost[303]


def test_a_source_without_memory_or_too_large_is_refused() -> None:
    with pytest.raises(FormatError, match="no physical memory"):
        make_plan(Ram({}, [(0, PAGE)]), X86)
    with pytest.raises(FormatError, match="32 TiB"):
        make_plan(Ram({1 << 50: b"x"}, []), X86)


def test_notes_are_packed_as_they_are_read() -> None:
    notes = [Note("CORE", 1, b"abc"), Note("Q", 7, b"")]
    data, at = pack_notes(notes, INFO)
    assert list(iter_notes(data)) == [*notes, Note("VMCOREINFO", 0, INFO)]
    assert data[at : at + len(INFO)] == INFO


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.booleans()), max_size=12), st.booleans())
def test_a_bitmap_is_a_set(changes: list[tuple[int, int, bool]], sparse: bool) -> None:
    bits, expected = bytearray((bitmap.BLOCK if sparse else 0) + 400), set[int]()
    shift = (bitmap.BLOCK - 200) * 8 if sparse else 0  # over the edge of what is looked at at once
    for start, end, value in changes:
        bitmap.set_range(bits, start + shift, end + shift, value)
        touched = range(start + shift, end + shift)
        expected = expected | set(touched) if value else expected - set(touched)
    assert bitmap.count(bits) == len(expected)
    groups = [[frame for _, frame in group] for _, group in groupby(enumerate(sorted(expected)), lambda p: p[1] - p[0])]
    assert list(bitmap.runs(bits)) == [(group[0], group[-1] + 1) for group in groups]


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with OutputFile(str(path)) as file:
        file.append(b"abc")
        file.write(10, b"x")
        assert not path.exists()
    assert path.read_bytes() == b"abc" + bytes(7) + b"x"
    assert os.listdir(tmp_path) == ["out"]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["", "folder/", "not there/"])
def test_a_name_of_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="names no file"):
        OutputFile(name)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), OutputFile(str(tmp_path / "out")) as file:
        file.append(b"abc")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"), OutputFile(str(tmp_path / "out")) as file:
        monkeypatch.setattr(os, "pwrite", full)
        file.append(b"abc")
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_over_without_force_and_never_the_source(tmp_path: Path) -> None:
    path, link = tmp_path / "out", tmp_path / "link"
    path.write_bytes(b"precious")
    link.symlink_to(path)
    with pytest.raises(OutputError, match="exists"):
        OutputFile(str(path))
    for name in (path, link):
        with pytest.raises(OutputError, match="the source itself"):
            OutputFile(str(name), force=True, source=str(path))
    with pytest.raises(OutputError, match="no regular file"):
        OutputFile(str(tmp_path), force=True)
    with pytest.raises(OutputError, match="cannot be written"):
        OutputFile(str(tmp_path / "none" / "out"))
    with pytest.raises(OutputError, match="by now"), OutputFile(str(tmp_path / "new")) as file:
        file.append(b"mine")
        (tmp_path / "new").write_bytes(b"other")
    assert (tmp_path / "new").read_bytes() == b"other" and path.read_bytes() == b"precious"
    with OutputFile(str(path), force=True) as file:
        file.append(b"new")
    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["link", "new", "out"]
