"""The same memory has the same checksum in every container; one bit, one page less or elsewhere has another."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from kshell.errors import Fault, Reason
from kshell.linux.checksum import CHUNK, checksum
from kshell.linux.search import ram
from kshell.memory.model import Memory
from kshell.target.open import open_target
from tests.guest.image import GuestImage


class Pages(Memory):
    """Pages of memory, by address; all others are excluded."""

    def __init__(self, pages: dict[int, bytes]) -> None:
        super().__init__()
        self.pages = pages

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        data = b""
        while len(data) < size and (address + len(data)) & ~4095 in self.pages:
            at = address + len(data)
            data += self.pages[at & ~4095][at & 4095 :][: size - len(data)]
        if len(data) == size:
            return data, None
        return data, Fault(address + len(data), size, Reason.EXCLUDED, done=len(data), space="physical")


KSHELL = [sys.executable, "-m", "kshell"]
A, B = b"a" * 4096, b"b" * 4096


def test_what_counts() -> None:
    runs = [(0, 8 << 12)]
    found = checksum(Pages({0x1000: A, 0x2000: B, 0x5000: A}), runs)
    plain = hashlib.sha256((0x1000).to_bytes(8, "little") + A + B + (0x5000).to_bytes(8, "little") + A)
    assert found == (3 << 12, {Reason.EXCLUDED: 5 << 12}, plain.hexdigest())
    others = [{0x1000: A, 0x2000: B}, {0x1000: A, 0x3000: B, 0x5000: A}, {0x1000: B, 0x2000: A, 0x5000: A},
              {0x1000: A, 0x2000: B, 0x5000: A[:-1] + b"!"}]
    assert len({checksum(Pages(pages), runs).digest for pages in others} | {found.digest}) == 5


def test_where_runs_and_chunks_end_does_not_count() -> None:
    pages = Pages({at: bytes([at >> 12 & 255]) * 4096 for at in range(0, CHUNK + 0x3000, 4096)})
    whole = checksum(pages, [(0, CHUNK + 0x3000)])
    assert whole == checksum(pages, [(0, 0x1800), (0x1800, CHUNK), (CHUNK, CHUNK + 0x3000)])
    assert whole.size == CHUNK + 0x3000 and not whole.missed


def test_containers_of_one_memory(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf)) as one, open_target(str(guest_61.folder / "kdump.zlib")) as other:
        known = checksum(one.physical, ram(one))
        assert known == checksum(other.physical, ram(other))
        all_there_could_be = checksum(one.physical, [(0, 1 << 64)])  # not tried page by page
        assert all_there_could_be[:1] + all_there_could_be[2:] == known[:1] + known[2:]
        assert all_there_could_be.missed == {Reason.OUTSIDE: (1 << 64) - known.size}
    line = "::checksum; linux_banner::write -s X ! true; ::checksum"
    command = [*KSHELL, "--cow", "-e", line, str(guest_61.elf)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sums = [row.split()[1] for row in done.stdout.splitlines() if len(row.split()) == 2 and row.split()[0].isdigit()]
    assert len(sums) == len(set(sums)) == 2


@pytest.mark.parametrize("line, error", [
    ("1000::checksum", "go together"), ("::checksum -l 10", "go together"), ("::checksum -p", "go together"),
    ("1000::checksum -u -l 10", "takes no address"), ("::checksum -u", "no process context"),
])
def test_wrong_use(line: str, error: str, guest_61: GuestImage) -> None:
    done = subprocess.run([*KSHELL, "-e", line, str(guest_61.elf)], capture_output=True, text=True, check=False)
    assert error in done.stderr and done.returncode == 1
