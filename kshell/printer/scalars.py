"""The text of single values: numbers, characters, pointers with their symbols, enums, floats, dates, addresses.

The forms: mdb-language.md 5.3 and 11.2. Whatever comes from the target as text is escaped here.
"""

from __future__ import annotations

from kshell.errors import Fault
from kshell.escape import escape, printable
from kshell.lang.numbers import show_base
from kshell.memory.model import Memory
from kshell.printer.options import PrintOptions
from kshell.types.model import CType, FloatType, Kind, PointerType, Symbol
from kshell.value.shape import Shape, decode, shape_of
from kshell.value.value import ValueTarget, float_value

#: typedefs of seconds since 1970
DATES = frozenset({"time_t", "time64_t", "__kernel_time64_t", "__kernel_old_time_t", "__kernel_time_t"})
#: typedefs of 4 bytes of an IPv4 address in network order
ADDRESSES = frozenset({"in_addr_t", "ipaddr_t"})
ESCAPES = {0: "\\0", 7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 39: "\\'", 92: "\\\\"}
#: bytes of a string behind a ``char *`` that are shown
STRING = 255
#: of many of them at once; a longer one is read again
SHORT = 64
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def hexadecimal(number: int) -> str:
    """Return *number* as mdb's ``%#x``: ``0x1f``, but ``9``."""
    return f"0x{number:x}" if number > 9 else str(number)


def symbol_name(symbol: Symbol, offset: int = 0, radix: int = 16) -> str:
    """Return ``name``, ``name+0x1c``, with ``module`` and a backquote in front for symbols of modules."""
    name = escape(symbol.shown)
    return f"{name}+{show_base(offset, radix)}" if offset else name


def address_text(target: ValueTarget, address: int, radix: int = 16) -> str:
    """Return *address* as mdb's ``%a``: the symbol that covers it and an offset, else the number."""
    found = target.symbolize(address)
    return show_base(address, radix) if found is None else symbol_name(found[0], found[1], radix)


def character(code: int) -> str:
    """Return a byte as C writes a character, without quotes: ``A``, ``\\0``, ``\\252``."""
    if code in ESCAPES:
        return ESCAPES[code]
    return chr(code) if 0x20 <= code < 0x7F else f"\\{code:03o}"


def date(seconds: int) -> str | None:
    """Return seconds since 1970 as ``2025 Aug  6 12:00:00`` (UTC), or None when they are no date."""
    import time

    if not 0 < seconds < 253402300800:
        return None
    when = time.gmtime(seconds)
    clock = f"{when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02}"
    return f"{when.tm_year} {MONTHS[when.tm_mon - 1]} {when.tm_mday:2} {clock}"


def ipv4(data: bytes) -> str:
    return ".".join(map(str, data))


def ipv6(data: bytes) -> str:
    import ipaddress

    return str(ipaddress.IPv6Address(data))


def is_bitfield(bits: int, offset: int) -> bool:
    """Whether *bits* at bit *offset* cannot be read as an integer of 1, 2, 4 or 8 bytes."""
    return bits not in (8, 16, 32, 64) or offset % 8 != 0


def reason_text(fault: Fault) -> str:
    """Return what stands in place of a value that cannot be read."""
    return f"??? ({fault.reason.value}{f': {escape(fault.detail)}' if fault.detail else ''})"


class Scalars:
    """Makes the text of values of one target; keeps symbols it has looked up.

    :ivar strings: the memory that pointers lead into
    """

    def __init__(self, target: ValueTarget, strings: Memory, options: PrintOptions) -> None:
        self.target, self.strings, self.options = target, strings, options
        self.order = target.arch.byteorder
        self.decimal = options.decimal and not options.hexadecimal
        self.plain_numbers = not (options.decimal or options.hexadecimal)
        self._names: dict[int, str] = {}

    def text(self, type: CType, shape: Shape, data: bytes, bit: int, width: int | None) -> str:
        """Return the text of the value of *type* that *data* holds.

        :param bit: bits before a bit-field, and *width* its bits, as :func:`kshell.value.shape.decode` has them
        """
        kind = shape.kind
        if kind is Kind.POINTER:
            return self.pointer(shape, decode(data, shape, self.order))
        if kind is Kind.ENUM:
            return self.enum(shape, decode(data, shape, self.order, bit, width))
        if isinstance(shape.bare, FloatType):
            return f"{float_value(data, self.order):+.7e}"
        if shape.char and (width is None or (width == 8 and bit == 0)):
            return f"'{character(data[0])}'"
        number = decode(data, shape, self.order, bit, width)
        bits = 8 * shape.size if width is None else width
        if self.plain_numbers:
            if width is None and type.name is not None and type.kind is Kind.TYPEDEF:
                known = self._known(type.name, number, data)
                if known is not None:
                    return known
            if shape.signed and is_bitfield(bits, bit):
                return show_base(number, 10)
        elif self.decimal:
            return show_base(number, 10)
        if number < 0:
            number &= (1 << bits) - 1
        return f"0x{number:x}" if number > 9 else str(number)

    def _known(self, name: str, number: int, data: bytes) -> str | None:
        if name in DATES:
            return date(number)
        if name in ADDRESSES and len(data) == 4:
            return ipv4(data)
        return None

    def pointer(self, shape: Shape, value: int) -> str:
        """Return a pointer as a symbol or number; of a ``char *`` the string too."""
        if value == 0:
            return "0"
        if self.options.plain:
            return hexadecimal(value)
        text = self._names.get(value)
        if text is None:
            text = self._names[value] = address_text(self.target, value)
        bare = shape.bare
        if isinstance(bare, PointerType) and shape_of(bare.target).text:
            string = self.string(value)
            if string is not None:
                return f'{text} "{string}"'
        return text

    def pointers(self, shape: Shape, values: list[int]) -> list[str]:
        """Return what :meth:`pointer` does of each; strings that are short are read together."""
        bare = shape.bare
        if self.options.plain or not (isinstance(bare, PointerType) and shape_of(bare.target).text):
            return [self.pointer(shape, value) for value in values]
        symbolize, names, made = self.target.symbolize, self._names, []
        for value, data in zip(values, self.strings.read_many(values, SHORT), strict=True):
            head, nul, _ = (data or b"").partition(b"\0")
            string = printable(head) if nul else None
            if string is None or not value:
                made.append(self.pointer(shape, value))
            else:
                name = names.get(value) or (
                    f"0x{value:x}" if symbolize(value) is None else address_text(self.target, value))
                made.append(f'{name} "{string}"')
        return made

    def string(self, address: int) -> str | None:
        """Return the string at *address* if it can be read and all of it shown; a long one ends in `` ...``."""
        data, _ = self.strings.read_upto(address, STRING + 1)
        head, nul, _ = data.partition(b"\0")
        if nul:
            return printable(head)
        if len(head) <= STRING:
            return None
        text = printable(head[: STRING - 4].decode("utf-8", "ignore").encode())
        return None if text is None else f"{text} ..."

    def enum(self, shape: Shape, value: int) -> str:
        """Return the number of an enum's value and its name: ``1 (BAR)``, ``0x12 (PFX_{A|B})``."""
        names = shape.names
        if names.flags or self.options.hexadecimal:
            number = hexadecimal(value & ((1 << 8 * shape.size) - 1))
        else:
            number = show_base(value, 10)
        return f"{number} ({escape(names.text(value))})"
