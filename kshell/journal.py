"""Writes of a session: in pieces, recorded with what they replaced, so that they can be listed and taken back.

What a large write replaces is kept in a file without a name, which ends with the session; so neither it nor what is
written has to fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, KshellError, Reason
from kshell.memory.model import TOP, Memory

if TYPE_CHECKING:
    from kshell.target.target import Target

WRITE_PIECE = 1 << 20
PROTECTED = "::set +w has stopped all writes; ::set -w allows them again"
#: bytes of a write up to which all of it is kept in memory
SMALL = 4 * WRITE_PIECE
#: bytes of a larger one that can be shown
HEAD = 4096


class JournalEntry(NamedTuple):
    """One write: what was there and what is there now.

    :ivar old: the bytes that were replaced, of a large write the first of them only; so with *new*
    :ivar size: of all that was written
    :ivar spilled: where the rest is, of a large write
    """

    number: int
    space: str
    address: int
    old: bytes
    new: bytes
    memory: Memory
    size: int
    spilled: Spilled | None = None

    def pieces(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (offset, what was there, digest of what is there now) of each piece."""
        if self.spilled is None:
            yield 0, self.old, digest(self.new)
            return
        for number, told in enumerate(self.spilled.digests):
            at = number * WRITE_PIECE
            yield at, self.spilled.read(at, min(self.size - at, WRITE_PIECE)), told


class RegisterEntry(NamedTuple):
    """A register of a CPU that was changed."""

    number: int
    cpu: int
    name: str
    old: int
    new: int


class Spilled:
    """The bytes that a large write replaced, in a file, and a digest of each piece that replaced them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.seek(0, 2)
        self.digests: list[bytes] = []

    def append(self, old: bytes) -> None:
        """Keep more of it. :raises KshellError: there is no room"""
        try:
            self._file.seek(0, 2)
            self._file.write(old)
            self._file.flush()
        except OSError as error:
            raise KshellError(f"what is replaced cannot be kept for ::undo: {error.strerror}",
                              hint="it is kept in a file: TMPDIR names a folder with room") from error

    def read(self, offset: int, size: int) -> bytes:
        self._file.seek(self._start + offset)
        return self._file.read(size)


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return what tells these bytes from others."""
    from hashlib import blake2b

    return blake2b(data, digest_size=20).digest()


class Recording:
    """A write under way: what it has replaced so far.

    :param writing: the session, whose file for large writes is used
    """

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._old, self._new = bytearray(), bytearray()
        self._spilled: Spilled | None = None
        self.size = 0

    def add(self, old: bytes, new: bytes | memoryview) -> None:
        """Record that *old* is about to be replaced by *new*. :raises KshellError: it cannot be kept"""
        if self._spilled is None and len(self._old) + len(old) > SMALL:
            spilled = Spilled(self._writing.spill())
            spilled.append(bytes(self._old))
            self._spilled = spilled
            whole = memoryview(self._new)
            spilled.digests += [digest(whole[at : at + WRITE_PIECE]) for at in range(0, len(whole), WRITE_PIECE)]
            whole.release()
            del self._old[HEAD:], self._new[HEAD:]
        if self._spilled is None:
            self._old += old
            self._new += new
        else:
            self._spilled.append(old)
            self._spilled.digests.append(digest(new))
        self.size += len(old)

    def take_back(self, size: int, last: bytes | memoryview) -> None:
        """The write of *last*, which was added, has failed when *size* bytes of all were written."""
        if self._spilled is None:
            del self._old[size:], self._new[size:]
        else:
            self._spilled.digests.pop()
            kept = size - len(self._spilled.digests) * WRITE_PIECE
            if kept > 0:
                self._spilled.digests.append(digest(bytes(last[:kept])))
        self.size = size

    def entry(self, number: int, memory: Memory, address: int) -> JournalEntry:
        """Return the entry of what was written."""
        return JournalEntry(number, memory.space, address, bytes(self._old), bytes(self._new), memory, self.size,
                            self._spilled)


class Writing:
    """The part of a session that writes.

    :ivar journal: the writes that can be undone, the oldest first
    :ivar dry_run: writes are shown and not made (``--dry-run``)
    :ivar protected: nothing is written for the time being (``::set +w``)
    """

    journal: list[JournalEntry | RegisterEntry]
    dry_run: bool
    protected: bool
    _written: int
    _target: Target | None
    _spill: IO[bytes] | None = None

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

    def spill(self) -> IO[bytes]:
        """Return the file for what large writes replace. :raises KshellError: there can be none"""
        if self._spill is None:
            import tempfile

            try:
                self._spill = tempfile.TemporaryFile(prefix="kshell-")  # noqa: SIM115 (closed with the session)
            except OSError as error:
                raise KshellError(f"what is replaced cannot be kept for ::undo: {error.strerror}",
                                  hint="TMPDIR names a folder for it") from error
        return self._spill

    def write(self, space: Memory | str, address: int, data: bytes) -> JournalEntry:
        """Write *data* at *address* and record it, so that it can be listed and undone.

        :param space: a memory, or "kernel", "user", "physical", "virtual" (by the half of the address)
        :raises Fault: nothing, or only ``done`` bytes, were written; what was written is recorded
        """
        view = memoryview(data)
        return self.write_pieces(
            space, address, len(data), (view[at : at + WRITE_PIECE] for at in range(0, len(data), WRITE_PIECE)))

    def write_pieces(
        self, space: Memory | str, address: int, size: int, pieces: Iterator[memoryview],
    ) -> JournalEntry:
        """As :meth:`write`, of *size* bytes that come in pieces of WRITE_PIECE, the last one shorter."""
        memory = self.memory(space, address) if isinstance(space, str) else space
        if address < 0 or address + size > TOP:
            raise Fault(address % TOP, size, Reason.NOT_MAPPED, space=memory.space, verb="write",
                        detail="past the end of the address space")
        if self.protected and not self.dry_run:
            raise Fault(address, size, Reason.READ_ONLY, space=memory.space, verb="write", hint=PROTECTED)
        if not memory.writable and not self.dry_run:
            hint = "start kshell with -w to write, or with --cow to write to a private copy"
            if memory.space == "object" and memory.why_not_writable:
                hint = memory.why_not_writable
            elif self._target is not None and self._target.writable:
                memory.read(address, min(size, WRITE_PIECE))  # one that this target does not have says why
                hint = memory.why_not_writable or "it can be written by nobody; kshell --cow writes to a private copy"
            raise Fault(address, size, Reason.READ_ONLY, space=memory.space, verb="write", hint=hint)
        if self.dry_run:
            return self._dry(memory, address, size, pieces)
        recording = Recording(self)
        try:
            self._put(recording, memory, address, size, pieces)
        except BaseException as error:
            if recording.size:
                self._record(recording, memory, address)
            if isinstance(error, Fault) and error.size != size:
                done = error.done if error.verb == "write" else 0
                raise Fault(error.address, size, error.reason, done=done, space=memory.space, verb="write",
                            detail=error.detail, hint=error.hint) from error
            raise
        return self._record(recording, memory, address)

    def _put(
        self, recording: Recording, memory: Memory, address: int, size: int, pieces: Iterator[memoryview],
    ) -> None:
        """Write all *pieces*.

        :raises Fault: not all was written; ``done`` is what was, of the whole, and so much is recorded
        """
        for piece in pieces:
            at = recording.size
            old, hole = memory.read_upto(address + at, len(piece))
            if old:
                recording.add(old, piece[: len(old)])
                try:
                    memory.write(address + at, piece[: len(old)])
                except Fault as fault:
                    done = at + min(max(fault.address - address - at, 0), len(old)) if fault.verb == "write" else at
                    recording.take_back(done, piece)
                    raise Fault(fault.address, size, fault.reason, done=done, space=memory.space, verb="write",
                                detail=fault.detail, hint=fault.hint) from fault
                except BaseException:  # an interrupt: what of this piece was written is seen in the memory
                    now = memory.read_upto(address + at, len(old))[0]
                    same = next((i for i, (a, b) in enumerate(zip(now, piece, strict=False)) if a != b), len(now))
                    recording.take_back(at + same, piece)
                    raise
            if hole is not None:
                raise Fault(hole.address, size, hole.reason, done=recording.size, space=memory.space, verb="write",
                            detail=hole.detail, hint=hole.hint)

    def _dry(self, memory: Memory, address: int, size: int, pieces: Iterator[memoryview]) -> JournalEntry:
        """Read all that would be replaced, and return the entry that there would be."""
        self._written += 1
        old, new, done = bytearray(), bytearray(), 0
        for piece in pieces:
            data = memory.read(address + done, len(piece))
            if len(old) < SMALL:
                old += data
                new += piece
            done += len(piece)
        kept = slice(HEAD if done > SMALL else SMALL)
        return JournalEntry(self._written, memory.space, address, bytes(old[kept]), bytes(new[kept]), memory, done)

    def _record(self, recording: Recording, memory: Memory, address: int) -> JournalEntry:
        self._written += 1
        entry = recording.entry(self._written, memory, address)
        self.journal.append(entry)
        return entry

    def record_register(self, cpu: int, name: str, old: int, new: int) -> RegisterEntry:
        """Record that a register was changed."""
        self._written += 1
        entry = RegisterEntry(self._written, cpu, name, old, new)
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

    def undo(self) -> JournalEntry | RegisterEntry:
        """Put back what the last write that is not undone yet replaced; return its entry, which leaves the journal.

        :raises KshellError: there is nothing to undo, or what was written has changed since
        """
        if not self.journal:
            raise KshellError("nothing to undo")
        if self.protected:
            raise KshellError("target is not open for writing", hint=PROTECTED)
        entry = self.journal[-1]
        if isinstance(entry, RegisterEntry):
            self._undo_register(entry)
        else:
            self._undo_bytes(entry)
        self.journal.pop()
        return entry

    def _undo_bytes(self, entry: JournalEntry) -> None:
        for at, old, told in entry.pieces():
            now = entry.memory.read(entry.address + at, len(old))
            if digest(now) != told and now != old:  # one that was interrupted has put some back
                written = entry.new[:16].hex() if entry.spilled is None else "other bytes"
                raise KshellError(
                    f"write {entry.number} at 0x{entry.address + at:x} cannot be undone: the memory has changed since",
                    hint=f"written {written}, now {now[:16].hex()}, before {old[:16].hex()}")
        for at, old, _ in entry.pieces():
            entry.memory.write(entry.address + at, old)

    def _undo_register(self, entry: RegisterEntry) -> None:
        control = self.target.control
        assert control is not None
        with control.standing():
            now = next((cpu.registers[entry.name] for cpu in self.target.cpus if cpu.number == entry.cpu), None)
            if now is None:
                raise KshellError(f"write {entry.number} of {entry.name} cannot be undone: thread {entry.cpu} is gone")
            if now != entry.new:
                raise KshellError(
                    f"write {entry.number} of {entry.name} cannot be undone: the register has changed since",
                    hint=f"written 0x{entry.new:x}, now 0x{now:x}, before 0x{entry.old:x}: the CPU has run")
            control.set_register(entry.cpu, entry.name, entry.old)
