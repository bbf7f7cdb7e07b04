"""Why a kernel died, in words: what ``::panic`` and triage show of a :class:`~kshell.linux.crash.Crash`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kshell.errors import KshellError
from kshell.escape import escape
from kshell.linux import crash, faulting, taints
from kshell.linux.crash import Crash
from kshell.linux.lock_rows import place, who
from kshell.linux.stacks import Frame, symbolize

if TYPE_CHECKING:
    from kshell.arch.disassembler import Disassembler
    from kshell.target.target import Target

#: instructions shown before and after the one that failed
AROUND = 4
REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
             "r14", "r15")  # fmt: skip


def describe(target: Target, found: Crash, verbose: bool = False) -> dict[str, Any]:
    """Return all that is known of a crash as an object, in the order in which people read it."""
    unknown = "none: the kernel did not panic" if found.stack is None else "yes, but the log does not tell why"
    facts: dict[str, Any] = {"panic": found.reason or unknown}
    if found.failure is not None and found.failure.kind != "panic":
        facts["cause"] = found.failure.text
    if found.failure is not None:
        facts["kind"] = found.failure.kind
        facts["time"] = f"{found.failure.timestamp / 1e9:.6f} s after boot"
    if found.cpu is not None:
        facts["cpu"] = found.cpu
    task = found.task.address if found.task is not None else 0
    if found.task is not None:
        facts["task"] = f"{who(found.task)} 0x{found.task.address:x}"
    elif found.log is not None and found.log.comm:
        facts["task"] = f"{found.log.comm} ({found.log.pid})"
    if found.frame is not None:
        how = "" if found.interrupted else ", which called panic()"
        facts["where"] = f"{name_of(target, found.frame)}{how}"
    elif found.log is not None and found.log.function:
        facts["where"] = f"{found.log.function} (from the log)"
    if found.recursion is not None:
        frame, count = found.recursion
        facts["recursion"] = f"{name_of(target, frame)} is {count} times on this stack: it calls itself without end"
    if found.trap >= 0:
        facts["exception"] = crash.trap_name(found.trap)
    if found.trap == crash.PAGE_FAULT and found.error_code is not None:
        facts["access"] = crash.access(found.error_code)
    if found.fault is not None:
        facts["fault_address"] = f"0x{found.fault:x}"
        facts["fault_means"] = list(faulting.meaning(target, found.fault, task))
    pc = found.registers.get("rip", 0)
    if pc:
        facts |= _code(target, found, pc, task)
    if found.registers:
        facts["registers"] = {
            name: _register(target, value, task, verbose and name != "rflags")
            for name, value in _ordered(found.registers)}
    try:
        facts["taints"] = [f"{taint.letter} ({taint.meaning})" for taint in taints.kernel_taints(target)]
    except KshellError as error:
        facts["taints"] = [f"<{error}>"]
    if found.stack is not None:
        facts["stack"] = folded(target, found.stack.frames)
    if found.problems:
        facts["problems"] = list(found.problems)
    return facts


def name_of(target: Target, frame: Frame) -> str:
    found = symbolize(target, frame)
    return place(found) if found is not None else f"0x{frame.pc:x}"


def folded(target: Target, frames: tuple[Frame, ...], limit: int = 40) -> list[str]:
    """Return the frames as text, one that repeats once with its count, and no more than *limit*."""
    shown: list[tuple[str, int]] = []
    for frame in frames:
        text = f"{'' if frame.reliable else '? '}{name_of(target, frame)}"
        if frame.kind == "user":
            text = f"0x{frame.pc:x} (user)"
        if shown and shown[-1][0] == text:
            shown[-1] = text, shown[-1][1] + 1
        else:
            shown.append((text, 1))
    found = [text if count == 1 else f"{text}  ({count} times)" for text, count in shown[:limit]]
    return [*found, f"... {len(shown) - limit} more"] if len(shown) > limit else found


def _code(target: Target, found: Crash, pc: int, task: int) -> dict[str, Any]:
    """Return the instructions around the one that failed, and its operands in memory."""
    try:
        code, memory = _disassembler(target), target.kernel
        covering = target.symbolize(pc)
        before, start = code.before(memory, pc, AROUND, covering[0].address if covering is not None else None)
        every = [*before]
        for one in code.run(memory, start):
            every.append(one)
            if one.address >= pc and len(every) > len(before) + AROUND:
                break
    except KshellError as error:
        return {"code": [f"<{error}>"]}
    facts: dict[str, Any] = {"code": []}
    for one in every:
        mark = "=>" if one.address == pc else "  "
        facts["code"].append(f"{mark} {_label(target, one.address):<28} {one}")
        if one.address == pc:
            facts["instruction"] = str(one)
            facts["operands"] = [
                {"operand": operand.text, "address": f"0x{operand.address:x}",
                 "registers": {name: f"0x{value:x}" for name, value in operand.registers.items()},
                 "means": list(faulting.meaning(target, operand.address, task))}
                for operand in faulting.operands(str(one), found.registers, one.address + one.size)]
    return facts


def _disassembler(target: Target) -> Disassembler:
    from kshell.arch.disassembler import Disassembler

    return Disassembler(target.arch.name, lambda address: _label(target, address, "") or None, lambda _offset: None)


def _label(target: Target, address: int, unknown: str | None = None) -> str:
    """Return the name of a place, its address (or *unknown*) when it has none."""
    found = target.symbolize(address)
    return place(found) if found is not None else f"0x{address:x}" if unknown is None else unknown


def _ordered(registers: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for name in ("rip", *REGISTERS, "rflags", "cr2"):
        if name in registers:
            yield name, registers[name]


def _register(target: Target, value: int, task: int, verbose: bool) -> str:
    text = f"0x{value:016x}"
    if verbose and 0 < value < faulting.NULL_REACH:
        return text  # a number: only the address of a fault is NULL plus that
    if verbose:
        with suppress(KshellError):
            text += "".join(f"  {word}" for word in list(faulting.meaning(target, value, task))[:1])
        return text
    found = target.symbolize(value) if value >= target.arch.kernel_half else None
    return f"{text}  {place(found)}" if found is not None else text


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the text of what :func:`describe` returns."""
    for name in ("panic", "cause", "time", "cpu", "task", "where", "recursion", "exception", "access"):
        if name in facts:
            yield f"{name + ':':<10} {escape(str(facts[name]))}"
    if "fault_address" in facts:
        yield f"{'address:':<10} {facts['fault_address']}"
        for text in facts["fault_means"]:
            yield f"{'':<10} is {escape(text)}"
    for operand in facts.get("operands", ()):
        used = ", ".join(f"%{name} = {value}" for name, value in operand["registers"].items())
        yield f"{'operand:':<10} {operand['operand']} is {operand['address']} ({used})"
        for text in operand["means"]:
            yield f"{'':<10} is {escape(text)}"
    if facts.get("taints"):
        yield f"{'tainted:':<10} {escape(', '.join(facts['taints']))}"
    for name in ("problems", "code", "stack"):
        if facts.get(name):
            yield f"{name}:"
            for text in facts[name]:
                yield f"    {escape(text)}"
    if "registers" in facts:
        yield "registers:"
        for name, text in facts["registers"].items():
            yield f"    %{name:<6} {escape(text)}"


TITLES = {
    "null": "NULL dereference", "overflow": "kernel stack overflow", "fault": "access to a bad address",
    "protection": "general protection fault", "softlockup": "soft lockup", "hardlockup": "hard lockup", "bug": "BUG",
    "slab": "damaged slab or list", "hungtask": "hung tasks", "stall": "RCU stall", "oops": "oops",
    "machinecheck": "machine check", "sleeping": "sleeping where it must not", "panic": "panic",
}  # fmt: skip


def verdict(target: Target, found: Crash) -> str:
    """Return one sentence: what happened, where, called by whom, and over which address."""
    kind = found.failure.kind if found.failure is not None else "panic"
    title = TITLES.get(kind, kind)
    if found.recursion is not None and kind in ("overflow", "fault", "panic", "oops"):
        frame, count = found.recursion
        title, where = "kernel stack overflow", f"{name_of(target, frame)}, which called itself {count} times"
    elif found.frame is not None and (found.interrupted or kind == "panic"):
        where = name_of(target, found.frame)
    elif found.log is not None and found.log.function:
        where = found.log.function
    else:
        where = ""
    text = title if kind != "panic" else f"panic ({found.reason or 'the log does not tell why'})"
    text += f" in {where}" if where else ""
    caller = _caller(target, found)
    text += f", called by {caller}" if caller else ""
    who_did = who(found.task) if found.task is not None else (
        f"{found.log.comm} ({found.log.pid})" if found.log is not None and found.log.comm else "")
    text += f", task {who_did}" if who_did else ""
    text += f", CPU {found.cpu}" if found.cpu is not None else ""
    if found.fault is not None:
        means = next(faulting.meaning(target, found.fault, found.task.address if found.task else 0), "")
        text += f"; address 0x{found.fault:x}" + (f" is {means}" if means else "")
    elif kind in ("softlockup", "hungtask", "stall", "hardlockup", "bug") and found.failure is not None:
        text += f"; {found.failure.text}"
    return text


def _caller(target: Target, found: Crash) -> str:
    """Return the function that called the place of the crash; for a recursion the one that began it."""
    if found.stack is None or found.frame is None:
        return ""
    frames = list(found.stack.frames)
    if found.recursion is not None:
        frame = found.recursion[0]
        last = max(number for number, one in enumerate(frames) if one.pc == frame.pc)
    else:
        last = frames.index(found.frame)
    after = frames[last + 1 : last + 2]
    return name_of(target, after[0]) if after and after[0].kind != "user" else ""
