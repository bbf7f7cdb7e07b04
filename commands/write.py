"""``::kwrite``, ``::uwrite``, ``::write``: writes, shown as old -> new; ``::writes`` lists, ``::undo`` takes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    DECIMAL,
    WRITE_PIECE,
    Argument,
    Column,
    FileName,
    Flag,
    JournalEntry,
    KshellError,
    Memory,
    Note,
    Number,
    Option,
    Output,
    Record,
    RegisterEntry,
    Row,
    Session,
    UsageError,
    Word,
    dcmd,
    decimal_value,
    show_base,
)

#: bytes of a write that are shown
SHOWN = 256

Length = Annotated[Number | None, Option("-l", "1|2|4|8", "the words are numbers of so many bytes")]
String = Annotated[bool, Flag("-s", "the word is text, written as UTF-8 without a NUL")]
Zero = Annotated[bool, Flag("-z", "as -s, with a NUL behind it")]
File = Annotated[FileName | None, Option("-f", "file", "write the bytes of this file")]
Values = Annotated[list[Argument], Word("byte|number|text", "two hex digits each, or as -l and -s say")]


@dcmd("kwrite", group="Writing")
def kwrite(
    session: Session, address: int, length: Length, string: String, zero: Zero, file: File, values: Values,
) -> Iterator[Output]:
    """Write at a kernel virtual address.

    The words are bytes of two hex digits (de ad, or dead); with -l 1, 2, 4 or 8 numbers of so many bytes, which may be
    expressions; with -s or -z text; -f takes them from a file. Shows old -> new and records the write for ::undo.
    Writing needs kshell -w (in place) or --cow (a private copy).

    Examples:
      panic_timeout::kwrite -l 4 0t10
      *saved_command_line::kwrite de ad be ef
      init_uts_ns+45::kwrite -z renamed
    """
    return _write(session, session.kernel, address, _data(session, length, string, zero, file, values), length)


@dcmd("uwrite", group="Writing")
def uwrite(
    session: Session, address: int, length: Length, string: String, zero: Zero, file: File, values: Values,
) -> Iterator[Output]:
    """Write at a user virtual address of the process context.

    As ::kwrite. The context is chosen by ::getu.

    Examples:
      ::getu 812; 404010::uwrite -z hello
      7ffd1000::uwrite -l 8 0
    """
    return _write(session, session.user, address, _data(session, length, string, zero, file, values), length)


@dcmd("write", group="Writing")
def write(
    session: Session, address: int, physical: Annotated[bool, Flag("-p", "the address is physical")],
    object_file: Annotated[bool, Flag("-o", "write the object file, as ? does")], length: Length,
    string: String, zero: Zero, file: File, values: Values,
) -> Iterator[Output]:
    """Write at a virtual address, kernel or user by its half, with -p at a physical one, with -o in the object file.

    One word at a symbol of 1, 2, 4 or 8 bytes is a number of that size, as in mdb; else words are as for ::kwrite:
    bytes of two hex digits, numbers with -l, text with -s or -z, a file with -f.

    Examples:
      panic_timeout::write 5
      panic_timeout::write -l 4 5
      1000000::write -p 90 90
      1000000::write -p -f /tmp/page
    """
    if physical and object_file:
        raise UsageError("-p and -o: one of them")
    memory = session.memory("physical" if physical else "object" if object_file else "virtual", address)
    plain = length is None and file is None and not (string or zero or physical)
    if plain and len(values) == 1:
        length = _symbol_size(session, address)
    return _write(session, memory, address, _data(session, length, string, zero, file, values), length)


def _symbol_size(session: Session, address: int) -> int | None:
    """Return how long the symbol is that begins at *address*, if it is as long as a number."""
    found = session.target.symbolize(address)
    if found is None or found[1]:
        return None
    ctype = session.target.type_of(found[0])
    size = ctype.size if ctype is not None else found[0].size
    return size if size in (1, 2, 4, 8) else None


def _data(
    session: Session, length: int | None, string: bool, zero: bool, file: str | None, values: list[Argument],
) -> bytes | Path:
    """Return the bytes that the options and words say, or the file that has them.

    :raises UsageError: they say none, or contradict each other
    """
    if (length is not None) + (string or zero) + (file is not None) > 1:
        raise UsageError("only one of -l, -s (-z) and -f")
    if file is not None:
        if values:
            raise UsageError("-f takes no words")
        return Path(file)
    if not values:
        raise UsageError("what to write is missing")
    if string or zero:
        if len(values) != 1:
            raise UsageError('one word of text; quote it when it has blanks: "two words"')
        return str(values[0]).encode("utf-8", "surrogateescape") + b"\0" * zero
    if length is not None:
        return b"".join(_number(session, length, value) for value in values)
    return b"".join(map(_bytes, values))


def _number(session: Session, length: int, value: Argument) -> bytes:
    if length not in (1, 2, 4, 8):
        raise UsageError(f"-l {length}: 1, 2, 4 or 8")
    number = session.evaluate(value) if isinstance(value, str) else value
    if number >> 63 and -(1 << 8 * length - 1) <= number - (1 << 64):  # a negative number, which fits
        number &= (1 << 8 * length) - 1
    if number >> 8 * length:
        size = (number.bit_length() + 7) // 8
        raise KshellError(
            f"value too big for the length of the write: supplied {size} bytes but maximum is {length} bytes")
    return number.to_bytes(length, session.byteorder)


def _bytes(word: Argument) -> bytes:
    try:
        if isinstance(word, str) and len(word) % 2 == 0:
            return bytes.fromhex(word)
    except ValueError:
        pass
    shown = word if isinstance(word, str) else f"{word:x}"
    raise UsageError(f"{shown} is not bytes: each has two hex digits", hint="-l 1|2|4|8 writes a number, -s text")


def _write(session: Session, memory: Memory, address: int, data: bytes | Path, length: int | None) -> Iterator[Output]:
    entry = session.write(memory, address, data) if isinstance(data, bytes) else _copy(session, memory, address, data)
    if session.dry_run:
        yield Note("a dry run: nothing is written")
    shown = change(entry.old, entry.new, address, length, session.byteorder, entry.size)
    yield Record(shown, lambda: _json(entry, entry.old, entry.new), address)
    session.dot, session.increment = address, entry.size


def _copy(session: Session, memory: Memory, address: int, path: Path) -> JournalEntry:
    """Write the bytes of a file as they are read.

    :raises KshellError: it cannot be read, or is empty; what was written before is recorded
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not path.is_file():  # a pipe does not tell how much there is
                raise KshellError(f"{path} is no file", hint="its size has to be known before anything is written")
            if not size:
                raise KshellError(f"{path} is empty")
            return session.write_pieces(memory, address, size, _pieces(file, path, size))
    except OSError as error:
        raise KshellError(f"cannot read {path}: {error.strerror}") from error


def _pieces(file: IO[bytes], path: Path, size: int) -> Iterator[memoryview]:
    for at in range(0, size, WRITE_PIECE):
        wanted = min(WRITE_PIECE, size - at)
        piece = file.read(wanted)
        if len(piece) < wanted:
            raise KshellError(f"{path} became shorter while it was read: {at} bytes of it are written")
        yield memoryview(piece)


def change(
    old: bytes, new: bytes, address: int, length: int | None, byteorder: str, size: int,
) -> Iterator[str]:
    """Yield the lines of a write of *size* bytes: ``ffff888003a5c000: 00 00 -> de ad``; with *length* numbers."""
    step = length or 16
    for at in range(0, min(len(new), SHOWN), step):
        before, after = old[at : at + step], new[at : at + step]
        if length:
            numbers = (show_base(int.from_bytes(part, byteorder), 16) for part in (before, after))  # type: ignore[arg-type]
            yield f"{address + at:016x}: {' -> '.join(numbers)}"
        else:
            yield f"{address + at:016x}: {before.hex(' ')} -> {after.hex(' ')}"
    if size > SHOWN:
        yield f"and {size - SHOWN} bytes more"


def _json(entry: JournalEntry, old: bytes, new: bytes) -> dict[str, object]:
    """Return a write as JSON; of a large one the first bytes are in it, fewer than ``size``."""
    bare = {"number": entry.number, "space": entry.space, "addr": f"0x{entry.address:x}", "size": entry.size}
    return {**bare, "old": old.hex(), "new": new.hex()}


@dcmd("writes", group="Writing", columns=(
    Column("N", 4, DECIMAL, key="number"), Column("SPACE", 8), Column("ADDR", kind=ADDRESS), Column("SIZE", 6, COUNT),
    Column("OLD", 32), Column("NEW")))
def writes(session: Session) -> Iterator[Output]:
    """List the writes of this session that can be undone, the oldest first.

    Bytes are in memory order; long ones are cut. A register that was changed has its CPU as the space and is shown as a
    number. Into a pipe it passes addresses.

    Examples:
      ::writes
      ::writes | ::dump -l 10
    """
    for entry in session.journal:
        if isinstance(entry, RegisterEntry):
            yield Row(None, (entry.number, f"cpu {entry.cpu}", entry.name, 8, f"{entry.old:x}", f"{entry.new:x}"))
            continue
        old, new = (part[:15].hex() + ".." * (len(part) > 15) for part in (entry.old, entry.new))
        yield Row(entry.address, (entry.number, entry.space, entry.address, entry.size, old, new))


@dcmd("undo", group="Writing")
def undo(
    session: Session, which: Annotated[str | None, Word("n|all", "how many, in decimal; 1 without")],
) -> Iterator[Output]:
    """Take back the last write, the last n, or all of this session.

    The latest is undone first. One whose bytes have changed since is refused, and nothing before it is undone. A
    register can be put back as long as its CPU has not changed it.

    Examples:
      ::undo
      ::undo 3
      ::undo all
    """
    count = len(session.journal) if which == "all" else decimal_value(which or "1")
    if count is None or (count == 0 and which != "all"):
        raise UsageError(f"{which} is neither a number of writes nor all")
    if not session.journal:
        raise KshellError("nothing to undo")
    if count > len(session.journal):
        raise KshellError(f"only {len(session.journal)} can be undone", hint="::writes lists them")
    for _ in range(count):
        entry = session.undo()
        yield from _taken_back(entry, session.byteorder)


def _taken_back(entry: JournalEntry | RegisterEntry, byteorder: str) -> Iterator[Output]:
    if isinstance(entry, RegisterEntry):
        told = {"number": entry.number, "cpu": entry.cpu, "register": entry.name, "old": f"0x{entry.new:x}",
                "new": f"0x{entry.old:x}"}
        yield Record([f"{entry.name} of CPU {entry.cpu}: {entry.new:x} -> {entry.old:x}"], lambda: dict(told))
        return
    lines = change(entry.new, entry.old, entry.address, None, byteorder, entry.size)
    yield Record(lines, lambda: _json(entry, entry.new, entry.old))
