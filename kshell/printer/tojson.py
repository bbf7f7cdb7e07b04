"""Values as JSON: the schema of ``--json`` for ``::print`` and of everything else that shows a value.

| C | JSON |
|---|---|
| integer, char | number; a string of decimal digits outside -(2^53-1) .. 2^53-1 |
| ``_Bool`` | true, false (a byte that is neither 0 nor 1: its number) |
| float | number; ``"nan"``, ``"inf"``, ``"-inf"`` |
| pointer, function | ``"0x..."`` |
| enum | ``{"value": 2, "name": "PIDTYPE_PGID"}``; of flags ``"A\\|B"``; null when it has no name |
| array of char | string up to NUL, escaped as in text |
| other array | list; elements past *limit* are told by a last item ``{"more": n}`` |
| struct, union | object; members of anonymous members are its own |
| the value itself, if struct or union | the same, after ``"_type"`` and ``"_addr"`` |
| what lies deeper than *depth* | ``{"_type": ..., "_addr": ...}`` |
| unreadable | ``{"error": reason, "address": "0x..."}``; "address" is the first byte that could not be read |
"""

from __future__ import annotations

import math
from typing import Any

from kshell.errors import Fault, ValueTypeError
from kshell.escape import escape, escape_bytes
from kshell.memory.model import Memory
from kshell.types.model import ArrayType, CType, FloatType, Kind, StructType
from kshell.value.layers import Pages
from kshell.value.shape import Shape, decode, shape_of, span
from kshell.value.value import Value, float_value

EXACT = (1 << 53) - 1
#: levels at most, against types that hold themselves
DEEPEST = 100


def to_json(value: Value, depth: int | None = None, limit: int | None = None) -> Any:
    """Return *value* as objects that :mod:`json` writes; the table above is the schema.

    :param depth: levels of structures and arrays that are opened, None for all
    :param limit: elements of an array, None for all
    """
    maker = _Json(value.space, value.target.arch.byteorder, limit)
    room = DEEPEST if depth is None else min(depth, DEEPEST)
    made = maker.make(value.type, value.address, value.bit_offset, value.bit_size, room)
    if value.shape.kind in (Kind.STRUCT, Kind.UNION) and isinstance(made, dict):
        return maker.reference(value.type, value.address) | made
    return made


def error_json(fault: Fault) -> dict[str, str]:
    """Return what stands in place of a value that cannot be read."""
    return {"error": fault.reason.value, "address": f"0x{fault.address:x}"}


class _Json:
    def __init__(self, space: Memory, order: str, limit: int | None) -> None:
        self.pages, self.order, self.limit = Pages(space), order, limit

    def reference(self, type: CType, address: int) -> dict[str, Any]:
        return {"_type": escape(str(type)), "_addr": f"0x{address:x}"}

    def make(self, type: CType, address: int, bit: int, width: int | None, room: int) -> Any:
        shape = shape_of(type)
        bare = shape.bare
        if not isinstance(bare, (StructType, ArrayType)):
            if not (shape.integer or isinstance(bare, FloatType)):
                return f"0x{address:x}"
            try:
                return self._scalar(shape, self.pages.read(address, span(shape, bit, width)), bit, width)
            except Fault as fault:
                return error_json(fault)
        missing = self.pages.missing(address, shape.size)
        if missing is not None:
            return error_json(missing)
        if isinstance(bare, ArrayType) and shape_of(bare.target).char and bare.count:
            try:
                return escape_bytes(self.pages.read(address, bare.count).split(b"\0", 1)[0])
            except Fault as fault:
                return error_json(fault)
        if room <= 0:
            return self.reference(type, address)
        if isinstance(bare, ArrayType):
            return self._array(bare, address, room)
        result: dict[str, Any] = {}
        self._members(bare, address, room, result)
        return result

    def _members(self, bare: StructType, address: int, room: int, result: dict[str, Any]) -> None:
        for name, type, bits, width in bare.members:
            at, inner = address + (bits >> 3), type.strip()
            if name is not None:
                result[escape(name)] = self.make(type, at, bits & 7, width, room - 1)
            elif isinstance(inner, StructType) and room > 0:
                self._members(inner, at, room - 1, result)

    def _array(self, bare: ArrayType, address: int, room: int) -> list[Any]:
        element = bare.target
        shape = shape_of(element)
        count = bare.count if self.limit is None else min(bare.count, self.limit)
        items: list[Any] = []
        if shape.integer and 0 < count * shape.size <= 1 << 20:
            try:
                size = shape.size
                data = self.pages.read(address, count * size)
                items = [self._scalar(shape, data[at : at + size], 0, None) for at in range(0, len(data), size)]
            except Fault:
                items = []
        if not items:
            items = [self.make(element, address + i * shape.size, 0, None, room - 1) for i in range(count)]
        if count < bare.count:
            items.append({"more": bare.count - count})
        return items

    def _scalar(self, shape: Shape, data: bytes, bit: int, width: int | None) -> Any:
        if isinstance(shape.bare, FloatType):
            try:
                number = float_value(data, self.order)
            except ValueTypeError:
                return data.hex()
            return number if math.isfinite(number) else str(number)
        value = decode(data, shape, self.order, bit, width)
        if shape.kind is Kind.POINTER:
            return f"0x{value:x}"
        if shape.kind is Kind.ENUM:
            text = shape.names.text(value)
            return {"value": value, "name": None if text == "???" else escape(text)}
        if shape.kind is Kind.BOOL and value in (0, 1):
            return bool(value)
        return value if -EXACT <= value <= EXACT else str(value)
