"""Runs of pages, read by several threads into one buffer, beside the same pages one by one."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from kshell.errors import Reason
from kshell.memory.codecs import CODECS, INCOMPLETE, encoder_of
from kshell.memory.kdump import open_kdump
from kshell.memory.pages import CACHE_BYTES, DESCRIPTOR, Pages

PAGE = 4096
COUNT = 700  # more than two threads' jobs


class Bytes:
    """A source in memory that counts its reads."""

    def __init__(self, data: bytes) -> None:
        self.data, self.reads, self.size = data, 0, len(data)

    def pread(self, size: int, offset: int) -> bytes:
        self.reads += 1
        return self.data[offset : offset + size] if offset >= 0 else b""

    def changed(self) -> str | None:
        return None

    def key(self) -> str | None:
        return None

    def close(self) -> None: ...


def page(number: int) -> bytes:
    return bytes(PAGE) if number % 7 == 3 else random.Random(number).randbytes(64) * 64


def table(codec: int, spoil: dict[int, tuple[int, int, int]] | None = None) -> bytes:
    """Return descriptors and pages; pages of zeroes share one place behind all others, as makedumpfile writes them."""
    encode = encoder_of(codec) if codec else bytes
    rows, body = [], b""
    start = COUNT * DESCRIPTOR.size
    for number in range(COUNT):
        piece = encode(page(number))
        rows.append((start + len(body), len(piece), codec, 0))
        body += b"" if number % 7 == 3 else piece
    body += bytes(PAGE * 200)
    zeroes = start + len(body), len(encode(bytes(PAGE))), codec, 0
    rows = [zeroes if number % 7 == 3 else row for number, row in enumerate(rows)]
    for number, found in (spoil or {}).items():
        rows[number] = (*found, 0)
    return b"".join(struct.pack("<qIIQ", *row) for row in rows) + body + encode(bytes(PAGE))


@pytest.mark.parametrize("codec", [0, *CODECS])
def test_a_run_is_what_its_pages_are(codec: int) -> None:
    source = Bytes(table(codec))
    pages = Pages(source, 0, PAGE)
    buffer = bytearray(COUNT * PAGE)
    assert pages.fill(0, memoryview(buffer)) == (COUNT, None)
    assert source.reads < COUNT // 4
    for number in range(COUNT):
        assert buffer[number * PAGE : (number + 1) * PAGE] == page(number) == pages.load(number)
    pages.close()


@pytest.mark.parametrize("bad, reason", [
    ((1 << 40, 100, 1), Reason.TRUNCATED), ((0, 100, 1), Reason.TRUNCATED), ((64, 100, INCOMPLETE), Reason.TRUNCATED),
    ((64, PAGE + 1, 1), Reason.IO), ((64, 0, 1), Reason.IO), ((-5, 100, 1), Reason.TRUNCATED),
    ((64, 100, 1), Reason.IO), ((64, 100, 3), Reason.IO), ((64, 100, 0), Reason.IO)])
def test_a_run_ends_at_the_first_page_that_cannot_be_had(bad: tuple[int, int, int], reason: Reason) -> None:
    pages = Pages(Bytes(table(1, {333: bad, 500: bad})), 0, PAGE)
    buffer = bytearray(COUNT * PAGE)
    done, error = pages.fill(0, memoryview(buffer))
    assert done == 333 and error is not None and error.reason is reason
    assert buffer[: 333 * PAGE] == b"".join(map(page, range(333)))
    assert pages.load_many([332, 333, 334]) == [page(332), None, page(334)]
    assert pages.load(334) == page(334)
    pages.close()


def test_reading_page_by_page_is_read_ahead_and_random_reads_are_not() -> None:
    source = Bytes(table(1))
    pages = Pages(source, 0, PAGE)
    for number in range(COUNT):
        assert pages.load(number) == page(number)
    assert source.reads < COUNT // 2
    pages.close()
    apart = list(range(0, COUNT, 3))
    random.Random(1).shuffle(apart)
    pages, source.reads = Pages(source, 0, PAGE), 0
    for number in apart:
        pages.load(number)
    assert source.reads <= len(apart) + COUNT // 128 + 1 + 10 * 4  # one each, the table, and a few that followed


def test_what_is_kept_is_bounded_in_bytes() -> None:
    pages = Pages(Bytes(table(1)), 0, PAGE)
    pages._most = 50
    for number in [*range(COUNT), *range(0, COUNT, 5)]:
        assert pages.load(number) == page(number)
    assert len(pages._kept) <= 50
    assert Pages(Bytes(b""), 0, PAGE)._most * PAGE <= CACHE_BYTES
    pages.close()


def test_a_read_over_held_and_missing_pages_allocates_for_the_held_ones(tmp_path: Path) -> None:
    from tests.memory.test_kdump import built
    from tests.memory.test_kdump import page as other

    path = tmp_path / "dump"
    held = dict.fromkeys([*range(100, 300), *range(400, 1024)], 1)
    path.write_bytes(built(held, {*held, 300}))
    with open_kdump(str(path)) as dump:
        data, fault = dump.read_upto(100 * PAGE + 5, 1 << 50)
        assert data == b"".join(map(other, range(100, 300)))[5:]
        assert fault is not None and (fault.address, fault.reason) == (300 * PAGE, Reason.EXCLUDED)
        assert (fault.size, fault.done, fault.partial) == (1 << 50, len(data), data)
        buffer = bytearray(600 * PAGE)
        assert dump.read_into(400 * PAGE + 7, memoryview(buffer)[: 599 * PAGE]) is None
        assert buffer[: 599 * PAGE] == b"".join(map(other, range(400, 1000)))[7 : 599 * PAGE + 7]
        assert dump.read_many([100 * PAGE + 8 * n for n in range(9000)], 8)[:3] == [
            other(100)[8 * n : 8 * n + 8] for n in range(3)]
