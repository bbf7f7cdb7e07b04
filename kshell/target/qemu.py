"""A virtual machine under QEMU as a target by its monitor: ``qmp:SOCKET``.

The monitor tells where the guest's RAM is in QEMU's process, which is then read and written directly; where that may
not be done memory comes through the monitor, slowly. The kernel is found as in a dump that does not tell where it is:
by VMCOREINFO in the memory, else by the registers of a CPU (:mod:`kshell.target.roads`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kshell.arch.model import arch_of_machine
from kshell.errors import KshellError, OpenError
from kshell.memory.guestram import GuestRam, RamPiece, layout, open_process_memory, parse_mtree
from kshell.memory.model import Memory
from kshell.memory.overlay import Overlay
from kshell.memory.qmp import Qmp, QmpError, monitor_line
from kshell.memory.qmpmem import QmpMemory, parse_words
from kshell.target.control import Control
from kshell.target.kernels import attach_found, is_crash_kernel
from kshell.target.known import attach_known, remember
from kshell.target.target import Cpu, Target

if TYPE_CHECKING:
    from kshell.target.guard import Guard

PROBE = 512  # bytes that must read the same in QEMU's process and through its monitor
TRIES = 5
_HVA = re.compile(r" is (0x[0-9a-f]+)")
_REGISTER = re.compile(r"\b(R[A-Z0-9]{2}|R\d|RFL|CR[0-8]) *=([0-9a-f]+)")
_SEGMENT = re.compile(r"^(ES|CS|SS|DS|FS|GS) *=([0-9a-f]{4}) ([0-9a-f]{16})", re.MULTILINE)


def _object(command: str, found: object) -> dict[str, object]:
    """Return *found*, the answer to *command*. :raises QmpError: QEMU refused it, or it is no object"""
    if isinstance(found, QmpError):
        raise found
    if not isinstance(found, dict):
        raise QmpError(f"QEMU answers {command} with {str(found)[:40]!r}")
    return found


class QmpControl(Control):
    """Stops and resumes through QMP: ``stop``, ``cont``, ``query-status``."""

    def __init__(self, qmp: Qmp, *, pause: bool = False) -> None:
        super().__init__(pause=pause)
        self.qmp = qmp
        self._stands = False  # known to stand still: we stopped it, or it was told
        self._guard: Guard | None = None

    def is_running(self) -> bool:
        running = bool(_object("query-status", self.qmp.execute("query-status")).get("running"))
        self._stands = not running
        return running

    def halt(self) -> None:
        if self._guard is None:
            from kshell.target.guard import Guard

            self._guard = Guard(self.qmp.address, unix=self.qmp.is_unix)
        self._guard.tell(True)
        self.qmp.execute("stop")
        self._stands = True

    def go(self) -> None:
        self._stands = False
        self.qmp.execute("cont")
        if self._guard is not None:
            self._guard.tell(False)

    def stands(self) -> bool:
        """Whether the guest was seen standing at the start of this question: nobody is asked."""
        return self._stands

    def read_cpus(self) -> list[Cpu]:
        return parse_registers(self.qmp.monitor("info registers -a"))

    def disconnect(self) -> None:
        self.qmp.close()
        if self._guard is not None:
            self._guard.close()


def parse_registers(text: str) -> list[Cpu]:
    """Return the CPUs of ``info registers -a`` with the registers' names as dumps have them."""
    cpus: list[Cpu] = []
    for number, part in re.findall(r"^CPU#(\d+)(.*?)(?=^CPU#|\Z)", text, re.MULTILINE | re.DOTALL):
        registers: dict[str, int] = {}
        for name, value in _REGISTER.findall(part):
            registers["rflags" if name == "RFL" else name.lower()] = int(value, 16)
        for name, selector, base in _SEGMENT.findall(part):
            registers[name.lower()] = int(selector, 16)
            if name in ("FS", "GS"):
                registers[f"{name.lower()}_base"] = int(base, 16)
        cpus.append(Cpu(int(number), registers, None, "QMP"))
    return cpus


def open_qmp(address: str, mode: str = "r", *, pause: bool = False) -> Target:
    """Open the virtual machine whose QMP socket is *address*.

    :param pause: the guest is stopped for each question and resumed behind it
    :raises OpenError: there is no QEMU, or no Linux in it that is found
    """
    qmp = Qmp(address)
    control = QmpControl(qmp, pause=pause)
    name = f"qmp:{address}"
    facts = ("query-target", "query-name", "query-version", "query-status")
    try:
        *told, tree, registers = qmp.execute_all(
            *((command, {}) for command in facts), monitor_line("info mtree -f"), monitor_line("info registers -a"))
        machine, called, version, status = map(_object, facts, told)
        arch = arch_of_machine(str(machine.get("arch")))
        target = Target(name, "", arch, mode=mode, live=True)
        target.control = control
        target.on_close(control.close)
    except KshellError as error:
        control.close()
        raise OpenError(name, str(error), kind="unsupported", hint=error.hint) from error
    try:
        pieces = _pieces(name, tree)
        _describe(target, str(called.get("name") or ""), version.get("qemu"), pieces)
        with target.question():
            physical = _memory(target, qmp, control, pieces)
            cpus = parse_registers(registers) if isinstance(registers, str) else []
            if not _attach_known(target, Overlay(physical) if mode == "c" else physical, cpus):
                _attach(target, physical, mode, "the virtual machine")
                remember(target)
        if status.get("running"):
            target.unsettled()
    except BaseException:
        target.close()
        raise
    return target


def _attach_known(target: Target, physical: Memory, cpus: list[Cpu]) -> bool:
    """Attach the kernel that runs on *cpus* if it was here before: nothing is looked for in the memory then.

    A crash kernel is not meant: the one that died lies in the memory.
    """
    if attach_known(target, physical, cpus):
        if not is_crash_kernel(target):
            return True
        target.forget_kernel()
    return False


def _attach(target: Target, physical: Memory, mode: str, what: str) -> None:
    if not attach_found(target, Overlay(physical) if mode == "c" else physical):
        raise OpenError(target.path, f"no Linux is found in {what}: neither VMCOREINFO nor a kernel's page tables",
                        kind="symbols", hint="is it past its boot loader? a guest that has just been started is not")


def _pieces(name: str, tree: object) -> list[RamPiece]:
    """Return where the guest's RAM is, of the answer to ``info mtree -f``."""
    try:
        if isinstance(tree, QmpError):
            raise tree
        return parse_mtree(str(tree))
    except KshellError as error:
        raise OpenError(name, f"QEMU does not tell where the guest's RAM is: {error}", kind="unsupported") from error


def _describe(target: Target, guest: str, version: object, pieces: list[RamPiece]) -> None:
    size = sum(piece.end - piece.start for piece in pieces if piece.writable)
    parts = version if isinstance(version, dict) else {}
    release = ".".join(str(parts.get(part, "?")) for part in ("major", "minor", "micro"))
    called = f" {guest}" if guest else ""
    target.description = f"virtual machine{called} (QEMU {release}, {target.arch.name}), {size >> 20} MiB of RAM"
    target.findings["image"] = target.description


def _memory(target: Target, qmp: Qmp, control: QmpControl, pieces: list[RamPiece]) -> Memory:
    """Return the guest's physical memory, by the quickest road that is open; ``findings`` tell which."""
    try:
        ram = _process_memory(qmp, control, pieces, target.mode == "r+")
    except KshellError as error:
        slow = QmpMemory(qmp, pieces, str(error), control.stands)
        target.on_close(slow.close)
        target.findings["memory"] = f"through the monitor, which is slow and cannot write: {error}"
        return slow
    target.on_close(ram.close)
    target.findings["memory"] = f"QEMU's own, {ram.path}; RAM at {layout(ram.pieces)}"
    return ram


def _process_memory(qmp: Qmp, control: QmpControl, pieces: list[RamPiece], writable: bool) -> GuestRam:
    """Return the RAM in QEMU's process.

    :raises KshellError: it is not found, may not be read, or is not this guest's
    """
    # one block of QEMU's lies in one piece of its memory, wherever the guest sees the parts of it
    largest = [block[0] for block in _blocks(pieces)]
    probes = _probes(largest)
    told = qmp.monitor_all([*(f"gpa2hva 0x{piece.start:x}" for piece in largest), *map(_shown, probes)])
    starts = {piece.block: _host_address(text) - piece.offset for piece, text in zip(largest, told, strict=False)}
    places = [starts[piece.block] + piece.offset for piece in pieces]
    shown = dict(zip(probes, told[len(largest) :], strict=True))
    why = "no process of this machine listens at that socket"
    for pid in _processes(qmp):
        try:
            descriptor = open_process_memory(pid, writable)
        except OSError as error:
            why = f"process {pid} may not be read ({error.strerror})"
            continue
        ram = GuestRam(f"/proc/{pid}/mem", descriptor, pieces, places, writable=writable, still=control.stands)
        if _is_the_guest(qmp, ram, shown):
            return ram
        ram.close()
        why = f"process {pid} is not the one that runs this guest"
    raise KshellError(why)


def _blocks(pieces: list[RamPiece]) -> list[list[RamPiece]]:
    """Return *pieces* by the RAM block that they are of, the largest of each first."""
    found: dict[str, list[RamPiece]] = {}
    for piece in sorted(pieces, key=lambda piece: piece.start - piece.end):
        found.setdefault(piece.block, []).append(piece)
    return list(found.values())


def _host_address(text: str) -> int:
    """Return what ``gpa2hva`` answered. :raises KshellError: no address"""
    found = _HVA.search(text)
    if found is None:
        raise KshellError(f"QEMU does not tell the host address of its RAM: {text.strip()[:100]}")
    return int(found[1], 16)


def _processes(qmp: Qmp) -> Iterator[int]:
    """Yield who may be QEMU: who listens on the socket, then whoever holds the listening one."""
    if qmp.peer:
        yield qmp.peer
    inodes = set()
    with suppress(OSError):
        where = os.path.realpath(qmp.address)
        for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
            fields = line.split(None, 7)
            if len(fields) == 8 and os.path.realpath(fields[7]) == where:
                inodes.add(f"socket:[{fields[6]}]")
    for folder in Path("/proc").iterdir() if inodes else ():
        if folder.name.isdigit() and int(folder.name) != qmp.peer and _holds(folder, inodes):
            yield int(folder.name)


def _holds(folder: Path, inodes: set[str]) -> bool:
    try:
        return any(os.readlink(entry) in inodes for entry in (folder / "fd").iterdir())
    except OSError:
        return False


def _probes(pieces: list[RamPiece]) -> list[int]:
    """Return the addresses of two places in each of *pieces*."""
    middles = [piece.start + (piece.end - piece.start) // 2 & -PROBE for piece in pieces]
    return sorted({piece.start for piece in pieces} | set(middles))


def _shown(address: int) -> str:
    """Return the monitor's line that shows PROBE bytes at *address*."""
    return f"xp /{PROBE // 8}gx 0x{address:x}"


def _is_the_guest(qmp: Qmp, ram: GuestRam, shown: dict[int, str]) -> bool:
    """Whether *ram* reads what the monitor has *shown* of some places; what differs may have changed meanwhile."""
    for _ in range(TRIES):
        wrong = [at for at, text in shown.items() if not _agree(ram, at, text)]
        if not wrong:
            return True
        shown = dict(zip(wrong, qmp.monitor_all(list(map(_shown, wrong))), strict=True))
    return False


def _agree(ram: GuestRam, address: int, text: str) -> bool:
    try:
        return ram.read(address, PROBE) == parse_words(text, address, PROBE)
    except KshellError:
        return False
