"""What differs between two values of one type: the members, down to numbers, pointers and strings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kshell.errors import Fault
from kshell.memory.model import Memory
from kshell.types.model import ArrayType, CType, Kind, StructType
from kshell.value.value import Value

MOST = 10_000  # differences that are told
DEEPEST = 24


class Difference(NamedTuple):
    """A member that differs: ``path`` as C writes it, "" for the value itself."""

    path: str
    old: Value
    new: Value


def differences(old: Value, new: Value) -> Iterator[Difference]:
    """Yield what differs, in order of declaration, at most :data:`MOST`. Of a union the first member tells.

    :raises Fault: one of them cannot be read
    """
    finder = _Finder(old, new)
    for number, found in enumerate(finder.find(new.type, 0, None, "", 0)):
        if number >= MOST:
            return
        yield found


class Frozen(Memory):
    """Bytes as they were at *address*, over the memory that they are of: what pointers lead to is read as it is now."""

    def __init__(self, below: Memory, address: int, data: bytes) -> None:
        self.below, self.space = below, below.space
        self._start, self._data = address, data

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        start, end = self._start, self._start + len(self._data)
        if address >= end or address + size <= start:
            return self.below.read_upto(address, size)
        inside = self._data[max(address - start, 0) : max(address + size - start, 0)]
        if address < start:
            before, fault = self.below.read_upto(address, start - address)
            if fault is not None:
                return before, fault
            inside = before + inside
        if len(inside) == size:
            return inside, None
        rest, fault = self.below.read_upto(end, size - len(inside))
        return inside + rest, fault


def frozen(value: Value) -> Value:
    """Return *value* with the bytes that it has now. :raises Fault: they cannot be read"""
    return Value(value.target, value.type, value.address, Frozen(value.space, value.address, value.bytes()))


class _Finder:
    def __init__(self, old: Value, new: Value) -> None:
        self.old, self.new = old, new
        self.before, self.now = old.bytes(), new.bytes()

    def find(self, ctype: CType, bit_offset: int, bit_size: int | None, path: str, depth: int) -> Iterator[Difference]:
        """Yield what differs in the part of type *ctype* at *bit_offset*."""
        start = bit_offset >> 3
        kind = ctype.strip()
        size = (bit_offset % 8 + bit_size + 7) // 8 if bit_size is not None else kind.size or 0
        if self.before[start : start + size] == self.now[start : start + size]:
            return
        if isinstance(kind, StructType) and depth < DEEPEST:
            members = kind.members[:1] if kind.kind is Kind.UNION else kind.members
            for member in members:
                dot = "." if path and member.name else ""
                name = f"{path}{dot}{member.name or ''}"
                yield from self.find(member.type, bit_offset + member.bit_offset, member.bit_size, name, depth + 1)
            return
        if isinstance(kind, ArrayType) and depth < DEEPEST and kind.count and not _is_text(kind):
            step = (kind.size or 0) // kind.count
            for index in range(kind.count):
                at = start + index * step
                if self.before[at : at + step] != self.now[at : at + step]:
                    yield from self.find(kind.target, at * 8, None, f"{path}[{index}]", depth + 1)
            return
        one, two = (Value(value.target, ctype, value.address + start, value.space, bit_offset % 8, bit_size)
                    for value in (self.old, self.new))
        if bit_size is None or one.integer() != two.integer():
            yield Difference(path, one, two)


def _is_text(kind: ArrayType) -> bool:
    return kind.target.strip().size == 1
