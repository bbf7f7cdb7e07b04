"""The target: memory, address spaces, symbols, types and CPUs of one kernel, found in memory and nothing else.

Everything that costs time is found when it is first asked for. What could not be found is told by ``findings`` (for
``::status``) and by the error of the question that needs it; the rest goes on working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from kshell import cache
from kshell.arch.model import Arch
from kshell.errors import Fault, FormatError, KshellError, Reason, SymbolNotFoundError, TypeNotFoundError
from kshell.memory.model import Memory
from kshell.target.control import Control
from kshell.target.space import AddressSpace
from kshell.target.vmcoreinfo import Vmcoreinfo
from kshell.types.model import CType, Symbol
from kshell.types.names import SymbolIndex, TypeIndex
from kshell.value import Value

if TYPE_CHECKING:
    from kshell.memory.constants import Constants
    from kshell.types.lines import SourceLine


class Cpu(NamedTuple):
    """A CPU's state as the image tells it.

    :ivar number: position in the notes, which is the order of the online CPUs
    :ivar registers: by lower-case name; empty when the image has none
    :ivar pid: of the task on it, as the note says; None when unknown (QEMU writes the CPU's number plus 1)
    :ivar note: which note told: "PRSTATUS", "QEMU", or both joined with "+"
    """

    number: int
    registers: dict[str, int]
    pid: int | None
    note: str


class Unavailable(Memory):
    """A space that this target cannot serve; every read says why."""

    def __init__(self, space: str, why: str, hint: str | None = None) -> None:
        self.space, self.why, self.hint = space, why, hint

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        if size == 0:
            return b"", None
        return b"", Fault(address, size, Reason.UNSUPPORTED, space=self.space, detail=self.why, hint=self.hint)


class Target:
    """One kernel in one image or running system. Made by :func:`kshell.target.open.open_target`.

    :ivar kernel: kernel virtual memory. :mod:`kshell.target.user` has targets without a kernel: there it is their own
        memory, which addresses mean when nothing else is said
    """

    #: "kernel"; "process", "core" and "file" are no kernels
    kind: ClassVar[str] = "kernel"

    def __init__(
        self, path: str, description: str, arch: Arch, *, mode: str = "r", live: bool = False, host: bool = False,
    ) -> None:
        """:param live: it moves by itself; :param host: it is the system that kshell runs on, whose /proc tells more"""
        self.path, self.description, self.arch = path, description, arch
        self.mode, self.live, self.host = mode, live, host
        #: stops and resumes a live target; None where nothing can
        self.control: Control | None = None
        self.physical: Memory = Unavailable("physical", "no physical memory in this target")
        self.kernel: Memory = Unavailable("kernel", "no kernel memory in this target")
        #: the kernel's memory for what is constant in it, where that is kept from one session to the next
        self.constants: Constants | None = None
        #: the file that addresses correspond to, for ``?``: a vmlinux, the file of a program
        self.object_file: Memory | None = None
        self.vmcoreinfo: Vmcoreinfo | None = None
        self.release = ""
        self._cpus: list[Cpu] = []
        self._moment = self._known = -1  # of the control, when the CPUs were asked for, and when all was forgotten
        self._questions = 0
        #: what :mod:`kshell.linux.kept` keeps, by name: the state of the memory in which it was found, and what it is
        self.kept: dict[str, tuple[tuple[int, ...], Any]] = {}
        #: what was found where, or why not: {"kernel": ..., "symbols": ..., "types": ..., "image": ...}
        self.findings: dict[str, str] = {}
        #: told how far long work is: (what, done, in all); None: nobody wants to know
        self.progress: Callable[[str, int, int], None] | None = None
        self.make_symbols: Callable[[Target], SymbolIndex] | None = None
        self.make_types: Callable[[Target], TypeIndex] | None = None
        #: gives the places in the source of a virtual address, the innermost inlined function first
        self.find_lines: Callable[[int], list[SourceLine]] | None = None
        self.make_space: Callable[[int], AddressSpace] | None = None
        #: looks for all kernels in the image; told of the work; None where there can be one only
        self.survey: Callable[[Callable[[str, int, int], None]], Sequence[object]] | None = None
        #: seconds that opening took
        self.opened_in: float | None = None
        self._symbols: SymbolIndex | None = None
        self._types: TypeIndex | None = None
        self._spaces: dict[int, AddressSpace] = {}
        self._percpu: list[int] | None = None
        self._closers: list[Callable[[], None]] = []

    @property
    def caches(self) -> dict[str, str]:
        """Which kinds of files of the cache on disk were "read" or "made" so far, by this process."""
        return cache.used

    @property
    def writable(self) -> bool:
        """Whether writes are allowed: mode "r+" (in place) or "c" (kept in memory)."""
        return self.mode != "r"

    # -- a target that moves -----------------------------------------------------------------------------------------

    @contextmanager
    def question(self) -> Iterator[None]:
        """The time of one statement. What was kept of a live target that may have moved since is forgotten before."""
        control = self.control
        self._questions += 1
        try:
            if self._questions > 1:  # part of a statement
                yield
                return
            with nullcontext() if control is None else control.question():
                if control is None or control.moment != self._known or control.is_running():
                    self.forget()
                self._known = -1 if control is None else control.moment
                yield
        finally:
            self._questions -= 1

    def check(self) -> None:
        """Look whether the image is still the one that was opened.

        :raises FormatError: it changed on disk
        """
        for memory in (self.physical,) if self.kind == "kernel" else (self.physical, self.kernel):
            memory.check()

    def settled(self) -> None:
        """Take note that all that is kept so far is of this moment: what was read to open serves the first question."""
        self._known = -1 if self.control is None else self.control.moment

    def unsettled(self) -> None:
        """Have the next question forget what is kept, without asking whether the target runs: it does."""
        self._known = -1

    def forget(self) -> None:
        """Forget what was kept of the memory: it may have changed by itself. Symbols and types of the kernel stay."""
        for memory in (self.kernel, self.physical):
            memory.flush()
        for index in (self._symbols, self._types):
            if index is not None:
                index.renew()
        self._spaces.clear()
        self._moment = -1

    @property
    def cpus(self) -> list[Cpu]:
        """The CPUs: as the image has them, or as they are now."""
        if self.control is not None and self._moment != self.control.moment:
            self._cpus = self.control.read_cpus()
            self._moment = self.control.moment
        return self._cpus

    @cpus.setter
    def cpus(self, found: list[Cpu]) -> None:
        self._cpus = found

    # -- symbols ---------------------------------------------------------------------------------------------------

    @property
    def symbols(self) -> SymbolIndex:
        """The symbols of the kernel, and of its modules once a name or address is not found in the kernel."""
        if self._symbols is None:
            self._symbols = SymbolIndex([])
            if self.make_symbols is not None:
                self._symbols = self.make_symbols(self)
        return self._symbols

    def symbol(self, name: str, module: str | None = None) -> Symbol:
        """Return the symbol *name*.

        :raises SymbolNotFoundError: no table has it; carries near names, and what tables lack as a whole
        """
        try:
            return self.symbols.lookup(name, module)
        except SymbolNotFoundError as error:
            if self.symbols.missing and error.hint is None:
                raise SymbolNotFoundError(name, error.near, hint=self.symbols.missing) from error
            raise

    def symbolize(self, address: int) -> tuple[Symbol, int] | None:
        """Return the symbol that covers the virtual *address* and the offset in it, or None.

        Per-CPU symbols, whose addresses are small offsets before 6.15, cover no address; user addresses have the names
        that the user gave them (``::nmadd``).
        """
        return self.symbols.at(address, private=address < self.arch.kernel_half)

    def address_of(self, name: str) -> int:
        """Return the address of the kernel symbol *name*; VMCOREINFO is asked first, for it needs no table.

        :raises SymbolNotFoundError: nobody knows it
        """
        told = self.vmcoreinfo.symbol(name) if self.vmcoreinfo else None
        return self.symbol(name).address if told is None else told

    # -- types and values ------------------------------------------------------------------------------------------

    @property
    def types(self) -> TypeIndex:
        """The types of the kernel, and of its modules once a name is not found in the kernel."""
        if self._types is None:
            self._types = TypeIndex([])
            if self.make_types is not None:
                self._types = self.make_types(self)
        return self._types

    def forget_types(self) -> None:
        """Have the types made anew when they are next asked for: more can be had."""
        self._types = None

    def type(self, name: str) -> CType:
        """Return the type that *name* spells: ``struct task_struct``, ``char *``, ``unsigned long``.

        :raises TypeNotFoundError: no source has it; carries near names and, when there is no source, the reason
        """
        try:
            return self.types.find(name)
        except TypeNotFoundError as error:
            if len(self.types) == 0:
                why = self.findings.get("types", "no types in this target")
                raise TypeNotFoundError(name, hint=why) from error
            if self.types.missing:
                raise TypeNotFoundError(name, error.near, hint=self.types.missing) from error
            raise

    def untyped(self) -> str:
        """Return what to do about a symbol without a type."""
        kernel = ": globals have none in the kernel's BTF" if self.kind == "kernel" else ""
        return self.types.missing or f"name the type{kernel}"

    def value(self, type: str | CType, address: int, space: Memory | None = None) -> Value:
        """Return a typed view of *address* (virtual, in *space* or the kernel's)."""
        return Value(self, self.type(type) if isinstance(type, str) else type, address, space)

    def type_of(self, symbol: Symbol) -> CType | None:
        """Return the type of a global variable: from the shipped table, or BTF for per-CPU variables; else None."""
        return self.types.of_symbol(symbol)

    def object(self, name: str) -> Value:
        """Return the global variable *name* with its type. Of a per-CPU variable see :meth:`percpu`.

        :raises SymbolNotFoundError: no such symbol
        :raises TypeNotFoundError: its type is not known; make one with :meth:`value`
        """
        symbol = self.symbol(name)
        ctype = self.type_of(symbol)
        if ctype is None:
            hint = f"globals have no types in BTF; name it: 0x{symbol.address:x}::print TYPE"
            raise TypeNotFoundError(f"of {name}", hint=hint)
        return self.value(ctype, symbol.address)

    def source_lines(self, address: int) -> list[SourceLine]:
        """Return the place in the source of the virtual *address*, innermost inlined function first.

        Empty where nothing tells: debugging data (a vmlinux, a program built with -g) is needed for it.

        :raises FormatError: it is damaged there
        """
        return self.find_lines(address) if self.find_lines is not None else []

    # -- CPUs ------------------------------------------------------------------------------------------------------

    def percpu_base(self, cpu: int) -> int:
        """Return what is added to a per-CPU symbol's address for *cpu*: ``__per_cpu_offset[cpu]``.

        :raises KshellError: the kernel has no such CPU
        """
        if self._percpu is None:
            symbol = self.symbol("__per_cpu_offset")
            # of an export table's symbol the size is not known
            count = symbol.size // 8 or min(self.kernel.u32(self.symbol("nr_cpu_ids").address), 1 << 16)
            raw = memoryview(self.kernel.read(symbol.address, count * 8)).cast("Q")
            self._percpu = list(raw)
        if not 0 <= cpu < len(self._percpu):
            raise KshellError(f"no CPU {cpu}: the kernel was built for {len(self._percpu)}")
        return self._percpu[cpu]

    def percpu(self, name: str, cpu: int, type: str | CType | None = None) -> Value:
        """Return the per-CPU variable *name* of *cpu*.

        :raises SymbolNotFoundError, TypeNotFoundError: as :meth:`object`
        """
        symbol = self.symbol(name)
        ctype = self.type(type) if isinstance(type, str) else type or self.type_of(symbol)
        if ctype is None:
            raise TypeNotFoundError(f"of {name}", hint="name its type: the BTF does not have this per-CPU variable")
        return self.value(ctype, (symbol.address + self.percpu_base(cpu)) % (1 << 64))

    def cpu_numbers(self, mask: str = "online") -> list[int]:
        """Return the numbers of the CPUs in ``__cpu_<mask>_mask``: "online", "possible" or "present".

        A CPU that panic() stopped is online: stop_this_cpu() only takes it out of that mask. One that goes offline in
        order is out of ``__cpu_active_mask`` before: sched_cpu_deactivate().
        """
        bits = self._cpu_bits(self.symbol(f"__cpu_{mask}_mask"))
        active = self.symbols.get("__cpu_active_mask") if mask == "online" else None
        if active is not None:
            bits |= self._cpu_bits(active)
        return [number for number in range(bits.bit_length()) if bits >> number & 1]

    def _cpu_bits(self, mask: Symbol) -> int:
        return int.from_bytes(self.kernel.read(mask.address, min(max(mask.size, 8), 1024)), self.arch.byteorder)

    # -- user memory -----------------------------------------------------------------------------------------------

    def user_space(self, mm: int) -> AddressSpace:
        """Return the user half of the address space of the ``mm_struct`` at the kernel address *mm*.

        :raises Fault: the mm_struct cannot be read
        :raises FormatError: its top page table is not where page tables can be
        """
        space = self._spaces.get(mm)
        if space is None:
            if self.make_space is None:
                raise FormatError("this target has no page tables to reach user memory with")
            space = self._spaces[mm] = self.make_space(self.value("struct mm_struct", mm)["pgd"].integer())
        return space

    # -- life ------------------------------------------------------------------------------------------------------

    def on_close(self, closer: Callable[[], None]) -> None:
        """Call *closer* when the target is closed, the last one given first."""
        self._closers.append(closer)

    def forget_kernel(self) -> None:
        """Forget what was found by the kernel that is attached: another one takes its place."""
        self._symbols = self._types = self._percpu = self.constants = None
        self._spaces.clear()
        for word in ("symbols", "types", "modules", "module types", "direct map", "VMCOREINFO", "kallsyms", "deduced"):
            self.findings.pop(word, None)

    def close(self) -> None:
        """Release what the target holds open. A second close does nothing."""
        while self._closers:
            self._closers.pop()()
        # The indexes look at cache files and at the image through mappings, which end with the last view of them.
        self._symbols = self._types = self.make_symbols = self.make_types = self.make_space = None
        self._spaces.clear()
        self.kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


__all__ = ["Cpu", "SymbolNotFoundError", "Target", "Unavailable"]
