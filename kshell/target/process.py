"""A live process as a target: memory by /proc/PID/mem, mappings, threads, and the files that are mapped.

Everything is read through one descriptor of /proc/PID, which no other process gets when the number is used again.
Nothing is stopped but by who asks for registers, and then for a millisecond. proc(5); fs/proc/task_mmu.c.
"""

from __future__ import annotations

import os
from pathlib import PurePath

from kshell.arch.model import arch_of_machine
from kshell.errors import Fault, FormatError, KshellError, NoProcessError, NoUserSpaceError, OpenError, Reason
from kshell.memory.elfmap import Part, open_parts
from kshell.memory.layered import Backing, Layered
from kshell.memory.model import Memory
from kshell.memory.overlay import Overlay
from kshell.memory.procmem import ProcessMemory
from kshell.target.auxv import parse_auxv
from kshell.target.loaded import LoadObject, bias_of, opened, parts_of
from kshell.target.user import Facts, Mapping, Thread, UserTarget
from kshell.types.elffile import ElfFile

MAX_MAPPINGS = 1 << 17
MAX_VDSO = 1 << 20
DELETED = " (deleted)"


class ProcessTarget(UserTarget):
    kind = "process"

    def forget(self) -> None:
        """Forget what was kept of its memory; join what it has loaded since."""
        super().forget()
        assert isinstance(self.facts, ProcessFacts)
        try:
            for found in self.facts.new_objects():
                self.add_object(found)
        except KshellError:
            return  # it ends: the question that comes next says so


class ProcessFacts(Facts):
    """What /proc tells of the process behind *memory*."""

    def __init__(self, memory: ProcessMemory) -> None:
        self.memory, self.pid = memory, memory.pid
        self.comm = self.text("comm").rstrip("\n")
        self._maps = b""
        self._known: set[tuple[str, int]] = set()
        self._first = True

    def read(self, name: str) -> bytes:
        """Return a file in its folder.

        :raises Fault: the process is gone, or it may not be read
        """
        try:
            return self.memory.file(name)
        except OSError as error:
            reason = Reason.PERMISSION if isinstance(error, PermissionError) else Reason.GONE
            raise Fault(0, 0, reason, space=f"/proc/{self.pid}/{name}", detail=error.strerror or "") from error

    def text(self, name: str) -> str:
        """Return a file in its folder as text."""
        return self.read(name).decode("utf-8", "surrogateescape")

    def mappings(self) -> list[Mapping]:
        return parse_maps(self.text("maps"))

    def threads(self) -> list[Thread]:
        found: list[Thread] = []
        try:
            tids = sorted(self.memory.folder("task"), key=lambda name: (int(name) != self.pid, int(name)))
        except OSError as error:
            raise Fault(0, 0, Reason.GONE, space=f"/proc/{self.pid}/task") from error
        for tid in tids:
            try:
                stat = self.text(f"task/{tid}/stat")
            except Fault:
                continue  # ended meanwhile
            name, _, rest = stat.partition(" (")[2].rpartition(") ")
            found.append(Thread(int(tid), rest[:1], name, self._pc(tid)))
        return found

    def _pc(self, tid: str) -> int | KshellError:
        """Return where a thread that waits entered the kernel: the only place that is told without stopping it."""
        try:
            words = self.text(f"task/{tid}/syscall").split()
            return int(words[-1], 16) if len(words) > 2 else KshellError("running")
        except (KshellError, ValueError):
            return KshellError("not told")

    def registers(self, tid: int | None) -> tuple[int, dict[str, int]]:
        from kshell.memory import ptrace

        wanted = self.pid if tid is None else tid
        if str(wanted) not in self._tids():
            raise KshellError(f"process {self.pid} has no thread {wanted}", hint="::threads lists them")
        arch = arch_of_machine(os.uname().machine)
        with ptrace.stopped([wanted]) as ready:
            self.read("stat")  # of the same process still, now that it cannot end
            assert ready
            return wanted, arch.user_registers(ptrace.registers(wanted))

    def _tids(self) -> list[str]:
        try:
            return self.memory.folder("task")
        except OSError as error:
            raise Fault(0, 0, Reason.GONE, space=f"process {self.pid}") from error

    def auxv(self) -> list[tuple[int, int]]:
        return list(parse_auxv(self.read("auxv")))

    def status(self) -> list[tuple[str, str]]:
        command = self.text("cmdline").rstrip("\0").replace("\0", " ")
        facts = [("file", self.link("exe")), ("command", command), ("cwd", self.link("cwd"))]
        state = next((line.split(None, 1)[1] for line in self.text("status").splitlines() if line.startswith("State:")),
                     "")
        return [*facts, ("state", state), ("threads", str(len(self._tids())))]

    def link(self, name: str) -> str:
        """Return what a link in its folder leads to."""
        try:
            return self.memory.link(name)
        except OSError as error:
            return f"unknown ({error.strerror})"

    # -- what is loaded --------------------------------------------------------------------------------------------

    def new_objects(self) -> list[LoadObject]:
        """Return the program and libraries that were mapped since this was asked before."""
        maps = self.read("maps")
        if maps == self._maps:
            return []
        self._maps = maps
        found: list[LoadObject] = []
        program = self.link("exe")
        for path, run in files_of(parse_maps(maps.decode("utf-8", "surrogateescape"))):
            start = run[0].start
            if (path, start) in self._known:
                continue
            self._known.add((path, start))
            if path == "[vdso]":
                made = self._vdso(run[0])
            elif path == program:
                made = load(None, path, run, [f"/proc/{self.pid}/exe", path])
            else:
                name = f"{start:x}-{run[0].end:x}"
                made = load(PurePath(path.removesuffix(DELETED)).name, path, run,
                            [f"/proc/{self.pid}/map_files/{name}", f"/proc/{self.pid}/root{path}", path])
            if made is not None:
                found.append(made)
        found.sort(key=lambda one: one.name is not None)
        return found

    def _vdso(self, mapping: Mapping) -> LoadObject | None:
        data, _ = self.memory.read_upto(mapping.start, min(mapping.end - mapping.start, MAX_VDSO))
        try:
            elf = ElfFile("[vdso]", data)
            return LoadObject("[vdso]", "[vdso]", mapping.start, mapping.end, bias_of(elf, mapping.start, 0), elf)
        except FormatError:
            return None


def load(
    name: str | None, path: str, run: list[Mapping], tries: list[str], wanted: str | None = None, what: str = "process",
) -> LoadObject | None:
    """Return what *run* maps of the file that one of *tries* opens; None when it is no ELF file.

    :param wanted: its build id, as the target tells
    """
    start, end = run[0].start, run[-1].end
    problem = ""
    for place in tries:
        elf, why = opened(place, wanted, what)
        if elf is None:
            problem = problem or why
            continue
        try:
            bias = bias_of(elf, start, run[0].offset)
            end = max(end, *((bias + one.vaddr + one.memsz) % (1 << 64) for one in elf.loads()))
            return LoadObject(name, path, start, end, bias, elf, "", wanted)
        except FormatError as error:
            elf.close()
            problem = str(error)
    if "not an ELF file" in problem:
        return None  # data that is mapped: locales, caches
    return LoadObject(name, path, start, end, 0, None, problem, wanted)


def files_of(mappings: list[Mapping]) -> list[tuple[str, list[Mapping]]]:
    """Return the mappings of each file that may be code, together: one file may be loaded more than once."""
    found: list[tuple[str, list[Mapping]]] = []
    for mapping in mappings:
        if mapping.name[:1] != "/" and mapping.name != "[vdso]":
            continue
        last = next((run for path, run in reversed(found[-4:]) if path == mapping.name), None)
        if last is not None and mapping.offset >= last[-1].offset and mapping.offset:
            last.append(mapping)
        else:
            found.append((mapping.name, [mapping]))
    return [(path, run) for path, run in found if any("x" in one.permissions for one in run)]


def parse_maps(text: str) -> list[Mapping]:
    """Return the mappings that /proc/PID/maps tells.

    :raises FormatError: a line is none
    """
    found: list[Mapping] = []
    for line in text.splitlines()[:MAX_MAPPINGS]:
        fields = line.split(None, 5)
        try:
            start, end = (int(number, 16) for number in fields[0].split("-"))
            found.append(Mapping(start, end, fields[1], int(fields[2], 16), fields[5] if len(fields) > 5 else ""))
        except (ValueError, IndexError) as error:
            raise FormatError(f"not a line of /proc/PID/maps: {line[:80]!r}") from error
    return found


def open_process(pid: int, mode: str = "r") -> UserTarget:
    """Open the live process *pid*.

    :param mode: "r+" writes into it, "c" keeps writes in kshell's memory
    :raises OpenError: there is none, it has no user memory, or this user may not trace it
    """
    path = f"pid:{pid}"
    try:
        memory = ProcessMemory(pid, writable=mode == "r+")
    except NoProcessError as error:
        raise OpenError("", str(error), kind="missing", hint="ps(1) lists processes") from error
    except NoUserSpaceError as error:
        raise OpenError("", str(error), kind="format") from error
    except Fault as error:
        raise OpenError("", str(error), kind="permission", hint=error.hint) from error
    try:
        facts = ProcessFacts(memory)
        arch = arch_of_machine(os.uname().machine)
        target = ProcessTarget(path, f"process {pid} ({facts.comm})", arch, Overlay(memory) if mode == "c" else memory,
                               facts, mode=mode, live=True)
        for found in facts.new_objects():
            target.add_object(found)
    except BaseException:
        memory.close()
        raise
    target.findings["image"] = f"/proc/{pid}"
    target.object_file = files_memory(target)
    return target


def files_memory(target: UserTarget) -> Memory | None:
    """Return the bytes of the program's and its libraries' files where they are loaded."""
    parts: list[Backing] = []
    first: Memory | None = None
    for found in target.objects:
        if found.elf is None or found.path.startswith("["):
            continue
        pieces: list[Part] = [part for part in parts_of(found.elf) if part[1]]
        try:
            memory = open_parts(found.elf.path, pieces, bias=found.bias, space="object")
        except OpenError:
            continue
        target.on_close(memory.close)
        if first is None:
            first = memory
            continue
        parts.append(Backing(found.start, found.end, memory))
    return Layered(first, parts) if first is not None else None
