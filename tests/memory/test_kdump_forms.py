"""kdump-compressed dumps of every header version, of a machine of terabytes, split, and not finished."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kshell.errors import Fault, OpenError, Reason
from kshell.linux.tasks import iter_processes
from kshell.memory.filebitmap import BLOCK, FileBitmap, iter_states
from kshell.memory.kdump import open_kdump
from kshell.memory.kdumpheader import HEADER, SUB_HEADER
from kshell.memory.pages import DESCRIPTOR
from kshell.memory.source import Source
from kshell.target.open import open_target
from tests.guest.image import GuestImage
from tests.guest.libraries import host_command
from tests.guest.packages import bundle
from tests.memory.cores import note
from tests.memory.test_pages import Bytes

PAGE = 4096


def names(machine: bytes = b"x86_64") -> bytes:
    return b"Linux".ljust(260, b"\0") + machine.ljust(130, b"\0")

INFO = b"OSRELEASE=6.1.0\nCRASHTIME=5\n"
GARBAGE = 0x0BAD_0BAD_0BAD


def page(frame: int) -> bytes:
    return struct.pack("<Q", frame) * (PAGE // 8)


def built(
    frames: set[int], *, version: int = 6, count: int = 4096, split: tuple[int, int] | None = None, info: bytes = INFO,
    status: int = 0, lost: int = 0, existing: set[int] | None = None, machine: bytes = b"x86_64", prstatus: int = 336,
    one_bitmap: bool = False,
) -> bytes:
    """Return a dump whose sub-header has garbage in what *version* does not know; *lost* pages at its end."""
    bitmaps = [bytearray(-(-count // 8 // PAGE) * PAGE) for _ in range(1 if one_bitmap else 2)]
    for bitmap, which in zip(reversed(bitmaps), (frames, existing or frames), strict=False):
        for frame in which:
            bitmap[frame >> 3] |= 1 << (frame & 7)
    notes = note("CORE", 1, bytes(prstatus))
    erased = b"erase init_task.comm 16\n"
    first, last = split or (0, 0)
    known = [(0, "phys_base", 0x1000), (1, "level", 31), (2, "split", int(split is not None)),
             (2, "start", min(first, 0xFFFF_FFFF)), (2, "end", min(last, 0xFFFF_FFFF)),
             (3, "info", PAGE + 512), (3, "info size", len(info)), (4, "notes", PAGE + 1024), (4, "", len(notes)),
             (5, "erase", PAGE + 2048), (5, "", len(erased)), (6, "", first), (6, "", last), (6, "", count)]
    values = [value if version >= since else GARBAGE & 0xFFFF if number < 5 else GARBAGE
              for number, (since, _, value) in enumerate(known)]
    sub = bytearray(SUB_HEADER.pack(*values).ljust(PAGE, b"\0"))
    for at, data in ((512, info), (1024, notes), (2048, erased)):
        sub[at : at + len(data)] = data
    head = HEADER.pack(b"KDUMP   ", version, names(machine), b"the time".ljust(16), status, PAGE, 1,
                       len(bitmaps) * len(bitmaps[0]) // PAGE, count if version < 6 else 0, 0, 0, 0, 0)
    here = [frame for frame in sorted(frames) if split is None or first <= frame < last]
    start = 2 * PAGE + len(bitmaps) * len(bitmaps[0]) + len(here) * DESCRIPTOR.size
    rows = [DESCRIPTOR.pack(start + number * PAGE, PAGE, 0, 0) if number < len(here) - lost else bytes(24)
            for number in range(len(here))]
    data = b"".join(page(frame) for frame in here[: len(here) - lost])
    return b"".join([head.ljust(PAGE, b"\0"), bytes(sub), *map(bytes, bitmaps), *rows, data])


FRAMES = {1, 2, 3, 9, 700, 4095}


@pytest.mark.parametrize("version", range(1, 7))
def test_every_header_version(tmp_path: Path, version: int) -> None:
    path = tmp_path / "dump"
    path.write_bytes(built(FRAMES, version=version, existing=FRAMES | {10}))
    with open_kdump(str(path)) as dump:
        assert all(dump.read(frame * PAGE, PAGE) == page(frame) for frame in FRAMES)
        assert dump.version == version and dump.complete is None
        assert dump.level == 31 and "page cache" in dump.facts()["dump level"]
        assert dump.vmcoreinfo == (INFO if version >= 3 else None)
        assert len(dump.notes) == (version >= 4)
        assert ("erased" in dump.facts()) == (version >= 5)
        with pytest.raises(Fault, match="excluded"):
            dump.read(10 * PAGE, 1)


@pytest.mark.parametrize("info, prstatus, how", [
    (b"OSRELEASE=6.1\nNUMBER(phys_base)=0\n", 100, "told by VMCOREINFO; the header has Unknown"),
    (b"OSRELEASE=6.1\nX=NUMBER(kimage_voffset)=\n", 336, "told by the size of the CPUs' notes; the header has Unknown"),
])
def test_a_machine_without_a_name_is_told_by_what_else_is_there(
    tmp_path: Path, info: bytes, prstatus: int, how: str,
) -> None:
    """QEMU 10's header says ``Unknown``."""
    path = tmp_path / "dump"
    path.write_bytes(built(FRAMES, machine=b"Unknown", info=info, prstatus=prstatus))
    with open_kdump(str(path)) as dump:
        assert dump.arch.name == "x86_64"
        assert dump.facts()["architecture"] == f"x86_64, {how}"
        assert dump.read(700 * PAGE, 8) == page(700)[:8]
    path.write_bytes(built(FRAMES))
    with open_kdump(str(path)) as dump:
        assert "architecture" not in dump.facts()


@pytest.mark.parametrize("info, prstatus, error", [
    (INFO, 100, r"calls the machine Unknown \(at 0x110\), and neither VMCOREINFO nor notes of registers tell"),
    (b"NUMBER(kimage_voffset)=0x123\n", 336, "aarch64: this architecture is not supported yet"),
    (INFO, 376, "riscv: this architecture is not supported yet"),
])
def test_a_machine_without_a_name_that_is_not_read(tmp_path: Path, info: bytes, prstatus: int, error: str) -> None:
    path = tmp_path / "dump"
    path.write_bytes(built(FRAMES, machine=b"Unknown", info=info, prstatus=prstatus))
    with pytest.raises(OpenError, match=error):
        open_kdump(str(path))


@pytest.mark.parametrize("count", [4096, 32768, 40000])
def test_one_bitmap_is_that_of_the_pages_held(tmp_path: Path, count: int) -> None:
    """As diskdump wrote it; libkdumpfile and crash read it so."""
    path = tmp_path / "dump"
    frames = {3, 5, count // 2 + 1, count - 1}
    path.write_bytes(built(frames, count=count, one_bitmap=True))
    with open_kdump(str(path)) as dump:
        assert [(r.start >> 12, r.end >> 12) for r in dump.ranges() if r.held] == [(f, f + 1) for f in sorted(frames)]
        assert all(dump.read(frame << 12, PAGE) == page(frame) for frame in frames)
        with pytest.raises(Fault) as caught:
            dump.read(4 << 12, 1)
        assert caught.value.reason is Reason.OUTSIDE


def test_a_bitmap_in_a_file_counts_as_a_set_does() -> None:
    import random

    chance = random.Random(4)
    frames = BLOCK * 8 * 2 + 1234
    chosen = {chance.randrange(frames) for _ in range(5000)} | set(range(5000, 9000)) | {frames - 1}
    data = bytearray(-(-frames // 8))
    for frame in chosen:
        data[frame >> 3] |= 1 << (frame & 7)
    data[-1] |= 0xF0  # bits behind the last frame
    source: Source = Bytes(b"before" + bytes(data))
    bitmap = FileBitmap(source, 6, frames)
    order = sorted(chosen)
    for frame in [*chance.sample(range(frames), 500), 0, 1, 4096, frames - 1]:
        assert bitmap.bit(frame) == (frame in chosen)
        before = sum(one < frame for one in order)
        assert bitmap.rank(frame) == before
        assert bitmap.number(frame) == (before if frame in order else None)
        want = next(n for n in range(6000) if frame + n not in chosen)
        assert bitmap.run(frame, 10_000) == want
    assert bitmap.count() == len(chosen)
    assert bitmap.run(5000, 77) == 77
    runs = [(start, end) for start, end, held in iter_states(bitmap, bitmap) if held]
    assert {frame for start, end in runs for frame in range(start, end)} == chosen


TERA = r"""
import re, sys, time
from kshell.memory.kdump import open_kdump
start = time.monotonic()
with open_kdump(sys.argv[1]) as dump:
    told = dump.describe()
    frames = dump.frames
    for frame in (0, 5, frames // 2 + 3, frames - 1):
        assert dump.read(frame << 12, 8) == frame.to_bytes(8, "little"), frame
    assert sum(r.end - r.start for r in dump.ranges()) == frames << 12
print(time.monotonic() - start, int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) >> 10, told)
"""


def test_a_machine_of_terabytes(tmp_path: Path) -> None:
    """All pages of 2 TiB exist and are held; their table and bytes are holes of the file but for four pages."""
    frames = 2 << 28
    path = tmp_path / "dump"
    bitmap = frames // 8
    table = 2 * PAGE + 2 * bitmap
    body = table + frames * DESCRIPTOR.size
    with path.open("wb") as file:
        file.write(HEADER.pack(b"KDUMP   ", 6, names(), bytes(16), 0, PAGE, 1, 2 * bitmap // PAGE, 0xFFFF_FFFF,
                               0, 0, 0, 0).ljust(PAGE, b"\0"))
        file.write(SUB_HEADER.pack(*[0] * 13, frames).ljust(PAGE, b"\0"))
        file.write(b"\xff" * bitmap)
        file.write(b"\xff" * bitmap)
        for number, frame in enumerate((0, 5, frames // 2 + 3, frames - 1)):
            file.seek(table + frame * DESCRIPTOR.size)
            file.write(DESCRIPTOR.pack(body + number * PAGE, PAGE, 0, 0))
            file.seek(body + number * PAGE)
            file.write(page(frame))
    done = subprocess.run([sys.executable, "-c", TERA, str(path)], capture_output=True, text=True, check=True)
    seconds, peak, told = done.stdout.split(" ", 2)
    assert "2097152 MiB of RAM, 2097152 MiB of it held" in told
    assert float(seconds) < 5 and int(peak) < 150


# -- split -------------------------------------------------------------------------------------------------------------

PIECES = ((0, 3), (3, 701), (701, 4096))


def parts(folder: Path, **changes: bytes) -> list[Path]:
    paths = []
    for number, piece in enumerate(PIECES):
        paths.append(folder / f"part.{number}")
        paths[-1].write_bytes(built(FRAMES, split=piece, info=changes.get("info", INFO)))
    return paths


@pytest.mark.parametrize("number", range(3))
def test_a_split_dump_is_opened_by_any_part(tmp_path: Path, number: int) -> None:
    (tmp_path / "other").write_bytes(built(FRAMES, split=(0, 4096), info=INFO + b"x=1\n"))
    with open_kdump(str(parts(tmp_path)[number])) as dump:
        assert all(dump.read(frame * PAGE, PAGE) == page(frame) for frame in FRAMES)
        assert dump.read(2 * PAGE, 2 * PAGE) == page(2) + page(3)  # of two parts
        assert dump.complete is None and "3 parts" in dump.describe()
        assert sum(r.end - r.start for r in dump.ranges() if r.held) == len(FRAMES) * PAGE
        assert dump.gather([frame * PAGE for frame in FRAMES] * 4, 8).ok.all()


def test_parts_are_found_among_odd_neighbours(tmp_path: Path) -> None:
    paths = parts(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "copy").write_bytes(paths[0].read_bytes())
    with open_kdump(str(paths[0])) as dump:
        assert dump.complete is None and f"{len(paths)} parts" in dump.describe()
    with pytest.raises(OpenError, match="it has the same pages"):
        open_kdump(str(paths[0]), parts=[str(tmp_path / "copy")])


def test_a_split_dump_is_opened_by_a_list(tmp_path: Path) -> None:
    one, two, three = parts(tmp_path)
    (tmp_path / "else").mkdir()
    moved = [path.rename(tmp_path / "else" / path.name) for path in (two, three)]
    with open_kdump(str(one), parts=[str(path) for path in moved]) as dump:
        assert all(dump.read(frame * PAGE, PAGE) == page(frame) for frame in FRAMES)


def test_of_a_missing_part_that_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    _, two, three = parts(tmp_path)
    two.unlink()
    with open_kdump(str(three)) as dump:
        assert re.search(r"no part .* frames 0x3 to 0x2bd was found \(3 pages\)", dump.complete or "")
        assert dump.read(2 * PAGE, PAGE) == page(2) and dump.read(4095 * PAGE, PAGE) == page(4095)
        with pytest.raises(Fault, match="in a part of the dump that is not here") as caught:
            dump.read(2 * PAGE, 2 * PAGE)
        assert (caught.value.reason, caught.value.done) == (Reason.ELSEWHERE, PAGE)
        lacking = {r.start >> 12 for r in dump.ranges() if r.reason is Reason.ELSEWHERE}
        assert lacking == {3, 9, 700}


def test_parts_of_different_dumps_are_refused(tmp_path: Path) -> None:
    one, two, _ = parts(tmp_path)
    two.write_bytes(built(FRAMES, split=PIECES[1], info=INFO.replace(b"=5", b"=6")))
    with pytest.raises(OpenError, match=r"part\.1: not a part of the same .*: its VMCOREINFO is another"):
        open_kdump(str(one), parts=[str(two)])
    (tmp_path / "whole").write_bytes(built(FRAMES))
    with pytest.raises(OpenError, match="it is not a part of a split dump"):
        open_kdump(str(one), parts=[str(tmp_path / "whole")])
    with pytest.raises(OpenError, match="is not a part of a split dump"):
        open_kdump(str(tmp_path / "whole"), parts=[str(one)])
    with pytest.raises(OpenError, match="cannot be opened"):
        open_kdump(str(one), parts=[str(tmp_path / "nothing")])


def test_makedumpfiles_own_split_set(tmp_path: Path, guest_kdump: GuestImage) -> None:
    program = host_command("makedumpfile", bundle("makedumpfile"))
    names = [str(tmp_path / name) for name in "abc"]
    subprocess.run([*program, "-l", "-d", "31", "--splitblock-size", "64", "--split", str(guest_kdump.vmcore), *names],
                   check=True, capture_output=True)
    with open_kdump(str(guest_kdump.folder / "makedumpfile.lzo")) as whole, open_kdump(names[1]) as dump:
        assert list(whole.ranges()) == list(dump.ranges())
        for run in whole.ranges():
            if run.held:
                assert whole.read(run.start, run.end - run.start) == dump.read(run.start, run.end - run.start)
    with open_target(str(guest_kdump.vmcore)) as target, open_target(names[2]) as split:
        assert list(iter_processes(target)) == list(iter_processes(split))
        assert split.findings["parts"].count("frames 0x") == 3


# -- not finished ------------------------------------------------------------------------------------------------------


def test_what_makedumpfile_could_not_write_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    frames = set(range(1000, 3000))
    path.write_bytes(built(frames, status=1 | 8, lost=500))
    with open_kdump(str(path)) as dump:
        assert "makedumpfile could not write all of it" in str(dump.complete)
        assert "500 of 2000 pages are missing" in str(dump.complete)
        assert dump.read(2499 * PAGE, PAGE) == page(2499)
        with pytest.raises(Fault, match="ran out of room") as caught:
            dump.read(2500 * PAGE, 1)
        assert caught.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize("lost", [1, 7, 63, 64, 65, 1999])
def test_a_file_that_was_cut_is_told(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "dump"
    frames = set(range(1000, 3000))
    path.write_bytes(built(frames)[: -lost * PAGE])
    with open_kdump(str(path)) as dump:
        assert f"the file ends early: about {lost} of 2000 pages" in str(dump.complete)
    path.write_bytes(built(frames)[: 4 * PAGE + 24 * 100])
    with open_kdump(str(path)) as dump:
        assert "2000 of 2000 pages" in str(dump.complete)


@pytest.mark.parametrize("field, size, what", [("info", 1 << 62, "impossible"), ("info", 5000_000, "past the end")])
def test_a_part_of_the_header_that_cannot_be_had_costs_that_part(
    tmp_path: Path, field: str, size: int, what: str
) -> None:
    data = bytearray(built(FRAMES))
    struct.pack_into("<Q", data, PAGE + 40, size)
    path = tmp_path / "dump"
    path.write_bytes(data)
    with open_kdump(str(path)) as dump:
        assert "VMCOREINFO" in str(dump.complete) and what in str(dump.complete)
        assert dump.read(PAGE, PAGE) == page(1)
