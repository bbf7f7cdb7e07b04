"""What a process of :mod:`kshell.memory.crew` does: it fills slots of the shared memory until its socket ends."""

from __future__ import annotations

import gc
import mmap
import socket

from kshell.memory.crew import JOB, READY, REPLY, REQUEST
from kshell.memory.pages import Pages
from kshell.memory.source import shared_source

TOUCHED = 16 << 20  # bytes


def main(arguments: list[str]) -> None:
    """Answer until nobody asks.

    :param arguments: the number of the socket, behind which the shared memory and the source's descriptors are; the
        milliseconds without a question after which it ends; the bytes of the shared memory and of a page; the offset
        of the table of descriptors; what the source is
    """
    gc.disable()  # nothing here refers to itself
    bytes(TOUCHED)  # malloc(3) learns by its end that what is freed is soon needed again, and gives nothing back
    first, idle, size, page, table, *source = map(int, arguments)
    memory = memoryview(mmap.mmap(first + 1, 0))
    cancelled = memory[size:]  # by slot
    pages = Pages(shared_source(first + 2, source), table, page, 0)
    step = JOB * page
    with socket.socket(fileno=first) as link:
        link.settimeout(idle / 1000)
        try:
            link.send(REPLY.pack(READY, 0))
            while request := link.recv(REQUEST.size):
                number, slot = REQUEST.unpack(request)
                done = 0
                if not cancelled[slot]:
                    done, _ = pages.fill_here(number, memory[slot * step : (slot + 1) * step])
                link.send(REPLY.pack(slot, done))
        except OSError:  # nobody asks any more
            return
