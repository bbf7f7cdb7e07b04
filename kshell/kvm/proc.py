"""A process as the binding hands it out: a frozen snapshot that reads its own memory, whatever is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from kshell.kvm.backend import Facts, User
from kshell.kvm.spaces import Space
from kshell.kvm.strings import as_mapping

if TYPE_CHECKING:
    from kshell.kvm.handle import Kvm


class Proc:
    """One process at the moment it was read. Stays usable as a record after the handle is closed."""

    __slots__ = ("_facts", "_handle")
    _facts: Facts
    _handle: Kvm

    def __init__(self, handle: Kvm, facts: Facts) -> None:
        object.__setattr__(self, "_handle", handle)
        object.__setattr__(self, "_facts", facts)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a Proc is a snapshot: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Proc is a snapshot: {name} cannot be deleted")

    @property
    def facts(self) -> Facts:
        """All that was read, as a tuple."""
        return self._facts

    @property
    def handle(self) -> Kvm:
        """The handle it was read through."""
        return self._handle

    @property
    def pid(self) -> int:
        """The process id (``tgid``)."""
        return self._facts.pid

    @property
    def ppid(self) -> int:
        """The parent's process id."""
        return self._facts.ppid

    @property
    def comm(self) -> str:
        """The name, up to 15 bytes, that the kernel keeps."""
        return self._facts.comm

    @property
    def state(self) -> str:
        """One letter as ps(1) has it; Z is a zombie."""
        return self._facts.state

    @property
    def address(self) -> int:
        """Address of the ``task_struct``; 0 when kernel memory is not shown."""
        return self._facts.address

    @property
    def is_kernel(self) -> bool:
        """A kernel thread or the idle task: it never has user memory."""
        return self._facts.is_kernel

    @property
    def space(self) -> Space | None:
        """Its user address space, for :meth:`Kvm.aread`; None for kernel threads and zombies."""
        return Space("user", self._facts, self._handle) if self._facts.has_user else None

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes of its user memory. :raises KvmError: unless all of them could be read"""
        return self._handle.aread(self, address, size)

    def read_upto(self, address: int, size: int) -> bytes:
        """Return the bytes of its user memory up to the first that cannot be read, at most *size*."""
        return self._handle.aread_upto(self, address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write *data* into its user memory. :raises KvmError: unless all of it was written"""
        self._handle.awrite(self, address, data)

    def argv(self) -> list[str]:
        """Return its arguments. :raises KvmError: it has no user memory, or they cannot be read completely"""
        return self._handle.strings(self, "argument")

    def environ(self) -> dict[str, str]:
        """Return its initial environment. :raises KvmError: as :meth:`argv`"""
        return as_mapping(self._handle.strings(self, "environment"))

    def user(self) -> User:
        """Return its user area. :raises KvmError: it has none, or it cannot be read"""
        return self._handle.user_area(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Proc):
            return NotImplemented
        mine, its = self._facts, other._facts
        return self._handle is other._handle and (mine.pid, mine.start) == (its.pid, its.start)

    def __hash__(self) -> int:
        return hash((self._facts.pid, self._facts.start))

    def __repr__(self) -> str:
        return f"<Proc {self.pid} {self.comm!r} {self.state}>"
