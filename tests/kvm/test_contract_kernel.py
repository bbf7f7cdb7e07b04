"""libkvm.md section 8, items 21 to 45: reading and writing kernel memory."""

from __future__ import annotations

import array
import ctypes
import errno
import hashlib
import os
import random
import shutil
import struct
from pathlib import Path

import pytest

from kshell import kvm
from kshell.kvm import KAS, FaultError, Kvm, ReadOnlyError, kvm_geterr, kvm_kread, kvm_kwrite, kvm_open, kvm_read
from tests.guest.image import GuestImage
from tests.kvm.fixture_m import KERNEL_FRAMES, NO_FRAME_PAGE, ZERO_PAGE, Image, K, open_m, pattern
from tests.kvm.labs import Lab

pytest_plugins = ["tests.guest.fixtures"]
P = 4096
FILLER = 0xA5


def test_item_21_a_read(kd: Kvm, lab: Lab) -> None:
    b = bytearray(64)
    assert kvm_kread(kd, lab.k, b, 16) == 16
    assert b[:16] == lab.kernel(0, 16)
    assert b[16:] == bytes(48)


def test_item_22_across_a_page(kd: Kvm, lab: Lab) -> None:
    b = bytearray(16)
    assert kvm_kread(kd, lab.k + P - 8, b, 16) == 16
    assert b == lab.kernel(P - 8, 16)


def test_item_23_three_pages(kd: Kvm, lab: Lab) -> None:
    b = bytearray(3 * P)
    assert kvm_kread(kd, lab.k, b, 3 * P) == 3 * P
    assert b == lab.kernel(0, 3 * P)


def test_item_24_cut_at_the_hole(kd: Kvm, lab: Lab) -> None:
    b = bytearray([FILLER] * 16)
    assert kvm_kread(kd, lab.k + 3 * P - 8, b, 16) == 8
    assert b[:8] == lab.kernel(3 * P - 8, 8)
    assert b[8:] == bytes([FILLER] * 8)


def test_item_25_starts_in_the_hole(kd: Kvm, lab: Lab) -> None:
    b = bytearray([FILLER] * 4)
    assert kvm_kread(kd, lab.k + 3 * P, b, 1) == -1
    assert b == bytes([FILLER] * 4)
    assert kd.errno == errno.EFAULT


def test_item_26_stops_at_the_hole(kd: Kvm, lab: Lab) -> None:
    b = bytearray([FILLER] * 2 * P)
    assert kvm_kread(kd, lab.k + 3 * P - 1, b, 2 * P) == 1
    assert b[1:] == bytes([FILLER]) * (2 * P - 1)


def test_item_27_nothing_asked(kd: Kvm, lab: Lab) -> None:
    b = bytearray(4)
    assert kvm_kread(kd, lab.k + 3 * P, b, 0) == 0
    assert kvm_kread(kd, 0, b, 0) == 0
    assert kvm_kread(kd, lab.k + 3 * P, bytearray()) == 0
    assert kvm_kread(kd, 0, None, 0) == 0
    assert kd.errno == 0


def expected(address: int, size: int) -> int:
    """Return what a read on M must return."""
    count = 0
    while count < size:
        page = (address + count - K) // P
        if page not in (0, 1, 2, 4):
            break
        count = min(size, count + P - (address + count) % P)
    return count or -1


def test_item_28_every_address() -> None:
    buffers = {n: bytearray(n) for n in (1, 2, P, P + 1)}
    with open_m() as kd:
        for address in range(K - 1, K + 5 * P + 1):
            for n, b in buffers.items():
                if n >= P and (address - K) % P not in (0, 1, 2, P // 2, P - 2, P - 1):
                    continue            # the long ones where something changes, to stay quick
                assert kvm_kread(kd, address, b, n) == expected(address, n), hex(address)


def test_item_29_the_top_of_the_space(kd: Kvm) -> None:
    b = bytearray(8)
    assert kvm_kread(kd, 2**64 - 4, b, 8) in (-1, 1, 2, 3, 4)
    assert kvm_kread(kd, 2**64 - 1, b, 8) in (-1, 1)


def test_item_29_no_wrap_where_the_top_is_mapped() -> None:
    image = Image()
    image.kernel.add(2**52 - 1, 0x12)       # the last page of the space
    image.kernel.add(0, 0x10)               # and the first
    with open_m("r+", image) as kd:
        b = bytearray(8)
        assert kvm_kread(kd, 2**64 - 4, b, 8) == 4
        assert kvm_kwrite(kd, 2**64 - 4, b"12345678") == 4
        with pytest.raises(FaultError) as caught:
            kd.kread(2**64 - 4, 8)
        assert (caught.value.moved, caught.value.requested, caught.value.address) == (4, 8, 2**64)
        assert caught.value.partial == b"1234"


@pytest.mark.parametrize("address, nbytes", [(0, 9), (0, -1), (-1, 8), (2**64, 8)])
def test_item_30_numbers_out_of_range(address: int, nbytes: int) -> None:
    with open_m("r+") as kd:
        with pytest.raises(ValueError, match=r"."):
            kvm_kread(kd, address, bytearray(8), nbytes)
        with pytest.raises(ValueError, match=r"."):
            kvm_kwrite(kd, address, bytearray(8), nbytes)


@pytest.mark.parametrize("buffer", [b"12345678", memoryview(b"12345678"), "12345678", 8, None,
                                    memoryview(bytearray(16))[::2]])
def test_item_30_wrong_buffers(buffer: object) -> None:
    with open_m() as kd, pytest.raises(TypeError):
        kvm_kread(kd, K, buffer, 8)  # type: ignore[arg-type]


def test_item_30_wrong_arguments() -> None:
    with open_m() as kd:
        for bad in ("x", None, 1.5):
            with pytest.raises(TypeError):
                kvm_kread(kd, bad, bytearray(8))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            kvm_kread(None, K, bytearray(8))  # type: ignore[arg-type]


def test_item_31_kinds_of_buffers(kd: Kvm, lab: Lab) -> None:
    base = bytearray(32)
    assert kvm_kread(kd, lab.k, memoryview(base)[8:16]) == 8
    assert bytes(base) == bytes(8) + lab.kernel(0, 8) + bytes(16)
    for buffer in (array.array("B", bytes(8)), bytearray(8), (ctypes.c_ubyte * 8)(), array.array("Q", [0])):
        assert kvm_kread(kd, lab.k, buffer) == 8
        assert bytes(memoryview(buffer).cast("B")) == lab.kernel(0, 8)


def test_item_32_kvm_read_is_kvm_kread(kd: Kvm, lab: Lab) -> None:
    choose = random.Random(32)
    for _ in range(1000):
        address, size = lab.k + choose.randrange(-P, 6 * P), choose.randrange(0, 3 * P)
        one, two = bytearray(size), bytearray(size)
        assert kvm_read(kd, address, one, size) == kvm_kread(kd, address, two, size)
        assert one == two


def test_item_33_fault_error(kd: Kvm, lab: Lab) -> None:
    with pytest.raises(FaultError) as caught:
        kd.kread(lab.k + 3 * P - 8, 16)
    error = caught.value
    assert (error.moved, error.requested, error.address) == (8, 16, lab.k + 3 * P)
    assert error.partial == lab.kernel(3 * P - 8, 8)
    assert error.errno == errno.EFAULT
    assert f"{error.address:#x}" in str(error)


def test_item_33_large_and_into(kd: Kvm, lab: Lab) -> None:
    with pytest.raises(FaultError) as caught:
        kd.kread(lab.k, 2 << 20)
    assert caught.value.moved == len(caught.value.partial) == 3 * P
    assert caught.value.requested == 2 << 20
    assert caught.value.partial == lab.kernel(0, 3 * P)
    b = bytearray(16)
    with pytest.raises(FaultError) as caught:
        kd.kreadinto(lab.k + 3 * P - 8, b)
    assert caught.value.partial == b[:8] == lab.kernel(3 * P - 8, 8)
    assert kd.kreadinto(lab.k, b) == 16


def test_item_34_upto(kd: Kvm, lab: Lab) -> None:
    assert kd.kread_upto(lab.k + 3 * P - 8, 16) == lab.kernel(3 * P - 8, 8)
    assert kd.kread_upto(lab.k + 3 * P, 16) == b""


def test_item_35_zeroes_only_where_the_format_says_so() -> None:
    with open_m() as kd:
        assert kd.kread(ZERO_PAGE, P) == bytes(P)
        with pytest.raises(FaultError):
            kd.kread(NO_FRAME_PAGE, 1)


def test_item_35_a_linux_dump_that_ends_early_is_not_zero(guest_61: GuestImage, tmp_path: Path) -> None:
    """An ELF vmcore stores its zero pages; what lies beyond its end is missing and is never made up."""
    path = tmp_path / "cut"
    whole = guest_61.elf.stat().st_size
    with guest_61.elf.open("rb") as source, path.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.truncate(whole - (8 << 20))
    with kvm.open(guest_61.elf) as one, kvm.open(path) as cut:
        (start, size), = [(p.start, p.end - p.start) for p in one.backend.physical.ranges() if p.held][-1:]
        last = start + size - 8
        assert len(one.pread(last, 8)) == 8
        b = bytearray(8)
        assert kvm.kvm_pread(cut, last, b) == -1
        assert cut.errno == errno.EIO
        assert "early" in kvm_geterr(cut)


def test_item_36_one_call_or_byte_by_byte(kd: Kvm, lab: Lab) -> None:
    start, size = lab.k + P - 100, 200
    assert b"".join(kd.kread(start + i, 1) for i in range(size)) == kd.kread(start, size)


def test_item_37_read_only_handle(kd: Kvm, lab: Lab) -> None:
    assert kvm_kwrite(kd, lab.k, b"x", 1) == -1
    assert kd.errno in (errno.EBADF, errno.EROFS)
    assert kd.kread(lab.k, 1) == lab.kernel(0, 1)


def test_item_38_nothing_to_write(kd: Kvm, lab: Lab) -> None:
    assert kvm_kwrite(kd, lab.k, b"", 0) == 0
    assert kvm_kwrite(kd, lab.k, b"") == 0
    assert kd.errno == 0


def test_item_39_write_and_read_back(writable: Kvm, lab: Lab) -> None:
    for address in (lab.k + 64, lab.k + P - 4, lab.k + 2 * P - 1):
        assert kvm_kwrite(writable, address, b"new bytes") == 9
        assert writable.kread(address, 9) == b"new bytes"
        assert writable.kread(address - 2, 2) == lab.kernel(address - 2 - lab.k, 2)
        assert writable.kread(address + 9, 2) == lab.kernel(address + 9 - lab.k, 2)
    data = bytes(range(256)) * 48
    writable.kwrite(lab.k, data)
    assert writable.kread(lab.k, 3 * P) == data


def test_item_39_the_right_frames() -> None:
    image = Image()
    with open_m("r+", image) as kd:
        kd.kwrite(K + P - 2, b"abcd")
    assert image.frames[KERNEL_FRAMES[0]][-2:] == b"ab"
    assert image.frames[KERNEL_FRAMES[1]][:2] == b"cd"


def test_item_40_write_into_the_hole(writable: Kvm, lab: Lab) -> None:
    assert kvm_kwrite(writable, lab.k + 3 * P - 4, b"12345678", 8) == 4
    assert writable.kread(lab.k + 3 * P - 4, 4) == b"1234"
    assert writable.kread(lab.k, 3 * P - 4) == lab.kernel(0, 3 * P - 4)
    with pytest.raises(FaultError) as caught:
        writable.kwrite(lab.k + 3 * P - 2, b"1234")
    assert (caught.value.moved, caught.value.requested, caught.value.address) == (2, 4, lab.k + 3 * P)


def test_item_40_nothing_else_changed() -> None:
    image = Image()
    with open_m("r+", image) as kd:
        assert kvm_kwrite(kd, K + 3 * P - 4, b"12345678", 8) == 4
    fresh = Image()
    fresh.frames[KERNEL_FRAMES[2]][-4:] = b"1234"
    assert image.frames == fresh.frames


def test_item_41_write_starting_in_the_hole(writable: Kvm, lab: Lab) -> None:
    assert kvm_kwrite(writable, lab.k + 3 * P, b"1234") == -1
    assert writable.errno == errno.EFAULT
    assert writable.kread(lab.k, 3 * P) == lab.kernel(0, 3 * P)


@pytest.fixture(scope="module")
def dump_copy(guest_61: GuestImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(guest_61.elf, tmp_path_factory.mktemp("dump") / "elf"))


def headers(path: Path) -> bytes:
    """Return a digest of everything before the first byte of memory: header, program headers, notes."""
    with path.open("rb") as file:
        head = file.read(64)
        offset, count = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
        file.seek(offset)
        rows = [struct.unpack("<IIQQQQQQ", file.read(56)) for _ in range(count)]
        file.seek(0)
        return hashlib.sha256(file.read(min(row[2] for row in rows if row[0] == 1))).digest()


def test_item_42_in_place(dump_copy: Path) -> None:
    before, size = headers(dump_copy), dump_copy.stat().st_size
    kd = kvm_open(None, str(dump_copy), None, os.O_RDWR, None)
    assert kd is not None
    with kd:
        banner = kd.symbol("linux_banner").address
        assert kvm_kwrite(kd, banner, b"Kshell") == 6
        with kvm.open(dump_copy) as second:
            assert second.kread(banner, 13) == b"Kshellversion"[:6] + kd.kread(banner + 6, 7)
        paddr = kd.vtop(banner)
        assert kd.pread(paddr, 6) == b"Kshell"
        table = kd.symbol("kallsyms_num_syms").address
        count = kd.kread(table, 4)
    with kvm.open(dump_copy) as third:
        assert third.kread(banner, 6) == b"Kshell"
        assert third.kread(table, 4) == count
    assert headers(dump_copy) == before
    assert dump_copy.stat().st_size == size


def test_item_43_copy_on_write(dump_copy: Path) -> None:
    with dump_copy.open("rb") as file:
        before = hashlib.file_digest(file, "sha256").digest()
    with kvm.open(dump_copy, mode="c") as kd, kvm.open(dump_copy) as second:
        address = kd.symbol("linux_proc_banner").address
        old = second.kread(address, 8)
        kd.kwrite(address, b"changed!")
        assert kd.kread(address, 8) == b"changed!"
        assert kd.pread(kd.vtop(address), 8) == b"changed!"
        assert second.kread(address, 8) == old
    with dump_copy.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == before


def test_item_43_on_m() -> None:
    image = Image()
    with open_m("c", image) as kd, open_m("r", image) as second:
        kd.kwrite(K, b"changed")
        assert kd.kread(K, 7) == b"changed"
        assert second.kread(K, 7) == pattern(0, 7)


def test_item_44_compressed_dump(guest_61: GuestImage, capfd: pytest.CaptureFixture[str]) -> None:
    assert kvm_open(None, str(guest_61.kdump_flat), None, os.O_RDWR, "prog") is None
    assert capfd.readouterr().err.startswith("prog: ")


def test_item_44_kcore(capfd: pytest.CaptureFixture[str]) -> None:
    assert kvm_open(None, "/proc/kcore", None, os.O_RDWR, "prog") is None
    message = capfd.readouterr().err
    assert message.startswith("prog: ")
    assert "/proc/kcore" in message


def test_item_45_refused_before_anything(kd: Kvm, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(kd.backend.kernel), "write", None)
    with pytest.raises(ReadOnlyError) as caught:
        kd.kwrite(lab.k, b"x")
    assert caught.value.errno in (errno.EBADF, errno.EROFS)
    with pytest.raises(ReadOnlyError):
        kd.awrite(KAS, lab.k + 3 * P, b"x")
