"""Converting an image: the same memory in another container, with less in it where that is wished."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux.page_filter import ZERO, exclude
from kshell.linux.uts import uname
from kshell.memory import bitmap
from kshell.memory.kdumpheader import LEVELS
from kshell.memory.output import OutputFile
from kshell.memory.plan import Plan, make_plan
from kshell.memory.write_elf import write_elf, write_lime, write_raw
from kshell.memory.write_kdump import write_kdump

if TYPE_CHECKING:
    from kshell.target.target import Target

FORMATS = ("kdump", "elf", "raw", "lime")
CODECS = ("zlib", "lzo", "snappy", "zstd", "none")
TRIES = 3

#: told of work: (what is done, pages done, pages in all)
Progress = Callable[[str, int, int], None]


@dataclass
class Converted:
    """What became of an image, in pages and bytes.

    :ivar left_out: pages left out by this conversion, by the bit of the level
    :ivar absent: pages of RAM that the source did not hold
    :ivar lost: pages that the source should hold and that could not be read: frame -> why
    :ivar partial: pages that the source holds in part
    """

    pages: int
    page: int
    written: int
    absent: int
    partial: int
    left_out: dict[int, int] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)


def convert(
    target: Target, output: str, *, to: str = "kdump", codec: str = "zlib", level: int = 0, force: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Converted:
    """Write the physical memory of *target* to the file *output*, which appears when it is complete.

    :param to: one of :data:`FORMATS`; *codec* (of :data:`CODECS`) is of the pages of a kdump
    :param level: makedumpfile's dump level, 0 to 31: the sum of what is left out
    :raises OutputError: the file cannot be written
    :raises KshellError: there is no memory to convert, or the level needs what this image does not tell
    """
    if not 0 <= level <= sum(LEVELS):
        raise KshellError(f"dump level {level}: it is a sum of {', '.join(map(str, LEVELS))}")
    with OutputFile(output, force=force, source=target.path) as file:
        plan = plan_of(target)
        held = bitmap.count(plan.kept)
        absent = bitmap.count(plan.existing) - held
        plan.level |= level
        # pages of zeroes share one place in a kdump, as makedumpfile's -d 1 leaves them: nothing is lost
        rules = level & ~ZERO if to == "kdump" else level
        passes = bool(rules & ZERO) + bool(rules & ~ZERO)
        left_out = exclude(target, plan, rules, _counter(progress, "filtering", held * passes))
        for _ in range(TRIES):  # a page that cannot be read is left out, and the rest is written again without it
            for frame in plan.lost:
                bitmap.set_range(plan.kept, frame, frame + 1, False)
            known = len(plan.lost)
            file.clear()
            _write(plan, file, to, codec, _counter(progress, "writing", bitmap.count(plan.kept)))
            if len(plan.lost) == known:
                break
        else:
            raise KshellError(f"{target.path}: other pages cannot be read each time; nothing was written")
        kept = bitmap.count(plan.kept)
        written = file.written
    return Converted(kept, plan.page, written, absent, plan.partial, left_out, plan.lost)


def _write(plan: Plan, file: OutputFile, to: str, codec: str, progress: Callable[[int], None]) -> None:
    if to == "kdump":
        write_kdump(plan, file, codec, progress)
    else:
        {"elf": write_elf, "raw": write_raw, "lime": write_lime}[to](plan, file, progress)


def plan_of(target: Target) -> Plan:
    """Return the plan that keeps all of *target*'s physical memory, with its notes and names.

    :raises KshellError: it has none
    """
    plan = make_plan(target.physical, target.arch)
    plan.notes = list(getattr(target.physical, "notes", []))
    info = target.vmcoreinfo
    if info is not None:
        plan.vmcoreinfo = info.raw
        plan.phys_base = info.number("phys_base") or 0
    try:
        names = uname(target)
        fields = (names.sysname, names.nodename, names.release, names.version, names.machine, names.domainname)
        plan.utsname = b"".join(name.encode("utf-8", "surrogateescape")[:64].ljust(65, b"\0") for name in fields)
    except KshellError:  # only the machine, which readers need
        plan.utsname = bytes(260) + target.arch.name.encode().ljust(65, b"\0")
    try:
        plan.page_offset = target.kernel.u64(target.address_of("page_offset_base"))
    except KshellError:
        plan.page_offset = None
    old = getattr(target.physical, "level", 0)
    plan.level = old if 0 < old < 32 else 0
    return plan


def _counter(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(pages: int) -> None:
        nonlocal done
        done += pages
        progress(what, done, total)

    return count


def size_of(path: str) -> int:
    """Return the bytes of a file, 0 when it cannot be asked."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
