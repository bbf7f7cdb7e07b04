"""Timers that are pending: those of the timer wheel, and high-resolution ones.

Kernel source: ``struct timer_base`` in kernel/time/timer.c (the wheel of lists since 4.8, 500462a9de65 "timers: Switch
to a non-cascading wheel"), kernel/time/hrtimer.c, include/linux/hrtimer_defs.h. A timer that runs is in no list.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.linux import clock
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import hlist_for_each, member_offset
from kshell.linux.percpu import per_cpu_ptr
from kshell.linux.rbtree import rbtree_for_each

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

#: how many bases of the wheel a CPU has -> their names; since 6.9 those of pinned timers are apart, without
#: CONFIG_NO_HZ_COMMON there is but one
WHEELS = {1: ("std",), 2: ("std", "def"), 3: ("local", "global", "def")}
#: clockid_t -> name
CLOCKS = {0: "real", 1: "mono", 7: "boot", 11: "tai"}
#: from this clock base on a CPU's timers run in softirq context (HRTIMER_BASE_MONOTONIC_SOFT)
SOFT = 4
LIMIT = 1 << 20


class Timer(NamedTuple):
    """A pending timer.

    :ivar base: "std", "def", "local", "global" of the wheel; "mono", "real", "boot", "tai", "mono/soft", ... else
    :ivar address: of its ``struct timer_list`` or ``struct hrtimer``, as ``high`` tells
    :ivar left: nanoseconds until it expires, negative when it is late; an error when the clock cannot be told
    """

    cpu: int
    base: str
    address: int
    high: bool
    function: int
    left: int | KshellError


def ticks_per_second(target: Target) -> int:
    """Return the kernel's HZ, as its clock source "jiffies" has been built with it.

    :raises KshellError: it cannot be told
    """
    source = target.value("struct clocksource", target.address_of("clocksource_jiffies"))
    mult, shift = source.integer("mult"), source.integer("shift")
    if not 0 < mult < 1 << 32 or shift > 31:
        raise FormatError(f"the clock source jiffies is damaged: mult {mult}, shift {shift}")
    found = round(clock.NS * (1 << shift) / mult)
    if not 0 < found <= clock.NS:
        raise FormatError(f"the clock source jiffies is damaged: {found} ticks a second")
    return found


def wheel_timers(target: Target) -> Iterator[Timer]:
    """Yield the timers of the wheel of each online CPU, by base, the soonest first.

    :raises KshellError: they cannot be found, or a list is damaged
    """
    require_kernel(target)
    kind = target.type("struct timer_list")
    entry = member_offset(kind, "entry")
    try:
        tick: int | KshellError = clock.NS // ticks_per_second(target)
        now = target.value("unsigned long", target.address_of("jiffies")).integer()
    except KshellError as error:
        tick, now = error, 0
    for cpu in target.cpu_numbers("online"):
        bases = _wheels(target, cpu)
        for name, base in zip(WHEELS[len(bases)], bases, strict=True):
            found = []
            vectors = base["vectors"]
            heads = struct.unpack(f"<{len(vectors)}Q", vectors.bytes())
            for number, head in enumerate(heads):
                for node in hlist_for_each(target, vectors.address + number * 8) if head else ():
                    timer = target.value(kind, node - entry)
                    left = (timer.integer("expires") - now + (1 << 63)) % (1 << 64) - (1 << 63)
                    found.append((left, timer))
            for left, timer in sorted(found, key=lambda pair: (pair[0], pair[1].address)):
                yield Timer(cpu, name, timer.address, False, timer.integer("function"),
                            tick if isinstance(tick, KshellError) else left * tick)


def _wheels(target: Target, cpu: int) -> list[Value]:
    """Return each ``struct timer_base`` of *cpu*. The BTF of old kernels does not tell how many there are."""
    symbol, kind = target.symbols.get("timer_bases"), target.type("struct timer_base")
    if symbol is None or not target.value(kind, 0).has("vectors"):
        raise KshellError("the kernel has no timer_bases with vectors: its timer wheel is that of a Linux before 4.8")
    size = kind.size or 0
    start = per_cpu_ptr(target, symbol.address, cpu)
    found = [target.value(kind, start + number * size) for number in range(symbol.size // size if size else 0)]
    if len(found) not in WHEELS or any(base.integer("cpu") != cpu for base in found):
        raise FormatError(f"timer_bases of CPU {cpu} at 0x{start:x} is damaged, or of a kind that is not known")
    return found


def high_timers(target: Target) -> Iterator[Timer]:
    """Yield the high-resolution timers of each online CPU, by clock, the soonest first.

    :raises KshellError: they cannot be found, or a tree is damaged
    """
    require_kernel(target)
    kind = target.type("struct hrtimer")
    node_offset = member_offset(kind, "node.node")
    try:
        now: int | KshellError = clock.read_clock(target).monotonic
    except KshellError as error:
        now = error
    for cpu in target.cpu_numbers("online"):
        for base in target.percpu("hrtimer_bases", cpu, "struct hrtimer_cpu_base")["clock_base"]:
            clockid = base.integer("clockid")
            name = CLOCKS.get(clockid, str(clockid)) + ("/soft" if base.integer("index") >= SOFT else "")
            offset = base.integer("offset")
            # Since 5.4 (511885d7061e "lib/timerqueue: Rely on rbtree semantics for next timer")
            root = base["active.rb_root"] if base.has("active.rb_root") else base["active.head"]
            for node in rbtree_for_each(target, root.address, LIMIT):
                timer = target.value(kind, node - node_offset)
                left = now if isinstance(now, KshellError) else timer.integer("node.expires") - offset - now
                yield Timer(cpu, name, timer.address, True, timer.integer("function"), left)


class Purposes:
    """Tells what the timers of one target are for, where the function does not."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._delayed = {found.address: kind for name, kind in (
            ("delayed_work_timer_fn", "struct delayed_work"), ("kthread_delayed_work_timer_fn",
            "struct kthread_delayed_work")) if (found := target.symbols.get(name)) is not None}
        self._sleeping = {found.address: kind for name, kind in (
            ("process_timeout", "struct process_timer"), ("hrtimer_wakeup", "struct hrtimer_sleeper"))
            if (found := target.symbols.get(name)) is not None}

    def task(self, timer: Timer) -> int:
        """Return the ``task_struct`` that *timer* wakes, 0 when it wakes none.

        :raises KshellError: it cannot be read
        """
        return self._container(timer, self._sleeping, "task")

    def work(self, timer: Timer) -> int:
        """Return the function of the delayed work that *timer* queues, 0 when it queues none.

        :raises KshellError: it cannot be read
        """
        return self._container(timer, self._delayed, "work.func")

    def _container(self, timer: Timer, kinds: dict[int, str], member: str) -> int:
        name = kinds.get(timer.function)
        if name is None:
            return 0
        kind = self.target.type(name)
        found: Value = self.target.value(kind, timer.address - member_offset(kind, "timer"))
        return found.integer(member)
