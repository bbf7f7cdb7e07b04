"""A live process as a target: memory by /proc/PID/mem, mappings, threads, and the files that are mapped.

Everything is read through one descriptor of /proc/PID, which no other process gets when the number is used again.
Nothing is stopped but by who asks for registers, and then for a millisecond, or for questions with ``--pause``.
proc(5); fs/proc/task_mmu.c.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar

from kshell.arch.model import Arch, arch_of_machine, arch_of_program
from kshell.errors import Fault, FormatError, KshellError, NoProcessError, NoUserSpaceError, OpenError, Reason
from kshell.memory.elfmap import Part, open_parts
from kshell.memory.layered import Backing, Layered
from kshell.memory.model import Memory
from kshell.memory.overlay import Overlay
from kshell.memory.procmem import ProcessMemory
from kshell.target.auxv import parse_auxv, word_size
from kshell.target.control import Control, ControlError
from kshell.target.loaded import LoadObject, bias_of, opened, parts_of
from kshell.target.target import Cpu
from kshell.target.user import Facts, Mapping, Thread, UserFile, UserTarget
from kshell.types.elffile import EM_386, ElfFile

if TYPE_CHECKING:
    from kshell.memory.ptrace import Hold

MAX_MAPPINGS = 1 << 17
MAX_VDSO = 1 << 20
KINDS = {stat.S_IFREG: "REG", stat.S_IFDIR: "DIR", stat.S_IFCHR: "CHR", stat.S_IFBLK: "BLK", stat.S_IFIFO: "FIFO",
         stat.S_IFSOCK: "SOCK"}
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


class ProcessControl(Control):
    """The threads of a process stopped and let go. The number of a "CPU" is the id of a thread."""

    transport: ClassVar[str] = "ptrace"

    def __init__(self, facts: ProcessFacts, *, pause: bool) -> None:
        super().__init__(pause=pause)
        self.facts, self.cpu = facts, facts.pid

    def is_running(self) -> bool:
        return self.facts.hold is None

    def halt(self) -> None:
        self.facts.stop()

    def go(self) -> None:
        self.facts.go_on()

    @contextmanager
    def question(self) -> Iterator[None]:
        """As of others; of a process that is gone there is nothing to hold, and the question says what is left."""
        from kshell.memory.ptrace import ThreadGoneError

        with ExitStack() as stack:
            if self.pause:
                try:
                    stack.enter_context(self.standing())
                except ThreadGoneError:
                    pass
                except Fault as fault:
                    if fault.reason is not Reason.GONE:
                        raise
            yield

    def read_cpus(self) -> list[Cpu]:
        hold = self.facts.hold
        threads = [] if hold is None else hold.threads
        return [Cpu(tid, self.facts.registers(tid)[1], tid, self.transport) for tid in threads]

    def set_register(self, cpu: int, name: str, value: int) -> None:
        self.facts.set_register(cpu, name, value)
        self.moment += 1

    def disconnect(self) -> None:
        self.facts.go_on()


class ProcessFacts(Facts):
    """What /proc tells of the process behind *memory*."""

    def __init__(self, memory: ProcessMemory) -> None:
        self.memory, self.pid = memory, memory.pid
        self.hold: Hold | None = None
        self._states: dict[int, str] = {}  # of the threads before they were stopped
        self.comm = self.text("comm").rstrip("\n")
        self.arch: Arch = arch_of_machine(os.uname().machine)
        if word_size(self.read("auxv")) == 4 and self.arch.name == "x86_64":
            self.arch = arch_of_program(EM_386)
        self._maps = b""
        self._known: set[tuple[str, int]] = set()

    def read(self, name: str) -> bytes:
        """Return a file in its folder.

        :raises Fault: the process is gone, or it may not be read
        """
        try:
            return self.memory.file(name)
        except OSError as error:
            raise self._lost(name, error) from error

    def _lost(self, name: str, error: OSError) -> Fault:
        reason = Reason.PERMISSION if isinstance(error, PermissionError) else Reason.GONE
        detail = f"/proc/{self.pid}/{name}: {error.strerror}" if reason is Reason.PERMISSION else ""
        return Fault(0, 0, reason, space=f"process {self.pid}", detail=detail)

    def _zombie(self) -> Fault:
        """Return what is said of one that has ended and has not been waited for."""
        return Fault(0, 0, Reason.GONE, space=f"process {self.pid}", detail="a zombie: its exit status is left of it")

    def text(self, name: str) -> str:
        """Return a file in its folder as text."""
        return self.read(name).decode("utf-8", "surrogateescape")

    def mappings(self) -> list[Mapping]:
        text = self.text("maps")
        if not text:
            raise self._zombie()
        return parse_maps(text)

    def threads(self) -> list[Thread]:
        found: list[Thread] = []
        try:
            tids = sorted(self.memory.folder("task"), key=lambda name: (int(name) != self.pid, int(name)))
        except OSError as error:
            raise self._lost("task", error) from error
        for tid in tids:
            try:
                line = self.text(f"task/{tid}/stat")
            except Fault:
                continue  # ended meanwhile
            name, _, rest = line.partition(" (")[2].rpartition(") ")
            state = rest[:1] if self.hold is None else self._states.get(int(tid), rest[:1])
            found.append(Thread(int(tid), state, name, self._pc(tid)))
        return found

    def _pc(self, tid: str) -> int | KshellError:
        """Return where a thread is: of one that runs where it entered the kernel, if it waits there."""
        try:
            if self.hold is not None and int(tid) in self.hold:
                return self.registers(int(tid))[1][self.arch.pc]
            words = self.text(f"task/{tid}/syscall").split()
            found = int(words[-1], 16) if len(words) > 2 else 0
            return found or KshellError("running" if len(words) < 3 else "not told")  # 0 of one that has ended
        except (KshellError, ValueError):
            return KshellError("not told")

    # -- standing still --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop all threads until :meth:`go_on`.

        :raises KshellError: they cannot be traced, or the process is gone
        """
        if self.hold is None:
            self._states = {}
            with suppress(KshellError):  # then the states are those of stopped threads
                for tid in self._tids():
                    self._states[int(tid)] = self.text(f"task/{tid}/stat").rpartition(") ")[2][:1]
            self.hold = self._held(None)

    def go_on(self) -> None:
        """Let the threads go on that were stopped."""
        hold, self.hold = self.hold, None
        if hold is not None:
            hold.release()

    @property
    def standing(self) -> bool:
        return self.hold is not None

    def _held(self, tid: int | None) -> Hold:
        """Return the thread *tid*, None: all, standing still: those of this process, which cannot end any more."""
        from kshell.memory.ptrace import Hold

        hold = Hold(lambda: sorted(map(int, self._tids()), key=lambda one: one != self.pid) if tid is None else [tid])
        try:
            self.read("stat")
        except BaseException:
            hold.release()
            raise
        return hold

    def _thread(self, tid: int | None) -> int:
        wanted = self.pid if tid is None else tid
        if (self.hold is None or wanted not in self.hold) and str(wanted) not in self._tids():
            raise KshellError(f"process {self.pid} has no thread {wanted}", hint="::threads lists them")
        return wanted

    def registers(self, tid: int | None) -> tuple[int, dict[str, int]]:
        wanted = self._thread(tid)
        with ExitStack() as stack:
            hold = self.hold or stack.enter_context(self._held(wanted))
            return wanted, self.arch.user_registers(hold.registers(wanted))

    def set_register(self, tid: int, name: str, value: int) -> None:
        """Change a register of a thread that stands still.

        :raises KshellError: it cannot be changed
        """
        wanted = self._thread(tid)
        if self.hold is None:
            raise ControlError(f"cannot modify register {name}: thread {wanted} runs")
        arch = self.arch
        registers = arch.user_registers(self.hold.registers(wanted))
        if name not in registers:
            raise ControlError(f"there is no register {name}")
        registers[name] = value
        if name == arch.pc:
            # or the kernel takes it two bytes back, to the system call that it is to start again (handle_signal())
            registers[arch.system_call] = (1 << 8 * arch.pointer_size) - 1
        try:
            self.hold.set_registers(wanted, arch.pack_user_registers(registers))
            taken = arch.user_registers(self.hold.registers(wanted))[name] == value
        except KshellError as error:
            raise ControlError(f"cannot modify register {name}: {error}") from error
        if not taken:
            raise ControlError(f"cannot modify register {name}: the kernel does not take 0x{value:x}")

    def _tids(self) -> list[str]:
        try:
            return self.memory.folder("task")
        except OSError as error:
            raise Fault(0, 0, Reason.GONE, space=f"process {self.pid}") from error

    def auxv(self) -> list[tuple[int, int]]:
        return list(parse_auxv(self.read("auxv")))

    def strings(self) -> tuple[bytes, bytes]:
        return self.read("cmdline"), self.read("environ")

    def string_ends(self) -> tuple[int, int, int, int]:
        fields = self.text("stat").rpartition(") ")[2].split()
        if len(fields) < 49:
            raise KshellError("/proc/PID/stat does not tell where the arguments are")
        first, second, third, fourth = map(int, fields[45:49])  # fields 48 to 51 of proc(5)
        return first, second, third, fourth

    @property
    def parent(self) -> int:
        return int(self.text("stat").rpartition(") ")[2].split()[1])

    @property
    def started(self) -> int:
        return self.memory.started * 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def owner(self) -> tuple[int, int]:
        ids = {line.split()[0]: int(line.split()[1]) for line in self.text("status").splitlines()
               if line.startswith(("Uid:", "Gid:"))}
        return ids["Uid:"], ids["Gid:"]

    def open_files(self) -> Iterator[UserFile]:
        try:
            numbers = sorted(map(int, self.memory.folder("fd")))
        except OSError as error:
            raise self._lost("fd", error) from error
        if not numbers and not self.read("maps"):
            raise self._zombie()
        for number in numbers:
            try:
                path, mode = self.memory.link(f"fd/{number}"), self.memory.mode(f"fd/{number}")
                told = dict(line.split(":", 1) for line in self.text(f"fdinfo/{number}").splitlines() if ":" in line)
                kind = "ANON" if path.startswith("anon_inode:") else KINDS.get(stat.S_IFMT(mode), "ANON")
                yield UserFile(number, kind, int(told.get("pos", "0")), int(told.get("flags", "0"), 8), path)
            except (OSError, ValueError, Fault):
                continue  # closed meanwhile

    def status(self) -> list[tuple[str, str]]:
        command = self.text("cmdline").rstrip("\0").replace("\0", " ")
        facts = [("file", self.link("exe")), ("command", command), ("cwd", self.link("cwd"))]
        state = next((line.split(None, 1)[1] for line in self.text("status").splitlines() if line.startswith("State:")),
                     "")
        held = "" if self.hold is None else " (held by kshell)"
        return [*facts, ("state", state + held), ("threads", str(len(self._tids())))]

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


def open_process(pid: int, mode: str = "r", *, pause: bool = False) -> UserTarget:
    """Open the live process *pid*.

    :param mode: "r+" writes into it, "c" keeps writes in kshell's memory
    :param pause: its threads are stopped for each question and go on behind it
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
        target = ProcessTarget(path, f"process {pid} ({facts.comm})", facts.arch,
                               Overlay(memory) if mode == "c" else memory, facts, mode=mode, live=True)
        target.control = control = ProcessControl(facts, pause=pause)
        if pause:
            _try(control)
        for found in facts.new_objects():
            target.add_object(found)
    except BaseException:
        memory.close()
        raise
    target.on_close(control.close)
    target.findings["image"] = f"/proc/{pid}"
    target.object_file = files_memory(target)
    return target


def _try(control: Control) -> None:
    """Stop the process once: one that cannot be stopped is told when it is opened, and not with the first question.

    :raises OpenError: it cannot
    """
    try:
        with control.standing():
            pass
    except KshellError as error:
        raise OpenError("", str(error), kind="permission", hint=error.hint) from error


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
