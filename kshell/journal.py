"""Writes of a session: in pieces, recorded with what they replaced, so that they can be listed and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, KshellError, Reason
from kshell.memory.model import TOP, Memory

if TYPE_CHECKING:
    from kshell.target.target import Target

WRITE_PIECE = 1 << 20
PROTECTED = "::set +w has stopped all writes; ::set -w allows them again"


class JournalEntry(NamedTuple):
    """One write: what was there and what is there now."""

    number: int
    space: str
    address: int
    old: bytes
    new: bytes
    memory: Memory


class Writing:
    """The part of a session that writes.

    :ivar journal: the writes that can be undone, the oldest first
    :ivar dry_run: writes are shown and not made (``--dry-run``)
    :ivar protected: nothing is written for the time being (``::set +w``)
    """

    journal: list[JournalEntry]
    dry_run: bool
    protected: bool
    _written: int
    _target: Target | None

    @property
    def target(self) -> Target:
        """The target: see :attr:`kshell.session.Session.target`."""
        raise NotImplementedError

    def memory(self, name: str, address: int = 0) -> Memory:
        """Return the memory called *name*: see :meth:`kshell.session.Session.memory`."""
        raise NotImplementedError

    @property
    def writable(self) -> bool:
        """Whether the target is open for writing and may be written."""
        return self._target is not None and self._target.writable and not self.protected

    def write(self, space: Memory | str, address: int, data: bytes) -> JournalEntry:
        """Write *data* at *address* and record it, so that it can be listed and undone.

        :param space: a memory, or "kernel", "user", "physical", "virtual" (by the half of the address)
        :raises Fault: nothing, or only ``done`` bytes, were written; what was written is recorded
        """
        memory = self.memory(space, address) if isinstance(space, str) else space
        if address < 0 or address + len(data) > TOP:
            raise Fault(address % TOP, len(data), Reason.NOT_MAPPED, space=memory.space, verb="write",
                        detail="past the end of the address space")
        if self.protected and not self.dry_run:
            raise Fault(address, len(data), Reason.READ_ONLY, space=memory.space, verb="write", hint=PROTECTED)
        if not memory.writable and not self.dry_run:
            hint = "start kshell with -w to write, or with --cow to write to a private copy"
            if self._target is not None and self._target.writable:
                memory.read(address, len(data))  # one that this target does not have says why
                hint = memory.why_not_writable or "it can be written by nobody; kshell --cow writes to a private copy"
            raise Fault(address, len(data), Reason.READ_ONLY, space=memory.space, verb="write", hint=hint)
        if self.dry_run:
            self._written += 1
            return JournalEntry(self._written, memory.space, address, memory.read(address, len(data)), data, memory)
        old = bytearray()
        view = memoryview(data)
        try:
            while len(old) < len(data):  # in pieces: a large one need not be held three times
                at = len(old)
                piece, hole = memory.read_upto(address + at, min(len(data) - at, WRITE_PIECE))
                if piece:
                    old += piece
                    memory.write(address + at, view[at : len(old)])
                if hole is not None:
                    raise Fault(hole.address, len(data), hole.reason, done=len(old), space=memory.space, verb="write",
                                detail=hole.detail, hint=hole.hint)
        except Fault as fault:
            done = min(fault.address - address, len(old)) if fault.verb == "write" else 0
            if done > 0:
                self._record(memory, address, bytes(old[:done]), data[:done])
            if fault.size != len(data):
                raise Fault(fault.address, len(data), fault.reason, done=max(done, 0), space=memory.space, verb="write",
                            detail=fault.detail, hint=fault.hint) from fault
            raise
        return self._record(memory, address, bytes(old), data)

    def _record(self, memory: Memory, address: int, old: bytes, new: bytes) -> JournalEntry:
        self._written += 1
        entry = JournalEntry(self._written, memory.space, address, old, bytes(new), memory)
        self.journal.append(entry)
        return entry

    def require_writable(self) -> None:
        """Do nothing if the target is open for writing.

        :raises KshellError: it is not
        """
        if self.protected:
            raise KshellError("failed to re-open target for writing: ::set +w has stopped all writes",
                              hint="::set -w allows them again")
        if not self.target.writable and not self.dry_run:
            raise KshellError("failed to re-open target for writing: it was opened read-only",
                              hint="start kshell with -w to write, or with --cow to write to a private copy")

    def undo(self) -> JournalEntry:
        """Put back what the last write that is not undone yet replaced; return its entry, which leaves the journal.

        :raises KshellError: there is nothing to undo, or the bytes have changed since
        """
        if not self.journal:
            raise KshellError("nothing to undo")
        if self.protected:
            raise KshellError("target is not open for writing", hint=PROTECTED)
        entry = self.journal[-1]
        now = entry.memory.read(entry.address, len(entry.new))
        if now != entry.new:
            raise KshellError(
                f"write {entry.number} at 0x{entry.address:x} cannot be undone: the memory has changed since",
                hint=f"written {entry.new[:16].hex()}, now {now[:16].hex()}, before {entry.old[:16].hex()}")
        entry.memory.write(entry.address, entry.old)
        self.journal.pop()
        return entry
