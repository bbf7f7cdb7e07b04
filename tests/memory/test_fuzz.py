"""Images damaged in every header field and at random: a named error or the rest read, within time and memory.

The longer job is ``scripts/fuzz-images``.
"""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kshell.errors import Fault, OpenError, Reason
from kshell.memory.elfcore import open_elfcore
from kshell.memory.kdump import open_kdump
from kshell.memory.kdumpheader import HEADER, SUB_HEADER
from kshell.memory.pages import DESCRIPTOR
from kshell.target.formats import Options, open_image
from tests.memory import containers
from tests.memory.mutate import FRAMES, IMAGES, PAGE, RUNS, exercise, mutate
from tests.memory.test_kdump_forms import built

SECONDS, BYTES = 3.0, 64 << 20
#: bytes of headers: every one of them is changed
HEADERS = {"elf": (0, 64 + 3 * 56 + 40), "elf32": (0, 52 + 3 * 32 + 40), "kdump": (0, HEADER.size),
           "kdump 3": (PAGE, SUB_HEADER.size), "flattened kdump": (0, 32), "flattened elf": (4096, 16 + 64 + 56),
           "lime": (0, 32), "avml": (0, 32 + 10 + 16), "vmss": (0, 12 + 3 * 80 + 200), "split": (PAGE, SUB_HEADER.size)}


@contextmanager
def bounded() -> Iterator[None]:
    """Hold what is done to bounds of time and memory."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < SECONDS and peak < BYTES


@pytest.mark.parametrize("name", IMAGES)
def test_whole_ones_are_read(tmp_path: Path, name: str) -> None:
    path = IMAGES[name](tmp_path)
    assert exercise(path) == "faults"  # those that are asked for


@pytest.mark.parametrize("name", HEADERS)
def test_every_byte_of_a_header(tmp_path: Path, name: str) -> None:
    path = IMAGES[name](tmp_path)
    data = path.read_bytes()
    first, size = HEADERS[name]
    results: dict[str, int] = {}
    for at in range(first, first + size):
        for value in {0, 0xFF, data[at] ^ 1 << at % 8} - {data[at]}:
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            result = exercise(path)
            results[result] = results.get(result, 0) + 1
    assert sum(results.values()) > size and len(results) > 1


@pytest.mark.parametrize("name", IMAGES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32))
def test_damage_at_random(tmp_path: Path, name: str, seed: int) -> None:
    path = IMAGES[name](tmp_path)
    path.write_bytes(mutate(path.read_bytes(), random.Random(seed)))
    with bounded():
        exercise(path)


# -- what may be wrong with a file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1 << 63, (1 << 64) - 1, 1 << 40, 0])
def test_a_dump_that_says_it_has_2_63_pages(tmp_path: Path, frames: int) -> None:
    data = bytearray(built(FRAMES))
    struct.pack_into("<Q", data, PAGE + SUB_HEADER.size - 8, frames)
    struct.pack_into("<I", data, HEADER.size - 20, 0)  # max_mapnr of the header, for 0
    path = tmp_path / "dump"
    path.write_bytes(data)
    with bounded(), pytest.raises(OpenError, match="impossible bitmaps at 0x2000"):
        open_kdump(str(path))


def test_bitmaps_that_a_file_of_holes_has(tmp_path: Path) -> None:
    """4 GiB of bitmaps, all holes: nothing is allocated on faith, and nothing is there."""
    data = bytearray(built(FRAMES))
    struct.pack_into("<I", data, 436, (4 << 30) // PAGE)
    struct.pack_into("<Q", data, PAGE + SUB_HEADER.size - 8, 1 << 34)
    path = tmp_path / "dump"
    path.write_bytes(data)
    os.truncate(path, 5 << 30)
    tracemalloc.start()
    try:
        with open_kdump(str(path)) as dump:
            assert dump.frames == 1 << 34
            assert dump.read_upto(0x1000, 8)[0] in (b"", (1).to_bytes(8, "little"))
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("row, why", [
    ((1 << 62, PAGE, 0), "past the end of the file"), ((-1, PAGE, 0), "past the end"), ((0, PAGE, 0), "ran out of"),
    ((PAGE, 1 << 31, 0), "impossible size"), ((PAGE, 0, 0), "impossible size"), ((2 * PAGE, 500, 1), "zlib"),
    ((PAGE, 100, 4), "snappy"), ((PAGE, 100, 0x20), "zstd"), ((PAGE, 100, 2), "lzo"), ((PAGE, 100, 5), "unknown way"),
    ((PAGE, 100, 0), "not compressed"),
])
def test_descriptors_that_point_anywhere(tmp_path: Path, row: tuple[int, int, int], why: str) -> None:
    data = bytearray(built(FRAMES))
    table = 2 * PAGE + 2 * PAGE
    struct.pack_into("<qIIQ", data, table + DESCRIPTOR.size, *row, 0)
    path = tmp_path / "dump"
    path.write_bytes(data)
    with open_kdump(str(path)) as dump:
        with pytest.raises(Fault, match=why) as caught:
            dump.read(0x2000, 8)
        assert caught.value.reason in (Reason.IO, Reason.TRUNCATED)
        assert dump.read(0x1000, 8) == (1).to_bytes(8, "little")  # its neighbours are read
        assert dump.read(0x3000, 8) == (3).to_bytes(8, "little")
        got, fault = dump.read_upto(0x1000, 3 * PAGE)
        assert len(got) == PAGE and fault is not None and fault.address == 0x2000


def test_descriptors_that_share_a_place_are_read_each(tmp_path: Path) -> None:
    data = bytearray(built(FRAMES))
    table = 4 * PAGE
    data[table + 24 : table + 48] = data[table : table + 24]
    path = tmp_path / "dump"
    path.write_bytes(data)
    with open_kdump(str(path)) as dump:
        assert dump.read(0x2000, 8) == dump.read(0x1000, 8) == (1).to_bytes(8, "little")


@pytest.mark.parametrize("name", IMAGES)
def test_short_reads_of_a_network_file_system(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = IMAGES[name](tmp_path)
    image, _ = open_image(str(path), "r", Options())
    with image:
        whole = [image.read(start, len(data)) for start, data in RUNS]
    pread, preadv, read = os.pread, os.preadv, os.read
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 777), at))
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: preadv(fd, [views[0][:777]], at))
    monkeypatch.setattr(os, "read", lambda fd, size: read(fd, min(size, 777)))
    image, _ = open_image(str(path), "r", Options())
    with image:
        assert [image.read(start, len(data)) for start, data in RUNS] == whole
        assert image.complete is None
        wanted = [RUNS[0][0] + at for at in range(0, 3 * PAGE, 5)]
        rows = image.gather(wanted, 1500)
        assert rows.ok.all()
        assert all(bytes(row) == whole[0][at - 0x1000 :][:1500] for row, at in zip(rows.data, wanted, strict=True))


def test_a_file_that_grows_or_shrinks_is_told_before_it_is_mixed(tmp_path: Path) -> None:
    whole = IMAGES["elf"](tmp_path).read_bytes()
    path = tmp_path / "image"
    path.write_bytes(whole[:-5000])
    with open_elfcore(str(path)) as image:
        assert "5000 bytes" in str(image.complete)
        with path.open("ab") as file:
            file.write(whole[-5000:])
        image.check()  # a dump that is still being copied: what was there is there
        assert image.read(0x1000, PAGE) == RUNS[0][1][:PAGE]
        with pytest.raises(Fault, match="ends early"):
            image.read(0x20_0000, len(RUNS[1][1]))
    with open_elfcore(str(path)) as image:
        os.truncate(path, 100)
        with pytest.raises(Exception, match="became shorter"):
            image.check()
    path.write_bytes(built(FRAMES))
    with open_kdump(str(path)) as dump:
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(Exception, match="written to since it was opened"):
            dump.check()


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = IMAGES["kdump"](tmp_path)

    def denied(*arguments: object, **words: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(OpenError, match="permission denied") as caught:
        open_image(str(path), "r", Options())
    assert caught.value.kind == "permission" and caught.value.hint


def test_an_image_of_nothing_but_its_magic(tmp_path: Path) -> None:
    path = tmp_path / "image"
    vmware = struct.pack("<I", 0xBED2BED2)
    for start in (b"\x7fELF", b"KDUMP   ", b"DISKDUMP", b"makedumpfile\0", b"EMiL", b"AVML", vmware):
        for fill in (b"", b"\0", b"\xff"):
            path.write_bytes(start + fill * 8000)
            with pytest.raises(OpenError):
                open_image(str(path), "r", Options())


def test_avml_that_says_more_than_it_has(tmp_path: Path) -> None:
    data = bytearray(containers.avml(RUNS))
    struct.pack_into("<Q", data, 16, (1 << 40) - 1)
    path = tmp_path / "image"
    path.write_bytes(data)
    with bounded():
        image, _ = open_image(str(path), "r", Options())
        with image:
            assert image.read(0x1000, len(RUNS[0][1])) == RUNS[0][1]
            assert image.complete is not None
            with pytest.raises(Fault):
                image.read(1 << 30, 8)
