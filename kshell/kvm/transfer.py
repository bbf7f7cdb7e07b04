"""The one routine under both faces: it moves bytes and tells how many were moved and why it stopped.

All counts and all exceptions of the binding are made from its answer. It never raises for a condition of the target.
"""

from __future__ import annotations

from kshell.errors import Fault, Reason
from kshell.memory.model import TOP, Memory

#: Up to this size bytes are read and copied; from there on read straight into the caller's buffer.
SMALL = 8192


def move(
    memory: Memory, address: int, size: int, into: memoryview | None = None, data: memoryview | None = None,
    end: int = TOP,
) -> tuple[int, Fault | None, bytes]:
    """Move *size* bytes between *memory* at *address* and the caller; never reaches *end*, never wraps.

    Exactly one of three things, by what is given: neither *into* nor *data* reads and returns the bytes; *into*
    (writable, of *size* bytes) is filled and, beyond what was moved, left as it was; *data* is written.

    :returns: bytes moved, the fault that stopped it (None exactly when all was moved), and the bytes when neither
        buffer was given
    """
    if size > end - address:
        room = max(end - address, 0)
        moved, fault, piece = 0, None, b""
        if room:
            cut_into, cut_data = (None if buffer is None else buffer[:room] for buffer in (into, data))
            moved, fault, piece = move(memory, address, room, cut_into, cut_data, end)
        if fault is None:
            verb = "read" if data is None else "write"
            detail = "the top of the address space" if end == TOP else "not a user address"
            fault = Fault(address + moved, size, Reason.NOT_MAPPED, space=memory.space, verb=verb, detail=detail)
        return moved, _whole(fault, address, size, moved, piece), piece
    if data is not None:
        return _write(memory, address, data)
    if into is not None and size > SMALL:
        return _fill(memory, address, into)
    piece, fault = memory.read_upto(address, size)
    moved = len(piece)
    if into is not None:
        into[:moved] = piece
        piece = b""
    return moved, fault and _whole(fault, address, size, moved, piece), piece


def _write(memory: Memory, address: int, data: memoryview) -> tuple[int, Fault | None, bytes]:
    try:
        memory.write(address, data)
    except Fault as fault:
        return fault.done, _whole(fault, address, len(data), fault.done, b""), b""
    return len(data), None, b""


def _fill(memory: Memory, address: int, into: memoryview) -> tuple[int, Fault | None, bytes]:
    fault = memory.read_into(address, into)
    if fault is None:
        return len(into), None, b""
    return fault.done, _whole(fault, address, len(into), fault.done, b""), b""


def _whole(fault: Fault, address: int, size: int, moved: int, partial: bytes) -> Fault:
    """Return *fault* with the numbers of the whole transfer instead of those of its last piece."""
    if (fault.size, fault.done, fault.address) == (size, moved, address + moved) and fault.partial == partial:
        return fault
    return Fault(address + moved, size, fault.reason, done=moved, partial=partial, space=fault.space, verb=fault.verb,
                 detail=fault.detail, hint=fault.hint)
