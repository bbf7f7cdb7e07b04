"""Programs from unpacked packages: which shared libraries they need, and running them without installing anything."""

from __future__ import annotations

import struct
from pathlib import Path

from .packages import Package

LOADER = "ld-linux-x86-64.so.2"
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5


def needed(data: bytes) -> list[str]:
    """Return the DT_NEEDED names of an ELF64 little-endian file."""
    program_offset, entry_size, entries = struct.unpack_from("<32xQ14xHH", data)
    segments = [struct.unpack_from("<IIQQQQ", data, program_offset + index * entry_size) for index in range(entries)]
    loads = [(vaddr, offset, size) for kind, _, offset, vaddr, _, size in segments if kind == PT_LOAD]
    dynamic = next(((offset, size) for kind, _, offset, _, _, size in segments if kind == PT_DYNAMIC), None)
    if dynamic is None:
        return []
    names: list[int] = []
    strings = 0
    for tag, value in struct.iter_unpack("<QQ", data[dynamic[0] : dynamic[0] + dynamic[1]]):
        if tag == DT_NULL:
            break
        if tag == DT_NEEDED:
            names.append(value)
        elif tag == DT_STRTAB:
            strings = next(value - vaddr + offset for vaddr, offset, size in loads if vaddr <= value < vaddr + size)
    return [data[strings + name : data.index(b"\0", strings + name)].decode() for name in names]


def find_library(name: str, packages: list[Package]) -> Path:
    """Return the file of a shared library in the unpacked packages.

    An absolute link, as libc6's of its loader, would lead to the host's file of that name, which need not go with the
    unpacked ones: only what lies in the package counts.
    """
    for package in packages:
        for path in package.root.rglob(name):
            if path.is_file() and path.resolve().is_relative_to(package.root.resolve()):
                return path
    raise FileNotFoundError(f"{name} is in none of {', '.join(package.name for package in packages)}")


def closure(program: Path, packages: list[Package]) -> dict[str, Path]:
    """Return every shared library a program needs, name -> file, the loader included."""
    found = {LOADER: find_library(LOADER, packages)}
    waiting = needed(program.read_bytes())
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = find_library(name, packages)
            waiting += needed(found[name].read_bytes())
    return found


def host_command(program: str, packages: list[Package], path: Path | None = None) -> list[str]:
    """Return the command that runs an unpacked program (at *path* when it is in no folder of programs) on this host.

    It runs with the unpacked libraries.
    """
    path = path or find_program(program, packages)
    libraries = closure(path, packages)
    folders = sorted({str(library.parent) for library in libraries.values()})
    return [str(libraries[LOADER]), "--library-path", ":".join(folders), str(path)]


def find_program(program: str, packages: list[Package]) -> Path:
    """Return the file of a program in the unpacked packages."""
    for package in packages:
        for folder in ("bin", "sbin", "usr/bin", "usr/sbin"):
            path = package.root / folder / program
            if path.exists():
                return path
    raise FileNotFoundError(f"{program} is in none of {', '.join(package.name for package in packages)}")
