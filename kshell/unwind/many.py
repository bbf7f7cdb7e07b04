"""Following thousands of stacks in lock step: the plain frames of all of them, one frame a step. Imports numpy.

What is not plain (saved registers of the kernel itself, another stack, code without an entry, damage) is left to
:func:`kshell.unwind.walk.walk`, from the frame where it happens. Addresses that many stacks share are looked up once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kshell.errors import KshellError
from kshell.unwind import orc
from kshell.unwind.walk import USER_MODE

if TYPE_CHECKING:
    import numpy.typing

    from kshell.memory.model import Memory
    from kshell.unwind.orc import Entry

    Words = numpy.typing.NDArray[numpy.uint64]
    Places = numpy.typing.NDArray[numpy.int64]
    Bools = numpy.typing.NDArray[numpy.bool_]

#: stacks are read from the top down, in one of these sizes (bytes)
SIZES = (512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 32768)
WORD = np.uint64(8)
#: frames after which a stack is left to others
LOCK_STEPS = 128
_LEFT, _CALL, _REGS, _END = range(4)


class Starts(NamedTuple):
    """Where each stack begins; arrays of one length.

    :ivar top: the end of the stack (exclusive), beyond which nothing is read
    """

    pc: Words
    sp: Words
    bp: Words
    top: Words


class Steps(NamedTuple):
    """The frames of many stacks: row *i* has ``depth[i]`` of them.

    :ivar pc, sp, bp: [rows, steps]; behind a row's depth is nothing
    :ivar user: the last frame of the row is user code, whose registers were at ``regs``
    :ivar left: the row could not be finished here: its last frame is where another must go on
    """

    pc: Words
    sp: Words
    bp: Words
    depth: Places
    user: Bools
    regs: Words
    left: Bools


class _Held:
    """The used part of each stack: read at once, looked at as words."""

    def __init__(self, memory: Memory, starts: Starts) -> None:
        count = len(starts.sp)
        used = starts.top - starts.sp
        sizes = np.array(SIZES, np.uint64)
        kind = np.searchsorted(sizes, used)
        self.ok = (starts.sp < starts.top) & (kind < len(SIZES)) & (starts.sp % WORD == 0) & (starts.top % WORD == 0)
        self.first = np.zeros(count, np.int64)  # the number of each row's first word
        self.low = np.zeros(count, np.uint64)  # its address
        self.top = starts.top
        parts = [np.zeros(0, np.uint64)]
        total = 0
        for number, size in enumerate(SIZES):
            rows = np.nonzero(self.ok & (kind == number))[0]
            if not len(rows):
                continue
            low = starts.top[rows] - np.uint64(size)
            found = memory.gather(low, size)
            self.ok[rows] &= found.ok
            parts.append(np.ascontiguousarray(found.data).view("<u8").reshape(-1))
            self.first[rows] = total + np.arange(len(rows), dtype=np.int64) * (size // 8)
            self.low[rows] = low
            total += len(rows) * (size // 8)
        self.words = np.concatenate(parts) if total else np.zeros(1, np.uint64)

    def read(self, rows: Places, addresses: Words) -> tuple[Words, Bools]:
        """Return the words at *addresses* of the stacks *rows*, and which of them are there."""
        offset = addresses - self.low[rows]
        ok = (addresses >= self.low[rows]) & (addresses < self.top[rows]) & (offset % WORD == 0)
        place = self.first[rows] + (np.where(ok, offset, np.uint64(0)) // WORD).astype(np.int64)
        return self.words[place], ok


class _Lookup:
    """The entries of addresses, each asked for once, as columns."""

    def __init__(self, find: Callable[[int], Entry | None]) -> None:
        self._find = find
        self._known: dict[int, tuple[int, int, int, int, int]] = {}

    def _row(self, address: int) -> tuple[int, int, int, int, int]:
        found = self._known.get(address)
        if found is None:
            try:
                entry = self._find(address)
            except KshellError:
                entry = None  # told by the one who goes on
            found = self._known[address] = _plain(entry)
        return found

    def columns(self, addresses: Words) -> tuple[Places, ...]:
        unique, inverse = np.unique(addresses, return_inverse=True)
        table = np.array([self._row(address) for address in unique.tolist()], np.int64).reshape(-1, 5)
        return tuple(table[:, column][inverse] for column in range(5))


def _plain(entry: Entry | None) -> tuple[int, int, int, int, int]:
    """Return (what to do, base, offset, bp, offset of bp)."""
    if entry is not None and entry.kind == orc.END:
        return _END, 0, 0, 0, 0
    if entry is None or entry.base not in (orc.SP, orc.BP) or entry.bp not in (orc.NONE, orc.PREV_SP, orc.BP):
        return _LEFT, 0, 0, 0, 0
    if entry.kind == orc.CALL and not entry.signal:
        return _CALL, entry.base, entry.offset, entry.bp, entry.bp_offset
    return (_REGS if entry.kind == orc.REGS else _LEFT), entry.base, entry.offset, 0, 0


def unwind(
    memory: Memory, find: Callable[[int], Entry | None], odd: frozenset[int], starts: Starts,
) -> Steps:
    """Follow the stacks that begin at *starts*, whose frames are calls.

    :param find: the ORC entry of an address (already one less than a return address); None: there is none
    :param odd: addresses that are left to others: return addresses that stand for others, starts of functions
    """
    held = _Held(memory, starts)
    count = len(starts.sp)
    rows: Places = np.nonzero(held.ok)[0]
    pcs, sps, bps = [starts.pc], [starts.sp], [starts.bp]
    depth = np.ones(count, np.int64)
    user, left, regs = np.zeros(count, np.bool_), ~held.ok, np.zeros(count, np.uint64)
    lookup = _Lookup(find)
    strange = np.array(sorted(odd), np.uint64)
    if len(strange):
        left |= np.isin(starts.pc, strange)
        rows = np.nonzero(~left)[0]
    while len(rows):
        pc, sp, bp = pcs[-1][rows], sps[-1][rows], bps[-1][rows]
        what, base, offset, bp_from, bp_offset = lookup.columns(pc - np.uint64(1))
        cfa = np.where(base == orc.SP, sp, bp) + offset.astype(np.uint64)
        at = np.where(what == _REGS, cfa + np.uint64(16 * 8), cfa - WORD)
        new_pc, ok = held.read(rows, at)
        new_sp = cfa
        saved, saved_ok = held.read(rows, np.where(bp_from == orc.BP, bp, cfa) + bp_offset.astype(np.uint64))
        new_bp = np.where(bp_from == orc.NONE, bp, saved)
        is_regs = what == _REGS
        if is_regs.any():
            cs, cs_ok = held.read(rows, cfa + np.uint64(17 * 8))
            usp, usp_ok = held.read(rows, cfa + np.uint64(19 * 8))
            ubp, ubp_ok = held.read(rows, cfa + np.uint64(4 * 8))
            to_user = is_regs & ok & cs_ok & usp_ok & ubp_ok & (cs & np.uint64(USER_MODE) == USER_MODE)
            new_sp, new_bp = np.where(to_user, usp, new_sp), np.where(to_user, ubp, new_bp)
            user[rows[to_user]] = True
            regs[rows[to_user]] = cfa[to_user]
        else:
            to_user = is_regs
        good = (what == _CALL) & ok & (cfa > sp) & ((bp_from == orc.NONE) | saved_ok)
        if len(strange):
            good &= ~np.isin(new_pc, strange)
        further = good | to_user
        left[rows[~further & (what != _END)]] = True
        if len(pcs) >= LOCK_STEPS:
            left[rows[good]] = True
            break
        following = [np.zeros(count, np.uint64) for _ in range(3)]
        for column, values in zip(following, (new_pc, new_sp, new_bp), strict=True):
            column[rows[further]] = values[further]
        pcs.append(following[0])
        sps.append(following[1])
        bps.append(following[2])
        depth[rows[further]] += 1
        rows = rows[good]
    return Steps(np.stack(pcs, 1), np.stack(sps, 1), np.stack(bps, 1), depth, user, regs, left)
