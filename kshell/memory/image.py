"""What every image of a machine's memory tells beside its bytes: who made it, what is missing, notes and registers."""

from __future__ import annotations

from collections.abc import Sequence

from kshell.arch.model import Arch
from kshell.memory.model import Memory
from kshell.memory.notes import Note


class Image(Memory):
    """The physical memory in a file of some format.

    :ivar notes: ELF notes that it carries: CPUs, VMCOREINFO
    :ivar vmcoreinfo: the text of VMCOREINFO where the format has a place of its own for it
    :ivar registers: of each CPU, where the format tells them in a way of its own
    :ivar packed: whether its pages are compressed: what is constant is cheaper kept than read again
    """

    path: str
    arch: Arch
    notes: Sequence[Note] = ()
    vmcoreinfo: bytes | None = None
    registers: Sequence[dict[str, int]] = ()
    packed: bool = False

    @property
    def complete(self) -> str | None:
        """What is missing because the file ends early; None when it is complete."""
        return None

    def describe(self) -> str:
        """Return one line: format, codec, size of RAM and how much of it is in the file."""
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """Return what else there is to tell, for ``::status``, by one word or two."""
        return {}

    def content_key(self) -> str | None:
        """Return a key of the file's content for what is kept on disk; None when nothing may be."""
        return None

    def described(self) -> list[bytes]:
        """Return the texts that may be its kernel's VMCOREINFO, the best first."""
        told = [note.desc for note in self.notes if note.name == "VMCOREINFO"]
        return [self.vmcoreinfo, *told] if self.vmcoreinfo else told
