"""The log's ring buffer in built bytes: whole, wrapped, damaged, partly unreadable; and the older log_buf."""

from __future__ import annotations

import struct

import pytest

from kshell.errors import Fault, FormatError, KshellError
from kshell.linux import printk
from tests.linux.built import BASE, Built

INFO = f"""SYMBOL(prb)={BASE + 0x800:x}
OFFSET(printk_ringbuffer.desc_ring)=0
OFFSET(printk_ringbuffer.text_data_ring)=64
OFFSET(prb_desc_ring.count_bits)=0
OFFSET(prb_desc_ring.descs)=8
OFFSET(prb_desc_ring.infos)=16
OFFSET(prb_desc_ring.head_id)=24
OFFSET(prb_desc_ring.tail_id)=32
OFFSET(prb_data_ring.size_bits)=0
OFFSET(prb_data_ring.data)=8
OFFSET(prb_desc.state_var)=0
OFFSET(prb_desc.text_blk_lpos)=8
OFFSET(prb_data_blk_lpos.begin)=0
OFFSET(prb_data_blk_lpos.next)=8
OFFSET(printk_info.seq)=0
OFFSET(printk_info.ts_nsec)=8
OFFSET(printk_info.text_len)=16
OFFSET(printk_info.caller_id)=20
OFFSET(atomic_long_t.counter)=0
SIZE(prb_desc)=24
SIZE(printk_info)=24
"""
DESCS, INFOS, TEXT = 0x1000, 0x2000, 0x4000
COUNT_BITS, TEXT_BITS = 3, 8
COMMITTED, FINALIZED, REUSABLE = 1 << 62, 2 << 62, 3 << 62


class Ring:
    """Builds a ring of 8 records and 256 bytes of text; ids start so that they wrap around 2^62."""

    first = (1 << 62) - 4

    def __init__(self) -> None:
        self.built = Built({}, INFO)
        self.lpos = -512 & (1 << 64) - 1  # the first lap of the real ring is this one too
        self.count = 0
        memory = self.built.kernel
        memory.words(0x800, BASE)
        memory.words(0, COUNT_BITS, BASE + DESCS, BASE + INFOS)
        memory.words(64, TEXT_BITS, BASE + TEXT)
        self.ends()

    def ends(self) -> None:
        head = (self.first + max(self.count, 1) - 1) % (1 << 62)
        self.built.kernel.words(24, head, self.first)

    def add(self, text: bytes, state: int = FINALIZED, level: int = 6, caller: int = 0) -> int:
        """Add a record; return its id."""
        ident = (self.first + self.count) % (1 << 62)
        size = 8 + (len(text) + 7) // 8 * 8
        begin = self.lpos
        if begin % 256 + size > 256:  # it does not fit: it goes to the start of the buffer
            after = begin - begin % 256 + 256 + size
            place = 0
        else:
            after, place = begin + size, begin % 256
        self.lpos = after % (1 << 64)
        memory = self.built.kernel
        memory.put(TEXT + place, struct.pack("<Q", ident) + text)
        index = ident % 8
        memory.words(DESCS + index * 24, state | ident, begin, after)
        info = self.count, self.count * 1_500_000_000, len(text), 0, level << 5, caller
        memory.put(INFOS + index * 24, struct.pack("<QQHBBI", *info))
        self.count += 1
        self.ends()
        return ident

    def records(self) -> list[printk.Record]:
        return list(printk.iter_records(self.built.target))


def test_records_with_time_level_and_caller() -> None:
    ring = Ring()
    ring.add(b"Linux version 6.1")
    ring.add(b"oops\nsecond line", level=0, caller=0x8000_0003)
    ring.add(b"from a task", caller=12)
    first, second, third = ring.records()
    assert first == printk.Record(0, 0, 6, 0, "", "Linux version 6.1")
    assert (second.level, second.caller) == (0, "C3")
    assert list(second.lines()) == ["[    1.500000] oops", "[    1.500000] second line"]
    assert third.caller == "T12"


def test_ids_and_texts_wrap() -> None:
    ring = Ring()
    texts = [b"x" * 50 + bytes([65 + number]) for number in range(4)] + [b"y" * 40, b"z" * 200]
    for text in texts[:4]:
        ring.add(text)
    assert [record.text for record in ring.records()] == [text.decode() for text in texts[:4]]
    ring.add(texts[4])
    assert ring.records()[-1].text == "y" * 40  # at the start of the buffer
    # The oldest one has been overwritten; in a damaged log it may still be described.
    assert isinstance(ring.records()[0].text, FormatError)


def test_a_text_that_ends_exactly_at_the_end_of_the_buffer() -> None:
    ring = Ring()
    ring.add(b"a" * 120)
    ring.add(b"b" * 120)
    assert [record.text for record in ring.records()] == ["a" * 120, "b" * 120]


def test_records_that_are_not_complete_are_left_out() -> None:
    ring = Ring()
    ring.add(b"one")
    ring.add(b"being written", state=0)
    ring.add(b"to be reused", state=REUSABLE)
    ring.add(b"committed", state=COMMITTED)
    assert [record.text for record in ring.records()] == ["one", "committed"]


def test_a_record_without_text() -> None:
    ring = Ring()
    ident = ring.add(b"gone")
    ring.built.kernel.words(DESCS + ident % 8 * 24 + 8, 3, 3)
    assert ring.records()[0].text == ""


def test_escapes_and_bytes_that_are_no_utf_8_stay_bytes() -> None:
    ring = Ring()
    ring.add(b"\x1b[31mred\xff")
    assert ring.records()[0].text == "\x1b[31mred\udcff"


@pytest.mark.parametrize("begin, after", [(0, 1 << 40), (1 << 40, 0), (0, 8), (0, 4), (256, 1024)])
def test_impossible_positions_cost_their_record(begin: int, after: int) -> None:
    ring = Ring()
    ident = ring.add(b"first")
    ring.add(b"second")
    ring.built.kernel.words(DESCS + ident % 8 * 24 + 8, begin, after)
    first, second = ring.records()
    assert isinstance(first.text, FormatError) or first.text == ""
    assert second.text == "second"


@pytest.mark.parametrize("offset, value", [(0, 0), (0, 40), (64, 0), (64, 60), (24, 1 << 40)])
def test_an_impossible_ring_is_an_error(offset: int, value: int) -> None:
    ring = Ring()
    ring.add(b"text")
    ring.built.kernel.words(offset, value)
    with pytest.raises(FormatError, match="damaged"):
        ring.records()


def test_a_text_page_that_is_missing_costs_its_records() -> None:
    ring = Ring()
    ring.add(b"text")
    ring.built.kernel.gone.add(TEXT >> 12)
    (record,) = ring.records()
    assert isinstance(record.text, Fault)
    assert "<cannot read" in next(record.lines())


def test_a_missing_table_is_an_error_and_not_an_empty_log() -> None:
    ring = Ring()
    ring.add(b"text")
    ring.built.kernel.gone.add(DESCS >> 12)
    with pytest.raises(Fault):
        ring.records()


OLD = f"""SYMBOL(log_buf)={BASE:x}
SYMBOL(log_buf_len)={BASE + 8:x}
SYMBOL(log_first_idx)={BASE + 16:x}
SYMBOL(log_next_idx)={BASE + 24:x}
OFFSET(printk_log.ts_nsec)=0
OFFSET(printk_log.len)=8
OFFSET(printk_log.text_len)=10
OFFSET(printk_log.dict_len)=12
SIZE(printk_log)=16
"""


def old_log(records: list[tuple[int, bytes]], first: int, after: int, size: int = 256) -> Built:
    built = Built({}, OLD)
    built.kernel.words(0, BASE + 0x1000, size, first, after)
    for offset, text in records:
        total = 0 if text == b"wrap" else 16 + (len(text) + 3) // 4 * 4
        header = struct.pack("<QHHHBB", 2_000_000_000, total, len(text), 0, 0, 4 << 5)
        built.kernel.put(0x1000 + offset, header + text)
    return built


def test_the_log_before_5_10() -> None:
    built = old_log([(0, b"one!"), (20, b"two")], 0, 40)
    assert [(r.seq, r.level, r.text) for r in printk.iter_records(built.target)] == [(0, 4, "one!"), (1, 4, "two")]


def test_the_old_log_wraps() -> None:
    built = old_log([(200, b"old!"), (220, b"wrap"), (0, b"new")], 200, 20)
    assert [record.text for record in printk.iter_records(built.target)] == ["old!", "new"]


@pytest.mark.parametrize("records, first, after", [
    ([(0, b"wrap")], 0, 40),            # a mark of the end where there was no beginning
    ([(0, b"text")], 0, 18),            # the last record passes the end
    ([(240, b"long text")], 240, 100),  # it passes the end of the buffer
    ([], 300, 0),
])
def test_old_log_damage(records: list[tuple[int, bytes]], first: int, after: int) -> None:
    with pytest.raises(FormatError, match="damaged"):
        list(printk.iter_records(old_log(records, first, after).target))


def test_no_log_to_be_found_is_an_error() -> None:
    with pytest.raises(KshellError):
        list(printk.iter_records(Built({}, "KERNELOFFSET=0\n").target))
