"""Single steps, over calls, and out of functions; and what is told of a target that has come to a stop.

Reference: mdb-language.md 11.1 (``::step [over|out]``, ``::next``). A call is recognised by decoding the instruction;
the return address is an unwinder's (:mod:`kshell.linux.stacks`, ``user_stack``). A task may be moved to another CPU
meanwhile, so arriving is told by the task and the stack pointer, not by the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kshell.errors import KshellError
from kshell.execution import debugger_of
from kshell.output import Output, Record
from kshell.running import Halted, Runner, enter_process
from kshell.target.control import Point

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kshell.session import Session
    from kshell.target.target import Cpu


def step_into(session: Session) -> Halted:
    """Execute one instruction of the chosen CPU.

    :raises KshellError: the CPU waits for an interrupt
    """
    control = debugger_of(session)
    if session.runner is not None:
        raise KshellError("the commands of a breakpoint cannot step the target")
    control.stop()
    try:
        found = control.step(session.cpu.number)
    except KeyboardInterrupt:
        control.stop()
        return Halted("interrupted")
    if found is None:
        raise KshellError(f"CPU {session.cpu.number} is halted: it waits for an interrupt",
                          hint="::cont lets all CPUs run; ::cpu chooses another one")
    return Halted("step")


def step_over(session: Session) -> Iterator[Output | Halted]:
    """Execute one instruction, and all of a function that it calls."""
    from kshell.instructions import disassembler

    debugger_of(session).stop()
    registers = session.cpu.registers()
    rip, rsp = registers["rip"], registers["rsp"]
    found = disassembler(session).one(space_at(session, rip), rip)
    if not found.text.startswith(("call", "rep")):
        yield step_into(session)
        return
    yield from _to(session, rip + found.size, rsp)


def step_out(session: Session) -> Iterator[Output | Halted]:
    """Run until the function that the chosen CPU is in has returned.

    :raises KshellError: nothing tells where it returns to
    """
    from kshell.linux.stack import registers_stack
    from kshell.linux.user_stack import user_frames

    debugger_of(session).stop()
    registers = session.cpu.registers()
    if registers["rip"] < session.target.arch.kernel_half:
        stack = user_frames(session.target, _task(session), registers)
    else:
        stack = registers_stack(session.target, registers, _task(session))
    if len(stack.frames) < 2:
        raise KshellError(f"the return address is not known: {stack.end or 'this is the outermost function'}")
    yield from _to(session, stack.frames[1].pc, registers["rsp"] + 1)


def _to(session: Session, address: int, lowest: int) -> Iterator[Output | Halted]:
    """Run until the task that is on the chosen CPU comes to *address* with a stack pointer of at least *lowest*."""
    from kshell.linux.current import current_address

    task = _task(session)
    leaves = address < session.target.arch.kernel_half <= lowest  # from the kernel to user code, and another stack

    def arrived(cpu: Cpu) -> bool:
        if cpu.registers["rip"] != address or (not leaves and cpu.registers["rsp"] < lowest):
            return False
        return current_address(session.target, cpu) == task

    yield from Runner(session).run((Point("execute", address),), arrived)


def _task(session: Session) -> int:
    """Return the address of the task on the chosen CPU."""
    from kshell.linux.current import current_address

    cpu = next(one for one in session.target.cpus if one.number == session.cpu.number)
    return current_address(session.target, cpu)


def space_at(session: Session, rip: int) -> Any:
    """Return the memory that an instruction pointer is in: the kernel's, or that of the process on the CPU."""
    if rip < session.target.arch.kernel_half:
        cpu = next(one for one in session.target.cpus if one.number == session.cpu.number)
        enter_process(session, cpu)
    return session.space(rip)


def tell(session: Session, halted: Halted) -> Iterator[Output]:
    """Yield where the target stands and why, and move dot there; the process on the CPU becomes the context."""
    registers = session.cpu.registers()
    rip = registers["rip"]
    cpu = next(one for one in session.target.cpus if one.number == session.cpu.number)
    enter_process(session, cpu)
    session.told_at = cpu.number, rip
    session.dot, session.increment = rip, 0
    who = _who(session, cpu)
    name = session.name_of(rip)
    lines = [f"{halted.reason} at {name}: CPU {cpu.number}, {who[2]}", *halted.notes]
    try:
        from kshell.instructions import disassembler

        lines.append(f"{name + ':':<32}{disassembler(session).one(space_at(session, rip), rip)}")
    except KshellError as error:
        lines.append(f"{name}: {error}")
    data: Mapping[str, Any] = {
        "reason": halted.reason, "events": [event.number for event in halted.events], "cpu": cpu.number,
        "rip": f"0x{rip:x}", "name": name, "pid": who[0], "comm": who[1], "notes": list(halted.notes)}
    yield Record(map(_escaped, lines), lambda: data, rip)


def _who(session: Session, cpu: Cpu) -> tuple[int | None, str | None, str]:
    """Return pid and name of the task on *cpu*, and both for people."""
    from kshell.linux.current import current_address
    from kshell.linux.tasks import read_task

    try:
        task = read_task(session.target, current_address(session.target, cpu))
    except KshellError as error:
        return None, None, f"its task cannot be read: {error}"
    return task.pid, task.comm, f"pid {task.pid} ({task.comm})"


def _escaped(text: str) -> str:
    from kshell.escape import escape

    return escape(text)
