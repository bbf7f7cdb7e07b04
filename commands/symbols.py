"""``::whatis``: what an address is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    Abort,
    Address,
    Call,
    Flag,
    Output,
    Session,
    Text,
    UsageError,
    Values,
    Warn,
    Word,
    dcmd,
)
from kshell.linux import processes
from kshell.linux import whatis as answers
from kshell.linux.userland import user_facts, whatis_user


@dcmd("whatis", group="Symbols")
def whatis(
    session: Session, address: int | None, call: Call, values: Values | None,
    every: Annotated[bool, Flag("-a", "all answers, not only the most specific one")],
    verbose: Annotated[bool, Flag("-v", "the member of the structure, where its type is known")],
    which: Annotated[list[Address], Word("addr", "an address or expression")],
) -> Iterator[Output]:
    """Say what an address is: a symbol, a task or its stack, an object of a slab, a page and who has it, a mapping.

    Kernel addresses are looked for in the symbols, tasks, the stacks of tasks and CPUs, the objects of slab caches,
    per-CPU memory, modules, vmalloc areas, the pages of the direct map and the memory map; user addresses in the
    mappings of the process context and the pages behind them, or in those of the process that is the target.

    Examples:
      schedule+10::whatis
      ::ps | ::whatis -a
      ::whatis jiffies init_task+8
      ::walk dentry | ::head -1 | ::whatis -av
    """
    if call.pipe_out:
        raise Abort("cannot be output into a pipe")
    wanted = [*which] if address is None else [address, *which]
    if values is not None:
        wanted += [item.value for item in values]
    if not wanted:
        raise UsageError("which address?")
    context, half = session.context, session.target.arch.kernel_half
    for number in wanted:
        own = user_facts(session.target) is not None
        if context is None and number < half and not own:
            yield Text(f"{number:x} is unknown: a user address, and there is no process context (::getu)")
            continue
        some = False
        broken: list[str] = []
        mm, comm = (context.mm, f"process {context.pid} ({context.comm})") if context is not None else (0, "")
        if own:
            found = whatis_user(session.target, number)
        elif mm or number >= half:
            found = answers.whatis(session.target, number, mm, comm, verbose=verbose)
        else:
            found = _mapping(session, number)
        for answer in found:
            if answer.kind == "error":
                broken.append(answer.text)
                continue
            some = True
            start = f"{answer.start:x}+{answer.offset:x}, " if answer.offset else ""
            yield Text(f"{number:x} is {start}{answer.text}")
            if not every:
                break
        for text in broken if every or not some else ():
            yield Warn(f"{number:x} is {text}")
        if not some:
            yield Text(f"{number:x} is unknown")


def _mapping(session: Session, address: int) -> Iterator[answers.Answer]:
    """Answer which mapping of the process context holds *address* where the kernel's own list cannot be read."""
    context = session.context
    assert context is not None
    for vma in processes.vmas(session.target, processes.by_pid(session.target, context.pid)):
        if vma.start <= address < vma.end:
            text = f"in {vma.name or '[anon]'} [{vma.start:x},{vma.end:x}) {vma.permissions} of "
            yield answers.Answer(
                "vma", vma.start, address - vma.start, f"{text}process {context.pid} ({context.comm})")
