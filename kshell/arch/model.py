"""What an architecture tells: page-table format, register notes, the kernel's half of the address space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from kshell.errors import OpenError, Reason

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    U64 = numpy.typing.NDArray[numpy.uint64]
    Kinds = numpy.typing.NDArray[numpy.int8]

ABSENT, TABLE, LEAF = 0, 1, 2

#: ELF e_machine (System V ABI and its supplements) to the name in messages.
MACHINES = {
    3: "i386", 8: "mips", 20: "powerpc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64",
    243: "riscv", 258: "loongarch",
}


class Absent(NamedTuple):
    """Why an entry maps nothing."""

    reason: Reason
    detail: str = ""


class PagingFormat(ABC):
    """How entries of one kind of page tables are read. Level 1 is the last; a table has ``1 << index_bits`` entries."""

    levels: int
    page_shift: ClassVar[int] = 12
    index_bits: ClassVar[int] = 9
    #: bits of an entry that hold a physical address, and those of them that mean something else (memory encryption)
    address_mask: int

    @abstractmethod
    def decode(self, entry: int, level: int) -> tuple[int, int]:
        """Return (kind, physical address): ABSENT and 0, TABLE and the next table, or LEAF and the page's start."""

    def decode_all(self, entries: U64, level: int) -> tuple[Kinds, U64]:
        """Decode many entries of one *level* at once: (kinds, physical addresses)."""
        import numpy as np

        rows = [self.decode(entry, level) for entry in entries.tolist()]
        return np.array([kind for kind, _ in rows], np.int8), np.array([found for _, found in rows], np.uint64)

    @abstractmethod
    def absent(self, entry: int, level: int) -> Absent:
        """Return why *entry*, which :meth:`decode` calls ABSENT, maps nothing."""

    @abstractmethod
    def flags(self, entry: int, level: int) -> str:
        """Return what a mapped entry allows, for people: ``rwx u`` and the like."""

    def shift(self, level: int) -> int:
        """Return the number of address bits below the index of *level*."""
        return self.page_shift + self.index_bits * (level - 1)

    def canonical(self, address: int) -> bool:
        """Whether *address* is one that these tables can translate: the bits above are all equal."""
        top = self.shift(self.levels + 1) - 1
        return address >> top in (0, (1 << (64 - top)) - 1)


class Arch(ABC):
    """One architecture. Sizes in bytes."""

    name: ClassVar[str]
    elf_machine: ClassVar[int]
    pointer_size: ClassVar[int] = 8
    byteorder: ClassVar[Literal["little", "big"]] = "little"
    page_shift: ClassVar[int] = 12
    page_size: ClassVar[int] = 4096
    #: the lowest kernel address; lower ones are user addresses
    kernel_half: ClassVar[int] = 1 << 63
    #: names of the general registers, in the order in which people list them
    registers: ClassVar[tuple[str, ...]]
    #: names of what :meth:`user_registers` gives
    thread_registers: ClassVar[tuple[str, ...]]
    #: of those, the program counter, and the number of the system call that a thread is in
    pc: ClassVar[str]
    system_call: ClassVar[str]

    @abstractmethod
    def paging(self, levels: int, encryption_mask: int = 0) -> PagingFormat:
        """Return the format of page tables with so many *levels*.

        :param encryption_mask: address bits that mark encrypted memory (SME), cleared from every entry
        :raises OpenError: the architecture has no tables of so many levels
        """

    @abstractmethod
    def prstatus(self, data: bytes) -> dict[str, int]:
        """Return registers and "pid" of an NT_PRSTATUS descriptor (``struct elf_prstatus``).

        :raises FormatError: it is too short
        """

    @abstractmethod
    def user_registers(self, data: bytes) -> dict[str, int]:
        """Return the registers in what PTRACE_GETREGSET gives for NT_PRSTATUS (``struct user_regs_struct``).

        :raises FormatError: it is too short: of a process of another word size
        """

    @abstractmethod
    def pack_user_registers(self, registers: Mapping[str, int]) -> bytes:
        """Return what PTRACE_SETREGSET takes: the inverse of :meth:`user_registers`."""

    @abstractmethod
    def qemu_cpu(self, data: bytes) -> dict[str, int]:
        """Return registers of the descriptor of a note named QEMU (``QEMUCPUState``).

        :raises FormatError: it is too short
        """


def arch_of_elf(machine: int, path: str = "") -> Arch:
    """Return the architecture of an ELF ``e_machine``.

    :raises OpenError: kshell does not read it yet; the message names it
    """
    from kshell.arch.x86_64 import X86_64

    if machine == X86_64.elf_machine:
        return X86_64()
    name = MACHINES.get(machine, f"ELF machine {machine}")
    raise OpenError(path, f"memory of {name}: this architecture is not supported yet (x86_64 is)", kind="unsupported")


def arch_of_program(machine: int, path: str = "") -> Arch:
    """Return the architecture of a program with an ELF ``e_machine``: more than those of kernels are read.

    :raises OpenError: as :func:`arch_of_elf`
    """
    from kshell.arch.i386 import I386

    return I386() if machine == I386.elf_machine else arch_of_elf(machine, path)


def arch_of_machine(machine: str) -> Arch:
    """Return the architecture that ``uname -m`` calls *machine*.

    :raises OpenError: kshell does not read it yet
    """
    numbers = [number for number, name in MACHINES.items() if name == machine]
    if not numbers:
        raise OpenError("", f"{machine}: this architecture is not supported yet (x86_64 is)", kind="unsupported")
    return arch_of_elf(numbers[0])
