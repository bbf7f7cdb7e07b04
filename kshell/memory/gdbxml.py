"""The registers that a gdb stub tells of in XML, and how they lie in its ``g`` packet. The XML is not trusted.

GDB manual, appendix "Target Descriptions": registers are numbered in the order in which they stand unless ``regnum``
says otherwise, and lie in ``g`` in the order of their numbers. Entities and document types are not followed: what an
``xi:include`` names is asked of the stub, nothing else is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from kshell.errors import FormatError

MAX_DOCUMENT = 1 << 20
MAX_DOCUMENTS = 32
MAX_DEPTH = 8
MAX_REGISTERS = 4096
MAX_BITS = 1 << 14
NAME = re.compile(r"[\w.-]{1,64}")


class Register(NamedTuple):
    """A register: its number in the protocol, where it lies in ``g`` (bytes), its size (bytes)."""

    name: str
    number: int
    offset: int
    size: int


class Description(NamedTuple):
    """What the target is: ``architecture`` as gdb calls it, "" when it is not told; its registers by name."""

    architecture: str
    registers: dict[str, Register]


def read_description(fetch: Callable[[str], bytes]) -> Description:
    """Return what ``target.xml`` and all that it includes tell.

    :param fetch: gives a document by its name (``qXfer:features:read``)
    :raises FormatError: no XML, too much of it, or registers of impossible sizes
    """
    reader = _Reader(fetch)
    reader.read("target.xml", 0)
    registers: dict[str, Register] = {}
    offset = 0
    for number, (name, bits) in sorted(reader.found.items()):
        if bits % 8 or not 0 < bits <= MAX_BITS:
            raise FormatError(f"the stub's description has a register {name} of {bits} bits")
        registers[name] = Register(name, number, offset, bits // 8)
        offset += bits // 8
    return Description(reader.architecture, registers)


class _Reader:
    """Reads documents and those they include, in order, and collects registers: number -> (name, bits)."""

    def __init__(self, fetch: Callable[[str], bytes]) -> None:
        self._fetch = fetch
        self.architecture = ""
        self.found: dict[int, tuple[str, int]] = {}
        self._next = self._documents = 0

    def read(self, name: str, depth: int) -> None:
        from xml.parsers import expat

        self._documents += 1
        if depth > MAX_DEPTH or self._documents > MAX_DOCUMENTS:
            raise FormatError("the stub's description includes documents without end")
        if not NAME.fullmatch(name):
            raise FormatError(f"the stub's description includes a document of an impossible name {name[:80]!r}")
        data = self._fetch(name)
        if len(data) > MAX_DOCUMENT:
            raise FormatError(f"{name} of the stub's description has more than {MAX_DOCUMENT >> 20} MiB")
        parser = expat.ParserCreate(namespace_separator=None)
        text: list[str] = []

        def start(tag: str, attributes: dict[str, str]) -> None:
            text.clear()
            if tag == "reg":
                self._register(attributes)
            elif tag.rpartition(":")[2] == "include" and "href" in attributes:
                self.read(attributes["href"], depth + 1)

        def end(tag: str) -> None:
            if tag == "architecture":
                self.architecture = "".join(text).strip()[:64]

        def refuse(*_: object) -> None:
            raise FormatError(f"{name} of the stub's description declares entities")

        def characters(piece: str) -> None:
            if sum(map(len, text)) < 256:
                text.append(piece)

        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler, parser.EntityDeclHandler = characters, refuse
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise FormatError(f"{name} of the stub's description is no XML: {error}") from error

    def _register(self, attributes: dict[str, str]) -> None:
        try:
            number = int(attributes.get("regnum", self._next))
            bits = int(attributes["bitsize"])
        except (KeyError, ValueError) as error:
            raise FormatError("the stub's description has a register without a size or number") from error
        if not 0 <= number < MAX_REGISTERS:
            raise FormatError(f"the stub's description has a register number {number}")
        self.found[number] = attributes.get("name", f"r{number}").lower()[:32], bits
        self._next = number + 1
