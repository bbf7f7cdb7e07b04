"""Why a kernel died: the panic, what failed before it, where, and the address it stumbled over.

Kernel source: kernel/panic.c (``panic_cpu``), arch/x86/mm/fault.c (``page_fault_oops``),
arch/x86/include/asm/{idtentry,trapnr,trap_pf}.h.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux import oops, printk
from kshell.linux.cpus import panicking_cpu
from kshell.linux.kernel import require_kernel
from kshell.linux.oops import Event, Printed
from kshell.linux.stacks import Stack, cpu_stack, symbolize
from kshell.linux.tasks import Task, read_task
from kshell.unwind.model import NO_REGISTERS, Frame

if TYPE_CHECKING:
    from kshell.target.target import Target

#: what a CPU does while it dies, above the place where it went wrong
DYING = re.compile(
    r"(.*_)?delay(_\w+)?$|panic|vpanic|nmi_panic|check_panic_on|oops_|die|__die|crash_kexec|__crash_kexec|machine_kexec|"
    r"crash_setup_regs|page_fault_oops|no_context|bad_area|exc_|asm_exc_|asm_sysvec_|sysvec_|__sysvec|do_(user_addr|kern)"
    r"|handle_stack_overflow|do_trap|do_error_trap|handle_bug|report_bug|fixup_bug|__warn|warn_slowpath|do_exit|"
    r"make_task_dead|rewind_stack|kernelmode_fixup|__do_kernel_fault|watchdog_|hrtimer_|__hrtimer|update_process_times|"
    r"tick_|smp_apic|apic_timer|native_machine|emergency_restart|__const_udelay|__ndelay|early_|do_double_fault|"
    r"handle_stack|bust_spinlocks|printk|dump_stack|show_|stop_this_cpu")
TRAPS = {
    0: "divide error", 1: "debug", 2: "NMI", 3: "breakpoint", 4: "overflow", 5: "bounds", 6: "invalid opcode",
    7: "device not available", 8: "double fault", 10: "invalid TSS", 11: "segment not present", 12: "stack segment",
    13: "general protection fault", 14: "page fault", 16: "x87 error", 17: "alignment check", 18: "machine check",
    19: "SIMD error", 21: "control protection", 29: "VMM communication",
}
PAGE_FAULT, DOUBLE_FAULT = 14, 8
#: the function through which an exception comes in, without asm_exc_ (none before 5.8), -> its number
ENTRIES = {
    "page_fault": 14, "general_protection": 13, "invalid_op": 6, "double_fault": 8, "divide_error": 0, "bounds": 5,
    "overflow": 4, "invalid_tss": 10, "segment_not_present": 11, "stack_segment": 12, "alignment_check": 17,
    "machine_check": 18, "control_protection": 21, "int3": 3, "debug": 1, "nmi": 2,
}
#: bits of a page fault's error code: X86_PF_*
PROTECTION, WRITE, USER, RESERVED, EXECUTE = 1, 2, 4, 8, 16
#: a fault below this is a member of a structure at NULL
NULL_REACH = 0x1_0000
#: before the problem that the log cannot be read
LOG = "log: "
#: a function so often in one stack has called itself
RECURSION = 8


class Crash(NamedTuple):
    """A dead or dying kernel, as far as it can be told; every part may be missing.

    :ivar reason: of the panic, "" when there was none; ``failure``: what the log announced first
    :ivar log: what it printed below the failure
    :ivar cpu: that panicked, or that the log names; ``stack``: its stack; ``task``: on it
    :ivar frame: the place where it went wrong: an interrupted frame, or the one that called panic()
    :ivar interrupted: whether *frame* was interrupted by an exception (it has its registers then)
    :ivar registers: at that place, from the stack, else from the log
    :ivar trap: number of the exception, -1 for none; ``fault``: the address of a page fault, None for none
    :ivar recursion: (frames, how many times the most frequent one is there) when a function calls itself without end
    :ivar problems: what could not be read
    """

    reason: str
    failure: Event | None
    log: Printed | None
    events: tuple[Event, ...]
    cpu: int | None
    stack: Stack | None
    task: Task | None
    frame: Frame | None
    interrupted: bool
    registers: Mapping[str, int]
    trap: int
    error_code: int | None
    fault: int | None
    recursion: tuple[Frame, int] | None
    problems: tuple[str, ...]

    @property
    def happened(self) -> bool:
        """Whether anything failed at all."""
        return bool(self.reason) or self.failure is not None or self.cpu is not None

    @property
    def nothing(self) -> str:
        """What is to be said where nothing failed, or nothing that is known of."""
        if any(problem.startswith(LOG) for problem in self.problems):
            return "no CPU says that it panicked, and the log that might tell more cannot be read"
        return "this kernel did not panic, and its log tells of no failure"


def read_crash(target: Target) -> Crash:
    """Return why the kernel of *target* died; of one that lives, what its log complains about.

    :raises KshellError: the target is no kernel
    """
    if target.kind != "kernel":
        require_kernel(target)
    problems: list[str] = []
    records: list[printk.Record] = []
    try:
        records.extend(printk.iter_records(target))
    except KshellError as error:
        problems.append(f"{LOG}{error}")
    found = oops.events(records)
    failure = oops.first_failure(found)
    log = oops.printed(target, records, failure) if failure is not None else None
    reason = oops.panic_reason(found)
    cpu = panicking_cpu(target)
    stack = task = None
    if cpu is not None:
        try:
            stack = cpu_stack(target, cpu)
            if stack.end:
                problems.append(f"stack of CPU {cpu}: {stack.end}")
        except KshellError as error:
            problems.append(f"stack of CPU {cpu}: {error}")
    address = stack.task if stack is not None else 0
    if address:
        try:
            task = read_task(target, address)
        except KshellError as error:
            problems.append(f"task: {error}")
    frame, interrupted = _place(target, stack.frames) if stack is not None else (None, False)
    registers: Mapping[str, int] = frame.registers if frame is not None and interrupted else NO_REGISTERS
    if not registers and log is not None:
        registers = log.registers
    trap, error_code, fault = _exception(target, stack, frame if interrupted else None, failure, log)
    return Crash(
        reason, failure, log, tuple(found), cpu if cpu is not None else log.cpu if log else None, stack, task, frame,
        interrupted, registers, trap, error_code, fault, _recursion(target, stack.frames) if stack else None,
        tuple(problems))


def _place(target: Target, frames: Sequence[Frame]) -> tuple[Frame | None, bool]:
    """Return the frame where it went wrong, and whether an exception interrupted it.

    That is the first one with saved registers of kernel code; without any, the one that called into the dying. Frames
    that are not sure do not count.
    """
    for frame in frames[1:]:
        if frame.reliable and frame.registers and frame.registers.get("cs", 0x10) & 3 == 0:
            return frame, True
    for number, frame in enumerate(frames):
        found = symbolize(target, frame)
        if found is not None and not DYING.match(found[0].name) and number:
            return (frame, False) if frame.reliable else (None, False)
    return None, False


def _exception(
    target: Target, stack: Stack | None, frame: Frame | None, failure: Event | None, log: Printed | None,
) -> tuple[int, int | None, int | None]:
    """Return number, error code and address of the exception that killed the kernel.

    The error code is the log's alone: on the stack its place is overwritten by the entry code.

    :param frame: that was interrupted, None when none was
    """
    trap = -1
    code, fault = (log.error_code, log.registers.get("cr2")) if log else (None, None)
    if stack is not None and frame is not None:
        above = symbolize(target, stack.frames[stack.frames.index(frame) - 1])
        trap = ENTRIES.get(above[0].name.removeprefix("asm_").removeprefix("exc_"), -1) if above is not None else -1
        if fault is None and stack.cpu is not None:
            told = next((cpu.registers for cpu in target.cpus if cpu.number == stack.cpu), {})
            fault = told.get("cr2")
    if failure is not None and failure.kind in ("null", "fault"):
        trap = PAGE_FAULT
    if trap < 0:
        return -1, None, None
    # of a double fault by a full stack, cr2 is still that of the fault that could not be delivered
    return trap, code, fault if trap in (PAGE_FAULT, DOUBLE_FAULT) else None


def _recursion(target: Target, frames: Sequence[Frame]) -> tuple[Frame, int] | None:
    counts = Counter(frame.pc for frame in frames)
    if not counts:
        return None
    pc, count = counts.most_common(1)[0]
    return (next(frame for frame in frames if frame.pc == pc), count) if count >= RECURSION else None


def access(error_code: int) -> str:
    """Return what a page fault's error code says: "write to a page that is not present, from kernel mode"."""
    what = "instruction fetch from" if error_code & EXECUTE else "write to" if error_code & WRITE else "read of"
    why = ("a page with reserved bits set" if error_code & RESERVED else
           "a protected page" if error_code & PROTECTION else "a page that is not present")
    return f"{what} {why}, from {'user' if error_code & USER else 'kernel'} mode"


def trap_name(number: int) -> str:
    return TRAPS.get(number, f"exception {number}")
