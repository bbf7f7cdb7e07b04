"""Targets that are no kernel: a process, a user core, an ELF file. Their memory is the one memory there is.

``Target.kernel`` is what addresses mean when nothing else is said, so it is their memory; whoever asks for a kernel's
structures asks :func:`kshell.linux.kernel.require_kernel`, which says that there is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from kshell.arch.model import Arch
from kshell.errors import FormatError, KshellError, SymbolNotFoundError
from kshell.memory.model import Memory
from kshell.target.loaded import LoadObject, module_of
from kshell.target.target import Target, Unavailable
from kshell.types.names import SymbolIndex, TypeIndex

if TYPE_CHECKING:
    from kshell.types.lines import SourceLine
    from kshell.types.model import Symbol

NAMES = {"process": "a process", "core": "a core of a process", "file": "an ELF file"}


class Mapping(NamedTuple):
    """A range of addresses: of a process as /proc/PID/maps has it, of a file a segment or section."""

    start: int
    end: int
    permissions: str
    offset: int
    name: str


class Thread(NamedTuple):
    """A thread.

    :ivar state: one letter as ps(1) has it, "" when it is not known
    :ivar pc: where it is, or why that is not known
    """

    tid: int
    state: str
    name: str
    pc: int | KshellError


class UserFile(NamedTuple):
    """An open file of a live process, as /proc/PID/fd and fdinfo tell.

    :ivar type: "REG", "DIR", "CHR", "BLK", "FIFO", "SOCK", "ANON"
    """

    fd: int
    type: str
    position: int
    flags: int
    path: str


class Facts(ABC):
    """What is known of a process or file beside its memory."""

    #: of the process, 0 for a file
    pid: int = 0
    #: name of the program
    comm: str = ""

    @abstractmethod
    def mappings(self) -> list[Mapping]:
        """Return what is mapped where, ascending."""

    @abstractmethod
    def threads(self) -> list[Thread]:
        """Return the threads, the one that matters first; none of a file."""

    @abstractmethod
    def registers(self, tid: int | None) -> tuple[int, dict[str, int]]:
        """Return the thread *tid* (None: the one that matters) and its registers.

        :raises KshellError: there is no such thread, or its registers cannot be read
        """

    @property
    def standing(self) -> bool:
        """Whether registers can be had without stopping anything: it stands still, or is a core."""
        return True

    @abstractmethod
    def auxv(self) -> list[tuple[int, int]]:
        """Return the auxiliary vector that the kernel gave the program.

        :raises KshellError: it is not known
        """

    def strings(self) -> tuple[bytes, bytes]:
        """Return arguments and environment, each string and its NUL.

        :raises KshellError: they cannot be read
        """
        raise KshellError("a file has no arguments: it does not run")

    def string_ends(self) -> tuple[int, int, int, int]:
        """Return where arguments begin and end, and where the environment does.

        :raises KshellError: nothing tells
        """
        raise KshellError("a file has no arguments: it does not run")

    @property
    def parent(self) -> int:
        """The process id of the parent, 0 when it is not known."""
        return 0

    @property
    def started(self) -> int:
        """When it started, in nanoseconds since boot; 0: not known."""
        return 0

    def owner(self) -> tuple[int, int]:
        """Return the real user and group id. :raises KshellError: they are not known"""
        raise KshellError("a file belongs to no process")

    def open_files(self) -> Iterator[UserFile]:
        """Yield the open files by descriptor.

        :raises KshellError: nothing tells of them
        """
        raise KshellError("nothing tells of open files here", hint="a live process does: kshell -p PID")

    def status(self) -> list[tuple[str, str]]:
        """Return what ``::status`` tells, (word, text)."""
        return []


class UserTarget(Target):
    """A process, a core or a file.

    :ivar facts: what is known beside the memory
    :ivar objects: the program and its libraries
    """

    kind: ClassVar[str] = "process"

    def __init__(
        self, path: str, description: str, arch: Arch, memory: Memory, facts: Facts, *, mode: str, live: bool = False,
    ) -> None:
        super().__init__(path, description, arch, mode=mode, live=live)
        self.kernel, self.facts = memory, facts
        self.physical = Unavailable("physical", f"{NAMES[self.kind]} has no physical addresses")
        self.objects: list[LoadObject] = []
        self.make_symbols, self.make_types = _make_symbols, _make_types
        self.find_lines = self._lines
        self.on_close(memory.close)

    def add_object(self, found: LoadObject) -> None:
        """Add what was loaded; to the symbols and types too, if these have been asked for."""
        self.on_close(found.close)
        self.objects.append(found)
        if self._symbols is not None:
            self._symbols.add(found.symbols)
        if self._types is not None:
            _add_types(self, self._types, found)

    def object_at(self, address: int) -> LoadObject | None:
        """Return the object that is loaded at *address*."""
        ordered = sorted(self.objects, key=lambda one: one.start)
        at = bisect_right(ordered, address, key=lambda one: one.start) - 1
        return ordered[at] if at >= 0 and address in ordered[at] else None

    def symbolize(self, address: int) -> tuple[Symbol, int] | None:
        return self.symbols.at(address)

    def symbol(self, name: str, module: str | None = None) -> Symbol:
        if module is None and "`" in name:
            module, _, name = name.rpartition("`")
        if module is None:
            return self.symbols.lookup(name)
        found = module_of(self.objects, module)
        if found is False:
            raise SymbolNotFoundError(f"{module}`{name}", hint=f"no object {module}; ::objects lists them")
        for one in self.objects:
            if one.name == found:
                for symbol in one.symbols.find(name):
                    return symbol
        raise SymbolNotFoundError(f"{module}`{name}")

    def _lines(self, address: int) -> list[SourceLine]:
        found = self.object_at(address)
        return found.source_lines(address) if found is not None else []


def _make_symbols(target: Target) -> SymbolIndex:
    assert isinstance(target, UserTarget)
    index = SymbolIndex([found.symbols for found in target.objects])
    problems = [f"{one.shown}: {one.problem}" for one in target.objects if one.problem]
    count = sum(one.elf is not None for one in target.objects)
    target.findings["symbols"] = f"of {count} file{'s' * (count != 1)}" + (
        f"; without {'; '.join(problems)}" if problems else "")
    return index


def _make_types(target: Target) -> TypeIndex:
    assert isinstance(target, UserTarget)
    index = TypeIndex([])
    index.known = False
    index.pointer_size = target.arch.pointer_size
    for found in target.objects:
        _add_types(target, index, found)
    names = [one.shown for one in target.objects if "dwarf" in one.__dict__ and one.dwarf is not None]
    if len(index):
        target.findings["types"] = f"DWARF of {', '.join(names)}" if names else "BTF of the file"
        if index.missing:
            target.findings["missing types"] = index.missing
    else:
        what = target.objects[0].shown if target.objects else "it"
        target.findings.setdefault("types", f"none: {what} was built without -g, or stripped, and no file with its "
                                   "debugging data is in /usr/lib/debug")
    return index


def _add_types(target: UserTarget, index: TypeIndex, found: LoadObject) -> None:
    found.progress = target.progress
    try:
        for source in found.types():
            index.add(source, found.name)
        index.missing = index.missing or (found.dwarf.missing if found.dwarf is not None else "")
    except FormatError as error:
        target.findings["damaged types"] = str(error)
