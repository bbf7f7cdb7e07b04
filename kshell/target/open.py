"""Opening: the image in a file (:mod:`kshell.target.formats`), and the target made of it.

A named file is never replaced by the running system; what is recognised but cannot be read is named.
"""

from __future__ import annotations

import time

from kshell.errors import FormatError, OpenError
from kshell.memory.image import Image
from kshell.memory.model import Memory
from kshell.memory.overlay import Overlay
from kshell.target.cpus import read_cpus
from kshell.target.formats import RAW, Options, is_raw, look_at, open_image
from kshell.target.kernels import Survey
from kshell.target.target import Cpu, Target
from kshell.target.vmcoreinfo import Vmcoreinfo

MODES = ("r", "r+", "c")
OBJECTS = (1, 2, 3)  # e_type of object files, executables and shared objects
PLAIN = Options()
#: what stands in front of a colon for what is no file
TRANSPORTS = ("gdb", "qmp", "ram", "pid")


def open_target(path: str | None, vmlinux: str | None = None, mode: str = "r", options: Options = PLAIN) -> Target:
    """Open *path*, or the running system when it is None.

    An ELF file that is no core is opened as that: :mod:`kshell.target.objectfile`.

    :param vmlinux: an ELF file with symbols of the same kernel, or a System.map; adds to what the image tells
    :param path: a file, or a virtual machine: ``qmp:SOCKET``, ``ram:FILE`` (:mod:`kshell.target.qemu`),
        ``gdb:HOST:PORT``, ``gdb:SOCKET`` (:mod:`kshell.target.gdb`)
    :param mode: "r" read only, "r+" writes go into the file, "c" writes are kept in memory and the file stays
    :param options: what cannot be seen in the image itself
    :raises OpenError: with ``kind`` telling why
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    begun = time.monotonic()
    target = _open(path, vmlinux, mode, options)
    target.opened_in = time.monotonic() - begun
    return target


def _open(path: str | None, vmlinux: str | None, mode: str, options: Options) -> Target:
    if path is None:
        if options.pause:
            raise OpenError("", "the system that kshell runs on cannot be paused", kind="unsupported")
        from kshell.target.live import open_running_system

        return open_running_system(mode)
    transport, colon, place = path.partition(":")
    if colon and transport in TRANSPORTS:
        if is_raw(options) or options.parts or options.kernel is not None:
            raise OpenError(path, "raw memory, its map, parts of a dump and its kernels are of a file", kind="format")
        target = _open_machine(transport, place, mode, options)
    elif options.pause:
        raise OpenError(path, "it does not run: there is nothing to pause", kind="unsupported")
    else:
        target = _open_file(path, mode, options, vmlinux)
    if vmlinux is not None and target.kind != "core":
        from kshell.target.vmlinux import add_vmlinux

        try:
            if target.kind == "file":
                raise OpenError(path, "an ELF file, but not a core (an executable or an object)",
                                hint="name the dump first and this file second: kshell DUMP VMLINUX")
            if target.kind == "process":
                raise OpenError(path, "a process names its program itself: no file goes with it")
            add_vmlinux(target, vmlinux)
        except BaseException:
            target.close()
            raise
    return target


def _open_machine(transport: str, place: str, mode: str, options: Options) -> Target:
    if transport == "pid":
        return _open_process(place, mode, options)
    if transport == "gdb":
        from kshell.target.gdb import open_gdb

        return open_gdb(place, mode, stay_stopped=options.stay_stopped)
    if not place:
        what = "socket" if transport == "qmp" else "file"
        raise OpenError(f"{transport}:", f"a {what} is needed behind {transport}:")
    if transport == "qmp":
        from kshell.target.qemu import open_qmp

        return open_qmp(place, mode, pause=options.pause)
    if options.pause:
        raise OpenError(f"ram:{place}", "a memory file cannot pause its machine", kind="unsupported",
                        hint="qmp:SOCKET can")
    from kshell.target.memoryfile import open_ram

    return open_ram(place, mode)


def _open_process(place: str, mode: str, options: Options) -> Target:
    from kshell.target.process import open_process

    if not (place.isascii() and place.isdecimal()) or len(place) > 9:
        raise OpenError(f"pid:{place}", "a decimal process id is needed behind pid:")
    return open_process(int(place), mode, pause=options.pause)


def _open_file(path: str, mode: str, options: Options, beside: str | None) -> Target:
    if not is_raw(options) and _elf_type(look_at(path).data) in OBJECTS:
        from kshell.target.objectfile import open_object

        return open_object(path, mode)
    image, format = open_image(path, mode, options)
    try:
        if getattr(image, "is_user_core", False):
            from kshell.memory.elfcore import ElfCore
            from kshell.target.usercore import open_user_core

            if not isinstance(image, ElfCore):
                raise OpenError(path, "a core of a user process in a flattened file: unpack it first", kind="format")
            return open_user_core(image, path, mode, beside)
        try:
            return _target_of(image, path, mode, options)
        except OpenError as error:
            if format is RAW and not is_raw(options) and error.kind == "symbols":
                raise _not_raw(path) from error
            raise
    except BaseException:
        image.close()
        raise


def _elf_type(head: bytes) -> int | None:
    """Return e_type of the ELF file that begins with *head*, or None; of those that can be looked into: of 64 bits, and
    of 32 bits for i386.
    """
    narrow = head[:6] == b"\x7fELF\1\1" and head[18:20] == b"\3\0"
    if len(head) < 64 or not (narrow or head[:6] == b"\x7fELF\2\1"):
        return None
    return int.from_bytes(head[16:18], "little")


def _not_raw(path: str) -> OpenError:
    start = look_at(path).data[:8].hex(" ")
    return OpenError(path, "not a kernel core file (no ELF header, no known dump magic), and read as raw physical "
                     "memory it has no kernel", kind="format",
                     hint=f"it starts with {start}; file(1) may know what it is")


def read_head(path: str) -> bytes:
    """Return the first bytes of *path*.

    :raises OpenError: it is not there, not a file, or may not be read
    """
    return look_at(path).data


def _target_of(dump: Image, path: str, mode: str, options: Options) -> Target:
    """Return the target in *dump*.

    :raises OpenError: nothing tells where its kernel is, or it cannot be found by that
    """
    told = dump.describe()
    target = Target(path, told, dump.arch, mode=mode)
    target.on_close(dump.close)
    physical: Memory = Overlay(dump) if mode == "c" else dump
    target.findings["image"] = told
    target.findings.update(dump.facts())
    missing = dump.complete
    if missing is not None:
        target.findings["missing"] = missing
    target.cpus = read_cpus(dump.notes, dump.arch) or [
        Cpu(number, registers, None, "state") for number, registers in enumerate(dump.registers)]
    survey = Survey(target, dump, physical, options)
    survey.attach()
    target.survey = survey.kernels
    return target


def best_vmcoreinfo(descriptions: list[bytes]) -> Vmcoreinfo | None:
    """Return the first of the VMCOREINFO notes that is one; None when there is none."""
    for data in descriptions:
        try:
            return Vmcoreinfo(data)
        except FormatError:
            continue
    return None
