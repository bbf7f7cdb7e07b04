"""A medium that cannot be read, and block devices: named errors with the offset, and what can be read is read.

The kernel's own EIO comes from a loop device whose file was cut under it (root only), the rest from a double of pread.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kshell.errors import KshellError, OpenError, Reason
from kshell.target.formats import Options, open_image
from kshell.target.open import open_target
from tests.memory.mutate import IMAGES, PAGE, RUNS
from tests.target import tiny

OFFSET = re.compile(r"at 0x[0-9a-f]+")


def broken_from(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every read of a byte at *bad* or behind it fail; what lies before it is given."""
    pread, preadv = os.pread, os.preadv

    def failing(size: int, at: int) -> int:
        if at >= bad and size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return min(size, bad - at)

    def some(fd: int, views: Sequence[memoryview], at: int) -> int:
        return preadv(fd, [views[0][: failing(len(views[0]), at)]], at)

    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, failing(size, at), at))
    monkeypatch.setattr(os, "preadv", some)


def read(path: str) -> list[bytes]:
    image, _ = open_image(path, "r", Options())
    with image:
        return [image.read(start, len(data)) for start, data in RUNS]


@pytest.mark.parametrize("name", IMAGES)
def test_a_medium_that_fails_from_some_byte_on(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = IMAGES[name](tmp_path)
    size = path.stat().st_size
    whole = read(str(path))
    told = 0
    for bad in sorted({*range(0, min(size, 6 * PAGE), 509), *range(0, size, 2 * PAGE + 1)}):
        with monkeypatch.context() as patch:
            broken_from(bad, patch)
            try:
                image, _ = open_image(str(path), "r", Options())
            except KshellError as error:
                assert OFFSET.search(str(error)), f"{bad}: {error}"
                assert f"{path}: {path}" not in str(error)
                continue
            with image:
                for (start, _), data in zip(RUNS, whole, strict=True):
                    got, fault = image.read_upto(start, len(data))
                    assert got == data[: len(got)]
                    assert fault is None or OFFSET.search(fault.detail) or fault.reason is not Reason.IO, str(fault)
                    told += fault is not None and fault.reason is Reason.IO and "Input/output error" in str(fault)
    assert told or name == "vmss"  # all of its first file is headers


def test_a_dump_whose_page_tables_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dump"
    path.write_bytes(tiny.image())
    broken_from(0x2000, monkeypatch)
    with pytest.raises(OpenError, match=r"page table.*Input/output error, at 0x[0-9a-f]+ of /"):
        open_target(str(path))


def test_a_search_for_a_kernel_tells_what_it_could_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(4 << 20))
    broken_from(1 << 20, monkeypatch)
    for options in (Options(), Options(raw=True)):
        words = r"no kernel is found in what can be read of it.*at 0x100000 of /"
        with pytest.raises(OpenError, match=words) as caught:
            open_target(str(path), options=options)
        assert "ddrescue" in (caught.value.hint or "")


@pytest.fixture
def loop() -> Iterator[list[str]]:
    """Devices to be given back."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("loop devices are root's")
    devices: list[str] = []
    yield devices
    for device in devices:
        subprocess.run(["losetup", "-d", device], check=False)


def attach(path: Path, devices: list[str]) -> str:
    done = subprocess.run(["losetup", "-r", "-f", "--show", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    devices.append(done.stdout.strip())
    return devices[-1]


@pytest.mark.parametrize("name", ["elf", "kdump", "lime"])
def test_a_block_device_and_its_bad_sectors(tmp_path: Path, name: str, loop: list[str]) -> None:
    path = IMAGES[name](tmp_path)
    whole = read(str(path))
    os.truncate(path, -(-path.stat().st_size // 4096) * 4096)
    device = attach(path, loop)
    assert read(device) == whole
    subprocess.run(["losetup", "-d", loop.pop()], check=True)
    device = attach(path, loop)
    os.truncate(path, max(path.stat().st_size // 2 & -PAGE, PAGE))
    image, _ = open_image(device, "r", Options())
    with image:
        faults = [image.read_upto(start, len(data))[1] for start, data in RUNS]
        told = f"{image.complete} " + " ".join(str(fault) for fault in faults if fault is not None)
    assert re.search(r"Input/output error.*at 0x|at 0x.*Input/output error", told), told
