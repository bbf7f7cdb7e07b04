"""The kernel log: printk's ring buffer, read with VMCOREINFO alone, so that it needs neither types nor symbols.

Kernel source: kernel/printk/printk_ringbuffer.h and .c (896fbe20b4e2, 5.10), kernel/printk/printk.c
(``log_buf`` before). A record is a descriptor (state, place of its text) and an info (time, level) of the same index;
text blocks begin with the descriptor's id and never wrap: one that would is put at the start of the buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import member_offset

if TYPE_CHECKING:
    from kshell.memory.model import Memory
    from kshell.target.target import Target

# Descriptor states, the top two bits of state_var; kernel/printk/printk_ringbuffer.h
COMMITTED, FINALIZED = 1, 2
STATE_SHIFT, ID_MASK = 62, (1 << 62) - 1
#: a buffer larger than CONFIG_LOG_BUF_SHIFT and log_buf_len= can make is damage
MAX_BITS = 31
CALLER_CPU = 0x8000_0000
LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")


class Record(NamedTuple):
    """One record of the log.

    :ivar seq: its number; ``timestamp``: nanoseconds since boot
    :ivar level: 0 emerg to 7 debug; ``facility``: 0 kern
    :ivar caller: "T12" the task or "C3" the CPU that wrote it, "" when not kept
    :ivar text: without the last newline; may hold several lines; an error where it cannot be read
    """

    seq: int
    timestamp: int
    level: int
    facility: int
    caller: str
    text: str | KshellError

    def lines(self, boot_time: int | None = None) -> Iterator[str]:
        """Yield the lines as dmesg(1) prints them: each with the time in front.

        :param boot_time: nanoseconds since 1970 at which the system started: for the time on the wall (UTC) instead
        """
        if boot_time is None:
            head = f"[{self.timestamp // 1_000_000_000:5d}.{self.timestamp // 1000 % 1_000_000:06d}] "
        else:
            head = f"[{wall_time(boot_time + self.timestamp)}] "
        if isinstance(self.text, KshellError):
            yield f"{head}<{self.text}>"
            return
        for line in self.text.split("\n"):
            yield head + line


def wall_time(nanoseconds: int) -> str:
    """Return a time since 1970 as date and time in UTC, to the millisecond; impossible ones as a number of seconds."""
    import time

    try:
        text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(nanoseconds // 1_000_000_000))
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds // 1_000_000_000} s"
    return f"{text}.{nanoseconds // 1_000_000 % 1000:03d}"


def parse_levels(word: str) -> frozenset[int]:
    """Return the levels that *word* means: "err" is that one and all that are worse, "err,info" those two.

    :raises ValueError: there is no such level
    """
    names = word.split(",")
    found = [LEVELS.index(name) for name in names]
    return frozenset(range(found[0] + 1)) if len(names) == 1 else frozenset(found)


class _Offsets:
    """``OFFSET(a.b)`` and ``SIZE(a)`` from VMCOREINFO, from the types where it does not tell."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def offset(self, name: str) -> int:
        told = self.target.vmcoreinfo.offset(name) if self.target.vmcoreinfo else None
        if told is not None:
            return told
        kind, _, path = name.partition(".")
        return member_offset(self.target.type(kind if kind == "atomic_long_t" else f"struct {kind}"), path)

    def size(self, name: str) -> int:
        told = self.target.vmcoreinfo.size(name) if self.target.vmcoreinfo else None
        return told or self.target.type(f"struct {name}").size or 0


class _Bytes:
    """A table in memory: read whole when that is possible, else piece by piece, so that damage costs what it hits."""

    def __init__(self, memory: Memory, address: int, size: int) -> None:
        self.memory, self.address = memory, address
        self.data, self.fault = memory.read_upto(address, size)

    def read(self, offset: int, size: int) -> bytes:
        if offset + size <= len(self.data):
            return self.data[offset : offset + size]
        return self.memory.read(self.address + offset, size)


def iter_records(target: Target) -> Iterator[Record]:
    """Yield the records of the kernel log, the oldest first.

    :raises KshellError: the log cannot be found, or what describes it cannot be read or is impossible
    """
    require_kernel(target)
    try:
        ring = target.address_of("prb")
    except KshellError:
        info = target.vmcoreinfo
        if info is None or info.symbol("log_buf") is None or info.size("printk_log") is None:
            raise
        return _old_records(target)
    return _Ring(target, target_pointer(target, ring)).records()


def target_pointer(target: Target, address: int) -> int:
    """Return the pointer at the kernel address *address*."""
    return int.from_bytes(target.kernel.read(address, 8), "little")


class _Ring:
    """A ``struct printk_ringbuffer``: its two tables and its text."""

    def __init__(self, target: Target, address: int) -> None:
        at = _Offsets(target)
        kernel = target.kernel
        counter = at.offset("atomic_long_t.counter")
        ring = address + at.offset("printk_ringbuffer.desc_ring")
        text = address + at.offset("printk_ringbuffer.text_data_ring")
        bits = int.from_bytes(kernel.read(ring + at.offset("prb_desc_ring.count_bits"), 4), "little")
        text_bits = int.from_bytes(kernel.read(text + at.offset("prb_data_ring.size_bits"), 4), "little")
        if not 0 < bits <= MAX_BITS - 5 or not 0 < text_bits <= MAX_BITS:
            raise FormatError(f"the printk ring at 0x{address:x} is damaged: 2^{bits} records, 2^{text_bits} bytes")
        self.count, self.text_size = 1 << bits, 1 << text_bits
        self.head = target_pointer(target, ring + at.offset("prb_desc_ring.head_id") + counter) & ID_MASK
        self.tail = target_pointer(target, ring + at.offset("prb_desc_ring.tail_id") + counter) & ID_MASK
        self.desc_size, self.info_size = at.size("prb_desc"), at.size("printk_info")
        if not 16 <= self.desc_size <= 4096 or not 16 <= self.info_size <= 4096:
            raise FormatError(f"impossible sizes of printk's structures: {self.desc_size}, {self.info_size}")
        pointers = [target_pointer(target, ring + at.offset(f"prb_desc_ring.{name}")) for name in ("descs", "infos")]
        self.descs = _Bytes(kernel, pointers[0], self.count * self.desc_size)
        self.infos = _Bytes(kernel, pointers[1], self.count * self.info_size)
        self.text = _Bytes(kernel, target_pointer(target, text + at.offset("prb_data_ring.data")), self.text_size)
        self.state = at.offset("prb_desc.state_var") + counter
        block = at.offset("prb_desc.text_blk_lpos")
        self.begin, self.next = (block + at.offset(f"prb_data_blk_lpos.{name}") for name in ("begin", "next"))
        self.seq, self.time, self.length, self.caller = (
            at.offset(f"printk_info.{name}") for name in ("seq", "ts_nsec", "text_len", "caller_id"))

    def records(self) -> Iterator[Record]:
        """Yield the records from tail to head; descriptors that are being written or reused are left out."""
        if self.head - self.tail & ID_MASK >= self.count:
            raise FormatError(f"the printk ring buffer is damaged: ids 0x{self.tail:x} to 0x{self.head:x}")
        for number in range((self.head - self.tail & ID_MASK) + 1):
            record = self._record(self.tail + number & ID_MASK)
            if record is not None:
                yield record

    def _record(self, ident: int) -> Record | None:
        index = ident % self.count
        desc = self.descs.read(index * self.desc_size, self.desc_size)
        state = _u64(desc, self.state)
        if state & ID_MASK != ident or state >> STATE_SHIFT not in (COMMITTED, FINALIZED):
            return None
        info = self.infos.read(index * self.info_size, self.info_size)
        # printk_info: {u64 seq; u64 ts_nsec; u16 text_len; u8 facility; u8 flags:5, level:3; u32 caller_id; ...}.
        # VMCOREINFO tells text_len, the two bytes behind it have been there since 5.10.
        length, facility, flags = struct.unpack_from("<HBB", info, self.length)
        text: str | KshellError
        try:
            text = self._text(ident, _u64(desc, self.begin), _u64(desc, self.next), length)
        except KshellError as error:
            text = error
        caller = _caller(struct.unpack_from("<I", info, self.caller)[0])
        return Record(_u64(info, self.seq), _u64(info, self.time), flags >> 5, facility, caller, text)

    def _text(self, ident: int, begin: int, after: int, length: int) -> str:
        """Return the text of a block between two logical positions: get_data()."""
        if begin & 1 and after & 1:
            return ""  # LPOS_DATALESS: an empty line, or a text that did not fit
        wraps, wraps_after = begin // self.text_size, (after - 1) // self.text_size
        start = begin % self.text_size
        if wraps == wraps_after and after > begin:
            size = after - begin
        elif wraps + 1 == wraps_after:
            start, size = 0, after % self.text_size  # it did not fit behind begin: it is at the start of the buffer
        else:
            raise FormatError(f"log record {ident} has impossible positions 0x{begin:x}, 0x{after:x}")
        if size < 8 or start + size > self.text_size:
            raise FormatError(f"log record {ident} has an impossible size {size}")
        owner = _u64(self.text.read(start, 8), 0)
        if owner & ID_MASK != ident:
            raise FormatError(f"the text of log record {ident} has been overwritten")
        return _decode(self.text.read(start + 8, min(length, size - 8)))


def _old_records(target: Target) -> Iterator[Record]:
    """Yield the records of ``log_buf``, before 5.10: {header, text, dictionary} one behind the other."""
    info = target.vmcoreinfo
    assert info is not None
    where: dict[str, int] = {}
    for name in ("log_buf", "log_buf_len", "log_first_idx", "log_next_idx"):
        found = info.symbol(name)
        if found is None:
            raise FormatError(f"VMCOREINFO has no SYMBOL({name})")
        where[name] = found
    size = int.from_bytes(target.kernel.read(where["log_buf_len"], 4), "little")
    first, last = (int.from_bytes(target.kernel.read(where[n], 4), "little") for n in ("log_first_idx", "log_next_idx"))
    header = info.size("printk_log") or 0
    if not 0 < size <= 1 << MAX_BITS or header < 16 or first > size or last > size:
        raise FormatError(f"the kernel log is damaged: {size} bytes, first {first}, next {last}, headers of {header}")
    buffer = _Bytes(target.kernel, target_pointer(target, where["log_buf"]), size)
    time, length, text_length = (info.offset(f"printk_log.{name}") or 0 for name in ("ts_nsec", "len", "text_len"))
    at, seq, wrapped = first, 0, first < last
    while at != last:
        head = buffer.read(at, header)
        total, chars = struct.unpack_from("<H", head, length)[0], struct.unpack_from("<H", head, text_length)[0]
        if total == 0:  # the rest is unused: go on at the start
            if wrapped:
                raise FormatError("the kernel log is damaged: its records do not end")
            at, wrapped = 0, True
            continue
        if total < header or header + chars > total or (wrapped and at < last < at + total):
            raise FormatError(f"the kernel log is damaged: a record of {total} bytes with {chars} of text")
        # struct printk_log: {...; u16 text_len; u16 dict_len; u8 facility; u8 flags:5, level:3; [u32 caller_id]}
        facility, flags = struct.unpack_from("<BB", head, text_length + 4)
        text: str | KshellError
        try:
            text = _decode(buffer.read(at + header, chars))
        except Fault as fault:
            text = fault
        yield Record(seq, struct.unpack_from("<Q", head, time)[0], flags >> 5, facility, "", text)
        at, seq = at + total, seq + 1
        if at >= size and at != last:
            raise FormatError("the kernel log is damaged: a record passes its end")


def _u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape").rstrip("\n\0")


def _caller(ident: int) -> str:
    if ident == 0:
        return ""  # CONFIG_PRINTK_CALLER is off
    return f"C{ident & ~CALLER_CPU}" if ident & CALLER_CPU else f"T{ident}"
