"""What a file is: an ordered, explicit list of looks at its first bytes. What is known and not read is named.

A format that is read has a function that opens it; one that is not has the next step.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import NamedTuple

from kshell.errors import FormatError, OpenError
from kshell.memory.image import Image

HEADER = 8192
PAGE = 4096
LEAST_RAW = 1 << 20  # bytes from which on a file without a known magic may be raw memory

#: told of work that takes long: (what is done, how much of it, of how much)
Progress = Callable[[str, int, int], None]


def _nobody(what: str, done: int, total: int) -> None:
    """Tell nobody how far work is."""


class Options(NamedTuple):
    """What may be said of an image that cannot be seen in it.

    :ivar raw: it is raw physical memory, whatever it looks like
    :ivar phys_base: of raw memory, the physical address of its first byte
    :ivar map: of raw memory, a file that tells which runs it has
    :ivar parts: the other files of a split dump
    :ivar stay_stopped: leave a machine that was stopped so at the end
    :ivar kernel: which of several kernels in it, from 1; None is the one that the image is of
    :ivar pause: a machine or process that runs is stopped for each question and resumed behind it
    :ivar progress: told of work that takes long
    """

    raw: bool = False
    phys_base: int = 0
    map: str | None = None
    parts: tuple[str, ...] = ()
    kernel: int | None = None
    pause: bool = False
    stay_stopped: bool = False
    progress: Progress = _nobody


class Head(NamedTuple):
    """A file's name, its first bytes, and how many it has."""

    path: str
    data: bytes
    size: int

    def at(self, offset: int, *words: bytes) -> bool:
        """Whether one of *words* is at *offset*."""
        return any(self.data[offset : offset + len(word)] == word for word in words)


class Format(NamedTuple):
    """One format.

    :ivar is_it: looks at the first bytes
    :ivar open: None where it is not read; then ``hint`` is the next step
    """

    name: str
    is_it: Callable[[Head], bool]
    open: Callable[[str, str, Options], Image] | None = None
    hint: str = ""


def magic(*words: bytes, at: int = 0) -> Callable[[Head], bool]:
    """Return the look for one of *words* at an offset."""
    return lambda head: head.at(at, *words)


# -- formats that are read; their modules are imported when one is opened ----------------------------------------------


def _elf(path: str, mode: str, _: Options) -> Image:
    from kshell.memory.elfcore import open_elfcore

    return open_elfcore(path, "r+" if mode == "r+" else "r")


def _kdump(path: str, mode: str, options: Options) -> Image:
    from kshell.memory.kdump import open_kdump

    return open_kdump(path, mode, options.parts)


def _flattened(path: str, mode: str, options: Options) -> Image:
    from kshell.memory.elfcore import FlatElfCore
    from kshell.memory.file import open_file
    from kshell.memory.kdump import SIGNATURES, Kdump
    from kshell.memory.source import FileSource, FlattenedSource

    if mode == "r+":
        raise OpenError(path, "a flattened dump cannot be written in place", kind="permission",
                        hint="--cow keeps writes in memory instead")
    below = FileSource(path, open_file(path))
    try:
        source = FlattenedSource(below, options.progress)
        first = source.pread(8, 0)
        if first[:4] == b"\x7fELF":
            return FlatElfCore(path, source)
        if first in SIGNATURES or not first:
            return Kdump(path, source, options.parts)
        raise OpenError(path, f"a flattened file of something else (it begins with {first.hex(' ')})", kind="format")
    except FormatError as error:
        below.close()
        raise OpenError(path, str(error).removeprefix(f"{path}: "), kind="header") from error
    except BaseException:
        below.close()
        raise


def _lime(path: str, mode: str, _: Options) -> Image:
    from kshell.memory.lime import open_lime

    return open_lime(path, mode)


def _avml(path: str, mode: str, _: Options) -> Image:
    from kshell.memory.avml import open_avml

    return open_avml(path, mode)


def _vmware(path: str, mode: str, _: Options) -> Image:
    from kshell.memory.vmware import open_vmware

    return open_vmware(path, mode)


def _raw(path: str, mode: str, options: Options) -> Image:
    from kshell.memory.raw import open_raw

    return open_raw(path, mode, options.phys_base, options.map)


def _is_vmem(head: Head) -> bool:
    from kshell.memory.vmware import state_beside

    return head.path.endswith(".vmem") and state_beside(head.path) is not None


def _is_vmss(head: Head) -> bool:
    return head.at(0, *(struct.pack("<I", word) for word in (
        0xBED2BED2, 0xBED3BED3, 0xBAD1BAD1, 0xBAD2BAD2, 0xBED0BED0)))


def _is_zlib(head: Head) -> bool:
    """Whether it begins with a zlib stream (RFC 1950), as LiME writes with compress=1; two bytes alone are no sign."""
    first = int.from_bytes(head.data[:2], "big")
    if first % 31 or first >> 8 & 0xF != 8 or first >> 12 > 7:
        return False
    import zlib

    try:
        return len(zlib.decompressobj().decompress(head.data, 64)) == 64
    except zlib.error:
        return False


UNPACK = "unpack it first: "
VIRTUAL = "have its hypervisor write a dump of the memory: virsh dump --memory-only, dump-guest-memory"

#: In this order. Wherever two could match, the one whose sign is longer or surer comes first.
FORMATS: tuple[Format, ...] = (
    Format("a flattened dump", magic(b"makedumpfile\0"), _flattened),
    Format("a kdump-compressed dump", magic(b"KDUMP   ", b"DISKDUMP"), _kdump),
    Format("an ELF core", magic(b"\x7fELF"), _elf),
    Format("a LiME image", magic(b"EMiL"), _lime),
    Format("an AVML image", magic(b"AVML"), _avml),
    Format("a VMware state", _is_vmss, _vmware),
    Format("a VMware memory file", _is_vmem, _vmware),
    Format("a LiME image with a big-endian magic", magic(b"LiME")),
    Format("a sadump dump", magic(b"sadump\0\0"), hint="makedumpfile converts it: makedumpfile -c IN OUT"),
    Format("an LKCD dump", magic(b"\xed\x23\x8f\x61\x73\x01\x19\xa8"), hint="crash(8) reads it"),
    Format("an s390 dump", magic(b"\xa8\x19\x01\x73\x61\x8f\x23\xfd"), hint="zgetdump converts it to ELF"),
    Format("a netdump of a 2.4 kernel", magic(b"netdump"), hint="crash(8) reads it"),
    Format("a hibernation image", magic(b"S1SUSPEND", b"ULSUSPEND", b"LINHIB0001", at=PAGE - 10),
           hint="the kernel that wrote it has to resume from it"),
    Format("a swap area", magic(b"SWAPSPACE2", b"SWAP-SPACE", at=PAGE - 10), hint="it holds no kernel"),
    Format("a Windows crash dump", magic(b"PAGEDU64", b"PAGEDUMP"), hint="WinDbg and volatility read it"),
    Format("a Windows hibernation file", magic(b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR"),
           hint="volatility reads it"),
    Format("a VirtualBox saved state", magic(b"\x7fVirtualBox SavedState"),
           hint="VBoxManage debugvm NAME dumpvmcore writes an ELF core of the running machine"),
    Format("a QEMU migration stream", magic(b"QEVM"), hint=VIRTUAL),
    Format("a libvirt save file", magic(b"LibvirtQemudSave", b"LibvirtQemudPart"), hint=VIRTUAL),
    Format("a Xen save file", magic(b"LinuxGuestRecord", b"XenSavedDomain"), hint="xl dump-core writes an ELF core"),
    Format("a QEMU disk image", magic(b"QFI\xfb"), hint=VIRTUAL),
    Format("a VMware disk image", magic(b"KDMV", b"COWD"), hint="the memory is in a .vmem or .vmss"),
    Format("a VirtualBox disk image", magic(b"\x7f\x10\xda\xbe", at=64), hint=VIRTUAL),
    Format("a Hyper-V disk image", magic(b"vhdxfile", b"conectix"), hint=VIRTUAL),
    Format("a tar archive", magic(b"ustar", at=257), hint=f"{UNPACK}tar xf"),
    Format("gzip-compressed", magic(b"\x1f\x8b"), hint=f"{UNPACK}gzip -d"),
    Format("xz-compressed", magic(b"\xfd7zXZ\0"), hint=f"{UNPACK}xz -d"),
    Format("zstd-compressed", magic(b"\x28\xb5\x2f\xfd"), hint=f"{UNPACK}zstd -d"),
    Format("lz4-compressed", magic(b"\x04\x22\x4d\x18"), hint=f"{UNPACK}lz4 -d"),
    Format("bzip2-compressed", magic(b"BZh"), hint=f"{UNPACK}bzip2 -d"),
    Format("lzop-compressed", magic(b"\x89LZO\0\r\n\x1a\n"), hint=f"{UNPACK}lzop -d"),
    Format("a zip archive", magic(b"PK\3\4"), hint=f"{UNPACK}unzip"),
    Format("a 7z archive", magic(b"7z\xbc\xaf\x27\x1c"), hint=f"{UNPACK}7z x"),
    Format("zlib-compressed, as LiME writes with compress=1", _is_zlib,
           hint=f"{UNPACK}pigz -dcz, or zlib-flate -uncompress"),
    Format("a bootable kernel (bzImage)", magic(b"HdrS", at=0x202), hint="name a dump of the machine's memory"),
)
RAW = Format("raw physical memory", lambda head: head.size >= LEAST_RAW and head.size % PAGE == 0, _raw)


def is_raw(options: Options) -> bool:
    """Whether it is said that an image is raw memory."""
    return options.raw or options.map is not None or options.phys_base != 0


def recognise(head: Head) -> Format | None:
    """Return the first format whose sign *head* has, raw memory last; None when there is none."""
    return next((format for format in (*FORMATS, RAW) if format.is_it(head)), None)


def open_image(path: str, mode: str, options: Options) -> tuple[Image, Format]:
    """Open the image at *path*, whatever its format.

    :raises OpenError: it is not there or may not be read; it is of no known format, of one that is not read, or damaged
    """
    head = look_at(path)
    found = RAW if is_raw(options) else recognise(head)
    if not head.data:
        raise OpenError(path, "the file is empty: it has no header", kind="header")
    if found is None:
        raise OpenError(path, "not a kernel core file (no ELF header, no known dump magic)", kind="format",
                        hint=f"it starts with {head.data[:8].hex(' ')}; file(1) may know what it is")
    if found.open is None:
        raise OpenError(path, f"{found.name}: recognised, but not read by kshell", kind="unsupported",
                        hint=found.hint or None)
    if options.parts and found.open not in (_kdump, _flattened):
        raise OpenError(path, f"{found.name}: no part of a split dump, and other parts are named", kind="format")
    return found.open(path, mode, options), found


def look_at(path: str) -> Head:
    """Return the first bytes of *path*, and its size.

    :raises OpenError: it is not there, neither a file nor a block device, or may not be read
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise OpenError(path, "no such file", kind="missing") from error
    except PermissionError as error:
        hint = "dumps are often root's: sudo kshell ..."
        raise OpenError(path, "permission denied", kind="permission", hint=hint) from error
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OpenError(path, "is a socket, or a device that is not there", kind="format",
                            hint="a virtual machine is opened as qmp:SOCKET or gdb:SOCKET") from error
        raise OpenError(path, error.strerror or str(error), kind="missing") from error
    data = b""
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise OpenError(path, "is a directory", kind="format", hint="name the dump in it")
        if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
            raise OpenError(path, "is a pipe: a dump is read here and there, not from its beginning to its end",
                            kind="format", hint="copy it into a file first")
        while len(data) < HEADER:  # a file system over the network may give less than it was asked for
            part = os.read(descriptor, HEADER - len(data))
            if not part:
                break
            data += part
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
        except OSError:
            size = len(data)
        return Head(path, data, size)
    except OSError as error:
        raise OpenError(path, f"cannot be read at 0x{len(data):x}: {error.strerror or error}", kind="format") from error
    finally:
        os.close(descriptor)
