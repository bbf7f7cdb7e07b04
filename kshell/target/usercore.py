"""The core of a process as a target: memory, mappings, threads with registers, and the files that were mapped.

What a core leaves out because a file has it, the text of programs, is read from that file when it is there and the same
one: build ids are compared, that in the core's memory with the file's. Kernel source: fs/binfmt_elf.c
(``fill_note_info``, ``fill_files_note``), fs/coredump.c (``vma_dump_size``); include/linux/elfcore.h.
"""

from __future__ import annotations

import os
import struct
from pathlib import PurePath
from typing import NamedTuple

from kshell.arch.model import Arch
from kshell.errors import FormatError, KshellError, OpenError
from kshell.memory.elfcore import ElfCore
from kshell.memory.elfheaders import NARROW, WIDE
from kshell.memory.elfmap import open_parts
from kshell.memory.layered import Backing, Layered
from kshell.memory.model import Memory
from kshell.memory.overlay import Overlay
from kshell.target.auxv import parse_auxv
from kshell.target.loaded import LoadObject, bias_of, parts_of
from kshell.target.process import files_memory, files_of, load
from kshell.target.target import Cpu
from kshell.target.user import Facts, Mapping, Thread, UserTarget
from kshell.types.elffile import PT_LOAD, PT_NOTE, ElfFile, build_id_of

NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_SIGINFO, NT_FILE = 1, 3, 6, 0x53494749, 0x46494C45
AT_ENTRY, AT_UID, AT_GID, AT_RANDOM, AT_SYSINFO_EHDR = 9, 11, 13, 25, 33
MAX_FILES = 1 << 17
PAGE = 4096
#: asm-generic/signal.h
SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
           9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU", 25: "SIGXFSZ",
           31: "SIGSYS"}
UNKNOWN = "r?x"  # of a mapping that nothing tells of: it may be code
WITH_ADDRESS = (4, 5, 7, 8, 11)


class CoreTarget(UserTarget):
    kind = "core"


class PsInfo(NamedTuple):
    """``struct elf_prpsinfo``."""

    state: str
    uid: int
    pid: int
    ppid: int
    comm: str
    arguments: str


class CoreFacts(Facts):
    """What the notes of *core* tell."""

    def __init__(self, core: ElfCore, elf: ElfFile, arch: Arch) -> None:
        self.core, self._elf = core, elf
        self.objects: list[LoadObject] = []
        self._arch, self._word = arch, arch.pointer_size
        notes = [note for note in core.notes if note.name == "CORE"]
        self._threads: list[dict[str, int]] = []
        self.signal = 0
        for note in notes:
            if note.type == NT_PRSTATUS:
                try:
                    self._threads.append(arch.prstatus(note.desc))
                    self.signal = self.signal or int.from_bytes(note.desc[12:14], "little")
                except FormatError:
                    continue
        self.info = next((_psinfo(note.desc, self._word) for note in notes if note.type == NT_PRPSINFO), None)
        self._auxv = next((note.desc for note in notes if note.type == NT_AUXV), b"")
        self._siginfo = next((note.desc for note in notes if note.type == NT_SIGINFO), b"")
        self.files = next((_files(note.desc, self._word) for note in notes if note.type == NT_FILE), [])
        self.pid = self.info.pid if self.info is not None else self._threads[0]["pid"] if self._threads else 0
        self.comm = self.info.comm if self.info is not None else ""

    def mappings(self) -> list[Mapping]:
        """Return the segments of the core, those of files with their names; and what of files it left out.

        The kernel has a segment without bytes for that, gdb's gcore none: then the file tells what it is, if any.
        """
        named = {mapping.start: mapping for mapping in self.files}
        found: list[Mapping] = []
        for one in self._elf.segments:
            if one.type != PT_LOAD:
                continue
            permissions = "".join(letter if one.flags & bit else "-" for bit, letter in ((4, "r"), (2, "w"), (1, "x")))
            file = named.get(one.vaddr)
            name, offset = (file.name, file.offset) if file is not None else (self._special(one.vaddr), 0)
            found.append(Mapping(one.vaddr, one.vaddr + one.memsz, permissions, offset, name))
        held = {mapping.start for mapping in found}
        found += [one._replace(permissions=self._permissions(one.start)) for one in self.files if one.start not in held]
        return sorted(found)

    def _permissions(self, address: int) -> str:
        """Return those of a mapping that only NT_FILE tells of, by the segments of its file."""
        for found in self.objects:
            if found.elf is not None and address in found:
                for one in found.elf.loads():
                    if one.vaddr & -PAGE <= address - found.bias < one.vaddr + one.memsz:
                        return "".join(letter if one.flags & bit else "-"
                                       for bit, letter in ((4, "r"), (2, "w"), (1, "x")))
        return UNKNOWN

    def _special(self, address: int) -> str:
        vdso = dict(self._pairs()).get(AT_SYSINFO_EHDR)
        return "[vdso]" if vdso == address else ""

    def _pairs(self) -> list[tuple[int, int]]:
        return list(parse_auxv(self._auxv))

    def threads(self) -> list[Thread]:
        return [Thread(one["pid"], self.info.state if self.info is not None and not number else "", self.comm,
                       one[self._arch.pc]) for number, one in enumerate(self._threads)]

    def registers(self, tid: int | None) -> tuple[int, dict[str, int]]:
        for one in self._threads:
            if tid is None or one["pid"] == tid:
                return one["pid"], {name: value for name, value in one.items() if name != "pid"}
        if tid is None:
            raise KshellError("no register set available: the core has no threads")
        raise KshellError(f"the core has no thread {tid}", hint="::threads lists them")

    def auxv(self) -> list[tuple[int, int]]:
        if not self._auxv:
            raise KshellError("the core has no auxiliary vector (NT_AUXV)")
        return self._pairs()

    def strings(self) -> tuple[bytes, bytes]:
        from kshell.target.startstack import strings_at

        arguments, environment = self._pointers()
        return strings_at(self.core.virtual, arguments), strings_at(self.core.virtual, environment)

    def string_ends(self) -> tuple[int, int, int, int]:
        arguments, environment = self._pointers()
        sizes = [len(data) for data in self.strings()]
        starts = [pointers[0] if pointers else 0 for pointers in (arguments, environment)]
        return starts[0], starts[0] + sizes[0], starts[1], starts[1] + sizes[1]

    @property
    def parent(self) -> int:
        return self.info.ppid if self.info is not None else 0

    def owner(self) -> tuple[int, int]:
        ids = dict(self.auxv())
        return ids.get(AT_UID, 0), ids.get(AT_GID, 0)

    def _pointers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        from kshell.target.startstack import start_pointers

        near = dict(self.auxv()).get(AT_RANDOM, 0)
        stack = next((one for one in self._elf.loads() if one.vaddr <= near < one.vaddr + one.memsz), None)
        if stack is None:
            raise KshellError("the arguments are not found: the core does not tell where the stack was")
        vector = self._auxv[: 2 * self._word * len(self._pairs())]
        return start_pointers(self.core.virtual, vector, stack.vaddr, stack.vaddr + stack.memsz, self._word)

    def status(self) -> list[tuple[str, str]]:
        facts: list[tuple[str, str]] = []
        if self.info is not None:
            facts += [("command", self.info.arguments.rstrip()), ("uid", str(self.info.uid))]
        if self.signal:
            text = f"{SIGNALS.get(self.signal, 'signal')} ({self.signal})"
            if self.signal in WITH_ADDRESS and len(self._siginfo) >= 24:
                # behind three numbers, aligned
                place = self._siginfo[16:24] if self._word == 8 else self._siginfo[12:16]
                text += f" at 0x{int.from_bytes(place, 'little'):x}"
            facts.append(("ended by", text))
        return [*facts, ("threads", str(len(self._threads)))]


def _psinfo(data: bytes, word: int) -> PsInfo | None:
    # user and group have 16 bits in a core of 32 bits (struct compat_elf_prpsinfo)
    layout = struct.Struct("<16xIIii8x16s80s" if word == 8 else "<8xHHii8x16s80s")
    if len(data) < layout.size:
        return None
    uid, _, pid, ppid, *raw = layout.unpack_from(data)
    texts = [text.split(b"\0")[0].decode("utf-8", "surrogateescape") for text in raw]
    return PsInfo(chr(data[1]) if 32 < data[1] < 127 else "", uid, pid, ppid, *texts)


def _files(data: bytes, word: int) -> list[Mapping]:
    """Return the mappings of NT_FILE; damage ends it."""
    if len(data) < 2 * word:
        return []
    code = "Q" if word == 8 else "I"
    count, page = struct.unpack_from(f"<2{code}", data)
    if count > MAX_FILES or (2 + 3 * count) * word > len(data):
        return []
    names = data[(2 + 3 * count) * word :].split(b"\0")
    found: list[Mapping] = []
    for number in range(count):
        start, end, offset = struct.unpack_from(f"<3{code}", data, (2 + 3 * number) * word)
        name = names[number].decode("utf-8", "surrogateescape") if number < len(names) else "?"
        if start < end:
            found.append(Mapping(start, end, "", offset * page, name))
    return found


def open_user_core(core: ElfCore, path: str, mode: str, exe: str | None) -> UserTarget:
    """Return the target of the opened *core*, which is closed with it, or when this fails.

    :param exe: the program, where it is not where the core says it was
    :raises OpenError: *exe* is not there, or is not the program of this core: both build ids are shown
    """
    elf: ElfFile | None = None
    try:
        elf = ElfFile(path)
        facts = CoreFacts(core, elf, core.arch)
        memory: Memory = core.virtual
        made = facts.objects = _objects(core, facts, exe)
        backings: list[Backing] = []
        own: list[Memory] = [core]
        for found in made:
            if found.elf is not None and not found.path.startswith("["):
                parts = open_parts(found.elf.path, parts_of(found.elf), bias=found.bias)
                own.append(parts)
                if not any(one.start < found.end and found.start < one.end for one in backings):
                    backings.append(Backing(found.start, found.end, parts))
        memory = Layered(Overlay(core.virtual) if mode == "c" else core.virtual, backings, own=own)
        name = facts.comm or (PurePath(made[0].path).name if made else "?")
        target = CoreTarget(path, f"core of {name} ({facts.pid})", core.arch, memory, facts, mode=mode)
        target.on_close(elf.close)
    except FormatError as error:
        core.close()
        raise OpenError("", str(error), kind="format", hint=error.hint) from error
    except BaseException:
        core.close()
        if elf is not None:
            elf.close()
        raise
    target.cpus = [Cpu(number, facts.registers(one.tid)[1], one.tid, "PRSTATUS")
                   for number, one in enumerate(facts.threads())]
    total = sum(segment.memsz for segment in core.segments)
    held = sum(min(segment.filesz, segment.memsz) for segment in core.segments)
    target.findings["image"] = f"ELF core of a process, {total >> 10} KiB of memory, {held >> 10} KiB of it held"
    if core.complete is not None:
        target.findings["missing"] = core.complete
    for found in made:
        target.add_object(found)
    lost = [f"{one.shown}: {one.problem}" for one in made if one.problem]
    if lost:
        target.findings["files"] = f"not used: {'; '.join(lost)}"
    if not any(one.name is None and one.elf is not None for one in made):
        target.findings["program"] = "not found: kshell CORE EXE names it"
    target.object_file = files_memory(target)
    return target


def _objects(core: ElfCore, facts: CoreFacts, exe: str | None) -> list[LoadObject]:
    """Return the program and the libraries that the core says were mapped.

    :raises OpenError: as :func:`open_user_core`
    """
    flags = {mapping.start: mapping.permissions for mapping in facts.mappings()}
    entry = dict(facts._pairs()).get(AT_ENTRY, 0)
    runs = files_of([mapping._replace(permissions=flags.get(mapping.start, UNKNOWN)) for mapping in facts.files])
    found: list[LoadObject] = []
    for path, run in runs:
        program = run[0].start <= entry < run[-1].end
        wanted = _build_id_in(core, run[0].start)
        if program and exe is not None:
            found.append(_program(exe, run, wanted, entry))
            continue
        name = None if program else PurePath(path).name
        made = load(name, path, run, [path], wanted, "core")
        if made is not None:
            found.append(made)
    if exe is not None and not any(one.name is None for one in found):
        found.append(_alone(exe, entry))
    vdso = dict(facts._pairs()).get(AT_SYSINFO_EHDR)
    if vdso:
        data, _ = core.virtual.read_upto(vdso, 8192)
        try:
            elf = ElfFile("[vdso]", data)
            found.append(LoadObject("[vdso]", "[vdso]", vdso, vdso + 8192, bias_of(elf, vdso, 0), elf))
        except FormatError:
            pass
    found.sort(key=lambda one: one.name is not None)
    return found


def _program(exe: str, run: list[Mapping], wanted: str | None, entry: int) -> LoadObject:
    """Return the program *exe*, if it is the one that *run* maps."""
    made = load(None, exe, run, [exe], wanted, "core")
    if made is None or made.elf is None:
        why = made.problem if made is not None else f"{exe}: not an ELF file"
        if made is not None and "another file now" in why:
            own = ElfFile(exe).build_id
            why = f"not the program of this core: build id {own}, the core's {wanted}"
            raise OpenError(exe, why, kind="version", hint=f"the core is of {run[0].name}")
        raise OpenError("", why, kind="missing" if not os.path.exists(exe) else "format")
    if made.elf.entry + made.bias != entry and wanted is None:
        made.close()
        raise OpenError(exe, f"not the program of this core: it begins at 0x{made.elf.entry + made.bias:x}, "
                        f"the core's at 0x{entry:x}", kind="version", hint=f"the core is of {run[0].name}")
    return made


def _alone(exe: str, entry: int) -> LoadObject:
    """Return the program of a core that does not tell which files were mapped (no NT_FILE)."""
    try:
        elf = ElfFile(exe)
    except FormatError as error:
        raise OpenError("", str(error), kind="format") from error
    bias = entry - elf.entry if entry else 0
    if bias % PAGE:
        elf.close()
        raise OpenError(exe, f"not the program of this core: it begins at 0x{elf.entry:x}, the core's at 0x{entry:x}",
                        kind="version")
    parts = parts_of(elf)
    low, high = min((part[0] for part in parts), default=0), max((part[0] + part[2] for part in parts), default=0)
    return LoadObject(None, exe, low + bias, high + bias, bias, elf)


def _build_id_in(core: ElfCore, start: int) -> str | None:
    """Return the build id of the ELF file whose first page is at *start*, if the core has that page."""
    data, _ = core.virtual.read_upto(start, PAGE)
    if data[:4] != b"\x7fELF" or len(data) < PAGE:
        return None
    layout = NARROW if data[4] == 1 else WIDE
    head = layout.header.unpack_from(data)
    table, size, count = head[5], head[9], head[10]
    for number in range(min(count, 64)):
        at = table + number * size
        if size < layout.program.size or at + size > PAGE:
            return None
        row = layout.program.unpack_from(data, at)
        offset, length = row[layout.row[0]], row[layout.row[3]]
        if row[0] == PT_NOTE and offset + length <= PAGE:
            found = build_id_of(data[offset : offset + length])
            if found is not None:
                return found
    return None
