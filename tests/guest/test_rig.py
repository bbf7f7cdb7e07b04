"""The rig's own pure parts: archives, sparse copies, cache keys, the oracle's parsers."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from .build import key, unpack_oracle
from .cache import appearing, copy_sparse, held, remove_unheld, remove_unused, used
from .image import GuestImage
from .initramfs import Archive, iter_entries
from .kmodule import undefined
from .libraries import needed
from .oracle import parse_kallsyms_line, parse_kmsg, parse_maps_line, parse_module_line, parse_stat
from .spec import STANDARD, GuestSpec, named_spec

ROOT = Path(__file__).parents[2]


def test_archive_round_trip() -> None:
    archive = Archive()
    archive.file("etc/deep/odd", b"123")
    archive.file("/empty", b"")
    archive.link("bin/sh", "busybox")
    data = archive.to_bytes()
    assert dict(iter_entries(data)) == {"etc/deep/odd": b"123", "empty": b""}
    assert len(data) % 4 == 0


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_archive_is_what_cpio_reads() -> None:
    archive = Archive()
    archive.file("folder/file", b"x")
    done = subprocess.run(["cpio", "-t"], input=archive.to_bytes(), capture_output=True, check=True)
    assert done.stdout.split() == [b"folder", b"folder/file"]


def test_truncated_archive_is_an_error() -> None:
    archive = Archive()
    archive.file("file", b"content")
    data = archive.to_bytes()
    for size in range(0, len(data) - 4, 7):
        with pytest.raises(ValueError, match="cpio"):
            list(iter_entries(data[:size]))


def test_oracle_names_stay_inside(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("../outside", b"x")
    (tmp_path / "drive").write_bytes(archive.to_bytes())
    with pytest.raises(ValueError, match="outside its folder"):
        unpack_oracle(tmp_path / "drive", tmp_path / "oracle")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("start, size", [(0, None), (0, 150_000), (0, 200_001), (1 << 20, 300_000), (4096, 65_536)])
def test_copy_sparse(tmp_path: Path, start: int, size: int | None) -> None:
    content = bytearray(2 << 20)
    source = tmp_path / "source"
    with source.open("wb", buffering=0) as handle:
        handle.truncate(len(content))
        for offset in (0, 4096, 70_001, 200_000, 1 << 20, (1 << 20) + 299_999, len(content) - 1):
            content[offset] = offset % 251 + 1
            os.pwrite(handle.fileno(), content[offset : offset + 1], offset)  # the rest stays a hole
    copy_sparse(source, tmp_path / "copy", size, start)
    copied = (tmp_path / "copy").read_bytes()
    assert copied == content[start : None if size is None else start + size]


def test_folder_appears_whole_or_not(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with pytest.raises(RuntimeError), appearing(final) as work:
        (work / "file").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with appearing(final) as work:
        (work / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def aged(path: Path, seconds: float) -> Path:
    """Return *path*, as if nobody had touched it for so long."""
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_images_that_nobody_uses_any_more_are_removed(tmp_path: Path) -> None:
    names = [f"6.1-{letter * 16}" for letter in "abc"] + [f"6.12-{'a' * 16}", f".6.1-{'a' * 16}-killed", "6.1-short"]
    for name in names:
        (tmp_path / name).mkdir()
        aged(tmp_path / name, 90000)
    used(tmp_path / names[1])
    remove_unused("6.1", tmp_path / names[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[:2], names[3], names[5]])


def test_folders_whose_holder_died_are_removed(tmp_path: Path) -> None:
    """One that is held, however old, and one that is just being made stay."""
    for name in ("held", "young", "left", "unmarked", "bare"):
        (tmp_path / name).mkdir()
        if name not in ("unmarked", "bare"):
            (tmp_path / name / "held").touch()
    with held(tmp_path / "held"):
        for name, seconds in (("held", 90000), ("left", 700), ("unmarked", 700), ("bare", 90000)):
            aged(tmp_path / name, seconds)
        remove_unheld(tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "unmarked", "young"]


STARTS = """
import sys, time
from pathlib import Path
from tests.guest.packages import kernel
from tests.guest.qemu import started
from tests.guest.spec import named_spec

image = kernel("6.1").vmlinuz
with started(named_spec("6.1"), image, image, "", []) as guest:
    print(guest.process.pid, guest.folder, flush=True)
    time.sleep(600)
"""


@pytest.mark.guest
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux's setpriv is not installed")
def test_a_guest_ends_with_a_run_that_is_killed_outright(guest_61: GuestImage) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        while not (Path(folder) / "gdb").exists():  # QEMU is there, and with it what setpriv asked for
            time.sleep(0.01)
        run.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (Path(folder) / "held").exists()
    remove_unheld([aged(Path(folder), 700)])
    assert not Path(folder).exists()


def test_key_follows_content_not_name() -> None:
    spec = GuestSpec("a")
    packages = ["linux=1", "tcc=2"]
    assert key(spec, packages) == key(replace(spec, name="b", timeout=1.0), packages[::-1])
    assert key(spec, packages) != key(replace(spec, memory=512), packages)
    assert key(spec, packages) != key(spec, ["linux=2", "tcc=2"])


def test_standard_names() -> None:
    assert all(named_spec(name).name == name for name in STANDARD)
    assert named_spec("6.1.0-55").kernel == "6.1.0-55"
    with pytest.raises(KeyError, match="there are"):
        named_spec("nonsense")


def test_needed_of_a_static_file() -> None:
    header = b"\x7fELF\2\1\1" + bytes(25) + (64).to_bytes(8, "little") + bytes(14) + bytes(10)
    assert needed(header) == []


def test_stat_with_a_hostile_name() -> None:
    assert parse_stat("12 (a) S (b) R 7 0 0") == (12, "a) S (b", "R", 7)


def test_parsers() -> None:
    line = parse_kallsyms_line("ffffffffc0001000 t loop_init\t[loop]")
    assert (line.address, line.kind, line.name, line.module) == (0xFFFFFFFFC0001000, "t", "loop_init", "loop")
    assert parse_kallsyms_line("0000000000000000 A fixed_percpu_data").module is None
    mapping = parse_maps_line("7f0000000000-7f0000001000 rw-p 00002000 00:17 42   /run/a file (deleted)")
    assert (mapping.start, mapping.end, mapping.offset) == (0x7F0000000000, 0x7F0000001000, 0x2000)
    assert (mapping.inode, mapping.name) == (42, "/run/a file (deleted)")
    module = parse_module_line("virtio 20480 2 virtio_blk,virtio_pci, Live 0xffffffffc02c0000")
    assert module.used_by == ("virtio_blk", "virtio_pci")
    assert parse_module_line("dummy 16384 0 - Live 0xffffffffc0363000").used_by == ()
    records = parse_kmsg("6,0,0,-;Linux version 6.1; x\n SUBSYSTEM=acpi\n4,1,12,-;next\n")
    assert [(record.sequence, record.text) for record in records] == [(0, "Linux version 6.1; x"), (1, "next")]


def test_a_spec_without_a_disaster_keeps_its_key() -> None:
    assert "disaster" not in GuestSpec("a").facts()
    assert named_spec("null-6.12").facts() == {**named_spec("6.12").facts(), "disaster": "null"}
    with pytest.raises(KeyError):
        named_spec("kdump-6.1")  # no disaster


def test_undefined_symbols_of_an_object_file() -> None:
    strings = b"\0mine\0theirs\0"
    symbols = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    symbols += struct.pack("<IBBHQQ", 1, 0x10, 0, 1, 0, 0) + struct.pack("<IBBHQQ", 6, 0x10, 0, 0, 0, 0)
    table_at = 64 + len(strings) + len(symbols)
    header = struct.pack("<16s24xQ10xHH2x", b"\x7fELF\2\1\1", table_at, 64, 3)
    sections = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 64, len(strings), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, 64 + len(strings), len(symbols), 1, 1, 8, 24)
    assert undefined(header + strings + symbols + sections) == ["theirs"]


def test_the_disasters_happened(
    guest_null: GuestImage, guest_abba: GuestImage, guest_leak: GuestImage, guest_overflow: GuestImage,
    guest_softlockup: GuestImage,
) -> None:
    consoles = {image.spec.name: image.console.read_text(errors="replace") for image in (
        guest_null, guest_abba, guest_leak, guest_overflow, guest_softlockup)}
    assert "RIP: 0010:price_of+0x" in consoles["null"]
    assert "CR2: 0000000000000028" in consoles["null"]
    assert "INFO: task abba-left:" in consoles["abba"]
    assert "INFO: task abba-right:" in consoles["abba"]
    assert "Kernel panic" not in consoles["abba"] + consoles["leak"]
    assert "Kernel panic - not syncing: Fatal exception in interrupt" in consoles["overflow"]
    assert "Kernel panic - not syncing: softlockup: hung tasks" in consoles["softlockup"]
    (line,) = re.findall(r"^disaster_session +(\d+)", guest_leak.oracle.text("proc/slabinfo"), re.MULTILINE)
    assert int(line) == 10_100
    for image in (guest_null, guest_abba, guest_leak, guest_overflow, guest_softlockup):
        assert "disaster" in {module.name for module in image.oracle.modules()}
