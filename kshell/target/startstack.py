"""Arguments and environment of a program by what the kernel put on its stack.

argc, argv, envp, auxiliary vector. Kernel source: ``create_elf_tables`` in fs/binfmt_elf.c. The vector is known, so
it is looked for; the pointers lie below.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kshell.errors import FormatError

if TYPE_CHECKING:
    from kshell.memory.model import Memory

MAX_STACK = 8 << 20
MAX_STRING = 1 << 20
MAX_STRINGS = 1 << 18


Pointers = tuple[int, ...]


def start_pointers(
    memory: Memory, vector: bytes, start: int, end: int, word: int = 8,
) -> tuple[Pointers, Pointers]:
    """Return where the arguments and the environment are.

    The pointers are those of the start: a program that has set or unset variables has others by now.

    :param vector: the auxiliary vector; :param start: of the stack, :param end: of it; :param word: bytes of a pointer
    :raises FormatError: the vector is not on the stack, or no argument count is below it
    """
    start = max(start, end - MAX_STACK)
    data, _ = memory.read_upto(start, end - start)
    pair = 2 * word
    known = vector[: len(vector) // pair * pair]
    at = data.rfind(known) if known else -1
    if at < pair:
        raise FormatError("the arguments are not found: the auxiliary vector is not on the stack")
    words = struct.unpack(f"<{at // word}{'Q' if word == 8 else 'I'}", data[at % word : at])
    end_of_env = len(words) - 1  # the NULL behind the environment
    first = _begin(words, end_of_env)  # of the environment
    end_of_args = first - 1
    if end_of_env < 0 or words[end_of_env] or end_of_args < 0:
        raise FormatError("the arguments are not found: no pointers are below the auxiliary vector")
    begin = _begin(words, end_of_args, count=True)
    return words[begin:end_of_args], words[first:end_of_env]


def _begin(words: Pointers, end: int, *, count: bool = False) -> int:
    """Return where the pointers begin that end with the NULL at *end*: behind another NULL, or their number."""
    at = end
    while at > 0 and end - at < MAX_STRINGS:
        before = words[at - 1]
        if before == end - at if count else not before:
            return at
        at -= 1
    raise FormatError("the arguments are not found: nothing tells how many there are")


def strings_at(memory: Memory, pointers: Pointers) -> bytes:
    """Return the strings at *pointers*, each with its NUL, as /proc/PID/cmdline and environ have them.

    :raises Fault: one cannot be read
    """
    found: list[bytes] = []
    for pointer in pointers:
        text = b""
        while b"\0" not in text and len(text) < MAX_STRING:
            # not over the end of a page: the next one may be missing
            at = pointer + len(text)
            text += memory.read(at, 4096 - at % 4096)
        found.append(text[: text.index(b"\0") + 1] if b"\0" in text else text + b"\0")
    return b"".join(found)
