"""The formatting verbs ``/ \\ ? @ =``: memory, or a value, as text.

Reference: mdb-language.md 9.2 (execution), 9.3 (letters), 9.5 (strings), 5.1 (dot and increment). Nothing is printed
here: a :class:`FormatRun` yields text, and errors as :class:`KshellError` objects in their place among the text.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from kshell.errors import KshellError
from kshell.escape import escape
from kshell.evaluate import MASK, reason_text
from kshell.lang import ast
from kshell.lang.formats import FORMATS, ByteOrder, FormatKind, field_width, format_value
from kshell.lang.node import Record
from kshell.lang.numbers import show_base
from kshell.lang.quoting import escape_bytes
from kshell.page import MARGIN, PAGE_WIDTH, Page
from kshell.partial import Window, read_prefix
from kshell.rounds import GROW, SIGNED, SPECS, LineRounds, code, one_letter

VERB_SPACES = {"/": "virtual", "\\": "physical", "@": "physical", "?": "object"}
MAX_STRING = 1 << 20  # hostile memory may hold no NUL for gigabytes

_FIRST_CHUNK, _LAST_CHUNK = 16, 1 << 16  # cells of one letter read at once; small first, so that a line is there soon
_SCREENS = 1 << 14  # so many numbers at once are made with numpy, if it is loaded or there are many of them
_MANY = 1 << 17
_LAST_FLUSH = 256  # rounds between two pieces of text
_FEW = 64  # rounds that are worth the trouble of being made together
_ROOM = 1 << 18  # bytes of them


class FormatTarget(Protocol):
    """What the verbs ask of a target."""

    @property
    def byteorder(self) -> ByteOrder: ...

    @property
    def pointer_size(self) -> int: ...

    def read(self, space: str, address: int, size: int) -> bytes:
        """Return *size* bytes of *space* ("virtual", "physical", "object").

        :raises KshellError: they are not all there
        """

    def symbolize(self, address: int) -> tuple[str, int] | None:
        """Return the symbol that covers *address*, its module in front where that is shown, and the offset in it."""

    def disassemble(self, space: str, address: int) -> tuple[str, int]:
        """Return the text of one instruction and its size.

        :raises KshellError: it cannot be read or is none
        """


class Step(Record):
    """A letter and its count, or a literal string (then *letter* is empty)."""

    letter: str
    count: int = 1
    text: str = ""


_DEFAULT = (Step("X"), Step("^"), Step("", text="= "), Step("i"))


def resolve(command: ast.Format, value: Callable[[ast.Expression], int]) -> tuple[Step, ...]:
    """Return what a parsed format list does; *value* evaluates the ``$[ ]`` in it.

    :raises KshellError: ``=`` has no letter, or an expression has no value
    """
    steps: list[Step] = []
    count = 1
    for item in command.items:
        match item:
            case ast.FormatCount():
                count = int(item.text.lstrip("0")[:20] or "0")  # Python refuses to convert thousands of digits
            case ast.Immediate():
                count = value(item.expression)
            case ast.FormatString():
                steps.append(Step("", text=item.text))
                count = 1
            case ast.FormatChar():
                steps.append(Step(item.letter, count))
                count = 1
    if not command.items:
        if command.verb == "=":
            raise KshellError("expected one or more format characters following '='")
        return _DEFAULT
    return tuple(steps)


_ENDS = frozenset("nNiIj")  # letters that end a line


def longest_line(steps: Sequence[Step], rounds: int) -> int:
    """Return about how many columns the longest line has when nothing is wrapped."""
    longest = column = MARGIN
    for step in steps:
        if step.letter in _ENDS:
            column = MARGIN
        elif found := FORMATS.get(step.letter):
            column += step.count * (found.width or 1)
        longest = max(longest, column)
    if any(step.letter in _ENDS for step in steps):
        return longest
    return MARGIN + (column - MARGIN) * rounds


def symbol_text(target: FormatTarget, address: int, radix: int = 16, symbolic: bool = True) -> str:
    """Return ``name``, ``name+0x1c``, or the address in hex (section 6)."""
    found = target.symbolize(address) if symbolic else None
    if found is None:
        return show_base(address, 16)
    name, offset = escape(found[0]), found[1]
    return f"{name}+{show_base(offset, radix)}" if offset else name


class FormatRun:
    """One execution of a formatting verb; iterate once, then read the attributes.

    :ivar dot: start of the last round (for ``=`` the value)
    :ivar increment: bytes that round moved over
    :ivar last_value: for variable ``0``; None if nothing was shown
    :ivar failed: an error was among the items
    """

    def __init__(
        self, verb: str, steps: Sequence[Step], target: FormatTarget, dot: int, *, count: int = 1,
        header: bool = True, symbolic: bool = True, radix: int = 16, page_width: int | None = PAGE_WIDTH,
    ) -> None:
        """
        :param count: rounds, ``A,count/X``
        :param header: print the address first (the header rule, 7.1; never for ``=``)
        :param symbolic: False if variable ``_`` is not zero: addresses are shown as numbers
        :param page_width: None does not wrap (pipes)
        """
        self.dot, self.increment = dot & MASK, 0
        self.last_value: int | None = None
        self.failed = False
        self._verb, self._steps, self._target = verb, steps, target
        self._count, self._header = count, header and verb != "="
        self._symbolic, self._radix = symbolic, radix
        self._space = VERB_SPACES.get(verb, "")
        self._byteorder: ByteOrder = "little" if verb == "=" else target.byteorder
        self._page = Page(page_width, MARGIN)
        self._address = self.dot
        self._moved = 0  # by the last item that read something, for ^
        self._window = Window(self._read_space, self.dot, self._extent())

    def __iter__(self) -> Iterator[str | KshellError]:
        if self._count <= 0:
            return
        if self._header:
            self._put_header()
        single = self._steps[0] if len(self._steps) == 1 else None
        if single and single.count == 1 and single.letter in SPECS and self._verb != "=":
            yield from self._one_letter_rounds(single.letter)
        else:
            done = 0
            if self._count >= _FEW and self._verb != "=":
                done = yield from self._many_rounds()
            yield from self._rounds(done)
        self._page.finish()
        if text := self._page.flush():
            yield text

    # Rounds

    def _many_rounds(self) -> Generator[str | KshellError, None, int]:
        """Run rounds of plain numbers many at a time, as far as memory goes; return how many have run."""
        letter = one_letter(self._steps)
        lines: LineRounds | None = None
        order = "<" if self._byteorder == "little" else ">"
        done = 0
        if not letter:
            if not LineRounds.fits(self._steps, self._page.width):
                return 0
            sizes = [self._size(step.letter) if step.letter in SPECS else 0 for step in self._steps]
            lines = LineRounds(self._steps, sizes, order)
            yield from self._rounds(0, 1)  # its line has the header
            if self.failed or self._count == 1:
                return 1
            done = 1
        unit = self._size(letter) if letter else 0
        size = lines.size if lines is not None else sum(step.count for step in self._steps) * unit
        if not 0 < size <= _ROOM:
            return done
        chunk = 16
        while done < self._count:
            rounds = min(chunk, self._count - done, max(_ROOM // size, 1))
            start = (self.dot + size * (done > 0)) & MASK
            try:
                data = self._window.read(start, rounds * size)
            except KshellError:
                break
            if lines is not None:
                self._page.whole_lines(lines.text(data))
            else:
                self._put_many(letter, data, unit, self._count * size // unit >= _MANY)
            last = lines.last if lines is not None else unit
            self.last_value = int.from_bytes(data[-last:], self._byteorder)
            self.dot = (start + (rounds - 1) * size) & MASK
            self.increment = self._moved = size
            done += rounds
            yield self._page.flush()
            chunk *= 4
        return done

    def _put_many(self, letter: str, data: bytes, size: int, many: bool) -> None:
        if len(data) >= _SCREENS * size and SPECS.get(letter) == "x" and (many or "numpy" in sys.modules):
            order = "<" if self._byteorder == "little" else ">"
            self._page.hexadecimal(data, size, order, FORMATS[letter].width, letter in GROW)
        else:
            self._put_cells(letter, data, size)

    def _rounds(self, first: int = 0, end: int | None = None) -> Iterator[str | KshellError]:
        flush_at = first + 1
        for number in range(first, self._count if end is None else end):
            if number:
                self.dot = (self.dot + self.increment) & MASK
            self._address, failed_before, self.failed = self.dot, self.failed, False
            for step in self._steps:
                yield from self._step(step)
            if self._verb == "=":
                self.dot = self._address
            else:
                delta = (self._address - self.dot) & MASK
                self.increment = delta - (MASK + 1) if delta >> 63 else delta
            # mdb repeats the same message for every round left; without progress one is enough.
            stuck = self.failed and self.increment == 0
            self.failed |= failed_before
            if stuck:
                return
            if number + 1 >= flush_at:
                flush_at += min(flush_at - first, _LAST_FLUSH)
                yield self._page.flush()

    def _one_letter_rounds(self, letter: str) -> Iterator[str | KshellError]:
        """``A,count/X`` without a loop over rounds: the same text as ``A/{count}X``."""
        size = self._size(letter)
        start = self.dot
        yield from self._cells(letter, self._count)
        done = ((self._address - start) & MASK) // size
        complete = done == self._count
        self.dot = (start + (done - complete) * size) & MASK
        self.increment = size if complete else 0

    def _put_header(self) -> None:
        letters = "".join(step.letter or '"' for step in self._steps[:2])
        label = symbol_text(self._target, self.dot, self._radix, self._symbolic) + ":"
        if letters == "ai":
            self._page.outdented(label, 0, 1)
            self._page.newline()
            return
        if letters == "ia":
            self._page.outdented(label, MARGIN, 1)
            return
        found = self._target.symbolize(self.dot) if self._symbolic else None
        if found is not None and found[1] == 0:
            self._page.outdented(f"{escape(found[0])}:", 0, 1)
            self._page.newline()
        self._page.outdented(label, MARGIN, MARGIN)

    # Items

    def _step(self, step: Step) -> Iterator[str | KshellError]:
        if not step.letter:
            self._page.lines(step.text)
            return
        found = FORMATS.get(step.letter)
        if found is None:
            yield from self._fail(KshellError(f"invalid format character -- '{step.letter}'"))
            return
        if found.kind is FormatKind.LAYOUT:
            yield from self._layout(step)
            return
        if found.kind is FormatKind.MOVE:
            self._move(step)
            return
        if step.letter == "a":
            self.last_value = self._address
            label = symbol_text(self._target, self._address, self._radix, self._symbolic)
            self._page.outdented(f"{label}:", MARGIN, MARGIN)
            return
        before = self._address
        if found.kind is FormatKind.STRING:
            yield from self._strings(step)
        elif found.kind is FormatKind.INSTRUCTION:
            yield from self._instructions(step)
        elif step.count == 1 and step.letter in SPECS and self._verb != "=":
            yield from self._cell(step.letter)
        else:
            yield from self._cells(step.letter, step.count)
        self._moved = self._address - before

    def _layout(self, step: Step) -> Iterator[str]:
        if step.letter in "nN":
            for number in range(step.count):
                self._page.end_line()
                if number % 4096 == 4095:
                    yield self._page.flush()
        elif step.letter == "r":
            self._page.blanks(min(step.count, 1 << 16))
        else:
            self._page.tab(min(step.count, 1 << 16))

    def _move(self, step: Step) -> None:
        by = {"+": step.count, "-": -step.count, "^": -step.count * self._moved}[step.letter]
        if step.letter != "^" or self._verb != "=":
            self._address = (self._address + by) & MASK

    def _cell(self, letter: str) -> Iterator[str | KshellError]:
        """One number: what :meth:`_cells` does, without the machinery for many, for rounds like ``/XXn``."""
        size = self._size(letter)
        try:
            data = self._window.read(self._address, size)
        except KshellError as error:
            yield from self._fail(self._read_error(error))
            return
        self._address = (self._address + size) & MASK
        self.last_value = int.from_bytes(data, self._byteorder)
        value = int.from_bytes(data, self._byteorder, signed=letter in SIGNED)
        text = f"{value:{SPECS[letter]}}"
        self._page.field(text, field_width(letter, text))

    def _cells(self, letter: str, count: int) -> Iterator[str | KshellError]:
        """*count* values of one letter, read in chunks."""
        size = self._size(letter)
        chunk = _FIRST_CHUNK
        many = count >= _MANY
        while count > 0:
            want = min(chunk, count)
            if self._verb == "=":
                value = self._address.to_bytes(8, "little")[:size]
                data, error = value * want, None
            else:
                data, error = read_prefix(self._window.read, self._address, want * size, size)
                self._address = (self._address + len(data)) & MASK
            if data:
                self.last_value = int.from_bytes(data[-size:], self._byteorder)
                self._put_many(letter, data, size, many)
            if error is not None:
                yield from self._fail(self._read_error(error))
                return
            count -= want
            if count:
                yield self._page.flush()
            chunk = min(chunk * 4, _LAST_CHUNK)

    def _put_cells(self, letter: str, data: bytes, size: int) -> None:
        page = self._page
        width = FORMATS[letter].width
        if letter in SPECS:
            order = "<" if self._byteorder == "little" else ">"
            values = struct.unpack(f"{order}{len(data) // size}{code(letter, size)}", data)
            if letter not in GROW or max(values) >> 60 == 0:
                page.numbers(values, SPECS[letter], width)
            elif min(values) >> 60:
                page.numbers(values, SPECS[letter], width + 1)
            else:
                for value in values:
                    page.field(f"{value:x}", width + (value >> 60 != 0))
        elif letter == "C":
            page.field(escape_bytes(data))
        elif letter == "c":
            for char in data.decode("utf-8", "surrogateescape"):
                page.lines(escape(char, "\n\t"))
        elif letter in "pP":
            for at in range(0, len(data), size):
                value = int.from_bytes(data[at : at + size], self._byteorder)
                page.field(symbol_text(self._target, value, self._radix), width)
        else:
            for at in range(0, len(data), size):
                text = format_value(letter, data[at : at + size], self._byteorder, self._radix)
                if letter == "j":
                    page.lines(text)
                    page.newline()
                else:
                    page.field(text, field_width(letter, text))

    def _strings(self, step: Step) -> Iterator[str | KshellError]:
        for number in range(step.count):
            data, error = self._string()
            raw = step.letter == "s"
            text = escape(data.decode("utf-8", "surrogateescape"), "\n\t") if raw else escape_bytes(data)
            self._page.lines("\\0" + text if number else text)
            if error is not None:
                yield from self._fail(error)
                return
            if number % 64 == 63:
                yield self._page.flush()
            if self._verb == "=":
                return

    def _string(self) -> tuple[bytes, KshellError | None]:
        """Return the bytes up to the NUL and go past it."""
        if self._verb == "=":
            return self._address.to_bytes(8, "little").split(b"\0")[0], None
        parts: list[bytes] = []
        total, chunk = 0, 64
        while total < MAX_STRING:
            # Up to a boundary: the next page need not be there.
            want = chunk - self._address % chunk
            data, error = read_prefix(self._window.read, self._address, want)
            text, nul, _ = data.partition(b"\0")
            parts.append(text)
            total += len(text)
            self._address = (self._address + len(text) + len(nul)) & MASK
            if nul:
                return b"".join(parts), None
            if error is not None:
                return b"".join(parts), self._read_error(error)
            chunk = min(chunk * 4, 4096)
        return b"".join(parts), KshellError(f"string is longer than {MAX_STRING:#x} bytes")

    def _instructions(self, step: Step) -> Iterator[str | KshellError]:
        if self._verb == "=":
            yield from self._fail(KshellError("cannot disassemble a value, only memory"))
            return
        for number in range(step.count):
            try:
                text, size = self._target.disassemble(self._space, self._address)
                if step.letter == "I":
                    word = self._read_space(self._address, 4).hex()
                    text = f"{symbol_text(self._target, self._address, self._radix)} {word}: {text}"
            except KshellError as error:
                yield from self._fail(self._read_error(error))
                return
            self._page.field(text)
            self._page.newline()
            self._address = (self._address + size) & MASK
            if number % 64 == 15:
                yield self._page.flush()

    # Reading

    def _size(self, letter: str) -> int:
        return self._target.pointer_size if letter in "KpP" and self._verb != "=" else FORMATS[letter].size

    def _read_space(self, address: int, size: int) -> bytes:
        return self._target.read(self._space, address & MASK, size)

    def _extent(self) -> int:
        """Return how many bytes from dot on will be read if all goes well; 0 if that cannot be told before."""
        total = 0
        for step in self._steps:
            found = FORMATS.get(step.letter)
            if found is not None and (found.kind is FormatKind.VALUE or step.letter in "pP"):
                total += self._size(step.letter) * step.count
            elif step.letter == "+":
                total += step.count
            elif found is not None and (found.kind is not FormatKind.LAYOUT and step.letter != "a"):
                return 0
        return total * self._count if self._count > 1 else 0

    def _read_error(self, error: KshellError) -> KshellError:
        wrapped = KshellError(f"failed to read data from target: {reason_text(error)}", hint=error.hint)
        wrapped.__cause__ = error
        return wrapped

    def _fail(self, error: KshellError) -> Iterator[str | KshellError]:
        """Yield the text before the error, and the error."""
        self.failed = True
        if text := self._page.flush():
            yield text
        yield error
