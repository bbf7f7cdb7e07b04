"""What the kernel log says of failures: the lines that announce one, and the registers printed below them.

Kernel source: arch/x86/mm/fault.c, arch/x86/kernel/{dumpstack,traps,process_64}.c (``__show_regs``), kernel/watchdog.c,
kernel/hung_task.c, kernel/panic.c, kernel/rcu/tree_stall.h, mm/oom_kill.c, mm/slub.c, lib/list_debug.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError

if TYPE_CHECKING:
    from kshell.linux.printk import Record
    from kshell.target.target import Target

PANIC = "Kernel panic - not syncing: "
#: kind -> what its first line looks like; the first that matches counts
KINDS = tuple((kind, re.compile(pattern)) for kind, pattern in (
    ("panic", r"Kernel panic - not syncing: "),
    ("null", r"BUG: kernel NULL pointer dereference|Unable to handle kernel NULL pointer dereference"),
    ("overflow", r"BUG: (TASK |IRQ |\w+ )?stack guard page was hit|kernel stack overflow|corrupted stack end detected"),
    ("fault", r"BUG: unable to handle (page fault|kernel paging request)|Unable to handle kernel paging request"),
    ("protection", r"general protection fault"),
    ("softlockup", r"(watchdog: )?BUG: soft lockup"),
    ("hardlockup", r"(NMI |watchdog: )*(Watchdog detected hard|BUG: hard) LOCKUP|Watchdog detected hard LOCKUP"),
    ("bug", r"kernel BUG at "),
    ("slab", r"BUG \S+ \(.*\): |BUG: Bad page|BUG: Bad rss|list_(add|del) corruption|Slab corruption"),
    ("sleeping", r"BUG: (sleeping function|scheduling while atomic|workqueue lockup)"),
    ("bug", r"BUG: |KASAN: |UBSAN: "),
    ("hungtask", r"INFO: task .* blocked (in I/O wait )?for more than"),
    ("stall", r"(rcu: )?INFO: \w+ (self-)?detected (expedited )?stalls?"),
    ("machinecheck", r"mce: \[Hardware Error\]|Machine check"),
    ("oom", r"Out of memory: |Memory cgroup out of memory: |\S+ invoked oom-killer"),
    ("oops", r"Oops: |divide error: |invalid opcode: |stack segment: |double fault: |traps: PANIC"),
    ("sysrq", r"sysrq: Trigger a crash|sysrq triggered crash"),
    ("warning", r"WARNING: (CPU: \d+ PID: |possible )"),
))
#: kinds that say that the kernel failed, not only that something was wrong
SEVERE = frozenset(("null", "overflow", "fault", "protection", "softlockup", "hardlockup", "bug", "slab", "stall",
                    "hungtask", "machinecheck", "oops", "sleeping"))  # fmt: skip
#: lines below the announcement in which its registers are looked for
REACH = 40
RIP = re.compile(r"RIP: 0010:(?:\[<[0-9a-f]+>\] )?([\w.$]+)\+0x([0-9a-f]+)/0x[0-9a-f]+(?: \[([\w-]+)[^\]]*\])?")
PAIR = re.compile(
    r"\b(R[A-D]X|R[SD]I|RBP|RSP|R0[89]|R1[0-5]|EFLAGS|CR[0234]|ORIG_RAX): (?:00[0-9a-f]{2}:)?([0-9a-f]{5,16})\b")
OOPS = re.compile(r"Oops: (?:general protection fault|[\w ]*)?:? ?([0-9a-f]{4})\b")
CPU = re.compile(r"CPU: (\d+) (?:UID: \d+ )?PID: (\d+) Comm: (.*?) (?:Not tainted|Tainted|Kdump)")
WHO = re.compile(r"BUG: soft lockup - CPU#(\d+) stuck for (\d+)s! \[(.*):(\d+)\]")


class Event(NamedTuple):
    """A failure that the log announces. ``number``: the place of its record in the log; ``seq``: that record's own."""

    kind: str
    number: int
    seq: int
    timestamp: int
    text: str


class Printed(NamedTuple):
    """What was printed below an announcement.

    :ivar registers: by lower-case name; rip only when its symbol is known to the target
    :ivar function: "disaster`price_of+0x5", "" when none was printed
    :ivar error_code: of the exception, None when it was not printed
    """

    cpu: int | None
    pid: int | None
    comm: str
    function: str
    registers: dict[str, int]
    error_code: int | None


def events(records: Iterable[Record]) -> list[Event]:
    """Return the failures that the records announce, in their order."""
    found = []
    for number, record in enumerate(records):
        if not isinstance(record.text, str):
            continue
        for kind, pattern in KINDS:
            if pattern.match(record.text):
                found.append(Event(kind, number, record.seq, record.timestamp, record.text.split("\n")[0]))
                break
    return found


def panic_reason(found: Iterable[Event]) -> str:
    """Return what follows "not syncing:", "" when the log has no panic."""
    reasons = [event.text.removeprefix(PANIC) for event in found if event.kind == "panic"]
    return reasons[0] if reasons else ""


def first_failure(found: Iterable[Event]) -> Event | None:
    """Return what failed first: what comes later is often its consequence. A panic, when nothing was told before it."""
    every = list(found)
    severe = [event for event in every if event.kind in SEVERE]
    # of hung tasks and warnings there may have been many in peace: what is next to the panic counts
    panics = [event for event in every if event.kind == "panic"]
    if panics:
        before = [event for event in severe if event.number < panics[0].number and event.kind != "hungtask"]
        return before[0] if before else panics[0]
    return severe[0] if severe else None


def printed(target: Target, records: list[Record], event: Event) -> Printed:
    """Return the registers and the place that the log shows below *event*."""
    cpu = pid = error_code = None
    comm = function = ""
    registers: dict[str, int] = {}
    match = WHO.search(event.text)
    if match:
        cpu, pid, comm = int(match[1]), int(match[4]), match[3]
    for record in records[event.number : event.number + REACH]:
        text = record.text
        if not isinstance(text, str):
            continue
        if text.startswith(("---[ end", PANIC)) and record.seq != event.seq:
            break
        if cpu is None and (match := CPU.search(text)):
            cpu, pid, comm = int(match[1]), int(match[2]), match[3]
        if error_code is None and (match := OOPS.match(text)):
            error_code = int(match[1], 16)
        if not function and (match := RIP.search(text)):
            function, address = _place(target, match[1], int(match[2], 16), match[3])
            if address:
                registers["rip"] = address
        elif text.startswith("RIP: 0033"):
            break  # the registers that follow are the user's
        for name, digits in PAIR.findall(text):
            register = "rflags" if name == "EFLAGS" else re.sub(r"^r0", "r", name.lower())
            registers.setdefault(register, int(digits, 16))
    return Printed(cpu, pid, comm, function, registers, error_code)


def _place(target: Target, name: str, offset: int, module: str | None) -> tuple[str, int]:
    """Return a place as kshell writes it, and its address; 0 when the symbol is not known."""
    text = f"{module.replace('-', '_') + '`' if module else ''}{name}+0x{offset:x}"
    try:
        return text, target.symbol(name, module.replace("-", "_") if module else None).address + offset
    except KshellError:
        return text, 0
