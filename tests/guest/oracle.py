"""What the guest's kernel itself said just before the dump: the files under ``oracle/`` and their typed readers.

The files keep their guest paths (``oracle/proc/1/stat``). Formats: Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PAGE_PRESENT, PAGE_SWAPPED = 1 << 63, 1 << 62
PAGE_FRAME = (1 << 55) - 1


@dataclass(frozen=True)
class KallsymsLine:
    address: int
    kind: str
    name: str
    module: str | None


@dataclass(frozen=True)
class ProcessLine:
    """One task from its ``stat`` and ``status``; *uid*, *gid* (real) and *vm_rss* (bytes) are None where not kept."""

    pid: int
    ppid: int
    comm: str
    state: str
    tgid: int
    uid: int | None
    gid: int | None
    vm_rss: int | None


@dataclass(frozen=True)
class MapsLine:
    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    name: str


@dataclass(frozen=True)
class ModuleLine:
    name: str
    size: int
    references: int
    used_by: tuple[str, ...]
    state: str
    address: int


@dataclass(frozen=True)
class KmsgRecord:
    priority: int
    sequence: int
    microseconds: int
    text: str


class Oracle:
    """The oracle folder of one guest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the file kept for a guest path (``/proc/version`` or ``proc/version``)."""
        return self.folder / name.lstrip("/")

    def content(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def text(self, name: str) -> str:
        return self.content(name).decode("utf-8", "surrogateescape")

    @cached_property
    def _kallsyms(self) -> list[KallsymsLine]:
        return [parse_kallsyms_line(line) for line in self.text("proc/kallsyms").splitlines()]

    def kallsyms(self) -> list[KallsymsLine]:
        """Return /proc/kallsyms, in its order."""
        return self._kallsyms

    def symbol(self, name: str) -> int:
        """Return the address of the first symbol of that name in the kernel proper."""
        for line in self._kallsyms:
            if line.name == name and line.module is None:
                return line.address
        raise KeyError(name)

    def pids(self) -> list[int]:
        """Return the pids of all processes (thread-group leaders), ascending."""
        return sorted(int(path.name) for path in (self.folder / "proc").iterdir() if path.name.isdigit())

    def processes(self) -> list[ProcessLine]:
        """Return all processes, by pid."""
        return [self._task(f"proc/{pid}", pid) for pid in self.pids()]

    def process(self, comm: str) -> ProcessLine:
        """Return the first process of that name."""
        return next(line for line in self.processes() if line.comm == comm)

    def threads(self) -> list[ProcessLine]:
        """Return all threads, leaders too, by thread id."""
        found = []
        for pid in self.pids():
            folder = self.path(f"proc/{pid}/task")
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            found += [self._task(f"proc/{pid}/task/{name}", pid) for name in names]
        return sorted(found, key=lambda line: line.pid)

    def cmdline(self, pid: int) -> list[bytes]:
        """Return a process's arguments; none for a kernel thread."""
        return self.content(f"proc/{pid}/cmdline").split(b"\0")[:-1]

    def environ(self, pid: int) -> list[bytes]:
        return self.content(f"proc/{pid}/environ").split(b"\0")[:-1]

    def maps(self, pid: int) -> list[MapsLine]:
        return [parse_maps_line(line) for line in self.text(f"proc/{pid}/maps").splitlines()]

    def pagemap(self, pid: int) -> dict[int, int]:
        """Return virtual page address -> raw 64-bit entry; see Documentation/admin-guide/mm/pagemap.rst."""
        return dict(struct.iter_unpack("<QQ", self.content(f"proc/{pid}/pagemap")))

    def vtop(self, pid: int, vaddr: int) -> int | None:
        """Return the physical address of a process's virtual one; None when it is not in memory."""
        entry = self.pagemap(pid).get(vaddr & ~4095, 0)
        return (entry & PAGE_FRAME) << 12 | vaddr & 4095 if entry & PAGE_PRESENT else None

    def stack(self, pid: int, tid: int | None = None) -> list[str]:
        """Return a sleeping task's kernel stack as ``function+0xoffset/0xsize``, innermost first."""
        folder = f"proc/{pid}" if tid is None else f"proc/{pid}/task/{tid}"
        return [line.split(" ", 1)[1] for line in self.text(f"{folder}/stack").splitlines()]

    def links(self, pid: int) -> dict[str, str]:
        """Return where ``exe``, ``cwd`` and each open file (by number) lead."""
        pairs = (line.partition(" -> ") for line in self.text(f"proc/{pid}/links").splitlines())
        return {name: target for name, _, target in pairs}

    def modules(self) -> list[ModuleLine]:
        """Return /proc/modules, in its order (newest first)."""
        return [parse_module_line(line) for line in self.text("proc/modules").splitlines()]

    def sections(self, module: str) -> dict[str, int]:
        """Return a module's sections, name -> address."""
        folder = self.path(f"sys/module/{module}/sections")
        return {path.name: int(path.read_text(), 16) for path in folder.iterdir()} if folder.is_dir() else {}

    def meminfo(self) -> dict[str, int]:
        """Return /proc/meminfo; sizes in bytes, counts as they are."""
        pairs = (line.split(":") for line in self.text("proc/meminfo").splitlines())
        return {name: int(value.split()[0]) * (1024 if value.endswith("kB") else 1) for name, value in pairs}

    def dmesg(self) -> list[KmsgRecord]:
        """Return the kernel log's records."""
        return parse_kmsg(self.text("dev/kmsg"))

    def victim(self) -> dict[str, int]:
        """Return the victim's addresses by name; victim.c says what they are."""
        return self.part("victim")

    def part(self, name: str) -> dict[str, int]:
        """Return what one of the guest's programs told about itself (``threads``, ``hugetlb``, ...)."""
        return {key: int(value) for key, value in json.loads(self.text(f"run/{name}.json")).items()}

    @property
    def release(self) -> str:
        return self.text("proc/sys/kernel/osrelease").strip()

    def _task(self, folder: str, tgid: int) -> ProcessLine:
        stat = parse_stat(self.text(f"{folder}/stat"))
        path = self.path(f"{folder}/status")
        status = dict(re.findall(r"(?m)^(\w+):\s*(\d+)", path.read_text(errors="replace"))) if path.exists() else {}
        uid, gid, resident = (int(status[name]) if name in status else None for name in ("Uid", "Gid", "VmRSS"))
        bytes_resident = None if resident is None else resident * 1024
        return ProcessLine(stat[0], stat[3], stat[1], stat[2], tgid, uid, gid, bytes_resident)


def parse_kallsyms_line(line: str) -> KallsymsLine:
    address, kind, rest = line.split(" ", 2)
    name, _, module = rest.partition("\t")
    return KallsymsLine(int(address, 16), kind, name, module.strip("[]") or None)


def parse_stat(text: str) -> tuple[int, str, str, int]:
    """Return pid, comm, state and ppid; the comm may hold anything, parentheses too."""
    pid, _, rest = text.partition(" (")
    comm, _, fields = rest.rpartition(") ")
    state, ppid = fields.split()[:2]
    return int(pid), comm, state, int(ppid)


def parse_maps_line(line: str) -> MapsLine:
    fields = line.split(None, 5)
    start, end = (int(value, 16) for value in fields[0].split("-"))
    name = fields[5] if len(fields) > 5 else ""
    return MapsLine(start, end, fields[1], int(fields[2], 16), fields[3], int(fields[4]), name)


def parse_module_line(line: str) -> ModuleLine:
    name, size, references, users, state, address = line.split()[:6]
    used_by = tuple(user for user in users.split(",") if user not in ("", "-"))
    return ModuleLine(name, int(size), int(references), used_by, state, int(address, 16))


def parse_kmsg(text: str) -> list[KmsgRecord]:
    """Return /dev/kmsg's records; indented lines (dictionaries) are left out."""
    records = []
    for line in text.split("\n"):
        head, semicolon, message = line.partition(";")
        if semicolon and line[:1].isdigit():
            priority, sequence, microseconds = head.split(",")[:3]
            records.append(KmsgRecord(int(priority), int(sequence), int(microseconds), message))
    return records
