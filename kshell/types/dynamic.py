"""Names of functions by the dynamic section of a program or library where it is loaded: no file is needed.

System V ABI chapter 5 (dynamic section, DT_HASH); DT_GNU_HASH as binutils and glibc have it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kshell.errors import FormatError
from kshell.types.elffile import SYM, SYM32, iter_symbols
from kshell.types.model import Symbol

if TYPE_CHECKING:
    from kshell.memory.model import Memory

DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_GNU_HASH = 4, 5, 6, 10, 0x6FFF_FEF5
MAX_DYNAMIC, MAX_SYMBOLS, MAX_STRINGS = 4096, 1 << 20, 1 << 26
#: STT_NOTYPE, OBJECT, FUNC, GNU_IFUNC to nm's letter of a global one
LETTERS = {0: "T", 1: "D", 2: "T", 10: "i"}


def read_dynamic_symbols(
    memory: Memory, dynamic: int, bias: int, module: str | None, word: int = 8,
) -> list[Symbol]:
    """Return the symbols that the dynamic section at *dynamic* leads to; none when it is 0.

    :param bias: what was added to the addresses that the file was linked at
    :param word: bytes of an address in it
    :raises FormatError: it makes no sense
    :raises Fault: it cannot be read
    """
    if not dynamic:
        return []
    data, _ = memory.read_upto(dynamic, MAX_DYNAMIC)
    told: dict[int, int] = {}
    for tag, value in struct.iter_unpack("<QQ" if word == 8 else "<II", data[: len(data) // 16 * 16]):
        if not tag:
            break
        told.setdefault(tag, value)
    # the dynamic linker has added the bias to these addresses in most programs, not in the vDSO
    for tag in (DT_HASH, DT_STRTAB, DT_SYMTAB, DT_GNU_HASH):
        if tag in told and told[tag] < bias:
            told[tag] += bias
    if DT_SYMTAB not in told or DT_STRTAB not in told:
        raise FormatError(f"the dynamic section at 0x{dynamic:x} tells of no symbols")
    count = min(_count(memory, told, word), MAX_SYMBOLS)
    rows = memory.read(told[DT_SYMTAB], count * (SYM if word == 8 else SYM32).size)
    text, _ = memory.read_upto(told[DT_STRTAB], min(told.get(DT_STRSZ, 0), MAX_STRINGS))
    found: list[Symbol] = []
    for name, info, _, home, value, size in iter_symbols(rows, 8 * word):
        letter, end = LETTERS.get(info & 15), text.find(b"\0", name)
        if letter is None or not home or end <= name or home >= 0xFF00:
            continue
        decoded = text[name:end].decode("utf-8", "replace")
        found.append(Symbol(decoded, (value + bias) % (1 << 64), size, letter, module))
    return found


def _count(memory: Memory, told: dict[int, int], word: int) -> int:
    """Return the number of symbols, which only the hash tables tell."""
    if DT_HASH in told:
        return memory.u32(told[DT_HASH] + 4)
    if DT_GNU_HASH not in told:
        raise FormatError("no hash table tells how many symbols there are")
    at = told[DT_GNU_HASH]
    buckets: int
    first: int
    bloom: int
    buckets, first, bloom, _ = struct.unpack("<4I", memory.read(at, 16))
    if buckets > MAX_SYMBOLS or bloom > MAX_SYMBOLS:
        raise FormatError(f"the hash table at 0x{at:x} has an impossible size")
    at += 16 + word * bloom
    highest: int = max((number for (number,) in struct.iter_unpack("<I", memory.read(at, 4 * buckets))), default=0)
    if highest < first:
        return first
    chain = at + 4 * buckets
    while highest < MAX_SYMBOLS and not memory.u32(chain + 4 * (highest - first)) & 1:
        highest += 1
    return highest + 1
