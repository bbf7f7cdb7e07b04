"""The formatting verbs joined to a session: ``/ \\ ? @ =`` display, dump, write and search.

Reference: mdb-language.md 9; the formats themselves are in :mod:`kshell.formatverb`. Before a pipe nothing is wrapped
and no header is shown. Unlike in mdb, every value of a pipe starts a line and has its header, and a line for a shell
command that would have more than :data:`LONG_LINE` columns is wrapped, so that head(1) and grep(1) find lines in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from kshell.arguments import Abort, Call
from kshell.errors import KshellError, UsageError
from kshell.formatverb import VERB_SPACES, FormatRun, longest_line, resolve, symbol_text
from kshell.hexdump import DumpOptions, dump
from kshell.lang import ast
from kshell.lang.numbers import number_value
from kshell.output import Block, EndLine, Output, Text, Warn
from kshell.partial import read_prefix

if TYPE_CHECKING:
    from kshell.arch.disassembler import Disassembler
    from kshell.session import Session

LONG_LINE = 1024  # columns; what people and their scripts count fields in is shorter
_MASK = (1 << 64) - 1
_WRITE_SIZES = {"v": 1, "w": 2, "W": 4, "Z": 8}
_WRITE_WIDTHS = {1: 8, 2: 8, 4: 16, 8: 24}
_SEARCH_SIZES = {"l": 2, "L": 4, "M": 8}


class SessionTarget:
    """What the formatting verbs ask of a target, answered by a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._disassembler: Disassembler | None = None

    @property
    def byteorder(self) -> Literal["little", "big"]:
        return self._session.byteorder

    @property
    def pointer_size(self) -> int:
        return self._session.pointer_size

    def read(self, space: str, address: int, size: int) -> bytes:
        return self._session.memory(space, address).read(address, size)

    def symbolize(self, address: int) -> tuple[str, int] | None:
        found = self._session.target.symbolize(address) if self._session.has_target else None
        if found is None:
            return None
        symbol, offset = found
        return symbol.shown, offset

    def disassemble(self, space: str, address: int) -> tuple[str, int]:
        if self._disassembler is None:
            from kshell.instructions import disassembler

            self._disassembler = disassembler(self._session)
        found = self._disassembler.one(self._session.memory(space, address), address)
        return str(found), found.size


def run_verb(
    session: Session, node: ast.Format | ast.HexDump | ast.Write | ast.Search, call: Call, rounds: int,
) -> Iterator[Output]:
    """Obey one verb at dot, *rounds* times, yielding its text; dot and increment move as in mdb-language.md 5.1."""
    if isinstance(node, ast.Format):
        yield from _display(session, node, call, rounds)
    elif isinstance(node, ast.HexDump):
        yield from _dump(session, node, rounds)
    elif isinstance(node, ast.Write):
        yield from _write(session, node, rounds)
    else:
        yield from _search(session, node)


def _display(session: Session, node: ast.Format, call: Call, rounds: int) -> Iterator[Output]:
    steps = resolve(node, session.value)
    whole = call.pipe_out or (call.shell_out and longest_line(steps, rounds) <= LONG_LINE)
    run = FormatRun(
        node.verb, steps, SessionTarget(session), session.dot, count=rounds,
        header=not call.pipe_out, symbolic=not session.variables.get("_"), radix=session.radix,
        page_width=None if whole else session.options.width)
    # numbers, symbols (escaped by whoever made them) and blanks have nothing in them that is to be escaped
    plain = all(step.letter and step.letter not in "csSC" for step in steps)
    failed = False
    for item in run:
        if not isinstance(item, str):
            yield Warn(item)
        elif failed and item == "\n":
            yield EndLine()  # where errors are seen on the way, they have ended the line
        else:
            yield Block(item) if plain else Text(item, end="")
        failed = not isinstance(item, str)
    session.dot, session.increment = run.dot, run.increment
    if run.last_value is not None:
        session.variables["0"] = run.last_value


def _dump(session: Session, node: ast.HexDump, rounds: int) -> Iterator[Output]:
    """``addr/40``: 40 (decimal) bytes in the layout of ``::dump``, exactly those."""
    if isinstance(node.size, ast.Immediate):
        size = session.value(node.size.expression)
    else:
        try:
            size = number_value(node.size.text, 10)
        except ValueError as error:
            raise UsageError(str(error)) from None
    session.increment = 0
    for round_ in range(rounds if size else 0):
        if round_:
            session.dot = (session.dot + size) & _MASK
        memory = session.memory(VERB_SPACES[node.verb], session.dot)
        for item in dump(memory.read, session.dot, size, DumpOptions(trim=True), header=round_ == 0):
            if isinstance(item, str):
                yield Block(item)
            else:
                yield Warn(item)
                return
    session.increment = size


def _word_value(session: Session, word: ast.Argument) -> int:
    """Return the value of a word after a write or search letter: it is obeyed as a command string."""
    if isinstance(word, ast.Immediate):
        return session.value(word.expression)
    return session.eval_dot(word.text, session.dot)


def _write(session: Session, node: ast.Write, rounds: int) -> Iterator[Output]:
    if not node.arguments:
        raise UsageError(f"expected value to write following {node.letter}")
    session.memory(VERB_SPACES[node.verb], session.dot)  # there may be none
    size = _WRITE_SIZES.get(node.letter) or _symbol_size(session)
    values = [_word_value(session, word) for word in node.arguments]
    target = SessionTarget(session)
    address = session.dot
    for _ in range(rounds):
        for value in values:
            session.dot, session.increment = address, 0
            data = (value & (1 << 8 * size) - 1).to_bytes(size, session.byteorder)
            try:
                entry = session.write(session.memory(VERB_SPACES[node.verb], address), address, data)
            except KshellError as error:
                raise Abort(f"failed to write {value:x} at address 0x{address:x}: {_reason(error)}",
                            hint=error.hint) from error
            session.increment = size
            if session.options.write_readback:
                label = symbol_text(target, address, session.radix, not session.variables.get("_")) + ":"
                width = _WRITE_WIDTHS[size]
                old, new = (int.from_bytes(part, session.byteorder) for part in (entry.old, entry.new))
                shown = f"{old:#x}" if old else "0"
                place = label.ljust(-(-max(len(label), 1) // 16) * 16)
                yield Text(f"{place}{shown:<{width}}=       {new:#x}")
            address = (address + size) & _MASK


def _reason(error: KshellError) -> str:
    from kshell.evaluate import reason_text

    return reason_text(error)


def _symbol_size(session: Session) -> int:
    """Return the size of the object that dot is the start of, for ``/z``: 1, 2, 4 or 8."""
    found = session.target.symbolize(session.dot)
    if found is None or found[1]:
        raise KshellError("no symbol corresponds to address", hint="v, w, W or Z say how many bytes: 1, 2, 4, 8")
    ctype = session.target.type_of(found[0])
    size = ctype.size if ctype is not None else found[0].size
    if size not in (1, 2, 4, 8):
        raise KshellError(f"{found[0].name} is no integer of 1, 2, 4 or 8 bytes")
    return size


def _search(session: Session, node: ast.Search) -> Iterator[Output]:
    """Step from dot on until ``cell & mask == value``; dot is left there, or at the first address without memory."""
    size = _SEARCH_SIZES[node.letter]
    if not node.arguments:
        raise UsageError(f"expected value following {node.letter}")
    if len(node.arguments) > 2:
        raise UsageError(f"only value and mask may follow {node.letter}")
    full = (1 << 8 * size) - 1
    value = _word_value(session, node.arguments[0]) & full
    mask = _word_value(session, node.arguments[1]) & full if len(node.arguments) == 2 else full
    address = session.dot
    memory = session.memory(VERB_SPACES[node.verb], address)
    chunk = 4096
    while address + size <= _MASK + 1:
        want = min(chunk - address % size, _MASK + 1 - address)
        data, fault = read_prefix(memory.read, address, want - want % size, size)
        at = _find(data, value, mask, size, session.byteorder)
        if at is not None:
            session.dot = address + at
            shown = symbol_text(SessionTarget(session), session.dot, session.radix, not session.variables.get("_"))
            yield Text(shown, value=session.dot)
            return
        address += len(data)
        if fault is not None:
            break
        chunk = min(chunk * 2, 1 << 22)
    session.dot = address & _MASK


def _find(data: bytes, value: int, mask: int, size: int, byteorder: Literal["little", "big"]) -> int | None:
    """Return the offset of the first cell of *data* that matches."""
    if mask == (1 << 8 * size) - 1:
        wanted = value.to_bytes(size, byteorder)
        at = data.find(wanted)
        while at >= 0 and at % size:
            at = data.find(wanted, at + 1)
        return at if at >= 0 else None
    for at in range(0, len(data), size):
        if int.from_bytes(data[at : at + size], byteorder) & mask == value:
            return at
    return None


