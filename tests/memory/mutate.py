"""Small images of every format, damaged: what the fuzzing tests and ``scripts/fuzz-images`` share."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable
from pathlib import Path

from kshell.errors import Fault, KshellError
from kshell.memory.model import Memory
from kshell.target.formats import Options, open_image
from tests.memory import containers
from tests.memory.cores import Load, core, note
from tests.memory.test_kdump_forms import built

PAGE = 4096
RUNS = [(0x1000, bytes(range(256)) * 16 * 6), (0x20_0000, b"kshell!!" * 512 * 6)]
FRAMES = {start // PAGE + number for start, data in RUNS for number in range(len(data) // PAGE)}
NOTES = note("CORE", 1, bytes(336)) + note("VMCOREINFO", 0, b"OSRELEASE=6.1\n") + note("QEMU", 0, bytes(440))
ADDRESSES = (0, 0x1000, 0x1FFC, 0x20_0000, 0x20_5FF8, 1 << 33, (1 << 63) - 8, (1 << 64) - 8)
NUMBERS = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 40, (1 << 63) - 1, 1 << 63,
           (1 << 64) - 1)
MAX_RANGES = 1 << 16


def _vmss(inside: bool) -> Callable[[Path], Path]:
    registers = [{"rip": 1, "cr3": 2}]
    return lambda folder: containers.vmss(RUNS, folder / "image.vmss", registers, inside=inside)


def _bytes(data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "image").write_bytes(data)
        return folder / "image"

    return write


def _split(folder: Path) -> Path:
    (folder / "other").write_bytes(built(FRAMES, split=(0, 4)))
    (folder / "image").write_bytes(built(FRAMES, split=(4, 4096)))
    return folder / "image"


ELF = core([Load(start, data, memsz=len(data) + PAGE) for start, data in RUNS], NOTES)
#: name -> what writes it into a folder
IMAGES: dict[str, Callable[[Path], Path]] = {
    "elf": _bytes(ELF),
    "elf, PN_XNUM": _bytes(core([Load(start, data) for start, data in RUNS], NOTES, extended=True)),
    "elf32": _bytes(containers.elf32(RUNS, NOTES)),
    "flattened elf": _bytes(containers.flattened(ELF, 5000)),
    "kdump": _bytes(built(FRAMES)),
    "kdump 3": _bytes(built(FRAMES, version=3)),
    "flattened kdump": _bytes(containers.flattened(built(FRAMES), 5000)),
    "split": _split,
    "lime": _bytes(containers.lime(RUNS)),
    "avml": _bytes(containers.avml(RUNS, 4 * PAGE)),
    "vmss": _vmss(False),
    "memory in vmss": _vmss(True),
}


def exercise(path: Path) -> str:
    """Open an image and ask everything of it; whatever is wrong with it must be a KshellError.

    :returns: what came of it, in a word
    """
    try:
        image, _ = open_image(str(path), "r", Options())
    except KshellError as error:
        assert str(error)
        return "refused"
    with image:
        assert image.describe()
        image.facts()
        image.described()
        told = image.complete
        ends = [(r.start, r.end) for r in itertools.islice(image.ranges(), MAX_RANGES)]
        assert all(start < end for start, end in ends) and sorted(ends) == ends
        faults = sum(_read(image, address, size) for address in ADDRESSES for size in (1, 8, 5000, 1 << 16, 1 << 40))
        for start, end in ends[:4] + ends[-4:]:
            faults += _read(image, start, min(end - start, 1 << 17)) + _read(image, end - 1, 8)
        found = image.gather(list(ADDRESSES) * 3, 8)
        assert found.data.shape == (3 * len(ADDRESSES), 8)
        image.check()
    return "told" if told else "faults" if faults else "read"


def _read(image: Memory, address: int, size: int) -> bool:
    size = min(size, (1 << 64) - address)
    data, fault = image.read_upto(address, size)
    assert len(data) <= size and (fault is None) == (len(data) == size)
    if fault is not None:
        assert isinstance(fault, Fault) and fault.done == len(data)
    return fault is not None


def mutate(data: bytes, seed: random.Random) -> bytes:
    """Return *data* with some damage: bits, numbers of all sizes, pieces moved, an end that is missing."""
    out = bytearray(data)
    for _ in range(seed.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            break
        # headers are at the beginning; some are behind the first page, and descriptors and records are anywhere
        reach = seed.choice((64, 512, 512, PAGE + 512, 2 * PAGE, len(out)))
        at = seed.randrange(min(reach, len(out)))
        kind = seed.randrange(6)
        if kind == 0:
            out[at] ^= 1 << seed.randrange(8)
        elif kind == 1:
            size = seed.choice((1, 2, 4, 8))
            number = seed.choice(NUMBERS) % (1 << 8 * size)
            at &= -size
            out[at : at + size] = number.to_bytes(size, seed.choice(("little", "big")))
        elif kind == 2:
            to, size = seed.randrange(min(reach, len(out))), seed.choice((4, 8, 16, 24, 64))
            out[to : to + size] = out[at : at + size]
        elif kind == 3:
            size = seed.choice((8, 24, 56))
            at &= -8
            word = struct.unpack_from("<Q", out.ljust(at + 8, b"\0"), at)[0]
            out[at : at + 8] = struct.pack("<Q", (word + seed.choice((-1, 1, PAGE, -PAGE, 1 << 32))) % (1 << 64))
        elif kind == 4 and seed.randrange(4) == 0:
            del out[at:]
        else:
            out[at] = seed.randrange(256)
    return bytes(out)
