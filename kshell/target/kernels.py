"""The kernels in one image: the one that it is of is taken; others in it are listed and can be chosen.

Where there are several the image is of the one that died or runs, not of the crash kernel that was started to save the
memory: that one has ``elfcorehdr=`` in its command line (kexec-tools: crashdump-elf.c). What a long look at the memory
found is kept on disk (:mod:`kshell.memory.filekey`), and checked again when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kshell import cache
from kshell.errors import Fault, FormatError, KshellError, OpenError, Reason
from kshell.memory.image import Image
from kshell.memory.model import Memory
from kshell.target.formats import Options, Progress
from kshell.target.kernel import attach_kernel
from kshell.target.roads import Road, iter_roads, road_to
from kshell.target.scan import find_vmcoreinfo, read_vmcoreinfo
from kshell.target.space import AddressSpace
from kshell.target.target import Target
from kshell.target.vmcoreinfo import Vmcoreinfo

KIND, VERSION = "survey", 1
NOTE = "the dump's VMCOREINFO"
MAX_KERNELS = 64
MAX_LINE = 4096  # bytes of a command line
CRASH_WORD = b"elfcorehdr="


class Found(NamedTuple):
    """A kernel that an image may be of: ``how`` it was found, and its address space where VMCOREINFO did not tell."""

    how: str
    info: Vmcoreinfo
    road: Road | None = None


class Kernel(NamedTuple):
    """A kernel in an image, for people."""

    number: int
    release: str
    how: str
    is_crash_kernel: bool
    chosen: bool

    def __str__(self) -> str:
        role = ", a crash kernel" if self.is_crash_kernel else ""
        return f"{self.number}{' (this one)' if self.chosen else ''}: {self.release}{role}, {self.how}"


class Survey:
    """The search for the kernels of one image."""

    def __init__(self, target: Target, image: Image | None, physical: Memory, options: Options) -> None:
        self.target, self.image, self.physical, self.options = target, image, physical, options
        told = image.described() if image is not None else []
        self.notes = [info for info in map(_parsed, told) if info is not None]
        self.chosen: tuple[int, int] | None = None
        self.problem: OpenError | None = None  # why the dump's own VMCOREINFO leads nowhere
        self.unread: Fault | None = None  # the first place that the medium did not give

    def attach(self) -> None:
        """Attach the kernel that the image is of, or the one that was asked for.

        :raises OpenError: there is none; or there is none of that number
        """
        if self.options.kernel is not None:
            self._attach_number(self.options.kernel)
            return
        if self.notes:
            try:
                self._attach(Found(NOTE, self.notes[0]))
                return
            except OpenError as error:
                self.problem = error
        second: Found | None = None
        told: list[str] = []
        for number, (found, crash) in enumerate(self._others(self.options.progress, all_of_them=False), 1):
            told.append(str(Kernel(number, found.info.release, found.how, crash, not crash)))
            if not crash:
                self._list(told)
                return
            second = second or found
            self.target.forget_kernel()
        if second is None:
            if self.problem is not None:
                raise self.problem
            raise self._nothing()
        self._attach(second)
        self._list(told)

    def _nothing(self) -> OpenError:
        missing = self.target.findings.get("missing")
        lost = f"; {missing}" if missing else ""
        if self.unread is not None:
            raise OpenError(self.target.path, f"no kernel is found in what can be read of it{lost}; {self.unread}",
                            kind="symbols" if self.image is None else "format",
                            hint="copy what can be read of it elsewhere: ddrescue")
        why = f"a dump without VMCOREINFO, and none in its memory, so nothing tells where its kernel is{lost}"
        return OpenError(
            self.target.path, why, kind="symbols", hint="copy the dump again" if missing else
            "QEMU writes VMCOREINFO with -device vmcoreinfo and qemu_fw_cfg.ko loaded in the guest")

    def kernels(self, progress: Progress = lambda what, done, total: None) -> list[Kernel]:
        """Return all kernels in the image; looks at all of its memory the first time."""
        scratch = Target(self.target.path, "", self.target.arch)
        scratch.cpus = self.target.cpus
        other = Survey(scratch, self.image, self.physical, Options())
        return [Kernel(number, found.info.release, found.how, crash, _identity(scratch) == self.chosen)
                for number, (found, crash) in enumerate(other.all_of_them(progress), 1)]

    def all_of_them(self, progress: Progress) -> Iterator[tuple[Found, bool]]:
        """Attach one after the other; yield each with whether it is a crash kernel."""
        seen: set[tuple[int, int]] = set()
        for info in self.notes[:1]:
            found = Found(NOTE, info)
            try:
                self._attach(found)
            except OpenError:
                continue
            seen.add(_identity(self.target))
            yield found, is_crash_kernel(self.target)
        for found, crash in self._others(progress, all_of_them=True):
            if _identity(self.target) not in seen:
                seen.add(_identity(self.target))
                yield found, crash

    def _attach_number(self, wanted: int) -> None:
        rows: list[Kernel] = []
        for number, (found, crash) in enumerate(self.all_of_them(self.options.progress), 1):
            rows.append(Kernel(number, found.info.release, found.how, crash, number == wanted))
            if number == wanted:
                self._list(list(map(str, rows)))
                return
            self.target.forget_kernel()
        if not rows:
            raise self._nothing()
        raise OpenError(self.target.path, f"no kernel {wanted} in it: there {'is' if len(rows) == 1 else 'are'} "
                        f"{len(rows)}", kind="missing", hint="; ".join(map(str, rows)))

    def _attach(self, found: Found) -> None:
        road = found.road
        self.target.forget_kernel()
        attach_kernel(self.target, self.physical, found.info, road.space if road is not None else None)
        self.chosen = _identity(self.target)
        self._note(found)

    def _note(self, found: Found) -> None:
        """Write down how the kernel was found."""
        findings = self.target.findings
        if found.road is not None:
            levels = found.road.space.format.levels
            findings["kernel"] = f"{found.info.release}, {levels}-level page tables found by {found.road.how}"
            findings["VMCOREINFO"] = "none in the dump or its memory"
            findings["kallsyms"] = found.road.told
        elif found.how != NOTE:
            where = found.how.removeprefix("VMCOREINFO ")
            told = "" if self.target.live else "not in the dump's notes; " if self.problem is None else (
                f"the dump's own leads nowhere ({self.problem}); ")
            findings["VMCOREINFO"] = f"{told}found in its memory {where}"

    def _list(self, told: list[str]) -> None:
        if len(told) > 1:
            self.target.findings["kernels"] = f"{'; '.join(told)}; --kernel chooses"

    def _others(self, progress: Progress, *, all_of_them: bool) -> Iterator[tuple[Found, bool]]:
        """Attach and yield those found in the memory itself, by VMCOREINFO or, where there is none, by the roads."""
        seen: set[tuple[int, int]] = set()
        kept = _Kept(self.image.content_key() if self.image is not None else None)
        count = 0
        for found in self._candidates(kept, progress, all_of_them):
            try:
                self._attach(found)
            except OpenError:
                continue
            if _identity(self.target) in seen:
                continue
            seen.add(_identity(self.target))
            count += 1
            yield found, is_crash_kernel(self.target)
            if count >= MAX_KERNELS:
                return

    def _candidates(self, kept: _Kept, progress: Progress, all_of_them: bool) -> Iterator[Found]:
        any_text = False
        known = list(kept.places)
        for address in known:
            info = read_vmcoreinfo(self.physical, address)
            if info is not None:
                any_text = True
                yield Found(f"VMCOREINFO at physical 0x{address:x}", info)
        if not kept.whole:
            try:
                for address, info in find_vmcoreinfo(self.physical, progress, self._unread):
                    kept.add_place(address)
                    if address not in known:
                        any_text = True
                        yield Found(f"VMCOREINFO at physical 0x{address:x}", info)
                kept.whole = self.unread is None
            finally:
                kept.store()
        if any_text and not all_of_them and self.chosen is not None:
            return
        for road in self._roads(kept, progress):
            yield Found(f"page tables at physical 0x{road.space.root:x}", road.info, road)

    def _unread(self, fault: Fault) -> None:
        if fault.reason is Reason.IO:
            self.unread = self.unread or fault

    def _roads(self, kept: _Kept, progress: Progress) -> Iterator[Road]:
        for root, levels in list(kept.roots):
            road = road_to(self.physical, self.target.arch, root, levels)
            if road is not None:
                yield road
        if not kept.walked:
            for road in iter_roads(self.physical, self.target.arch, self.target.cpus, progress):
                kept.add_root(road.space)
                kept.store()
                yield road
            kept.walked = self.unread is None
            kept.store()


def attach_found(target: Target, physical: Memory) -> bool:
    """Attach the kernel that is found in *physical*, a machine that runs; False when there is none."""
    try:
        Survey(target, None, physical, Options(progress=target.progress or (lambda what, done, total: None))).attach()
    except OpenError as error:
        if error.kind != "symbols":
            raise
        return False
    return True


def _parsed(data: bytes) -> Vmcoreinfo | None:
    try:
        return Vmcoreinfo(data)
    except FormatError:
        return None


def _identity(target: Target) -> tuple[int, int]:
    """Return what two ways to the same kernel share: where its image is, virtually and physically."""
    info = target.vmcoreinfo
    try:
        return (0, 0) if info is None else (info.kernel_offset, info.number("phys_base") or 0)
    except FormatError:
        return 0, 0


def is_crash_kernel(target: Target) -> bool:
    """Whether the kernel was started by kexec to save the memory of one that died; False when that cannot be told."""
    try:
        at = target.kernel.u64(target.address_of("saved_command_line"))
        data, _ = target.kernel.read_upto(at, MAX_LINE)
    except KshellError:
        return False
    return CRASH_WORD in data.split(b"\0", 1)[0]


class _Kept:
    """What looks at an image's memory found, on disk: where VMCOREINFO is, which top tables there are."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.places: list[int] = []
        self.roots: list[tuple[int, int]] = []
        self.whole = self.walked = False
        data = cache.load(KIND, key, VERSION) if key is not None else None
        for line in bytes(data).decode("ascii", "replace").splitlines() if data is not None else ():
            word, *numbers = line.split()
            try:
                if word == "at":
                    self.places.append(int(numbers[0], 16))
                elif word == "root":
                    self.roots.append((int(numbers[0], 16), int(numbers[1])))
            except (ValueError, IndexError):
                continue
            self.whole = self.whole or word == "whole"
            self.walked = self.walked or word == "walked"

    def add_place(self, address: int) -> None:
        if address not in self.places and len(self.places) < MAX_KERNELS:
            self.places.append(address)

    def add_root(self, space: AddressSpace) -> None:
        root = (space.root, space.format.levels)
        if root not in self.roots and len(self.roots) < MAX_KERNELS:
            self.roots.append(root)

    def store(self) -> None:
        """Keep what is known so far."""
        if self.key is None:
            return
        lines = [*(f"at {place:x}" for place in self.places),
                 *(f"root {root:x} {levels}" for root, levels in self.roots),
                 *(["whole"] if self.whole else []), *(["walked"] if self.walked else [])]
        cache.store(KIND, self.key, VERSION, "\n".join(lines).encode())
