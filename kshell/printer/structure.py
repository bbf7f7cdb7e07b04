"""``::print``: an object as lines of text, level by level, as mdb lays it out (mdb-language.md 11.2).

Lines are yielded as they are made. A part that cannot be read says why in its place and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator

from kshell.errors import Fault
from kshell.escape import escape, printable
from kshell.memory.model import Memory
from kshell.printer.options import DEFAULT, PrintOptions
from kshell.printer.scalars import Scalars, hexadecimal, ipv4, ipv6, is_bitfield, reason_text
from kshell.types.model import ArrayType, CType, FunctionType, Kind, StructType, VoidType
from kshell.value.layers import Pages, through
from kshell.value.shape import Shape, shape_of, span
from kshell.value.value import Value, ValueTarget

ANONYMOUS = "<anon>"
#: levels at most: types nest a dozen deep, a crafted one that holds itself would never end
UNLIMITED = 100
TAB = "    "
#: bytes of an array that are read at once
CHUNK = 1 << 16


def format_value(
    value: Value, options: PrintOptions = DEFAULT, name: str | None = None, suffix: str = ".",
) -> Iterator[str]:
    """Yield the lines that ``::print`` shows for *value*.

    :param name: what the member was called; ``pid`` makes ``pid = 0``, members of a structure are prefixed with it
    :param suffix: between *name* and the name of a member: "." or "->"
    :raises Fault: nothing of the value can be read
    """
    printer = Printer(value.target, value.space, options)
    fault = printer.pages.missing(value.address, span(value.shape, value.bit_offset, value.bit_size))
    if fault is not None:
        raise fault
    yield from printer.item(value.type, value.address, value.bit_offset, value.bit_size, name, suffix)


def format_layout(
    target: ValueTarget, type: CType, options: PrintOptions = DEFAULT, name: str | None = None, suffix: str = ".",
    offset: int = 0, bit: int = 0, width: int | None = None,
) -> Iterator[str]:
    """Yield the lines for a type without an address: members, and with options their types and offsets; no values.

    :param offset: shown as the address of the object
    """
    yield from Printer(target, None, options).item(type, offset, bit, width, name, suffix)


class Printer:
    """Prints objects in one memory.

    :param space: None to print no values
    """

    def __init__(self, target: ValueTarget, space: Memory | None, options: PrintOptions) -> None:
        self.options = options
        self.values = space is not None
        memory = target.kernel if space is None else space
        self.pages = Pages(memory)
        self.scalars = Scalars(target, through(memory, target.kernel), options)
        self.depth = UNLIMITED if options.depth is None else min(options.depth, UNLIMITED)
        self.types = options.types or options.base_types
        self._types: dict[CType, str] = {}

    def item(
        self, type: CType, address: int, bit: int, width: int | None, name: str | None, suffix: str = ".",
    ) -> Iterator[str]:
        """Yield the lines of an object that is not inside another one."""
        shape = shape_of(type)
        text = "" if name is None else escape(name)
        lead = self._lead(0, type, shape, address, bit, width, text, top=name is None)
        prefix = None if name is None else text + suffix
        yield from self._body(type, shape, address, bit, width, lead, "", 0, self.depth, prefix)

    # -- what stands before a value ----------------------------------------------------------------------------------

    def _lead(
        self, level: int, type: CType, shape: Shape, address: int, bit: int, width: int | None, name: str,
        *, top: bool = False,
    ) -> str:
        """Return indentation, address, type, name and `` = ``; *top* is for what has no name, and so no `` = ``."""
        text = TAB * level
        if self.options.addresses:
            text += f"{address:x}.{bit:x} " if bit else f"{address:x} "
        if self.types:
            declared = self._type(type, shape)
            text += declared if declared[-1] == "*" and not top else declared + " "
        text += name
        if width is not None and self.types and (is_bitfield(width, bit) or width != 8 * shape.size):
            text += f" :{width}"
        if top:
            return text
        return f"{text} = " if self.values else f"{text} "

    def _type(self, type: CType, shape: Shape) -> str:
        text = self._types.get(type)
        if text is None:
            text = str(type)
            if self.options.base_types:
                base = str(shape.bare)
                if base != text and ANONYMOUS not in base:
                    text = f"{text} <<{base}>>"
            text = self._types[type] = escape(text)
        return text

    # -- values ------------------------------------------------------------------------------------------------------

    def _body(
        self, type: CType, shape: Shape, address: int, bit: int, width: int | None, lead: str, tail: str,
        level: int, room: int, prefix: str | None,
    ) -> Iterator[str]:
        """Yield *lead*, the value and *tail*.

        :param level: of indentation of the line; *room*: levels that may still be opened
        :param prefix: before the names of the members of a structure
        """
        bare = shape.bare
        if isinstance(bare, StructType):
            yield from self._struct(type, bare, address, lead, tail, level, room, prefix)
        elif not self.values:
            yield lead
        elif isinstance(bare, ArrayType):
            yield from self._array(bare, address, lead, tail, level, room)
        elif isinstance(bare, (VoidType, FunctionType)):
            yield f"{lead}{self.scalars.pointer(shape, address)}{tail}"
        else:
            try:
                data = self.pages.read(address, span(shape, bit, width))
                yield f"{lead}{self.scalars.text(type, shape, data, bit, width)}{tail}"
            except Fault as fault:
                yield f"{lead}{reason_text(fault)}{tail}"

    def _struct(
        self, type: CType, bare: StructType, address: int, lead: str, tail: str, level: int, room: int,
        prefix: str | None,
    ) -> Iterator[str]:
        if bare.size is None:
            yield f"{lead}{'; ' if self.values else ''}<forward declaration of {escape(str(bare))}>{tail}"
            return
        if self.values:
            fault = self.pages.missing(address, bare.size)
            if fault is not None:
                yield f"{lead}{reason_text(fault)}{tail}"
                return
            if bare.name in ("in_addr", "in6_addr") and bare.size in (4, 16):
                text = self._internet(address, bare.size)
                if text is not None:
                    yield f"{lead}{text}{tail}"
                    return
        if room <= 0:
            yield f"{lead}{{ ... }}{tail}"
            return
        yield lead + "{"
        expected = 0
        before = prefix or ""
        plain = not (self.types or self.options.addresses)
        indent = TAB * (level + 1)
        equals = " = " if self.values else " "
        for member in bare.members:
            name, kind, bits, width = member
            shape = shape_of(kind)
            if self.options.holes:
                if bits > expected:
                    yield from self._hole(level + 1, address, expected, bits)
                expected = bits + (8 * shape.size if width is None else width)
            at, bit = address + (bits >> 3), bits & 7
            shown = before + (ANONYMOUS if name is None else escape(name))
            if plain:
                inner = f"{indent}{shown}{equals}"
            else:
                inner = self._lead(level + 1, kind, shape, at, bit, width, shown)
            yield from self._body(kind, shape, at, bit, width, inner, "", level + 1, room - 1, None)
        if self.options.holes and bare.kind is Kind.STRUCT and expected < 8 * bare.size:
            yield from self._hole(level + 1, address, expected, 8 * bare.size)
        yield f"{TAB * level}}}{tail}"

    def _internet(self, address: int, size: int) -> str | None:
        try:
            data = self.pages.read(address, size)
        except Fault:
            return None
        return ipv4(data) if size == 4 else ipv6(data)

    def _hole(self, level: int, address: int, start: int, end: int) -> Iterator[str]:
        """Yield the padding from bit *start* to bit *end*, cut at multiples of 8 bytes when it is longer."""
        long = end - start > 64
        while start < end:
            stop = min(end, (start | 63) + 1) if long else end
            width, at, bit = stop - start, address + (start >> 3), start & 7
            odd = is_bitfield(width, bit)
            text = TAB * level
            if self.options.addresses:
                text += f"{at:x}.{bit:x} " if bit else f"{at:x} "
            if self.types:
                text += "unsigned " if odd else f"uint{width}_t "
            text += "<<HOLE>>"
            if odd and self.types:
                text += f" :{width}"
            if not self.values:
                yield text + " "
            else:
                try:
                    data = self.pages.read(at, (bit + width + 7) >> 3)
                    order = self.scalars.order
                    number = int.from_bytes(data, order)
                    number >>= bit if order == "little" else 8 * len(data) - bit - width
                    yield f"{text} = {self._number(number & ((1 << width) - 1))}"
                except Fault as fault:
                    yield f"{text} = {reason_text(fault)}"
            start = stop

    def _number(self, number: int) -> str:
        if self.scalars.decimal:
            return f"0t{number}" if number > 9 else str(number)
        return hexadecimal(number)

    # -- arrays ------------------------------------------------------------------------------------------------------

    def _array(self, bare: ArrayType, address: int, lead: str, tail: str, level: int, room: int) -> Iterator[str]:
        if room <= 0:
            yield f"{lead}[ ... ]{tail}"
            return
        element, count = bare.target, bare.count
        shape = shape_of(element)
        size = shape.size
        limit = count if self.options.limit is None else min(count, self.options.limit)
        string_limit = self.options.string_limit
        if shape.text and count:  # of a longer array as much as is told to be looked at, if a NUL is in there
            text = self._string(address, count if string_limit is None else min(count, string_limit), count)
            if text is not None:
                yield f'{lead}[ "{text}" ]{tail}'
                return
        if limit <= 0 or not size:
            yield f"{lead}[ ... ]{tail}"
            return
        fault = self.pages.missing(address, limit * size)
        if fault is not None:
            yield f"{lead}{reason_text(fault)}{tail}"
            return
        if not isinstance(shape.bare, (StructType, ArrayType)):
            items = self._scalars(element, shape, address, limit)
            yield f"{lead}[ {', '.join(items)}{', ...' if limit < count else ''} ]{tail}"
            return
        yield lead + "["
        comma = "," if isinstance(shape.bare, StructType) else ""
        for index in range(limit):
            at = address + index * size
            inner = self._lead(level + 1, element, shape, at, 0, None, "", top=True)
            # mdb puts the comma after a closing brace only: not after "{ ... }", a dotted address, an inner array.
            opened = room > 1 and comma and not self._is_flat(shape, at)
            yield from self._body(element, shape, at, 0, None, inner, "," if opened else "", level + 1, room - 1, None)
        yield f"{TAB * level}{'... ' if limit < count else ''}]{tail}"

    def _is_flat(self, shape: Shape, address: int) -> bool:
        """Whether a structure is printed on one line."""
        return shape.bare.name in ("in_addr", "in6_addr") or self.pages.missing(address, shape.size) is not None

    def _string(self, address: int, size: int, count: int) -> str | None:
        """Return the text of an array of *count* char if there is some in *size* of them and all of it can be shown."""
        try:
            data = self.pages.read(address, size)
        except Fault:
            return None
        text, nul, _ = data.partition(b"\0")
        return printable(text) if text and (nul or size == count) else None

    def _scalars(self, element: CType, shape: Shape, address: int, count: int) -> Iterator[str]:
        """Yield the text of each element of an array of numbers; read in chunks, unreadable elements on their own."""
        size = shape.size
        chunk = max(CHUNK // size, 1)
        for first in range(0, count, chunk):
            part = min(chunk, count - first)
            start = address + first * size
            try:
                data = self.pages.read(start, part * size)
            except Fault:
                for index in range(part):
                    try:
                        yield self.scalars.text(element, shape, self.pages.read(start + index * size, size), 0, None)
                    except Fault as fault:
                        yield reason_text(fault)
                continue
            text = self.scalars.text
            for at in range(0, part * size, size):
                yield text(element, shape, data[at : at + size], 0, None)
