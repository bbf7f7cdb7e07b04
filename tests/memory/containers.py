"""Images of physical memory in formats that kshell reads and does not write, made of the same runs of bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import cramjam

from kshell.memory.elfheaders import EHDR32, PHDR32

PAGE = 4096
Run = tuple[int, bytes]
MASK = 0xFFFF_FFFF
KERNEL_MAP = 0xFFFF_FFFF_8000_0000


def avml(runs: Sequence[Run], block: int = 16 << 20) -> bytes:
    """Return a compressed AVML image; *block* is AVML's MAX_BLOCK_SIZE."""
    out = bytearray()
    for start, data in runs:
        for at in range(0, len(data), block):
            piece = data[at : at + block]
            stream = bytes(cramjam.snappy.compress(piece))
            last = start + at + len(piece) - 1
            out += struct.pack("<IIQQQ", 0x4C4D5641, 2, start + at, last, 0) + stream + struct.pack("<Q", len(stream))
    return bytes(out)


def lime(runs: Sequence[Run]) -> bytes:
    """Return a LiME image, as LiME and AVML without compression write it."""
    return b"".join(struct.pack("<IIQQQ", 0x4C694D45, 1, start, start + len(data) - 1, 0) + data
                    for start, data in runs)


def elf32(
    runs: Sequence[Run], notes: bytes = b"", machine: int = 62, beyond: int = 0, image: tuple[int, int] | None = None,
) -> bytes:
    """Return an ELF core with 32-bit headers, as kexec --elf32-core-headers asks for.

    :param beyond: bytes of memory left out behind each run
    :param image: (start, end) of the kernel image in the first run: kexec has it in the file once more, before all
        runs, at what 32 bits hold of its virtual address
    """
    if image is not None:
        start, data = runs[0]
        runs = [(image[0], data[image[0] - start : image[1] - start]), *runs]
    count = len(runs) + 1
    at = EHDR32.size + count * PHDR32.size
    headers = [
        EHDR32.pack(b"\x7fELF\x01\x01\x01" + bytes(9), 4, machine, 1, 0, EHDR32.size, 0, 0, EHDR32.size, PHDR32.size,
                    count, 0, 0, 0),
        PHDR32.pack(4, at, 0, 0, len(notes), len(notes), 0, 0)]
    at += len(notes)
    for number, (start, data) in enumerate(runs):
        virtual = start if image is None or number else start + KERNEL_MAP & MASK
        headers.append(PHDR32.pack(1, at, virtual, start, len(data), len(data) + beyond, 7, 0))
        at += len(data)
    return b"".join([*headers, notes, *(data for _, data in runs)])


def tag(name: str, value: bytes, *indices: int) -> bytes:
    """Return one tagged value of a VMware state."""
    word = len(name) << 8 | len(indices) << 6 | len(value)
    return struct.pack("<H", word) + name.encode() + struct.pack(f"<{len(indices)}I", *indices) + value


def block(name: str, value: bytes, *indices: int, kind: int = 0x3F, padding: int = 0) -> bytes:
    """Return one block of a VMware state."""
    word = len(name) << 8 | len(indices) << 6 | kind
    return (struct.pack("<H", word) + name.encode() + struct.pack(f"<{len(indices)}I", *indices)
            + struct.pack("<QQH", len(value), len(value), padding) + bytes(padding) + value)


GENERAL = ("rax", "rcx", "rdx", "rbx", "rbp", "rsp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


def vmss(
    runs: Sequence[Run], path: Path, registers: Sequence[dict[str, int]] = (), *, inside: bool = False,
    compressed: bool = False, blocks: bool = False,
) -> Path:
    """Write a VMware state and its memory at *path* and beside it; return the state's path.

    :param inside: the memory is a block of the state file, as in old products
    :param blocks: the registers are in blocks, as in newer products
    """
    regions, page = b"", 0
    for number, (start, data) in enumerate(runs):
        regions += tag("regionPageNum", struct.pack("<I", page), number)
        regions += tag("regionPPN", struct.pack("<I", start // PAGE), number)
        regions += tag("regionSize", struct.pack("<I", len(data) // PAGE), number)
        page += len(data) // PAGE
    group = tag("regionsCount", struct.pack("<I", len(runs))) + regions
    cpu = tag("cpu:numVCPUs", struct.pack("<I", len(registers)))
    for number, one in enumerate(registers):
        if blocks:
            cpu += block("gpregs", struct.pack("<16Q", *(one.get(name, 0) for name in GENERAL)), number)
            cpu += block("CR64", struct.pack("<9Q", *(one.get(f"cr{control}", 0) for control in range(9))), number)
        for name, value in one.items():
            if blocks and (name in GENERAL or name.startswith("cr")):
                continue
            if name.startswith("cr"):
                cpu += tag("CR64", struct.pack("<Q", value), number, int(name[2:]))
            elif name == "rflags":
                cpu += tag("eflags", struct.pack("<I", value & MASK), number)
            else:
                cpu += tag(name, struct.pack("<Q", value), number)
    groups = [(b"Checkpoint", b"\0\0"), (b"cpu", cpu + b"\0\0"), (b"memory", group)]
    at = 12 + 80 * len(groups)
    table, body = b"", b""
    for group_name, content in groups:
        table += struct.pack("<64sQQ", group_name, at, len(content))
        body += content
        at += len(content)
    memory = b"".join(data for _, data in runs)
    head = struct.pack("<III", 0xBED2BED2, 8, len(groups)) + table + body
    if inside:
        kind = 0x3E if compressed else 0x3F
        padding = -(len(head) + len(block("Memory", b""))) % PAGE
        path.write_bytes(head + block("Memory", memory, kind=kind, padding=padding) + b"\0\0")
    else:
        path.write_bytes(head + b"\0\0")
        path.with_suffix(".vmem").write_bytes(memory)
    return path


def flattened(data: bytes, step: int = 1 << 16, *, end: bool = True) -> bytes:
    """Return *data* as makedumpfile -F writes it."""
    out = [(b"makedumpfile\0\0\0\0" + struct.pack(">qq", 1, 1)).ljust(4096, b"\0")]
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        out.append(struct.pack(">qq", at, len(piece)) + piece)
    return b"".join(out) + (struct.pack(">qq", -1, -1) if end else b"")
