"""A converted image answers as its source; what it leaves out is what makedumpfile leaves out of the same vmcore."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kshell.linux.convert import convert
from kshell.memory.kdump import Kdump, open_kdump
from kshell.target.formats import Options
from kshell.target.open import open_target
from tests.guest.image import GuestImage
from tests.guest.libraries import host_command
from tests.guest.packages import bundle
from tests.target.test_formats import answers


def test_a_converted_elf_answers_as_its_source(tmp_path: Path, guest_61: GuestImage) -> None:
    """The other formats: test_formats.py."""
    out = tmp_path / "out"
    with open_target(str(guest_61.elf)) as target:
        convert(target, str(out), to="elf")
    assert answers(out, Options()) == answers(guest_61.elf, Options())


def test_round_trips_give_identical_memory(tmp_path: Path, guest_61: GuestImage) -> None:
    chain = [("kdump", "zstd"), ("elf", ""), ("kdump", "snappy"), ("raw", "")]
    source = guest_61.elf
    for number, (to, codec) in enumerate(chain):
        out = tmp_path / str(number)
        with open_target(str(source)) as target:
            convert(target, str(out), to=to, codec=codec)
        source = out
    size = guest_61.raw.stat().st_size
    with guest_61.raw.open("rb") as expected, source.open("rb") as found:
        for _ in range(0, size, 1 << 20):
            assert expected.read(1 << 20) == found.read(1 << 20)


def bits(dump: Kdump, name: str) -> np.ndarray[Any, Any]:
    return np.unpackbits(np.frombuffer(bytes(getattr(dump, name)), np.uint8), bitorder="little")[: dump.frames]


@pytest.mark.parametrize("level", [2, 4, 8, 16, 31])
def test_what_is_left_out_is_what_makedumpfile_leaves_out(
    tmp_path: Path, guest_kdump: GuestImage, level: int
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with open_target(str(guest_kdump.vmcore)) as target:
        convert(target, str(ours), codec="snappy", level=level)
    if level == 31:
        theirs = guest_kdump.folder / "makedumpfile.zlib"
    else:
        program = host_command("makedumpfile", bundle("makedumpfile"))
        subprocess.run([*program, "-d", str(level), str(guest_kdump.vmcore), str(theirs)], check=True,
                       capture_output=True)
    with open_kdump(str(ours)) as one, open_kdump(str(theirs)) as other:
        assert one.level == other.level == level
        for name in ("_existing", "_held"):
            assert np.array_equal(bits(one, name), bits(other, name)), name
        assert 0 < bits(one, "_held").sum() < bits(one, "_existing").sum()


def test_makedumpfile_reads_what_was_written(tmp_path: Path, guest_kdump: GuestImage) -> None:
    program = host_command("makedumpfile", bundle("makedumpfile"))
    log = []
    for source, to in ((guest_kdump.vmcore, ""), (tmp_path / "kdump", "kdump"), (tmp_path / "elf", "elf")):
        if to:
            with open_target(str(guest_kdump.vmcore)) as target:
                convert(target, str(source), to=to, level=31)
        text = tmp_path / f"log{to}"
        subprocess.run([*program, "--dump-dmesg", str(source), str(text)], check=True, capture_output=True)
        log.append(text.read_bytes())
    assert log[0] == log[1] == log[2] and b"Linux version 6.1" in log[0]


def test_pages_that_cannot_be_read_are_left_out_and_the_rest_is_kept(tmp_path: Path, guest_61: GuestImage) -> None:
    good, damaged, out = tmp_path / "good", tmp_path / "damaged", tmp_path / "out"
    with open_target(str(guest_61.elf)) as target:
        convert(target, str(good))
    data = bytearray(good.read_bytes())
    with open_kdump(str(good)) as dump:
        places = map(dump.pages.descriptor, range(256, 20_000))  # before the kernel: it still opens
        for place in [place for place in places if place.size > 1000 and place.flags][:100]:
            data[place.offset + 100 : place.offset + 900] = bytes(800)
        damaged.write_bytes(data)
    with open_target(str(damaged)) as target:
        done = convert(target, str(out), codec="snappy")
    assert len(done.lost) == 100
    with open_kdump(str(good)) as dump, open_kdump(str(out)) as found:
        absent = set(np.nonzero(bits(dump, "_held") & ~bits(found, "_held") & 1)[0].tolist())
        assert absent == set(done.lost)
        for frame in range(min(absent) - 20, min(absent) + 400):
            if frame not in absent:
                assert found.read(frame << 12, 4096) == dump.read(frame << 12, 4096)
