"""Clocks: how long the system has been up, and what time it was.

Kernel source: kernel/time/timekeeping.c, ``struct timekeeper`` in include/linux/timekeeper_internal.h. The time is that
of the last update of the timekeeper: of the last tick, or a little before it when the CPUs slept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.linux.lists import member_offset
from kshell.types.model import StructType

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

NS = 1_000_000_000


class Clock(NamedTuple):
    """Nanoseconds. ``uptime``: CLOCK_BOOTTIME, sleep included; ``wall``: since 1970; ``monotonic``: without sleep."""

    uptime: int
    wall: int
    monotonic: int

    @property
    def boot_time(self) -> int:
        """When the system was started, nanoseconds since 1970."""
        return self.wall - self.uptime


def read_clock(target: Target) -> Clock:
    """Return what the timekeeper says.

    :raises KshellError: it cannot be found or read, or says impossible things
    """
    keeper = _timekeeper(target).snapshot()
    base = "tkr_mono" if keeper.has("tkr_mono") else "tkr"  # 4.0+ (876e78818def), before: one base
    shift = keeper.integer(f"{base}.shift")
    seconds = keeper.integer("xtime_sec")
    if shift > 63 or not 0 <= seconds < 1 << 40:
        raise FormatError(f"the timekeeper at 0x{keeper.address:x} is damaged: {seconds} s, shift {shift}")
    nanoseconds = keeper.integer(f"{base}.xtime_nsec") >> shift
    wall = seconds * NS + nanoseconds
    monotonic = wall + keeper.integer("wall_to_monotonic.tv_sec") * NS + keeper.integer("wall_to_monotonic.tv_nsec")
    uptime = monotonic + (keeper.integer("offs_boot") if keeper.has("offs_boot") else 0)
    if not 0 <= uptime <= 1 << 62:
        raise FormatError(f"the timekeeper at 0x{keeper.address:x} is damaged: up for {uptime} ns")
    return Clock(uptime, wall, monotonic)


def _timekeeper(target: Target) -> Value:
    """Return the core ``struct timekeeper``."""
    kind = target.type("struct timekeeper")
    data = target.types.get("struct tk_data")
    if data is not None and isinstance(data.strip(), StructType):
        # 6.13+ ("timekeeping: Move shadow_timekeeper into tk_core"): its type has a name
        symbol = target.symbols.get("tk_core") or target.symbol("timekeeper_data")  # an array since 6.17
        return target.value(kind, symbol.address + member_offset(data, "timekeeper"))
    # Before, tk_core is {seqcount; timekeeper} without a name for the type; its copy, written at each update, has one.
    shadow = target.symbols.get("shadow_timekeeper")
    if shadow is not None:
        return target.value(kind, shadow.address)
    core = target.symbols.get("tk_core")
    if core is None or 0 < core.size < (kind.size or 0):
        raise KshellError("the kernel's symbols do not tell where its timekeeper is (tk_core, shadow_timekeeper)")
    return target.value(kind, core.address + 8)
