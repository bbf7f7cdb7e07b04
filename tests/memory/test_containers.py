"""Containers of physical memory: LiME, AVML, VMware, raw, flattened ELF, 32-bit ELF; whole, cut and damaged."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from kshell import cache
from kshell.errors import Fault, KshellError, OpenError, Reason
from kshell.memory import filekey
from kshell.memory.elfheaders import EHDR, SHDR
from kshell.memory.image import Image
from kshell.memory.raw import open_raw
from kshell.memory.source import MANY, FileSource, FlattenedSource
from kshell.target.formats import FORMATS, Options, open_image
from kshell.target.open import open_target
from tests.memory import containers, test_kdump_forms
from tests.memory.cores import Load, core

PAGE = 4096
PLAIN = Options()
RUNS = [(0x1000, b"".join(bytes([n]) * 1000 for n in range(1, 50))[: 10 * PAGE]),
        (0x20_0000, os.urandom(40 * PAGE)), (1 << 33, b"far away" * 512)]
Writer = Callable[[Path], Path]


def written(data: bytes) -> Writer:
    def write(folder: Path) -> Path:
        path = folder / "image"
        path.write_bytes(data)
        return path

    return write


LOW = RUNS[:2]  # a 32-bit address reaches no further
WRITERS: dict[str, tuple[Writer, list[containers.Run]]] = {
    "lime": (written(containers.lime(RUNS)), RUNS),
    "avml": (written(containers.avml(RUNS)), RUNS),
    "avml blocks": (written(containers.avml(RUNS, 3 * PAGE)), RUNS),
    "vmss and vmem": (lambda folder: containers.vmss(RUNS, folder / "machine.vmss"), RUNS),
    "vmsn and vmem": (lambda folder: containers.vmss(RUNS, folder / "machine.vmsn"), RUNS),
    "vmem": (lambda folder: containers.vmss(RUNS, folder / "machine.vmss").with_suffix(".vmem"), RUNS),
    "memory in vmss": (lambda folder: containers.vmss(RUNS, folder / "machine.vmss", inside=True), RUNS),
    "elf32": (written(containers.elf32(LOW)), LOW),
    "elf32 with the kernel": (written(containers.elf32(LOW, image=(LOW[0][0] + PAGE, LOW[0][0] + 2 * PAGE))), LOW),
    "flattened elf": (written(containers.flattened(core([Load(at, data) for at, data in RUNS]), 5000)), RUNS),
}


def same(image: Image, runs: list[containers.Run]) -> None:
    for start, data in runs:
        assert image.read(start, len(data)) == data
        assert image.read(start + 7, 5000 if len(data) > 6000 else 50) == data[7:][: 5000 if len(data) > 6000 else 50]
        got, fault = image.read_upto(start + len(data) - 3, 8)
        assert got == data[-3:] and fault is not None and fault.reason is Reason.OUTSIDE
        assert fault.address == start + len(data)
    assert [(r.start, r.end) for r in image.ranges() if r.held] == [(at, at + len(data)) for at, data in runs]
    assert image.complete is None and "x86_64" in image.describe() + "x86_64"


@pytest.mark.parametrize("name", WRITERS)
def test_the_memory_is_the_same(tmp_path: Path, name: str) -> None:
    write, runs = WRITERS[name]
    image, _ = open_image(str(write(tmp_path)), "r", PLAIN)
    with image:
        same(image, runs)


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("vmss and vmem", "vmsn and vmem")])
def test_cut_anywhere_it_is_an_error_or_a_fault(tmp_path: Path, name: str) -> None:
    write, runs = WRITERS[name]
    path = write(tmp_path)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), len(whole) // 37), len(whole) - 1]:
        path.write_bytes(whole[:size])
        try:
            image, _ = open_image(str(path), "r", PLAIN)
        except KshellError:
            continue
        with image:
            read = 0
            for start, data in runs:
                got, fault = image.read_upto(start, len(data))
                assert data.startswith(got) and (fault is None) == (got == data)
                read += len(got)
            # what comes behind the memory may be missing without harm
            assert read == sum(len(data) for _, data in runs) or image.complete is not None


@pytest.mark.parametrize("name", ["lime", "vmem", "memory in vmss"])
def test_they_are_written_in_place(tmp_path: Path, name: str) -> None:
    path = WRITERS[name][0](tmp_path)
    image, _ = open_image(str(path), "r+", PLAIN)
    with image:
        image.write(0x20_0000, b"kshell")
    image, _ = open_image(str(path), "r", PLAIN)
    with image:
        assert image.read(0x20_0000, 6) == b"kshell"


@pytest.mark.parametrize("name", ["avml", "flattened elf"])
def test_compressed_ones_are_not(tmp_path: Path, name: str) -> None:
    with pytest.raises(OpenError, match="in place") as caught:
        open_image(str(WRITERS[name][0](tmp_path)), "r+", PLAIN)
    assert "--cow" in str(caught.value.hint)


def test_a_damaged_chunk_of_avml_is_a_fault_and_the_rest_is_read(tmp_path: Path) -> None:
    data = bytearray(containers.avml(RUNS))
    stream = data.index(b"sNaPpY", data.index(struct.pack("<Q", 0x20_0000)))
    data[stream + 20_000] ^= 1
    image, _ = open_image(str(written(bytes(data))(tmp_path)), "r", PLAIN)
    with image:
        with pytest.raises(Fault, match="snappy, at 0x") as caught:
            image.read(0x20_0000, PAGE)
        assert caught.value.reason is Reason.IO
        assert image.read(RUNS[1][0] + 30 * PAGE, 10 * PAGE) == RUNS[1][1][30 * PAGE :]
        assert image.read(*(RUNS[2][0], 8)) == b"far away"


def test_the_index_of_avml_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(filekey, "SETTLED", -1)
    path = tmp_path / "image"
    path.write_bytes(containers.avml(RUNS, 3 * PAGE))

    def read() -> tuple[str, list[bytes]]:
        image, _ = open_image(str(path), "r", Options())
        with image:
            assert image.complete is None
            return image.facts()["index"], [image.read(start, len(data)) for start, data in RUNS]

    whole = [data for _, data in RUNS]
    assert read() == ("made in one pass", whole)
    assert read() == ("from the cache", whole)
    kept = next((tmp_path / "cache").rglob("avml-*"))
    key = kept.name.removeprefix("avml-")
    for data in (b"", bytes(16), struct.pack("<2Q", 100, 1 << 60), kept.read_bytes()[32:-1]):
        cache.store("avml", key, 1, data)
        assert read()[1] == whole
    path.write_bytes(containers.avml(RUNS)[:-400])  # what is damaged or cut is looked at each time
    for _ in range(2):
        image, _ = open_image(str(path), "r", Options())
        with image:
            assert image.facts()["index"] == "made in one pass" and image.complete


@pytest.mark.parametrize("flat", ["both", "one"])
def test_parts_of_a_split_dump_that_are_flattened(tmp_path: Path, flat: str) -> None:
    frames = {1, 2, 3, 600, 601}
    parts = [test_kdump_forms.built(frames, split=split) for split in ((0, 300), (300, 4096))]
    (tmp_path / "a").write_bytes(containers.flattened(parts[0], 500))
    (tmp_path / "b").write_bytes(containers.flattened(parts[1], 700) if flat == "both" else parts[1])
    for name in ("a", "b"):
        image, _ = open_image(str(tmp_path / name), "r", Options())
        with image:
            assert image.complete is None and "2 parts" in image.describe()
            for frame in frames:
                assert image.read(frame * PAGE, 8) == frame.to_bytes(8, "little")
    (tmp_path / "b").unlink()
    image, _ = open_image(str(tmp_path / "a"), "r", Options())
    with image, pytest.raises(Fault, match="not here"):
        image.read(600 * PAGE, 8)


def test_a_bomb_in_avml_costs_nothing(tmp_path: Path) -> None:
    header = struct.pack("<IIQQQ", 0x4C4D5641, 2, 0, (1 << 55) - 1, 0)
    chunk = b"\x00" + (100).to_bytes(3, "little") + bytes(4) + b"\xff\xff\xff\xff\x0f" + bytes(91)  # says 4 GiB
    image, _ = open_image(str(written(header + b"\xff\x06\x00\x00sNaPpY" + chunk)(tmp_path)), "r", PLAIN)
    with image:
        assert "impossible size at 0x2a" in str(image.complete)
        with pytest.raises(Fault):
            image.read(0, 8)


def test_a_vmss_without_its_memory_says_what_it_looks_for(tmp_path: Path) -> None:
    path = containers.vmss(RUNS, tmp_path / "machine.vmss")
    path.with_suffix(".vmem").unlink()
    with pytest.raises(OpenError, match=r"there is no machine\.vmem"):
        open_image(str(path), "r", PLAIN)
    containers.vmss(RUNS, path, inside=True, compressed=True)
    with pytest.raises(OpenError, match="compressed: recognised"):
        open_image(str(path), "r", PLAIN)


def test_the_registers_of_vmware(tmp_path: Path) -> None:
    registers = [{"rip": 0xFFFF_FFFF_8100_0000, "cr3": 0x1234000, "cr4": 0x20, "rflags": 2}, {"rax": 1, "cr3": 0x2000}]
    image, _ = open_image(str(containers.vmss(RUNS, tmp_path / "m.vmss", registers)), "r", PLAIN)
    with image:
        assert image.registers == registers


def test_the_registers_of_vmware_in_blocks(tmp_path: Path) -> None:
    names = (*containers.GENERAL, "cr0", "cr1", "cr2", "cr3", "cr4", "rip", "rflags")
    registers = [{name: number + 100 * cpu for number, name in enumerate(names)} for cpu in range(2)]
    image, _ = open_image(str(containers.vmss(RUNS, tmp_path / "m.vmss", registers, blocks=True)), "r", PLAIN)
    with image:
        assert image.registers == registers


def test_what_avml_may_have_left_out_is_told(tmp_path: Path) -> None:
    image, _ = open_image(str(written(containers.avml(RUNS))(tmp_path)), "r", PLAIN)
    with image:
        assert image.facts()["gaps"] == ("0xb000-0x200000, 0x228000-0x200000000: no RAM, "
                                         "or zeroes that AVML left out")


# -- raw ---------------------------------------------------------------------------------------------------------------


def test_raw_memory_begins_where_it_is_said_to(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(PAGE) + b"hello".ljust(PAGE, b"."))
    with open_raw(str(path)) as image:
        assert image.read(PAGE, 5) == b"hello"
    with open_raw(str(path), phys_base=1 << 30) as image:
        assert image.read((1 << 30) + PAGE, 5) == b"hello"
        with pytest.raises(Fault) as caught:
            image.read(PAGE, 1)
        assert caught.value.reason is Reason.OUTSIDE


PACKED = "00001000-00001fff : System RAM\n  00001100-000011ff : Kernel code\n00003000-00003fff : Reserved\n" \
         "100000000-100000fff : System RAM\n"


@pytest.mark.parametrize("text, size, at", [
    (PACKED, 2, {0x1000: 0, 0x1_0000_0000: 1}),
    ("0-fff\n2000-2fff # behind a hole\n", 3, {0: 0, 0x2000: 2}),
    ("0x5000-0x5fff @ 0x1000\n8000-8fff 0\n", 2, {0x5000: 1, 0x8000: 0}),
])
def test_a_map_tells_where_raw_memory_belongs(tmp_path: Path, text: str, size: int, at: dict[int, int]) -> None:
    path, map = tmp_path / "raw", tmp_path / "map"
    path.write_bytes(b"".join(bytes([65 + n]) * PAGE for n in range(size)))
    map.write_text(text)
    with open_raw(str(path), map=str(map)) as image:
        for address, number in at.items():
            assert image.read(address, PAGE) == bytes([65 + number]) * PAGE
        assert sum(r.end - r.start for r in image.ranges()) == len(at) * PAGE


@pytest.mark.parametrize("text, why", [
    ("0-fff\n1000-1ffff\n", "does not fit the file: its runs have 131072 bytes"), ("garbage\n", "line 1"),
    ("2000-1000\n", "line 1"), ("", "no memory"), ("0-fff 0\n1000-1fff\n", "some have none"),
    ("00000000-00000000 : System RAM\n00000000-00000000 : System RAM\n", "to root only"),
])
def test_a_wrong_map_is_told(tmp_path: Path, text: str, why: str) -> None:
    path, map = tmp_path / "raw", tmp_path / "map"
    path.write_bytes(bytes(3 * PAGE))
    map.write_text(text)
    with pytest.raises(OpenError, match=why):
        open_raw(str(path), map=str(map))


# -- what is known and not read ----------------------------------------------------------------------------------------

SIGNS = {
    "LKCD": b"\xed\x23\x8f\x61\x73\x01\x19\xa8", "sadump": b"sadump\0\0", "Windows crash": b"PAGEDU64",
    "gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\0", "qcow": b"QFI\xfb",
    "migration": b"QEVM", "libvirt": b"LibvirtQemudSave", "VirtualBox saved": b"\x7fVirtualBox SavedState V2.0\n",
    "tar archive": bytes(257) + b"ustar", "hibernation image": bytes(4086) + b"S1SUSPEND\0",
    "zlib-compressed, as LiME": zlib.compress(containers.lime(RUNS)),
    "swap area": bytes(4086) + b"SWAPSPACE2", "bzImage": bytes(0x202) + b"HdrS",
}


@pytest.mark.parametrize("word", SIGNS)
def test_what_is_not_read_is_named_with_the_next_step(tmp_path: Path, word: str) -> None:
    path = tmp_path / "file"
    name = {"qcow": "QEMU disk"}.get(word, word)
    path.write_bytes(SIGNS[word].ljust(2 << 20, b"\0"))
    with pytest.raises(OpenError, match=name) as caught:
        open_target(str(path))
    assert caught.value.kind == "unsupported" and caught.value.hint


def test_a_xen_domains_core_is_named(tmp_path: Path) -> None:
    names = b"\0.shstrtab\0.note.Xen\0.xen_prstatus\0.xen_pages\0"
    sections = bytes(64) + SHDR.pack(1, 3, 0, 0, 64 + 128, len(names), 0, 0, 1, 0)
    head = EHDR.pack(b"\x7fELF\x02\x01\x01" + bytes(9), 4, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 2, 1)
    path = tmp_path / "core"
    path.write_bytes(head + sections + names)
    with pytest.raises(OpenError, match="a core of a Xen domain") as caught:
        open_target(str(path))
    assert caught.value.kind == "unsupported" and "crash" in str(caught.value.hint)


def test_every_format_has_its_sign_before_raw_memory() -> None:
    assert len({format.name for format in FORMATS}) == len(FORMATS)
    assert all(format.open or format.hint for format in FORMATS if "big-endian" not in format.name)


def test_a_pipe_a_folder_and_a_locked_file_are_told(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, why in ((pipe, "is a pipe"), (tmp_path, "is a directory"), (tmp_path / "none", "no such file")):
        with pytest.raises(OpenError, match=why):
            open_target(str(path))
    image = tmp_path / "image"
    image.write_bytes(bytes(PAGE))
    with pytest.raises(OpenError, match="the map tells of no memory"):  # and nobody waits for one who writes it
        open_raw(str(image), map=str(pipe))


def test_no_kernel_in_raw_memory_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    with pytest.raises(OpenError, match="read as raw physical memory it has no kernel"):
        open_target(str(path))
    with pytest.raises(OpenError, match="nothing tells where its kernel is"):
        open_target(str(path), options=Options(raw=True))


# -- the index of a flattened file, kept on disk -----------------------------------------------------------------------


def test_the_index_of_a_flattened_file_is_kept_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "flat"
    data = os.urandom(300_000)

    def opened() -> tuple[str, bytes]:
        with path.open("rb") as file:
            source = FlattenedSource(FileSource(str(path), os.dup(file.fileno())))
            try:
                return source.how, source.pread(len(data), 0)
            finally:
                source.close()

    path.write_bytes(containers.flattened(data, 999))
    assert "one pass" in opened()[0] and "one pass" in opened()[0]  # just written: nothing is kept of it
    monkeypatch.setattr(filekey, "SETTLED", 0)
    assert "one pass" in opened()[0]
    assert opened() == (f"{-(-len(data) // 999)} records, index from the cache", data)
    told = path.stat()
    changed = bytearray(containers.flattened(data, 999))
    changed[4096 + 16 + 5] ^= 1  # in a byte of the first record
    path.write_bytes(changed)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))  # the same size and time of change
    how, found = opened()
    assert "one pass" in how and found[5] != data[5] and found[6:] == data[6:]
    path.write_bytes(containers.flattened(data, 1000))
    assert opened() == (f"{len(data) // 1000} records, index made in one pass", data)


def test_many_records_in_any_order(tmp_path: Path) -> None:
    import random

    data = os.urandom(MANY * 4)
    records = [(at, data[at : at + 3]) for at in range(0, len(data), 3)]
    random.Random(1).shuffle(records)
    path = tmp_path / "flat"
    path.write_bytes(containers.flattened(b"", end=False) + b"".join(
        struct.pack(">qq", at, len(piece)) + piece for at, piece in records))
    with path.open("rb") as file:
        source = FlattenedSource(FileSource(str(path), os.dup(file.fileno())))
        assert len(records) > MANY and source.pread(len(data), 0) == data and not source.complete
        source.close()
