"""An encoder of BTF blobs for tests. Documentation/bpf/btf.rst."""

from __future__ import annotations

import struct

(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT,
 DECL_TAG, TYPE_TAG, ENUM64) = range(1, 20)


class Blob:
    """Types in order; each method returns the id of the type it adds. Split BTF goes on after *base*."""

    def __init__(self, base: Blob | None = None) -> None:
        self.base = base
        self.first: int = base.last if base else 1
        self.string_base: int = base.string_end if base else 0
        self.types: list[bytes] = []
        self.strings = bytearray(b"\0")

    @property
    def last(self) -> int:
        return self.first + len(self.types)

    @property
    def string_end(self) -> int:
        return self.string_base + len(self.strings)

    def string(self, text: str) -> int:
        """Return the offset of *text*, which may be one of the base's strings, as pahole has it."""
        if not text:
            return 0
        wanted = b"\0" + text.encode() + b"\0"
        if self.base is not None:
            found = bytes(self.base.strings).find(wanted)
            if found >= 0:
                return self.base.string_base + found + 1
        found = bytes(self.strings).find(wanted)
        if found < 0:
            found = len(self.strings) - 1
            self.strings += wanted[1:]
        return self.string_base + found + 1

    def add(self, kind: int, name: str, third: int, *words: int, vlen: int = 0, flag: bool = False) -> int:
        info = kind << 24 | vlen | flag << 31
        self.types.append(struct.pack(f"<{3 + len(words)}I", self.string(name), info, third, *words))
        return self.last - 1

    def integer(self, name: str, size: int = 4, encoding: int = 1, bits: int | None = None, offset: int = 0) -> int:
        return self.add(INT, name, size, encoding << 24 | offset << 16 | (8 * size if bits is None else bits))

    def pointer(self, target: int) -> int:
        return self.add(PTR, "", target)

    def array(self, target: int, count: int) -> int:
        return self.add(ARRAY, "", 0, target, 1, count)

    def typedef(self, name: str, target: int) -> int:
        return self.add(TYPEDEF, name, target)

    def struct(
        self, name: str, size: int, members: list[tuple[str, int, int]], *, kind: int = STRUCT, flag: bool = False
    ) -> int:
        """Add a structure of (name, type, bit offset, with *flag* the width in the top byte)."""
        words = [word for member, number, offset in members for word in (self.string(member), number, offset)]
        return self.add(kind, name, size, *words, vlen=len(members), flag=flag)

    def enum(
        self, name: str, size: int, values: list[tuple[str, int]], *, signed: bool = False, wide: bool = False
    ) -> int:
        words: list[int] = []
        for label, value in values:
            words += [self.string(label), value & 0xFFFF_FFFF]
            words += [value >> 32 & 0xFFFF_FFFF] * wide
        return self.add(ENUM64 if wide else ENUM, name, size, *words, vlen=len(values), flag=signed)

    def prototype(self, result: int, parameters: list[tuple[str, int]]) -> int:
        words = [word for name, number in parameters for word in (self.string(name), number)]
        return self.add(FUNC_PROTO, "", result, *words, vlen=len(parameters))

    def section(self, name: str, variables: list[tuple[int, int, int]]) -> int:
        """Add a DATASEC of (VAR, offset, size)."""
        words = [word for variable in variables for word in variable]
        return self.add(DATASEC, name, 0, *words, vlen=len(variables))

    def bytes(self, **header: int) -> bytes:
        """Return the blob; *header* overrides fields of the header."""
        types = b"".join(self.types)
        fields = {"magic": 0xEB9F, "version": 1, "flags": 0, "hdr_len": 24, "type_off": 0, "type_len": len(types),
                  "str_off": len(types), "str_len": len(self.strings), **header}
        return struct.pack("<HBBIIIII", *fields.values()) + types + bytes(self.strings)
