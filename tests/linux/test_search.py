"""Searching: every hit once, also across chunks and behind holes; on a real kernel against a plain scan of its RAM."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.errors import Fault, KshellError, Reason
from kshell.linux import search as module
from kshell.linux.search import Search, bytes_finder, regex_finder, search_ram, word_finder
from kshell.memory.model import Memory
from kshell.target.open import open_target
from tests.guest.image import GuestImage

START = 0x10000


class Holes(Memory):
    """Bytes from START on; *holes* are pages that are not there."""

    def __init__(self, data: bytes, holes: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.data, self.holes = data, holes

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        at = address - START
        for page in range(at >> 12, (at + size - 1 >> 12) + 1):
            if page in self.holes:
                stop = max(page << 12, at)
                held = self.data[at:stop]
                return held, Fault(START + stop, size, Reason.EXCLUDED, done=len(held), space="physical")
        return self.data[at : at + size], None


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([b"\0", b"ab", b"aba", b"x" * 100, b"\xff" * 4096]), max_size=12).map(b"".join),
       st.sets(st.integers(0, 8), max_size=2), st.sampled_from([b"ab", b"aba", b"bab\0", b"\xff\xff"]),
       st.sampled_from([16, 4096, 5000, 1 << 20]))
def test_bytes_are_found_once_wherever_chunks_end(data: bytes, holes: set[int], pattern: bytes, chunk: int) -> None:
    patched = pytest.MonkeyPatch()
    patched.setattr(module, "CHUNK", chunk)
    try:
        search = Search(*bytes_finder(pattern))
        found = list(search.run(Holes(data, frozenset(holes)), START, START + len(data)))
    finally:
        patched.undo()
    pages = [data[at : at + 4096] for at in range(0, len(data), 4096)]
    seen = b"".join(b"?" * len(page) if number in holes else page for number, page in enumerate(pages))
    assert found == [START + at for at in range(len(data)) if seen.startswith(pattern, at)]
    assert sum(search.missed.values()) == sum(len(page) for number, page in enumerate(pages) if number in holes)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([1, 2, 4, 8]), st.integers(0, 255), st.sampled_from([0xF0, 0xFF, None]),
       st.integers(0, 20), st.sampled_from([16, 64, 1 << 20]))
def test_words_are_found_by_mask_and_distance(
    data: bytes, size: int, value: int, mask: int | None, distance: int, chunk: int,
) -> None:
    patched = pytest.MonkeyPatch()
    patched.setattr(module, "CHUNK", chunk)
    try:
        finder = word_finder(value, size, "little", mask=mask, distance=0 if mask else distance)
        found = list(Search(*finder).run(Holes(data), START, START + len(data)))
    finally:
        patched.undo()
    expected = []
    for at in range(0, len(data) - size + 1, size):
        word = int.from_bytes(data[at : at + size], "little")
        full = (1 << 8 * size) - 1
        good = word & mask == value & mask if mask else (word - value) % (full + 1) <= distance
        if good:
            expected.append(START + at)
    assert found == expected


def test_what_is_no_pattern() -> None:
    with pytest.raises(KshellError, match="regular expression"):
        regex_finder("(")
    with pytest.raises(KshellError, match="empty"):
        bytes_finder(b"")


def test_ram_of_a_kernel_against_a_plain_scan(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf)) as target:
        blob = b"".join(target.physical.read(start, end - start) for start, end in module.ram(target))
        for pattern in (b"Linux version 6.1", b"swapper/0\0"):
            found = list(search_ram(target, Search(*bytes_finder(pattern))))
            assert len(found) == len(re.findall(re.escape(pattern), blob)) > 0
            assert all(target.physical.read(at, len(pattern)) == pattern for at in found)
        init_task = guest_61.oracle.symbol("init_task")
        places = list(search_ram(target, Search(*word_finder(init_task, 8, "little"))))
        word = re.escape(init_task.to_bytes(8, "little"))
        words = [match.start() for match in re.finditer(word, blob) if match.start() % 8 == 0]
        assert len(places) == len(words) > 10
        base = module.direct_map(target)
        assert all(target.kernel.u64(base + place) == init_task for place in places)


def test_a_range_with_a_wide_hole_is_searched_at_once(guest_61: GuestImage) -> None:
    """From user addresses, over the hole between the halves, to the direct map."""
    with open_target(str(guest_61.elf)) as target:
        base = module.direct_map(target)
        hit = next(search_ram(target, Search(*bytes_finder(b"Linux version 6.1"))))
        search = Search(*bytes_finder(b"Linux version 6.1"))
        assert list(search.run(target.kernel, 1 << 63, base + hit + 64)) == [base + hit]
        assert search.missed[Reason.NOT_MAPPED] >= base - (1 << 63)


def test_progress_reaches_the_end(guest_61: GuestImage) -> None:
    told: list[tuple[str, int, int]] = []
    with open_target(str(guest_61.elf)) as target:
        target.progress = lambda what, done, total: told.append((what, done, total))
        list(search_ram(target, Search(*bytes_finder(b"nowhere to be found, this text"))))
    assert told[-2][1] == told[-2][2] and told[-1][0] == "" and len(told) > 10
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_only_what_is_the_kernels_is_named_after_it(guest_61: GuestImage) -> None:
    """Pages of the gaps between the sections were given back, and have the victim's text in them here and there."""
    with open_target(str(guest_61.elf)) as target:
        names = module.PhysicalNames(target)
        banner = guest_61.oracle.symbol("linux_banner")
        hits = [names.virtual(hit) for hit in search_ram(target, Search(*bytes_finder(b"Linux version 6.1")))]
        assert (banner, True) in hits and any(not symbolic for _, symbolic in hits)
        user = list(search_ram(target, Search(*bytes_finder(b"kshell victim: the quick brown fox"))))
        lows = [target.symbol(name).address for name in ("_text", "__start_rodata", "_sdata", "__bss_start")]
        ends = [target.symbol(name).address for name in ("_etext", "__end_rodata", "_edata", "__bss_stop")]
        for hit in user:
            place, symbolic = names.virtual(hit)
            assert symbolic == any(low <= place < end for low, end in zip(lows, ends, strict=True))
            assert target.kernel.read(names.virtual(hit)[0], 13) == b"kshell victim"
