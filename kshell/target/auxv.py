"""The auxiliary vector: pairs of words (type, value) that the kernel gave a program at exec.

Kernel source: ``saved_auxv`` in include/linux/mm_types.h, ``create_elf_tables`` in fs/binfmt_elf.c; a 32-bit program's
words have 4 bytes. The numbers are in include/uapi/linux/auxvec.h; all of them are far below 4096.
"""

from __future__ import annotations

import struct

_HIGHEST_TYPE = 4095


def word_size(data: bytes) -> int:
    """Return how many bytes a word of a little-endian vector has, 8 where nothing tells."""
    kinds = [kind for kind, _ in struct.iter_unpack("<QQ", data[: len(data) // 16 * 16])]
    return 8 if all(kind <= _HIGHEST_TYPE for kind in kinds[: kinds.index(0) if 0 in kinds else None]) else 4


def parse_auxv(data: bytes, byteorder: str = "little") -> tuple[tuple[int, int], ...]:
    """Return the pairs up to the AT_NULL, which is left out; what is neither form of a vector gives no pairs."""
    order = "<" if byteorder == "little" else ">"
    for form, size in ((order + "QQ", 16), (order + "II", 8)):
        pairs: list[tuple[int, int]] = []
        for kind, value in struct.iter_unpack(form, data[: len(data) // size * size]):
            if kind == 0:
                return tuple(pairs)
            if kind > _HIGHEST_TYPE:
                break
            pairs.append((kind, value))
        else:
            return tuple(pairs)
    return ()
