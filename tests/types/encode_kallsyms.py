"""An encoder of kallsyms tables in every layout the kernel has had, for tests. Kernel source: scripts/kallsyms.c.

Tokens 32..126 are the characters themselves; some above 127 are longer, so that one token may hold a letter and a name.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kshell.errors import Fault, Reason
from kshell.memory.model import Memory

IMAGE = 0xFFFF_FFFF_9000_0000  # where the tables are put
PAIRS = ("T_", "in", "it", "__", "task", "ksym", "per_cpu", "st")


class Layout(NamedTuple):
    """What scripts/kallsyms.c writes, and in which order."""

    order: tuple[str, ...]
    encoding: str  # "addresses", "base", "percpu" or "place"
    count_width: int
    marker_width: int
    uleb: bool


OLD = ("num_syms", "names", "markers", "token_table", "token_index")
SEQS = ("num_syms", "names", "markers", "seqs", "token_table", "token_index")
BASED = ("offsets", "relative_base")
LAYOUTS = {
    "4.5": Layout(("addresses", *OLD), "addresses", 8, 8, False),
    "4.6": Layout((*BASED, *OLD), "base", 8, 8, False),
    "4.6 percpu": Layout((*BASED, *OLD), "percpu", 8, 8, False),
    "4.6 addresses": Layout(("addresses", *OLD), "addresses", 8, 8, False),
    "4.20": Layout((*BASED, *OLD), "base", 4, 4, False),
    "4.20 percpu": Layout((*BASED, *OLD), "percpu", 4, 4, False),
    "6.1": Layout((*BASED, *OLD), "percpu", 4, 4, True),
    "6.2": Layout((*BASED, *SEQS), "percpu", 4, 4, True),
    "6.4": Layout((*OLD, *BASED, "seqs"), "percpu", 4, 4, True),
    "6.4 addresses": Layout((*OLD, "addresses", "seqs"), "addresses", 4, 4, True),
    "6.15": Layout((*OLD, *BASED, "seqs"), "base", 4, 4, True),
    "7.0": Layout((*OLD, "offsets", "seqs"), "place", 4, 4, True),
}


class Bytes(Memory):
    """Some bytes from one address on; the rest is not mapped. ``largest`` is the longest read that was asked for."""

    space = "kernel"

    def __init__(self, start: int, data: bytes | bytearray) -> None:
        self.start, self.data, self.largest = start, bytearray(data), 0

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        self.largest = max(self.largest, size)
        at = address - self.start
        found = bytes(self.data[at : at + size]) if at >= 0 else b""
        if len(found) == size:
            return found, None
        return found, Fault(address + len(found), size, Reason.NOT_MAPPED, partial=found, space=self.space)


class Encoded(NamedTuple):
    """Tables in memory: ``places`` as VMCOREINFO's SYMBOL()s tell them (no markers, no seqs), ``ends`` for damage."""

    memory: Bytes
    places: dict[str, int]
    every: dict[str, tuple[int, int]]  # table -> (address, size), the markers too

    def symbol(self, name: str) -> int | None:
        return self.places.get(name)

    def damage(self, table: str, offset: int, data: bytes) -> None:
        at = self.every[table][0] - IMAGE + offset
        self.memory.data[at : at + len(data)] = data


def encode(symbols: list[tuple[str, str, int]], layout: Layout) -> Encoded:
    """Encode (name, letter, address) as *layout* has it; addresses below 2**32 are absolute where that exists."""
    tokens = [chr(code).encode() if 32 < code < 127 else b"" for code in range(256)]
    for number, pair in enumerate(PAIRS):
        tokens[200 + number] = pair.encode()
    names, starts = bytearray(), []
    for name, letter, _ in symbols:
        starts.append(len(names))
        packed = _tokens(letter + name)
        if layout.uleb and len(packed) > 0x7F:
            names += bytes((len(packed) & 0x7F | 0x80, len(packed) >> 7))
        else:
            names.append(len(packed))
        names += packed
    table, index = bytearray(), []
    for token in tokens:
        index.append(len(table))
        table += token + b"\0"
    by_name = sorted(range(len(symbols)), key=lambda number: symbols[number][0])
    base = min((address for _, _, address in symbols if address >> 63), default=0)
    parts: dict[str, bytes] = {
        "num_syms": len(symbols).to_bytes(layout.count_width, "little"),
        "names": bytes(names),
        "markers": b"".join(start.to_bytes(layout.marker_width, "little") for start in starts[::256]),
        "seqs": b"".join(number.to_bytes(3, "big") for number in by_name),
        "token_table": bytes(table),
        "token_index": struct.pack("<256H", *index),
        "relative_base": struct.pack("<Q", base),
        "addresses": b"".join(struct.pack("<Q", address) for _, _, address in symbols),
        "offsets": bytes(4 * len(symbols)),
    }
    every: dict[str, tuple[int, int]] = {}
    at = IMAGE
    for part in layout.order:
        at = -(-at // 8) * 8
        every[part] = (at, len(parts[part]))
        at += len(parts[part])
    if "offsets" in every:
        parts["offsets"] = _offsets(symbols, layout.encoding, base, every["offsets"][0])
    image = bytearray(at - IMAGE)
    for part, (address, size) in every.items():
        image[address - IMAGE : address - IMAGE + size] = parts[part]
    places = {f"kallsyms_{part}": address for part, (address, _) in every.items() if part not in ("markers", "seqs")}
    places.update((name, address) for name, _, address in symbols if name == "_stext")
    return Encoded(Bytes(IMAGE, image), places, every)


def _tokens(text: str) -> bytes:
    out = bytearray()
    while text:
        for number, pair in enumerate(PAIRS):
            if text.startswith(pair):
                out.append(200 + number)
                text = text[len(pair) :]
                break
        else:
            out.append(ord(text[0]))
            text = text[1:]
    return bytes(out)


def _offsets(symbols: list[tuple[str, str, int]], encoding: str, base: int, place: int) -> bytes:
    out = []
    for number, (_, _, address) in enumerate(symbols):
        if encoding == "place":
            offset = address - (place + 4 * number)
        elif encoding == "base":
            offset = (address - base + (1 << 31)) % (1 << 32) - (1 << 31)
        else:
            offset = base - 1 - address if address >> 63 else address
        out.append(struct.pack("<i", offset))
    return b"".join(out)
