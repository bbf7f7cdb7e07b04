"""``::stack``, ``$c``, ``$C``, ``::findstack``, ``::stacks``; the walker ``stack``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

from kshell.api import (
    ADDRESS,
    COUNT,
    Abort,
    Call,
    Column,
    Decimal,
    Flag,
    KshellError,
    Note,
    Option,
    Output,
    Record,
    Row,
    Session,
    Table,
    UsageError,
    Values,
    Warn,
    Word,
    dcmd,
    escape,
    walker,
)
from kshell.linux import cpus, processes, stacks, tasks, user_stack
from kshell.linux.kernel import require_kernel
from kshell.linux.stack_filter import STATES, StackFilter, in_state
from kshell.linux.stacks import Frame, Group, Stack
from kshell.linux.userland import user_facts

TASK = "struct task_struct"
VERBOSE = (
    Column("SP", kind=ADDRESS), Column("SIZE", 6, COUNT), Column("PC", kind=ADDRESS), Column("STACK", 5),
    Column("FUNCTION", key="symbol"),
)


# -- one stack ---------------------------------------------------------------------------------------------------------


def place(session: Session, stack: Stack, frame: Frame) -> str:
    """Return where a frame is, as people read it: ``schedule+0x31``, ``virtio_blk`virtblk_done+0x10``."""
    if frame.kind == "user":
        return f"0x{frame.pc:x} (user)"
    found = stack.symbolize(session.target, frame)
    if found is None:
        return f"0x{frame.pc:x}"
    symbol, offset = found
    name = escape(symbol.shown)
    return f"{name}+0x{offset:x}" if offset else name


def sources(session: Session, frame: Frame) -> list[Any]:
    """Return the places in the source of a frame, the innermost inlined function first."""
    return [] if frame.kind == "user" else session.target.source_lines(frame.lookup)


def need_lines(session: Session) -> None:
    """:raises KshellError: the target has no debugging data that tells source lines"""
    if session.target.find_lines is None:
        raise KshellError("no debugging data tells source lines", hint="name a vmlinux with DWARF: kshell DUMP VMLINUX")


def data(session: Session, stack: Stack, number: int, lines: bool = False) -> dict[str, Any]:
    """Return the JSON object of a frame."""
    frame = stack.frames[number]
    found = stack.symbolize(session.target, frame)
    symbol, offset = found if found is not None else (None, None)
    told: dict[str, Any] = {
        "task": f"0x{stack.task:x}" if stack.task else None, "cpu": stack.cpu,
        **({} if stack.tid is None else {"tid": stack.tid}), "frame": number, "pc": f"0x{frame.pc:x}",
        "sp": f"0x{frame.sp:x}", "symbol": symbol.name if symbol is not None else None,
        "offset": offset, "module": symbol.module if symbol is not None else None, "reliable": frame.reliable,
        "kind": frame.kind, "stack": frame.stack or None,
    }
    if lines:
        places = [{"function": one.function, "file": one.file, "line": one.line} for one in sources(session, frame)]
        told |= {"inlined": places[:-1], **{key: places[-1][key] if places else None for key in ("file", "line")}}
    return told


def show(
    session: Session, stack: Stack, pointers: bool = False, indent: str = "", source: bool = False, head: str = "",
    call: str = "()",
) -> Iterator[Output]:
    """Yield a line for each frame, and why the trace ends if it ends early.

    :param source: with the places in the source, and the functions that were inlined
    :param head: a line before the first one
    :param call: what stands behind a function, where its name does not tell its parameters
    """
    on = "user" if stack.frames and stack.frames[0].stack == "user" else "task"
    for number, frame in enumerate(stack.frames):
        lines = [head] if head and not number else []
        if number and frame.stack == on == "user" and frame.kind == "exact":
            lines.append(f"{indent}<signal>")
        if frame.kind != "user" and frame.stack and frame.stack != on:
            lines.append(f"{indent}</{on}>" if frame.stack == "task" else f"{indent}<{frame.stack}>")
            on = frame.stack
        where_it_is = place(session, stack, frame)
        behind = "" if frame.kind == "user" or ")" in where_it_is else call
        pointer = f"{frame.sp:016x} " if pointers else ""
        where = ""
        for one in sources(session, frame) if source else ():
            where = f"  {escape(str(one))}" if one.line else ""
            if one.inlined:
                lines.append(f"{indent}{' ' * len(pointer)}{escape(one.function)} (inlined){where}")
        lines.append(f"{indent}{pointer}{'' if frame.reliable else '? '}{where_it_is}{behind}{where}")
        yield Record(lines, lambda n=number: data(session, stack, n, source), frame.pc)  # type: ignore[misc]
    if stack.end:
        last = f"{stack.frames[-1].sp:016x} " if pointers and stack.frames else ""
        yield Record([*([head] if head and not stack.frames else []), f"{indent}{last}[{escape(stack.end)}]"], lambda: {
            "task": f"0x{stack.task:x}" if stack.task else None, "cpu": stack.cpu,
            **({} if stack.tid is None else {"tid": stack.tid}), "frame": None, "end": stack.end})


def verbose(session: Session, stack: Stack) -> Iterator[Output]:
    """Yield a row for each frame, with its size and its registers where they were saved."""
    yield Table(VERBOSE)
    frames = stack.frames
    for number, frame in enumerate(frames):
        size: int | None = None
        if number + 1 < len(frames) and frames[number + 1].stack == frame.stack and frame.kind != "user":
            size = frames[number + 1].sp - frame.sp
        mark = "" if frame.reliable else "? "
        yield Row(frame.pc, (frame.sp, size, frame.pc, frame.stack, mark + place(session, stack, frame)))
        if frame.regs:
            yield from _saved(frame)
    if stack.end:
        yield Record([f"[{escape(stack.end)}]"], lambda: {"end": stack.end})


def _saved(frame: Frame) -> Iterator[Output]:
    registers = dict(frame.registers)
    lines = [f"  registers at {frame.regs:016x}:"]
    names = list(registers)
    for first in range(0, len(names), 4):
        lines.append("   " + "".join(f" {name:>8} {registers[name]:016x}" for name in names[first : first + 4]))
    yield Record(lines, lambda: {
        "registers": f"0x{frame.regs:x}", **{name: f"0x{value:x}" for name, value in registers.items()}})


def find(session: Session, address: int | None, cpu: int | None, kind: str = "") -> Stack:
    """Return the stack that is asked for: of an address, a CPU, the process context, or where the kernel stopped; of a
    process or core that of a thread, whose id the address is.
    """
    target = session.target
    if user_facts(target) is not None:
        if cpu is not None:
            raise KshellError("a process has no CPUs: TID::stack, or ::threads TID chooses a thread")
        return user_stack.thread_stack(target, address if address is not None else session.cpu.thread)
    require_kernel(target)
    if cpu is not None:
        if address is not None:
            raise UsageError("an address and -c do not go together")
        return stacks.cpu_stack(target, cpu)
    if address is not None:
        if kind.startswith(TASK):
            return stacks.task_stack(target, address)
        if kind.startswith("struct pt_regs"):
            return stacks.pt_regs_stack(target, address)
        return stacks.any_stack(target, address)
    if session.context is not None:
        return stacks.task_stack(target, processes.by_pid(target, session.context.pid).address)
    if session.cpu.chosen is not None:
        return stacks.cpu_stack(target, session.cpu.chosen)
    panicking = cpus.panicking_cpu(target)
    if panicking is not None:
        return stacks.cpu_stack(target, panicking)
    states = cpus.cpu_states(target)
    first = next((number for number, state in states.items() if state.registers), None)
    if first is None:
        raise UsageError("whose stack: an address of a task_struct, or the context that ::getu sets",
                         hint="this target has no registers of a CPU")
    return stacks.cpu_stack(target, first)


def check_count(word: str | None) -> None:
    """:raises UsageError: what stands where mdb has a number of arguments is a name"""
    if word is not None and re.fullmatch(r"-?(0[xtoi])?[0-9a-fA-F]+", word) is None:
        raise UsageError(f"{word} is not a number of arguments", hint="a task's stack: ::pgrep NAME | ::stack")


def held(session: Session) -> AbstractContextManager[None]:
    """Return what holds a process still while its stacks are followed; a kernel is followed as it is."""
    control = session.target.control
    return control.standing() if control is not None and user_facts(session.target) is not None else nullcontext()


def owner(session: Session, stack: Stack) -> str:
    """Return whose stack it is: ``bash/1234 on CPU 1``."""
    if stack.tid is not None:
        return f"thread {stack.tid}"
    where = "" if stack.cpu is None else f"on CPU {stack.cpu}"
    if not stack.task:
        return where
    try:
        task = tasks.read_task(session.target, stack.task)
    except KshellError:
        return f"task 0x{stack.task:x} {where}".rstrip()
    name = task.comm if task.is_kernel_thread else f"{task.comm}/{task.pid}"
    return f"{name} {where}".rstrip()


@dcmd("stack", aliases=("$c",), group="Stacks")
def stack(
    session: Session, address: int | None, call: Call,
    detailed: Annotated[bool, Flag("-v", "the size and the address of each frame, and saved registers")],
    source: Annotated[bool, Flag("-l", "with source lines and inlined functions; needs a vmlinux with DWARF")],
    cpu: Annotated[Decimal | None, Option("-c", "cpu", "of what this CPU was doing, in decimal")],
    user: Annotated[bool, Flag("-u", "with the frames of user code behind those of the kernel")],
    tid: Annotated[Decimal | None, Option("-t", "tid", "of this thread of a process or core, in decimal")],
    everyone: Annotated[bool, Flag("-a", "of all threads of a process or core")],
    arguments: Annotated[str | None, Word("n", "as mdb has it, how many arguments; none are kept")],
) -> Iterator[Output]:
    """Show a stack, the innermost function first.

    The address is that of a task_struct, of saved registers (struct pt_regs), or any on a stack, from where on it is
    followed. Without one it is the stack of the process context, else of the CPU that ::cpu chose, else of the one that
    panicked, else of the first. Of a process or core it is that of the thread that ::threads chose, else of the first;
    the address is the id of another one. A process is held still meanwhile, a few milliseconds.

    User code is followed by the unwind tables in its own memory. -u needs them there: a page that has never been
    touched, or was given back, is missing, and the frames behind it are not to be relied on.

    A ? stands before a function that is not to be relied on: it was found by looking for return addresses on the
    stack, because a frame before it could not be followed. Where a trace cannot be followed at all, [...] says why.
    A line <irq>, <NMI> or the like tells that what follows was on that stack, </irq> that it is left.

    Examples:
      ::stack                        // of the process context, or where the kernel stopped
      ::pid2proc 1 | ::stack
      ::stack -v -c 1
      ::pgrep ^kworker | ::stack
      ::pgrep bash | ::stack -u      // and what it does in user code
    """
    if source:
        need_lines(session)
        if detailed:
            raise UsageError("-v and -l do not go together")
    check_count(arguments)
    own = user_facts(session.target)
    if own is None and (tid is not None or everyone):
        raise UsageError("-t and -a are for a process or a core", hint="::pid2proc TID | ::stack; ::stacks")
    if (address is not None) + (tid is not None) + everyone > 1:
        raise UsageError("an address, -t and -a do not go together")
    with held(session):
        asked = [(one, f"stack of {owner(session, one)}") for _, one in user_stack.threads_stacks(
            session.target, None)] if everyone else [
                _asked(session, tid if tid is not None else address, cpu, call, user)]
    for found, name in asked:  # names are looked up when the process runs again
        if not everyone and address is None and not call.pipe_out:
            yield Note(name)
        head = f"{name}:" if everyone else ""
        yield from verbose(session, found) if detailed else show(session, found, source=source, head=head)


def _asked(session: Session, address: int | None, cpu: int | None, call: Call, user: bool) -> tuple[Stack, str]:
    """Return the stack, with user code where that is wanted, and whose it is."""
    found = find(session, address, cpu, str(call.type) if call.type is not None else "")
    name = f"stack of {owner(session, found)}"
    return user_stack.with_user_frames(session.target, found) if user and found.tid is None else found, name


@dcmd("$C", group="Stacks")
def stack_pointers(
    session: Session, address: int | None, call: Call,
    arguments: Annotated[str | None, Word("n", "as mdb has it, how many arguments; none are kept")],
) -> Iterator[Output]:
    """Show a stack as $c does, each function behind the stack pointer that it had.

    Examples:
      $C
    """
    check_count(arguments)
    with held(session):
        found = find(session, address, None, str(call.type) if call.type is not None else "")
    if address is None and not call.pipe_out:
        yield Note(f"stack of {owner(session, found)}")
    yield from show(session, found, pointers=True)


@dcmd("stackregs", group="Stacks")
def stackregs(
    session: Session, address: int | None, call: Call,
    arguments: Annotated[str | None, Word("n", "as mdb has it, how many arguments; the kernel keeps none")],
) -> Iterator[Output]:
    """Show a kernel stack as $C does, each function with the registers that are known of it.

    Those are rip, rsp and rbp of every function, as far as the kernel's own unwind tables tell; all of the innermost
    one; and all where registers were saved, at interrupts, exceptions and on the way in from user mode.

    Examples:
      ::stackregs
      ::pid2proc 1 | ::stackregs
    """
    check_count(arguments)
    found = find(session, address, None, str(call.type) if call.type is not None else "")
    if address is None and not call.pipe_out:
        yield Note(f"stack of {owner(session, found)}")
    outputs = iter(show(session, found, pointers=True))
    for number, frame in enumerate(found.frames):
        line = next(outputs)
        assert isinstance(line, Record)
        registers = _known(session, found, number)
        told = dict(line.data())
        shown = list(line.lines)
        pairs = list(registers.items())
        for first in range(0, len(pairs), 3):
            shown.append("    " + "  ".join(f"%{name:<8} = {value:016x}" for name, value in pairs[first : first + 3]))
        told["registers"] = {name: f"0x{value:x}" for name, value in pairs}
        yield Record(shown, lambda told=told: told, frame.pc)  # type: ignore[misc]
    yield from outputs


def _known(session: Session, found: Stack, number: int) -> dict[str, int]:
    frame = found.frames[number]
    own = {"rip": frame.pc, "rsp": frame.sp} | ({} if frame.bp is None else {"rbp": frame.bp})
    if frame.registers or number:
        return own | dict(frame.registers)
    if found.cpu is not None:
        state = cpus.cpu_states(session.target).get(found.cpu)
        return own | (dict(state.registers) if state is not None and state.registers else {})
    return own | (stacks.task_registers(session.target, found.task)[0] if found.task else {})


@dcmd("findstack", group="Stacks")
def findstack(
    session: Session, address: int, detailed: Annotated[bool, Flag("-v", "as ::stack -v")],
    command: Annotated[str | None, Word("command", "obeyed instead, . being the stack pointer")],
) -> Iterator[Output]:
    """Show the kernel stack of a task, and whose it is.

    Examples:
      ::pid2proc 2 | ::findstack
      ::pid2proc 2 | ::findstack '.,4/J'
      ::walk thread | ::findstack
    """
    target = session.target
    require_kernel(target)
    if not stacks.is_task(target, address):
        raise KshellError(f"0x{address:x} is not a task_struct")
    found = stacks.task_stack(target, address)
    if command is not None:
        if not found.frames:
            raise KshellError(f"task 0x{address:x} has no stack pointer: {found.end}")
        yield from session.eval(command, found.frames[0].sp)
        return
    first = f": {found.frames[0].sp:x}" if found.frames else ""
    head = f"stack pointer for thread {address:x} ({escape(owner(session, found))}){first}"
    yield Record([head], lambda: {"task": f"0x{address:x}", "owner": owner(session, found), "cpu": found.cpu})
    if detailed:
        yield from verbose(session, found)
        return
    for number, output in enumerate(show(session, found, pointers=True)):
        assert isinstance(output, Record)
        *before, line = output.lines
        innermost = number == 0 and found.frames
        yield output._replace(lines=[*before, f"[ {line} ]" if innermost else f"  {line}"])


# -- many stacks -------------------------------------------------------------------------------------------------------


@dcmd("stacks", yields=TASK, group="Stacks")
def all_stacks(
    session: Session, address: int | None, values: Values | None,
    everyone: Annotated[bool, Flag("-a", "every task of a group, not only the first")],
    function: Annotated[list[str], Option("-c", "func", "only stacks through this function or address")],
    no_function: Annotated[list[str], Option("-C", "func", "only stacks not through it")],
    module: Annotated[list[str], Option("-m", "module", "only stacks through code of this module")],
    no_module: Annotated[list[str], Option("-M", "module", "only stacks not through it")],
    kind: Annotated[list[str], Option("-s", "object", "only tasks that wait for this: mutex, futex, ...")],
    no_kind: Annotated[list[str], Option("-S", "object", "only tasks that do not")],
    state: Annotated[list[str], Option("-t", "state|comm", "only tasks in this state or of this name")],
    no_state: Annotated[list[str], Option("-T", "state|comm", "only tasks that are not")],
    active: Annotated[bool, Flag("-i", "leave out tasks that wait for work or a signal, and dead ones")],
    source: Annotated[bool, Flag("-l", "with source lines and inlined functions; needs a vmlinux with DWARF")],
) -> Iterator[Output]:
    """Show the stacks of all tasks, or of a process's or core's threads; equal ones once, the most frequent first.

    With addresses (of task_structs, in a pipe too), of those only. Stacks are equal if they are in the same places of
    the same functions, and the tasks in the same state. SOBJ is the kind of object the tasks wait for, if known.

    -c takes a function (anywhere in it), function+0x31 (that return address), function+0x10-0x40 (from there to
    there), or an address. -m takes kernel for the kernel proper, a.out for a program. -t takes a state (running,
    interruptible, uninterruptible, idle, stopped, traced, zombie, dead, or the letter that ps shows) or a name, with *
    and ?. Options given twice mean either. Into a pipe it passes the addresses of all tasks that are shown.

    Of a process or core, ids of threads are what the addresses of tasks are of a kernel. It is held still meanwhile.

    Examples:
      ::stacks
      ::stacks -t D                              // who is blocked
      ::stacks -c do_wait
      ::stacks -c schedule_timeout | ::stacks -C kthread
      ::stacks -m virtio_blk
      ::stacks -t 'sleeper' -a
    """
    if source:
        need_lines(session)
    target, own = session.target, user_facts(session.target)
    addresses = None if values is None else [item.value for item in values]
    passes = StackFilter(
        target, session.evaluate, function=function, no_function=no_function, module=module, no_module=no_module,
        kind=kind, no_kind=no_kind, active=active)
    damage: KshellError | None = None
    if own is not None:
        with held(session):
            every = user_stack.threads_stacks(
                target, [address] if address is not None and addresses is None else addresses)
        found = [(one, stack) for one, stack in every if _passes(one.state, one.name, state, no_state)]
        groups = user_stack.alike([stack for _, stack in found], [one.state for one, _ in found])
    else:
        require_kernel(target)
        wanted = stacks.asked_tasks(target, address, addresses)
        chosen, damage = stacks.every_found(session.target) if wanted is None else (wanted, None)
        letters, names = tasks.task_columns(target, chosen, "state", "comm")
        rows = [row for row in zip(chosen, letters, names, strict=True) if _passes(row[1], row[2], state, no_state)]
        groups = stacks.stacks(target, [row[0] for row in rows]).groups(
            [row[1] if isinstance(row[1], str) else "?" for row in rows])
    header = [f"{'THREAD':<16} {'STATE':<15} {'SOBJ':<11} {'COUNT':>8}"]
    for group in groups:
        if not passes(group.stack):
            continue
        yield _group(session, group, passes.kind, header, everyone, source)
        header = []
    if damage is not None:
        yield Warn(damage)


def _passes(letter: object, name: object, wanted: list[str], unwanted: list[str]) -> bool:
    return (not wanted or in_state(wanted, letter, name)) and not in_state(unwanted, letter, name)


def _group(
    session: Session, group: Group, kind_of: Callable[[Stack], str], header: list[str], everyone: bool, source: bool,
) -> Record:
    whole = group.stack
    # user code is not compared
    found = whole._replace(frames=tuple(frame for frame in whole.frames if frame.kind != "user"))
    state = STATES.get(str(group.label), str(group.label))
    own = found.tid is not None
    names = [str(tid) if own else f"{tid:016x}" for tid in group.tasks]

    def lines() -> Iterator[str]:
        yield from header
        yield f"{names[0]:<16} {state or '-':<15} {kind_of(found) or '-':<11} {len(names):>8}"
        if everyone:
            for first in range(1, len(names), 4):
                yield " ".join(f"{name:<16}" for name in names[first : first + 4]).rstrip()
        for output in show(session, found, indent=" " * 17, source=source, call=""):
            assert isinstance(output, Record)
            yield from output.lines
        yield ""

    def as_data() -> dict[str, Any]:
        frames = [data(session, found, number, source) for number in range(len(found.frames))]
        told: dict[str, Any] = {
            "tid" if own else "task": found.tid if own else f"0x{found.task:x}",
            "state": state or None, "sobj": kind_of(found) or None, "count": len(names), "end": found.end or None,
            "frames": frames,
        }
        if everyone:
            told["tids" if own else "tasks"] = group.tasks if own else [f"0x{task:x}" for task in group.tasks]
        return told

    return Record(lines(), as_data, tuple(group.tasks), None if own else TASK)


@walker("stack")
def walk_stack(session: Session, address: int) -> Iterator[int]:
    """Walk the program counters of a kernel stack, the innermost first, from a task_struct or an address on a stack."""
    found = stacks.any_stack(session.target, address)
    for frame in found.frames:
        yield frame.pc
    if found.end:
        raise Abort(found.end)
