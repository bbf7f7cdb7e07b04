"""``::status``: what is being looked at; ``::regs``: the registers of a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kshell.api import Decimal, Flag, KshellError, Option, Output, Record, Session, UsageError, dcmd
from kshell.linux import clock, printk, uts
from kshell.linux.kernel import build_id
from kshell.linux.page_counts import page_counts
from kshell.linux.unwinding import unwinding
from kshell.linux.userland import user_facts

if TYPE_CHECKING:
    from kshell.target.vmcoreinfo import Vmcoreinfo

PANIC = "Kernel panic - not syncing: "
#: how the kernel begins to tell of a fault of its own; the lines before "Oops:" say which
TROUBLE = ("BUG: ", "kernel BUG at ", "general protection fault", "watchdog: BUG: ", "NMI watchdog: Watchdog detected ",
           "invalid opcode", "divide error", "double fault", "INFO: task ", "sysrq: Trigger a crash")
FLAGS = ((11, "of"), (10, "df"), (9, "if"), (8, "tf"), (7, "sf"), (6, "zf"), (4, "af"), (2, "pf"), (0, "cf"))
PAIRS = (("rax", "r9"), ("rbx", "r10"), ("rcx", "r11"), ("rdx", "r12"), ("rsi", "r13"), ("rdi", "r14"), ("r8", "r15"),
         ("eax", "esi"), ("ebx", "edi"), ("ecx", "edx"))
SEGMENTS = (("cs", "ds", "es", "fs"), ("gs", "gs_base", "kernel_gs_base", "fs_base"), ("trapno", "err", "cr2", "cr3"))

MODES = {"r": "read-only", "r+": "read-write, in place", "c": "copy on write"}


@dcmd("status", aliases=("$?",), group="Kernel")
def status(
    session: Session,
    verbose: Annotated[bool, Flag("-v", "count the pages held, and the missing by reason and rule; list all kernels")],
) -> Iterator[Output]:
    """Say what is being looked at, how it was found, and what is missing.

    Examples:
      ::status
      ::status -v
      ::status ! cat
    """
    if not session.has_target:
        yield Record(["debugging empty target"], lambda: {"kind": "empty"})
        return
    found = dict(_facts(session))
    if verbose and user_facts(session.target) is None:
        found |= page_counts(session.target)
        found |= _kernels(session)
    yield Record(_lines(session, found), lambda: {key.replace(" ", "_"): value for key, value in found.items()})


def _mode(session: Session) -> str:
    mode = MODES.get(session.target.mode, session.target.mode)
    return f"{mode}; read-only for the time being (::set +w)" if session.protected else mode


def _facts(session: Session) -> Iterator[tuple[str, str]]:
    """Yield what is known of the target, word by word; what cannot be told says why."""
    target = session.target
    yield "target", target.path
    own = user_facts(target)
    if own is not None:
        yield "kind", target.kind
        yield "description", target.description
        yield "mode", _mode(session)
        if target.control is not None:
            yield "control", _control(session)
        yield from own.status()
        target.symbols  # noqa: B018 - found when first asked for, and told in the findings
        target.types  # noqa: B018
        yield from target.findings.items()
        return
    yield "kind", "crash dump" if not target.live else "live kernel" if target.host else "virtual machine"
    if target.findings.get("image") != target.description:
        yield "description", target.description
    try:
        names = uts.uname(target)
        yield "host", names.nodename
        yield "operating system", f"{names.release} {names.version} ({names.machine})"
    except KshellError as error:
        yield "host", f"unknown ({error})"
        yield "operating system", target.release
    yield "mode", _mode(session)
    target.symbols  # noqa: B018 - found when first asked for, and told in the findings
    target.types  # noqa: B018
    built = build_id(target)
    if built is not None:
        yield "build id", built
    if not target.live and target.vmcoreinfo is not None:
        crashed = _crashed(target.vmcoreinfo)
        if crashed:
            yield "crashed", crashed
    if not target.live or target.vmcoreinfo is not None:
        try:
            found = clock.read_clock(target)
            yield "date", _date(found.wall)
            yield "up", _duration(found.uptime)
        except KshellError as error:
            yield "date", f"unknown ({error})"
        yield from _panic(session).items()
    if target.control is not None:
        yield "control", _control(session)
    yield "cpus", str(len(target.cpus)) if target.cpus else "no registers of CPUs"
    yield from list(target.findings.items())
    orc = _orc(session)
    if orc:
        yield "stack tables", orc
    if target.caches:
        yield "caches", ", ".join(f"{kind} {what}" for kind, what in sorted(target.caches.items()))
    if target.opened_in is not None:
        yield "opened", f"in {target.opened_in:.2f} s"
    context = session.context
    yield "process context", f"{context.pid} ({context.comm})" if context else "none"


def _orc(session: Session) -> str:
    """Return where the tables for unwinding are, or why not; "" where there is no kernel."""
    if session.target.vmcoreinfo is None:
        return ""
    found = unwinding(session.target)
    return f"ORC in the image, {found.kernel.count} entries" if found.kernel is not None else (
        f"none: {found.problem}")


def _control(session: Session) -> str:
    """Return whether the target runs between questions."""
    control = session.target.control
    assert control is not None
    try:
        if control.pause and not control.stays:
            return "stopped for each question, resumed behind it"
        return "running" if control.is_running() else "stopped"
    except KshellError as error:
        return f"none: {error}"


def _kernels(session: Session) -> dict[str, str]:
    """Return the kernels in the image, the one that it is of among them. Looks at all of its memory."""
    survey = session.target.survey
    if survey is None:
        return {}
    found = survey(lambda what, done, total: None)
    return {"kernels": "; ".join(map(str, found)) + ("; --kernel chooses" if len(found) > 1 else "")}


def _lines(session: Session, facts: dict[str, str]) -> Iterator[str]:
    from kshell.api import escape

    own = user_facts(session.target)
    if own is not None:
        name, bits = escape(facts["target"]), 8 * session.target.arch.pointer_size
        yield {"process": f"debugging PID {own.pid} ({bits}-bit)", "core": f"debugging core file {name} ({bits}-bit)",
               "file": f"debugging file '{name}' (object file)"}[session.target.kind]
        for key, value in facts.items():
            if key not in ("target", "kind"):
                yield f"{key}: {escape(value)}"
        return
    host = escape(facts["host"])
    what = facts["target"] if facts["kind"] == "crash dump" else ""
    if facts["kind"] == "crash dump":
        yield f"debugging crash dump {escape(what)} (64-bit) from {host}"
    elif facts["kind"] == "virtual machine":
        yield f"debugging virtual machine {escape(facts['target'])} (64-bit), {host}"
    else:
        yield f"debugging live kernel (64-bit) on {host}"
    for key, value in facts.items():
        if key not in ("target", "kind", "host"):
            yield f"{key}: {escape(value)}"


def _date(nanoseconds: int) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(nanoseconds // clock.NS))


def _crashed(info: Vmcoreinfo) -> str:
    """Return when the kernel panicked, as VMCOREINFO tells, "" when it did not."""
    try:
        seconds = info.crash_time
        if seconds is None:
            return ""
        return _date(seconds * clock.NS)
    except (KshellError, OverflowError, ValueError, OSError):
        return f"at an impossible time: {(info.get('CRASHTIME') or '')[:40]}"


def _duration(nanoseconds: int) -> str:
    seconds = nanoseconds // clock.NS
    days, rest = divmod(seconds, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} days {text}" if days else text


def _panic(session: Session) -> dict[str, str]:
    """Return the line of the log that says why the kernel stopped, and the one before it that says what went wrong."""
    panic = trouble = ""
    try:
        for record in printk.iter_records(session.target):
            line = record.text.split("\n")[0] if isinstance(record.text, str) else ""
            if line.startswith(PANIC):
                panic = line.removeprefix(PANIC)
            elif not panic and line.startswith(TROUBLE):
                trouble = line
    except KshellError:
        return {}
    found = {"panic message": panic, "trouble": trouble}
    return {word: text for word, text in found.items() if text}


@dcmd("regs", aliases=("$r",), group="Kernel")
def regs(
    session: Session, address: int | None,
    cpu: Annotated[Decimal | None, Option("-c", "cpu", "of this CPU, in decimal; the chosen one without")],
    tid: Annotated[Decimal | None, Option("-t", "tid", "of this thread of the process or core, in decimal")],
) -> Iterator[Output]:
    """Show the registers of a CPU, as the dump has them or as they are now, or of a thread of a process or core.

    Without -c those of the CPU that ::cpu chose. <rip is a register's value; in a virtual machine by its gdb stub,
    opened with -w, value>rip changes one. Of a process or core they are those of the thread that ::threads chose, else
    of the first; the address is the id of another one. A thread of a live process is stopped for that, a millisecond,
    and runs on; one that stands still (::stop, --pause) has its registers changed by value>rip, with -w.
    With the address of a kernel's task_struct, that task's: those of its CPU, or, if it sleeps, those it will go on
    with; with that of saved registers (struct pt_regs), those.

    Examples:
      ::regs
      ::pid2proc 1 | ::regs
      ::regs -c 1
      <rip=p
    """
    own = user_facts(session.target)
    if own is not None:
        if cpu is not None:
            raise KshellError("a process has no CPUs: -t TID is a thread, ::threads TID chooses one")
        if address is not None and tid is not None:
            raise UsageError("an address, which is the id of a thread, and -t do not go together")
        wanted = tid if tid is not None else address if address is not None else session.cpu.thread
        thread, values = own.registers(wanted)
        yield Record(_registers(session, values), lambda: {
            "tid": thread, **{name: f"0x{value:x}" for name, value in values.items()}})
        return
    if tid is not None:
        raise KshellError("a kernel's threads have addresses, not ids: ::pid2proc TID | ::regs")
    if address is not None:
        if cpu is not None:
            raise UsageError("an address and -c do not go together")
        yield _regs_at(session, address)
        return
    cpus = session.target.cpus
    number = session.cpu.number if cpu is None else cpu
    found = next((one for one in cpus if one.number == number), None)
    if found is None or not found.registers:
        if not cpus:
            raise KshellError("no register set available: this target tells nothing of its CPUs")
        have = ", ".join(str(one.number) for one in cpus if one.registers)
        raise KshellError(f"no register set available for CPU {number}", hint=f"there are those of {have or 'none'}")
    registers = found.registers
    yield Record(_registers(session, registers), lambda: {
        "cpu": number, **{name: f"0x{value:x}" for name, value in registers.items()}})


def _regs_at(session: Session, address: int) -> Record:
    """Return the registers of the task, or the saved ones, at *address*."""
    from kshell.linux import stacks

    target = session.target
    number: int | None = None
    if stacks.is_task(target, address):
        values, number = stacks.task_registers(target, address)
    else:
        values = dict(stacks.pt_regs_stack(target, address).frames[0].registers)
    return Record(_registers(session, values), lambda: {
        "address": f"0x{address:x}", "cpu": number, **{name: f"0x{value:x}" for name, value in values.items()}})


def _registers(session: Session, registers: dict[str, int]) -> Iterator[str]:
    width = 2 * session.target.arch.pointer_size

    def one(name: str) -> str:
        return f"%{name:<3} = 0x{registers[name]:0{width}x}"

    def symbol(name: str) -> str:
        found = session.target.symbolize(registers[name])
        return session.name_of(registers[name]) if found else ""

    for pair in PAIRS:
        cells = [f"{one(name)} {symbol(name):<15}" for name in pair if name in registers]
        if cells:
            yield " ".join(cells).rstrip()
    yield ""
    for name in ("rip", "rbp", "rsp", "eip", "ebp", "esp"):
        if name in registers:
            yield f"{one(name)} {symbol(name)}".rstrip()
    flag_register = "rflags" if "rflags" in registers else "eflags"
    if flag_register in registers:
        flags = registers[flag_register]
        yield f"%{flag_register} = 0x{flags:08x}"
        bits = (("id", 21), ("vip", 20), ("vif", 19), ("ac", 18), ("vm", 17), ("rf", 16), ("nt", 14))
        shown = " ".join(f"{name}={flags >> bit & 1}" for name, bit in bits)
        yield f"  {shown} iopl=0x{flags >> 12 & 3:x}"
        yield f"  status=<{','.join(name.upper() if flags >> bit & 1 else name for bit, name in FLAGS)}>"
    yield ""
    for row in SEGMENTS:
        cells = [f"%{name} = 0x{registers[name]:04x}" for name in row if name in registers]
        if cells:
            yield "\t".join(cells)
