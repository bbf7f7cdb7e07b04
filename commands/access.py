"""``::kread``, ``::uread``, ``::pread``: bytes of kernel, user and physical memory; ``::dump``, mdb's hex dump."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    Abort,
    Block,
    Call,
    DumpOptions,
    FileName,
    Flag,
    KshellError,
    Memory,
    Number,
    Option,
    Output,
    Record,
    Session,
    Text,
    UsageError,
    dcmd,
    dump,
)

#: bytes shown when no size is given
DEFAULT_SIZE = 0x40
#: bytes copied at once into a file; between two pieces a command can be interrupted
PIECE = 1 << 20
#: more bytes than this are written to a file, not shown as JSON
MAX_RECORD = 1 << 20

RawFile = Annotated[FileName | None, Option("-r", "file", "write the bytes to this file instead of showing them")]


@dcmd("kread", group="Memory")
def kread(session: Session, address: int, count: int | None, raw: RawFile, size: Number | None) -> Iterator[Output]:
    """Show bytes at a kernel virtual address, or copy them to a file.

    The size in bytes is hexadecimal like all numbers here (0t64 is decimal); 40 without one. It may be the count.

    Examples:
      init_task::kread 100
      linux_banner,20::kread
      *page_offset_base::kread -r /tmp/page 1000
    """
    return _read(session, session.kernel, address, _size(count, size), raw)


@dcmd("uread", group="Memory")
def uread(session: Session, address: int, count: int | None, raw: RawFile, size: Number | None) -> Iterator[Output]:
    """Show bytes at a user virtual address of the process context, or copy them to a file.

    The context is chosen by ::getu. The size in bytes is hexadecimal (0t64 is decimal); 40 without one.

    Examples:
      ::getu 812; 404010::uread 20
      7ffd1000::uread -r /tmp/stack 1000
    """
    return _read(session, session.user, address, _size(count, size), raw)


@dcmd("pread", group="Memory")
def pread(session: Session, address: int, count: int | None, raw: RawFile, size: Number | None) -> Iterator[Output]:
    """Show bytes at a physical address, or copy them to a file.

    The size in bytes is hexadecimal (0t64 is decimal); 40 without one.

    Examples:
      1000000::pread 40
      0::pread -r /tmp/low 100000
    """
    return _read(session, session.physical, address, _size(count, size), raw)


def _size(count: int | None, size: int | None) -> int:
    if count is not None and size is not None:
        raise UsageError("the size is given twice: as the count and as a word")
    found = size if size is not None else count
    if found is not None and found < 0:
        raise UsageError(f"{found} is not a size")
    return DEFAULT_SIZE if found is None else found


def _read(session: Session, memory: Memory, address: int, size: int, raw: str | None) -> Iterator[Output]:
    if raw is not None:
        yield _copy(memory, address, size, raw)
    else:
        yield from _show(memory, address, size)
    session.dot, session.increment = address, size


def _show(memory: Memory, address: int, size: int) -> Iterator[Output]:
    """Yield a hex dump of exactly those bytes.

    :raises Fault: some cannot be read; those before have been shown
    """
    failed: KshellError | None = None

    def lines() -> Iterator[str]:
        nonlocal failed
        for item in dump(memory.read, address, size, DumpOptions(trim=True)):
            if isinstance(item, KshellError):
                failed = item
                return
            yield item.removesuffix("\n")

    if size == 0:
        return
    yield Record(lines(), lambda: _json(memory, address, size))
    if failed is not None:
        raise failed


def _json(memory: Memory, address: int, size: int) -> dict[str, object]:
    if size > MAX_RECORD:
        raise UsageError(f"{size} bytes are too many for one JSON object: -r FILE writes them to a file")
    data, fault = memory.read_upto(address, size)
    found: dict[str, object] = {"addr": f"0x{address:x}", "space": memory.space, "size": size, "data": data.hex()}
    if fault is not None:
        found["error"] = fault
    return found


def _copy(memory: Memory, address: int, size: int, path: str) -> Output:
    """Write the bytes to the file *path*; return what was done.

    :raises Fault: some cannot be read; those before are in the file
    :raises KshellError: the file cannot be written
    """
    done = 0
    try:
        with open(path, "wb") as file:
            while done < size:
                data, fault = memory.read_upto(address + done, min(PIECE, size - done))
                file.write(data)
                done += len(data)
                if fault is not None:
                    fault.hint = f"{done} bytes before it are in {path}"
                    raise fault
    except OSError as error:
        raise KshellError(f"cannot write to {path}: {error.strerror}") from error
    return Text(f"{done} bytes at 0x{address:x} written to {path}")


@dcmd("dump", group="Memory")
def hexdump(
    session: Session, address: int | None, count: int | None, call: Call,
    little: Annotated[bool, Flag("-e", "groups as little-endian numbers")],
    object: Annotated[bool, Flag("-f", "from the object file, at the place that the address corresponds to")],
    physical: Annotated[bool, Flag("-p", "the address is physical")],
    no_text: Annotated[bool, Flag("-q", "no characters at the right")],
    relative: Annotated[bool, Flag("-r", "number lines from 0")],
    squeeze: Annotated[bool, Flag("-s", "repeated lines as one *")],
    trim: Annotated[bool, Flag("-t", "only the bytes asked for")],
    unaligned: Annotated[bool, Flag("-u", "lines start at the address")],
    wide: Annotated[bool, Flag("-v", "16 digits of address")],
    group: Annotated[Number | None, Option("-g", "bytes", "bytes in a group, a power of two")],
    length: Annotated[Number | None, Option("-l", "bytes", "bytes to show")],
    paragraphs: Annotated[Number | None, Option("-w", "paragraphs", "16 bytes each on a line, at most 10")],
) -> Iterator[Output]:
    """Show memory as a hex dump.

    The count is a number of bytes; -l says the same. Lines begin at multiples of 16 bytes and are shown whole, unless
    -t, -u or -r is given. User addresses are those of the process context.

    Examples:
      linux_banner,80::dump
      init_task,40::dump -g 8 -e
      1000000,100::dump -p
    """
    if count is not None and count > 1 and length is not None:
        raise UsageError("the length is given twice: as the count and with -l")
    start = session.dot if address is None else address
    size = length if length is not None else count if count is not None else 1
    if size < 0:
        raise UsageError(f"{size} is not a length")
    if object and physical:
        raise UsageError("-f or -p, not both")
    memory = session.memory("object" if object else "physical" if physical else "virtual", start)
    options = DumpOptions(
        endian=little, no_text=no_text, relative=relative, squeeze=squeeze, trim=trim, unaligned=unaligned,
        group=4 if group is None else group, paragraphs=1 if paragraphs is None else paragraphs,
        address_digits=16 if wide else 0)
    for item in dump(memory.read, start, size, options, header=call.first):
        if isinstance(item, KshellError):
            raise Abort(str(item), hint=item.hint)
        yield Block(item)
    session.dot, session.increment = (start + size) & (1 << 64) - 1, 0
