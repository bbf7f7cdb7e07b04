"""``::kwrite``, ``::uwrite``, ``::write``: writes, shown as old -> new; ``::writes`` lists, ``::undo`` takes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    DECIMAL,
    Argument,
    Column,
    FileName,
    Flag,
    KshellError,
    Memory,
    Note,
    Number,
    Option,
    Output,
    Record,
    Row,
    Session,
    UsageError,
    Word,
    dcmd,
    show_base,
)

#: bytes of a file that are written at most: what is replaced is kept, so that it can be undone
MAX_FILE = 64 << 20
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
    session: Session, address: int, physical: Annotated[bool, Flag("-p", "the address is physical")], length: Length,
    string: String, zero: Zero, file: File, values: Values,
) -> Iterator[Output]:
    """Write at a virtual address, kernel or user by its half, or with -p at a physical one.

    As ::kwrite.

    Examples:
      panic_timeout::write -l 4 5
      1000000::write -p 90 90
      1000000::write -p -f /tmp/page
    """
    memory = session.physical if physical else session.space(address)
    return _write(session, memory, address, _data(session, length, string, zero, file, values), length)


def _data(
    session: Session, length: int | None, string: bool, zero: bool, file: str | None, values: list[Argument],
) -> bytes:
    """Return the bytes that the options and words say.

    :raises UsageError: they say none, or contradict each other
    """
    if (length is not None) + (string or zero) + (file is not None) > 1:
        raise UsageError("only one of -l, -s (-z) and -f")
    if file is not None:
        if values:
            raise UsageError("-f takes no words")
        return _file(file)
    if not values:
        raise UsageError("what to write is missing")
    if string or zero:
        if len(values) != 1:
            raise UsageError('one word of text; quote it when it has blanks: "two words"')
        return str(values[0]).encode("utf-8", "surrogateescape") + b"\0" * zero
    if length is not None:
        return b"".join(_number(session, length, value) for value in values)
    return b"".join(map(_bytes, values))


def _file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise KshellError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise KshellError(f"{path} is larger than {MAX_FILE >> 20} MiB, which is the most for one write")
    if not data:
        raise KshellError(f"{path} is empty")
    return data


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


def _write(session: Session, memory: Memory, address: int, data: bytes, length: int | None) -> Iterator[Output]:
    entry = session.write(memory, address, data)
    if session.dry_run:
        yield Note("a dry run: nothing is written")
    shown = change(entry.old, entry.new, address, length, session.byteorder)
    yield Record(shown, lambda: _json(entry.number, memory.space, address, entry.old, entry.new), address)
    session.dot, session.increment = address, len(data)


def change(old: bytes, new: bytes, address: int, length: int | None, byteorder: str) -> Iterator[str]:
    """Yield the lines of a write: ``ffff888003a5c000: 00 00 -> de ad``, or numbers of *length* bytes."""
    step = length or 16
    for at in range(0, min(len(new), SHOWN), step):
        before, after = old[at : at + step], new[at : at + step]
        if length:
            numbers = (show_base(int.from_bytes(part, byteorder), 16) for part in (before, after))  # type: ignore[arg-type]
            yield f"{address + at:016x}: {' -> '.join(numbers)}"
        else:
            yield f"{address + at:016x}: {before.hex(' ')} -> {after.hex(' ')}"
    if len(new) > SHOWN:
        yield f"and {len(new) - SHOWN} bytes more"


def _json(number: int, space: str, address: int, old: bytes, new: bytes) -> dict[str, object]:
    bare = {"number": number, "space": space, "addr": f"0x{address:x}", "size": len(new)}
    return {**bare, "old": old.hex(), "new": new.hex()}


@dcmd("writes", group="Writing", columns=(
    Column("N", 4, DECIMAL, key="number"), Column("SPACE", 8), Column("ADDR", kind=ADDRESS), Column("SIZE", 6, COUNT),
    Column("OLD", 32), Column("NEW")))
def writes(session: Session) -> Iterator[Output]:
    """List the writes of this session that can be undone, the oldest first.

    Bytes are in memory order; long ones are cut. Into a pipe it passes addresses.

    Examples:
      ::writes
      ::writes | ::dump -l 10
    """
    for entry in session.journal:
        old, new = (part[:15].hex() + ".." * (len(part) > 15) for part in (entry.old, entry.new))
        yield Row(entry.address, (entry.number, entry.space, entry.address, len(entry.new), old, new))


@dcmd("undo", group="Writing")
def undo(
    session: Session, which: Annotated[str | None, Word("n|all", "how many, in decimal; 1 without")],
) -> Iterator[Output]:
    """Take back the last write, the last n, or all of this session.

    The latest is undone first. One whose bytes have changed since is refused, and nothing before it is undone.

    Examples:
      ::undo
      ::undo 3
      ::undo all
    """
    if which is not None and which != "all" and not (which.isdecimal() and int(which)):
        raise UsageError(f"{which} is neither a number of writes nor all")
    count = len(session.journal) if which == "all" else int(which or 1)
    if not session.journal:
        raise KshellError("nothing to undo")
    if count > len(session.journal):
        raise KshellError(f"only {len(session.journal)} can be undone", hint="::writes lists them")
    for _ in range(count):
        entry = session.undo()
        lines = change(entry.new, entry.old, entry.address, None, session.byteorder)
        yield Record(lines, lambda entry=entry: _json(entry.number, entry.space, entry.address, entry.new, entry.old))  # type: ignore[misc]
