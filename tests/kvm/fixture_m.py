"""Fixture M of libkvm.md section 8: a whole target in a few hundred bytes of Python, no kernel in it.

Kernel pages K+0, 1, 2 and 4 are mapped and K+3 is a hole; byte *i* from K on is ``(7*i+3) & 255``. Frames lie in
another order than pages, so that a page crossing is a frame crossing. Beyond section 8: K+6 is a page whose format
says that it is zero without storing it, and K+7 is mapped to a frame that the image does not hold.

Translations are hash chains as in an illumos dump (libkvm.md 2.7, rule 10): entries (page, frame, next) in a table,
next being a byte offset in it, so that tests can bend them: loops, misaligned and wild links.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from kshell.errors import Fault, FormatError, Reason
from kshell.kvm import Facts, Kvm, Page, User
from kshell.memory.model import Memory, Range
from kshell.types.model import Symbol

P = 4096
K = 0xFFFF_8880_0000_0000
U = 0x40_0000
ZERO_PAGE, NO_FRAME_PAGE = K + 6 * P, K + 7 * P
KERNEL_FRAMES = {0: 0x12, 1: 0x10, 2: 0x15, 4: 0x11, 6: 0x30, 7: 0x99}
USER_FRAMES = {100: {0: 0x20, 1: 0x1F, 3: 0x21}, 200: {0: 0x22}}
ARGUMENTS, ENVIRONMENT = b"a\0bc\0", b"X=1\0"
ARG_START = U + P + 0x800
TASKS = 0xFFFF_8880_1000_0000       # of the task structures, which are facts here and no bytes
SYMBOLS = [
    Symbol("init_mm", 0xFFFF_FFFF_8200_0000, 1024, "D"),
    Symbol("kas", 0xFFFF_FFFF_8200_0400, 256, "B"),
    Symbol("twice", 0xFFFF_FFFF_8200_1000, 8, "d"),
    Symbol("start", 0xFFFF_FFFF_8100_0000, 64, "T"),
    Symbol("twice", 0xFFFF_FFFF_8200_2000, 8, "d"),
    Symbol("mixed", 0xFFFF_FFFF_8200_3000, 8, "D"),
    Symbol("mixed", 0xFFFF_FFFF_8200_4000, 8, "d"),
    Symbol("absolute", 0x1000, 0, "A"),
]


def pattern(start: int, size: int) -> bytes:
    """Return what the kernel pages hold from offset *start* on."""
    return bytes((7 * i + 3) & 255 for i in range(start, start + size))


def user_pattern(pid: int, start: int, size: int) -> bytes:
    """Return what the user pages of *pid* hold, where they are not arguments."""
    return bytes((5 * i + pid) & 255 for i in range(start, start + size))


class Chains:
    """One translation table: 8 buckets of chains."""

    ENTRY = struct.Struct("<QQQ")
    LIMIT = 1000

    def __init__(self) -> None:
        self.heads = [0] * 8
        self.table = bytearray(self.ENTRY.size)     # offset 0 is the end of a chain
        self.steps = 0                              # taken by the last translation

    def add(self, page: int, frame: int) -> None:
        """Map page number *page*."""
        bucket, place = page % 8, len(self.table)
        self.table += self.ENTRY.pack(page, frame, self.heads[bucket])
        self.heads[bucket] = place

    def bend(self, page: int, link: int) -> None:
        """Make the chain that *page* is on begin with an entry of another page whose next is *link*."""
        bucket, place = page % 8, len(self.table)
        self.table += self.ENTRY.pack(page + 8, 0, place if link == -1 else link)
        self.heads[bucket] = place

    def frame(self, page: int) -> int | None:
        """Return the frame of *page*. :raises FormatError: the chain is damaged"""
        place, self.steps = self.heads[page % 8], 0
        while place:
            self.steps += 1
            if place % self.ENTRY.size or place + self.ENTRY.size > len(self.table) or self.steps > self.LIMIT:
                raise FormatError(f"translation chain at {place:#x}")
            found, frame, following = self.ENTRY.unpack_from(self.table, place)
            if found % 8 != page % 8:
                raise FormatError(f"translation chain at {place:#x}: entry of another bucket")
            if found == page:
                return int(frame)
            place = following
        return None


class Frames(Memory):
    """The physical memory."""

    space = "physical"

    def __init__(self, frames: dict[int, bytearray], zero: set[int], writable: bool) -> None:
        self.frames, self.zero, self.writable = frames, zero, writable

    def page(self, number: int) -> bytes | bytearray | None:
        return bytes(P) if number in self.zero else self.frames.get(number)

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        out = bytearray()
        while len(out) < size:
            here = address + len(out)
            page = self.page(here // P)
            if page is None:
                return bytes(out), Fault(here, size, Reason.OUTSIDE, partial=bytes(out), space=self.space)
            out += page[here % P : here % P + size - len(out)]
        return bytes(out), None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        done = 0
        while done < len(data):
            here = address + done
            page = self.frames.get(here // P)
            if page is None or not self.writable:
                reason = Reason.OUTSIDE if self.writable else Reason.READ_ONLY
                raise Fault(here, len(data), reason, done=done, space=self.space, verb="write")
            count = min(P - here % P, len(data) - done)
            page[here % P : here % P + count] = data[done : done + count]
            done += count

    def ranges(self) -> Iterator[Range]:
        for number in sorted(self.frames):
            yield Range(number * P, number * P + P)


class Mapped(Memory):
    """A virtual space: chains over frames."""

    def __init__(self, frames: Frames, chains: Chains, space: str) -> None:
        self.frames, self.chains, self.space = frames, chains, space
        self.writable = frames.writable

    def translate(self, address: int, size: int = 1) -> int:
        try:
            frame = self.chains.frame(address // P)
        except FormatError as error:
            raise Fault(address, size, Reason.CORRUPT, space=self.space, detail=str(error)) from error
        if frame is None:
            raise Fault(address, size, Reason.NOT_MAPPED, space=self.space)
        return frame * P + address % P

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        out = bytearray()
        while len(out) < size:
            here = address + len(out)
            count = min(P - here % P, size - len(out))
            try:
                out += self.frames.read(self.translate(here), count)
            except Fault as fault:
                return bytes(out), Fault(here, size, fault.reason, partial=bytes(out), space=self.space)
        return bytes(out), None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        done = 0
        while done < len(data):
            here = address + done
            count = min(P - here % P, len(data) - done)
            try:
                self.frames.write(self.translate(here), data[done : done + count])
            except Fault as fault:
                raise Fault(here, len(data), fault.reason, done=done, space=self.space, verb="write") from fault
            done += count


class Image:
    """The "file": what several handles on fixture M share, and what tests damage."""

    def __init__(self) -> None:
        self.frames: dict[int, bytearray] = {}
        self.zero = {KERNEL_FRAMES[6]}
        self.kernel = Chains()
        self.users = {pid: Chains() for pid in USER_FRAMES}
        for page, frame in KERNEL_FRAMES.items():
            for chains in (self.kernel, *self.users.values()):
                chains.add(K // P + page, frame)        # a user's tables hold the kernel half too
            if page < 6:
                self.frames[frame] = bytearray(pattern(page * P, P))
        for pid, pages in USER_FRAMES.items():
            for page, frame in pages.items():
                self.users[pid].add(U // P + page, frame)
                self.frames[frame] = bytearray(user_pattern(pid, page * P, P))
        strings = ARGUMENTS + ENVIRONMENT
        self.frames[USER_FRAMES[100][1]][0x800 : 0x800 + len(strings)] = strings
        facts = [
            Facts(0, 0, "idle", "R", TASKS, True, 0, 0, False),
            Facts(2, 0, "kthreadd", "S", TASKS + 0x1000, True, 0, 1, False),
            Facts(100, 2, "hundred", "S", TASKS + 0x2000, False, 1, 2, True),
            Facts(200, 100, "two hundred", "R", TASKS + 0x3000, False, 2, 3, True),
            Facts(300, 100, "undead", "Z", TASKS + 0x4000, False, 0, 4, False),
        ]
        self.first = facts[0].address
        #: address of a task -> what it is and the next one's address, 0 at the end
        self.tasks = {a.address: (a, b.address if b else 0) for a, b in zip(facts, [*facts[1:], None], strict=True)}
        self.arguments = {100: (ARG_START, ARG_START + 5, ARG_START + 5, ARG_START + 9),
                          200: (U + 5 * P, U + 5 * P + 3, U + 5 * P + 3, U + 5 * P + 9)}       # not mapped
        self.symbols: list[Symbol] | None = list(SYMBOLS)


class BackendM:
    """The backend over an :class:`Image`."""

    kind, path, namelist = "fixture", "M", "M"
    user_end = 1 << 63
    displacement = (1 << 64) - 0x20_0000
    native = True

    def __init__(self, image: Image, mode: str = "r") -> None:
        self.image, self.mode = image, mode
        frames = {number: bytearray(page) for number, page in image.frames.items()} if mode == "c" else image.frames
        self._physical = Frames(frames, image.zero, mode != "r")
        self._kernel = Mapped(self._physical, image.kernel, "kernel")

    def question(self) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def kernel(self) -> Memory:
        return self._kernel

    @property
    def physical(self) -> Memory:
        return self._physical

    def processes(self) -> Iterator[Facts]:
        seen: set[int] = set()
        address = self.image.first
        while address:
            if address in seen:
                raise FormatError(f"the process list loops at {address:#x}")
            seen.add(address)
            if address not in self.image.tasks:
                raise Fault(address, 8, Reason.NOT_MAPPED, space="kernel")
            facts, address = self.image.tasks[address]
            yield facts

    def process(self, pid: int) -> Facts | None:
        return next((facts for facts, _ in self.image.tasks.values() if facts.pid == pid), None)

    def user_space(self, process: Facts) -> Memory:
        return Mapped(self._physical, self.image.users[process.pid], "user")

    def user(self, process: Facts) -> User:
        return User(process.pid, process.comm, *self.image.arguments[process.pid], ((6, P),), 5_000_000_000, 0, 0)

    def vtop(self, process: Facts | None, address: int) -> int:
        chains = self.image.kernel if process is None else self.image.users[process.pid]
        return Mapped(self._physical, chains, "kernel" if process is None else "user").translate(address)

    def symbols(self, name: str) -> Sequence[Symbol]:
        if self.image.symbols is None:
            raise FormatError("the symbol table is damaged")
        return [symbol for symbol in self.image.symbols if symbol.name == name]

    def near(self, name: str) -> Sequence[str]:
        return ()

    def reopen(self, process: Facts) -> bool:
        return False

    def pages(self) -> Iterator[Page]:
        for part in self._physical.ranges():
            yield Page(part.start, None, None, None, None, P)

    def close(self) -> None:
        pass


def open_m(mode: str = "r", image: Image | None = None) -> Kvm:
    """Return a handle on fixture M, on *image* when several handles share one."""
    return Kvm(BackendM(image or Image(), mode))
