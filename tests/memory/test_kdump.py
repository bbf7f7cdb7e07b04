"""kdump-compressed and flattened dumps: makedumpfile's and QEMU's beside the same memory as ELF; and built ones."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest

from kshell.errors import Fault, FormatError, KshellError, OpenError, Reason
from kshell.linux.tasks import iter_processes
from kshell.memory.codecs import CODECS, batch_decoder_of, decode_slowly, decoder_of, encoder_of
from kshell.memory.kdump import HEADER, SUB_HEADER, open_kdump
from kshell.memory.source import FileSource, FlattenedSource
from kshell.target.open import open_target
from tests.guest.image import GuestImage

PAGE = 4096
FRAMES = 1024


def page(frame: int) -> bytes:
    return bytes((frame * 7 + i) & 255 for i in range(PAGE))


def built(held: dict[int, int], existing: set[int], **changes: int) -> bytes:
    """Return a dump of FRAMES frames; *held* maps a frame to its codec."""
    codecs = {0: lambda d: d, 1: zlib.compress}
    bitmap = [bytearray(PAGE), bytearray(PAGE)]
    for number, frames in ((0, existing), (1, set(held))):
        for frame in frames:
            bitmap[number][frame >> 3] |= 1 << (frame & 7)
    header = HEADER.pack(
        b"KDUMP   ", changes.get("version", 6), b"Linux".ljust(260, b"\0") + b"x86_64".ljust(130, b"\0"), b"" * 16, 0,
        changes.get("block", PAGE), 1, changes.get("bitmaps", 2), FRAMES, 0, 0, 0, 0)
    sub = struct.pack("<Qii10Q", 0, 31, changes.get("split", 0), *[0] * 9, FRAMES)
    start = PAGE * 4 + 24 * len(held)
    descriptors, data = b"", b""
    for frame in sorted(held):
        made = codecs[held[frame]](page(frame))
        descriptors += struct.pack("<qIIQ", start + len(data), len(made), held[frame], 0)
        data += made
    return header.ljust(PAGE, b"\0") + sub.ljust(PAGE, b"\0") + bitmap[0] + bitmap[1] + descriptors + data


def flattened(data: bytes, step: int = 1000, end: bool = True, order: int | None = None) -> bytes:
    records = [(at, data[at : at + step]) for at in range(0, len(data), step)]
    if order is not None:
        random.Random(order).shuffle(records)
    out = b"makedumpfile\0\0\0\0" + struct.pack(">qq", 1, 1)
    out = out.ljust(4096, b"\0")
    for at, piece in records:
        out += struct.pack(">qq", at, len(piece)) + piece
    return out + (struct.pack(">qq", -1, -1) if end else b"")


HELD = {3: 1, 4: 0, 600: 1, 1023: 0}
EXISTING = {*HELD, 5, 700}


def test_the_header_is_as_long_as_the_kernels() -> None:
    assert HEADER.size == 460  # up to nr_cpus
    assert SUB_HEADER.size >= 96


def test_pages_and_their_absence(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(built(HELD, EXISTING))
    with open_kdump(str(path)) as dump:
        for frame in HELD:
            assert dump.read(frame * PAGE, PAGE) == page(frame)
        assert dump.read(4 * PAGE - 8, 16) == page(3)[-8:] + page(4)[:8]
        data, fault = dump.read_upto(5 * PAGE - 4, 8)
        assert (data, fault and fault.reason, fault and fault.address) == (page(4)[-4:], Reason.EXCLUDED, 5 * PAGE)
        with pytest.raises(Fault) as caught:
            dump.read(6 * PAGE, 1)
        assert caught.value.reason is Reason.OUTSIDE
        with pytest.raises(Fault):
            dump.read(FRAMES * PAGE, 1)
        assert [(r.start // PAGE, r.held) for r in dump.ranges()] == [
            (3, True), (5, False), (600, True), (700, False), (1023, True)]


@pytest.mark.parametrize("step", [7, 1000, 100_000])
@pytest.mark.parametrize("order", [None, 1])
def test_flattened_answers_the_same(tmp_path: Path, step: int, order: int | None) -> None:
    path = tmp_path / "flat"
    path.write_bytes(flattened(built(HELD, EXISTING), step, order=order))
    with open_kdump(str(path)) as dump:
        assert all(dump.read(frame * PAGE, PAGE) == page(frame) for frame in HELD)
        assert dump.complete is None


def test_a_later_record_writes_over_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "flat"
    records = [(0, b"aaaaaaaa"), (2, b"bb"), (6, b"cccc"), (12, b"d")]
    data = b"".join(struct.pack(">qq", at, len(text)) + text for at, text in records)
    path.write_bytes(flattened(b"")[:4096] + data + struct.pack(">qq", -1, -1))
    with path.open("rb") as file:
        source = FlattenedSource(FileSource(str(path), file.fileno()))
        assert source.pread(100, 0) == b"aabbaacccc\0\0d"
        assert source.pread(3, 5) == b"acc"


@pytest.mark.parametrize("change", [{"version": 7}, {"block": 512}, {"bitmaps": 0}, {"bitmaps": 1 << 30}])
def test_headers_that_cannot_be(tmp_path: Path, change: dict[str, int]) -> None:
    path = tmp_path / "dump"
    path.write_bytes(built(HELD, EXISTING, **change))
    with pytest.raises(OpenError):
        open_kdump(str(path))


def test_cut_anywhere_it_is_an_error_or_a_fault(tmp_path: Path) -> None:
    whole = built(HELD, EXISTING)
    path = tmp_path / "dump"
    for size in [*range(0, len(whole), 997), len(whole) - 1]:
        for data in (whole[:size], flattened(whole)[:size]):
            path.write_bytes(data)
            try:
                with open_kdump(str(path)) as dump:
                    for frame in HELD:
                        got, fault = dump.read_upto(frame * PAGE, PAGE)
                        assert (got == page(frame)) == (fault is None)
                        assert fault is None or fault.reason is not Reason.NOT_MAPPED
            except KshellError:
                continue


def test_damaged_pages_are_told(tmp_path: Path) -> None:
    data = bytearray(built({3: 1}, {3}))
    data[-5] ^= 0xFF
    path = tmp_path / "dump"
    path.write_bytes(data)
    with open_kdump(str(path)) as dump, pytest.raises(Fault, match="zlib"):
        dump.read(3 * PAGE, 8)


def test_it_is_not_opened_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(built(HELD, EXISTING))
    with pytest.raises(OpenError, match="written in place") as caught:
        open_kdump(str(path), "r+")
    assert "--cow" in str(caught.value.hint)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_gives_a_page_and_never_more(codec: int) -> None:
    packed = encoder_of(codec)(page(1))
    assert decoder_of(codec)(packed, PAGE) == page(1)
    out = memoryview(bytearray(3 * PAGE))
    decode_slowly(codec, decoder_of(codec), packed, out[:PAGE])
    assert out[:PAGE] == page(1)
    batch = batch_decoder_of(codec)
    batch([packed, encoder_of(codec)(page(2)), packed], out)
    assert out == page(1) + page(2) + page(1)
    bomb = encoder_of(codec)(bytes(64 << 20))[:PAGE]
    for wrong in (encoder_of(codec)(bytes(PAGE * 3)), encoder_of(codec)(bytes(PAGE - 1)), bomb, b"", packed[:-9]):
        with pytest.raises(Exception):  # noqa: B017 - each library has errors of its own
            decode_slowly(codec, decoder_of(codec), wrong, out[:PAGE])
        with pytest.raises(Exception):  # noqa: B017
            batch([packed, wrong, packed], out)


def test_an_unknown_codec_is_told() -> None:
    with pytest.raises(FormatError, match="unknown"):
        decoder_of(3)


def test_every_makedumpfile_format_is_the_same_kernel(guest_kdump: GuestImage) -> None:
    with open_target(str(guest_kdump.vmcore)) as target:
        expected = list(iter_processes(target))
        banner = target.symbol("linux_banner").address
        text = target.kernel.read(target.symbol("_stext").address, 1 << 20)
        version = target.kernel.read(banner, 64)
    assert len(expected) > 50
    for path in guest_kdump.kdumps():
        with open_target(str(path)) as target:
            assert list(iter_processes(target)) == expected, path
            assert target.kernel.read(banner, 64) == version
            assert target.kernel.read(target.symbol("_stext").address, 1 << 20) == text
            assert "dump level" in target.findings["image"]


def test_pages_that_makedumpfile_left_out_are_excluded(guest_kdump: GuestImage) -> None:
    path = guest_kdump.folder / "makedumpfile.zlib"
    with open_target(str(guest_kdump.vmcore)) as whole, open_target(str(path)) as target:
        reasons: dict[Reason, int] = {}
        for frame in random.Random(1).sample(range(767 << 8), 2000):
            data, fault = target.physical.read_upto(frame * PAGE, PAGE)
            if fault is None:
                assert data == whole.physical.read(frame * PAGE, PAGE)
            else:
                reasons[fault.reason] = reasons.get(fault.reason, 0) + 1
        assert reasons[Reason.EXCLUDED] > 1000


def test_qemus_kdump_is_the_same_memory(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf)) as elf, open_target(str(guest_61.kdump_flat)) as kdump:
        assert list(iter_processes(elf)) == list(iter_processes(kdump))
        for frame in random.Random(2).sample(range(256 << 8), 1000):
            one, fault = elf.physical.read_upto(frame * PAGE, PAGE)
            other, absent = kdump.physical.read_upto(frame * PAGE, PAGE)
            assert (fault is None, one) == (absent is None, other)
