"""Argument and environment strings, from the bytes between ``arg_start`` and ``arg_end`` (``env_start``, ``env_end``).

Kernel source: ``get_mm_cmdline`` and ``environ_read`` in fs/proc/base.c. The strings lie one behind the other, each
ended by a NUL; how many there are is told by the terminators only. A process may have rewritten them all.
"""

from __future__ import annotations

from kshell.errors import FormatError

#: More than execve takes (MAX_ARG_STRINGS aside, 3/4 of an 8 MiB stack): larger areas are damage, not arguments.
MAX_AREA = 32 << 20


def area_size(start: int, end: int, what: str) -> int:
    """Return the size of an area in bytes.

    :raises FormatError: it ends before it starts, or is larger than any exec leaves it
    """
    if not 0 <= end - start <= MAX_AREA:
        raise FormatError(f"the {what} area 0x{start:x}..0x{end:x} of the process is impossible")
    return end - start


def split_strings(area: bytes) -> list[str]:
    """Return the strings of *area*, bytes that are not UTF-8 as surrogate escapes.

    >>> split_strings(b"ls\\0-l\\0")
    ['ls', '-l']
    """
    if not area:
        return []
    pieces = area.split(b"\0")
    if not pieces[-1]:
        pieces.pop()
    return [decode(piece) for piece in pieces]


def decode(raw: bytes) -> str:
    """Return bytes of the target as text that gives the same bytes back."""
    return raw.decode("utf-8", "surrogateescape")


def as_mapping(strings: list[str]) -> dict[str, str]:
    """Return ``NAME=value`` strings as a dict; of a name that comes twice the first counts, as for getenv(3).

    Strings without ``=`` are no variables and left out; the whole list is what kvm_getcmd gives.
    """
    found: dict[str, str] = {}
    for text in strings:
        name, equals, value = text.partition("=")
        if equals:
            found.setdefault(name, value)
    return found
