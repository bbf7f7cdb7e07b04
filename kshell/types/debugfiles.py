"""Where the debugging data of a program or library is, when it is not in the file itself.

By build id in ``/usr/lib/debug/.build-id``; by the name and checksum in ``.gnu_debuglink``; a small symbol table packed
into ``.gnu_debugdata`` ("minidebuginfo"); and what several files have in common, which dwz(1) moved into one more,
named by ``.gnu_debugaltlink``. GDB manual, "Debugging Information in Separate Files"; nothing is asked of a network.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

from kshell.errors import FormatError
from kshell.types.elffile import ElfFile

FOLDER = "/usr/lib/debug"
MAX_MINI = 64 << 20
MAX_LINK = 4096
PIECE = 1 << 20


def debug_file(elf: ElfFile, folder: str = FOLDER) -> ElfFile | None:
    """Return the separate file with the debugging data of *elf*; None when there is none that belongs to it."""
    built = elf.build_id
    for path, checksum in _candidates(elf, built, folder):
        try:
            if os.path.realpath(path) == elf.real:
                continue
            found = ElfFile(path)
        except (FormatError, OSError):
            continue
        own = found.build_id
        # of two files with build ids these count, for the checksum is of the whole file: 100 MB to be read
        good = own == built if own is not None and built is not None else checksum is not None and (
            _checksum(found) == checksum)
        if good:
            return found
        found.close()
    return None


def _candidates(elf: ElfFile, built: str | None, folder: str) -> Iterator[tuple[str, int | None]]:
    """Yield (path, checksum or None) of where the file may be."""
    if built is not None and len(built) > 4:
        yield f"{folder}/.build-id/{built[:2]}/{built[2:]}.debug", None
    data = _content(elf, ".gnu_debuglink")
    name, _, _ = data.partition(b"\0")
    at = (len(name) + 4) // 4 * 4
    if not name or b"/" in name or len(data) < at + 4:
        return
    checksum = int.from_bytes(data[at : at + 4], "little")
    home, text = os.path.dirname(elf.real), os.fsdecode(name)
    for where in (home, f"{home}/.debug", f"{folder}{home}"):
        yield f"{where}/{text}", checksum


def _content(elf: ElfFile, name: str) -> bytes:
    try:
        return elf.content(name, MAX_LINK)
    except FormatError:
        return b""


def _checksum(elf: ElfFile) -> int:
    value = at = 0
    while at < elf.size:
        data = elf.pread(PIECE, at)
        if not data:
            break
        value = zlib.crc32(data, value)
        at += len(data)
    return value


def alternate_file(elf: ElfFile, folder: str = FOLDER) -> ElfFile | None:
    """Return the file that ``.gnu_debugaltlink`` of *elf* names, when it is there and the right one."""
    name, _, built = _content(elf, ".gnu_debugaltlink").partition(b"\0")
    if not name:
        return None
    wanted, text = built.hex(), os.fsdecode(name)
    paths = [os.path.join(os.path.dirname(elf.real), text)]
    paths += [f"{folder}/.build-id/{wanted[:2]}/{wanted[2:]}.debug", f"{folder}/.dwz/{os.path.basename(text)}"]
    for path in paths:
        try:
            found = ElfFile(path)
        except FormatError:
            continue
        if found.build_id == wanted:
            return found
        found.close()
    return None


def mini_file(elf: ElfFile) -> ElfFile | None:
    """Return the ELF file that is packed into ``.gnu_debugdata``: symbols of functions that .dynsym lacks.

    :raises FormatError: it is damaged
    """
    section = elf.section(".gnu_debugdata")
    if section is None:
        return None
    import lzma

    try:
        data = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 28).decompress(
            elf.content(section, MAX_MINI), MAX_MINI)
    except (lzma.LZMAError, EOFError) as error:
        raise FormatError(f"{elf.path}: .gnu_debugdata cannot be unpacked: {error}") from error
    return ElfFile(f"{elf.path} (.gnu_debugdata)", data)
