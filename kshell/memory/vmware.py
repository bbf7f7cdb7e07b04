"""VMware: a suspended machine or a snapshot, ``.vmss`` or ``.vmsn``, with its memory in it or in a ``.vmem`` beside it.

The state file has groups of tagged values; "memory" tells which runs of physical memory lie where, "cpu" the registers.
The layout is that of open-vm-tools and crash (vmware_vmss.h): a tag is u16 (name's length, indices, size of value),
then the name, the indices of u32 and the value, or for a block two sizes of u64, a u16 of padding and the bytes.
Registers are values of their own, or blocks: "gpregs" of rax to r15, "CR64" of cr0 to cr8.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kshell.arch.x86_64 import X86_64
from kshell.errors import FormatError, OpenError, Reason
from kshell.memory.file import open_file, size_of
from kshell.memory.fileimage import FileImage
from kshell.memory.segments import Piece, Segments
from kshell.memory.source import FileSource

MAGICS = (0xBED2BED2, 0xBED3BED3, 0xBAD1BAD1, 0xBAD2BAD2)
OLD_MAGIC = 0xBED0BED0  # of 32-bit products
GROUP = struct.Struct("<64sQQ")
MAX_GROUPS, MAX_TAGS, MAX_REGIONS, MAX_CPUS = 1024, 1 << 18, 1 << 12, 1 << 12
BLOCK, COMPRESSED = 0x3F, 0x3E
PAGE = 4096
STATES = (".vmss", ".vmsn")
GENERAL = ("rax", "rcx", "rdx", "rbx", "rbp", "rsp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)), "rip")


class Tag(NamedTuple):
    """One tagged value of a group; of a block the place of its bytes in the file, and whether they are compressed."""

    name: str
    indices: tuple[int, ...]
    value: bytes
    place: int = 0
    size: int = 0
    compressed: bool = False


class Vmware(FileImage):
    """The physical memory of a VMware machine. Made by :func:`open_vmware`.

    :param descriptor: of the file with the memory; *regions* are (first page, first page in the file, pages)
    """

    def __init__(
        self, path: str, descriptor: int, base: int, size: int, regions: list[tuple[int, int, int]],
        registers: list[dict[str, int]], *, how: str, writable: bool = False,
    ) -> None:
        pieces: list[Piece] = []
        for ppn, number, count in regions or [(0, 0, -(-size // PAGE))]:
            start, want = ppn * PAGE, count * PAGE
            held = max(0, min(want, size - number * PAGE))
            pieces += [Piece(start, start + held, base + number * PAGE),
                       Piece(start + held, start + want, 0, Reason.TRUNCATED)]
        super().__init__(path, descriptor, Segments(pieces), writable=writable)
        self.arch, self.registers, self._how = X86_64(), registers, how
        self._regions = len(regions)

    @property
    def complete(self) -> str | None:
        """What its state file tells of and its memory file does not have."""
        lost = self._segments.total() - self._segments.held()
        return f"the file ends early: {lost} bytes of memory ({lost / (1 << 20):.1f} MiB) missing" if lost else None

    def describe(self) -> str:
        """Return one line: which files, and the size of memory."""
        return f"VMware memory ({self._how}), {self._segments.total() / (1 << 20):.0f} MiB of RAM"

    def facts(self) -> dict[str, str]:
        """Return how many runs the state file tells of."""
        return {"memory runs": str(self._regions)} if self._regions else {}


def state_beside(path: str) -> str | None:
    """Return the state file that belongs to the memory file *path*, or None when there is none beside it."""
    stem = os.path.splitext(path)[0]
    return next((stem + end for end in STATES if os.path.exists(stem + end)), None)


def open_vmware(path: str, mode: str = "r") -> Vmware:
    """Open a ``.vmss``, ``.vmsn`` or ``.vmem``; the other file of the pair is looked for beside it.

    :raises OpenError: it is none, is damaged, or lacks its other file
    """
    memory: str | None = None
    state = path
    if path.endswith(".vmem"):
        found = state_beside(path)
        if found is None:
            raise OpenError(path, "a VMware memory file without its .vmss or .vmsn", kind="missing")
        state, memory = found, path
    file = FileSource(state, open_file(state))
    try:
        tags = list(_tags(state, file))
    finally:
        file.close()
    block = next((tag for tag in tags if tag.name == "Memory" and tag.place), None)
    regions, registers = _regions(state, tags), _registers(tags)
    if block is not None and memory is None:
        if block.compressed:
            raise OpenError(state, f"a VMware state whose memory (at 0x{block.place:x}) is compressed: recognised, but "
                            "not read", kind="unsupported", hint="take a snapshot with its memory in a .vmem")
        descriptor = open_file(state, mode)
        try:
            size = max(0, min(block.size, size_of(descriptor) - block.place))
            return Vmware(path, descriptor, block.place, size, regions, registers,
                          how=os.path.basename(state), writable=mode == "r+")
        except BaseException:
            os.close(descriptor)
            raise
    memory = memory or os.path.splitext(state)[0] + ".vmem"
    if not os.path.exists(memory):
        raise OpenError(path, f"a VMware state without memory in it, and there is no {os.path.basename(memory)}",
                        kind="missing", hint="the .vmem file has to lie beside it")
    descriptor = open_file(memory, mode)
    try:
        return Vmware(path, descriptor, 0, size_of(descriptor), regions, registers,
                      how=f"{os.path.basename(memory)}, {os.path.basename(state)}", writable=mode == "r+")
    except BaseException:
        os.close(descriptor)
        raise


def _tags(path: str, file: FileSource) -> Iterator[Tag]:
    """Yield the tags of the groups "memory" and "cpu"; a group that is damaged ends early."""
    head = file.pread(12, 0)
    if len(head) < 12:
        raise OpenError(path, f"the file ends inside its header, at 0x{len(head):x}", kind="header")
    magic, _, count = struct.unpack("<III", head)
    if magic == OLD_MAGIC:
        raise OpenError(path, "a VMware state of a 32-bit product: recognised, but not read", kind="unsupported")
    if magic not in MAGICS:
        raise OpenError(path, f"not a VMware state (magic 0x{magic:x} at 0x0)", kind="header")
    if not 0 < count <= MAX_GROUPS:
        raise OpenError(path, f"a VMware state of {count} groups at 0x8: a damaged header", kind="header")
    table = file.pread(count * GROUP.size, 12)
    for number in range(len(table) // GROUP.size):
        raw, position, _ = GROUP.unpack_from(table, number * GROUP.size)
        name = raw.split(b"\0", 1)[0]
        if name in (b"memory", b"cpu"):
            enough = name == b"cpu"
            try:
                for tag in _group(file, position):
                    enough = enough or tag.name == "Memory"
                    yield tag
            except FormatError:  # the medium cannot be read there: what comes behind the memory can be done without
                if not enough:
                    raise


def _group(file: FileSource, at: int) -> Iterator[Tag]:
    for _ in range(MAX_TAGS):
        data = file.pread(512, at)
        if len(data) < 2:
            return
        word = int.from_bytes(data[:2], "little")
        if word == 0:
            return
        length, count, kind = word >> 8, word >> 6 & 3, word & 0x3F
        inside = 2 + length + 4 * count
        if len(data) < inside:
            return
        name = data[2 : 2 + length].decode("ascii", "replace")
        indices = struct.unpack_from(f"<{count}I", data, 2 + length)
        if kind in (BLOCK, COMPRESSED):
            if len(data) < inside + 18:
                return
            size, in_memory, padding = struct.unpack_from("<QQH", data, inside)
            place = at + inside + 18 + padding
            small = file.pread(min(size, 512), place) if size <= 512 else b""
            yield Tag(name, indices, small, place, in_memory if kind == COMPRESSED else size, kind == COMPRESSED)
            at = place + size
            if at > file.size:
                return
        else:
            if len(data) < inside + kind:
                return
            yield Tag(name, indices, data[inside : inside + kind])
            at += inside + kind


def _regions(path: str, tags: list[Tag]) -> list[tuple[int, int, int]]:
    """Return (first page, first page in the file, pages) of each run of memory; none when the file is one run."""
    found: dict[str, dict[int, int]] = {"regionPageNum": {}, "regionPPN": {}, "regionSize": {}}
    count = 0
    for tag in tags:
        value = int.from_bytes(tag.value, "little")
        if tag.name == "regionsCount":
            count = value
        elif tag.name in found and tag.indices:
            found[tag.name][tag.indices[0]] = value
    if count > MAX_REGIONS:
        raise OpenError(path, f"a VMware state of {count} runs of memory: damaged", kind="header")
    rows: list[tuple[int, int, int]] = []
    for number in range(count):
        try:
            rows.append((found["regionPPN"][number], found["regionPageNum"][number], found["regionSize"][number]))
        except KeyError as error:
            raise OpenError(path, f"a VMware state that does not tell where its run of memory {number} is",
                            kind="header") from error
    return rows


def _registers(tags: list[Tag]) -> list[dict[str, int]]:
    """Return the registers of each CPU that the state tells of."""
    cpus: dict[int, dict[str, int]] = {}
    for tag in tags:
        if not tag.indices or tag.indices[0] >= MAX_CPUS:
            continue
        one = cpus.setdefault(tag.indices[0], {})
        value = int.from_bytes(tag.value[:8], "little")
        if tag.name in GENERAL and len(tag.value) == 8:
            one[tag.name] = value
        elif tag.name == "gpregs" and len(tag.value) == 128 and not tag.compressed:  # of newer products: all in a block
            one.update(zip(GENERAL, struct.unpack("<16Q", tag.value), strict=False))
        elif tag.name in ("eflags", "EFLAGS"):
            one["rflags"] = one.get("rflags", 0) | value
        elif tag.name == "CR64" and len(tag.indices) == 2:
            one[f"cr{tag.indices[1]}"] = value
        elif tag.name == "CR64" and len(tag.value) >= 40:
            one.update(zip((f"cr{n}" for n in range(5)), struct.unpack_from("<5Q", tag.value), strict=True))
    return [cpus[number] for number in sorted(cpus) if cpus[number]]
