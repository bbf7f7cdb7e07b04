"""What mdb calls by another name: ``::pmap ::fd ::threadlist ::cpustack ::cpuregs ::panicinfo ::page_num2pp``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Column,
    Decimal,
    Flag,
    Item,
    KshellError,
    Note,
    Number,
    Option,
    Output,
    Record,
    Row,
    Session,
    Table,
    UsageError,
    Word,
    dcmd,
)
from kshell.linux import crash, files, page_types, processes, tasks
from kshell.linux.kernel import require_kernel
from kshell.linux.tasks import Task

TASK = "struct task_struct"
WHICH = Word("pid|name", "pids are decimal")
SEGMENTS = (Column("SEG", kind=ADDRESS), Column("BASE", kind=ADDRESS), Column("SIZE", 9, align=">"),
            Column("RES", 9, align=">"), Column("PERM", 4), Column("PATH"))
THREADS = (Column("ADDR", kind=ADDRESS), Column("PROC", kind=ADDRESS), Column("TID", 6, DECIMAL, "<"), Column("CMD"))


def find(session: Session, address: int | None, word: str | None) -> Task:
    """Return the task that an address, a pid or name, or the process context names.

    :raises UsageError: nothing names one
    """
    target = session.target
    require_kernel(target)
    context = session.context
    return processes.chosen(target, address, word, None if context is None else context.pid)


@dcmd("pmap", columns=SEGMENTS, yields="struct vm_area_struct", group="Processes")
def pmap(
    session: Session, address: int | None, quick: Annotated[bool, Flag("-q", "without RES, which takes a look at the "
                                                                              "page tables")],
    which: Annotated[str | None, WHICH],
) -> Iterator[Output]:
    """List the mappings of a process, with how much of each is in memory.

    Of the task whose task_struct the address is, of a pid or name, or of the process context. SEG is the
    vm_area_struct. ::mappings shows those of the process context as mdb's $m does.

    Examples:
      ::pmap 1
      ::pgrep -x victim | ::pmap -q
      ::pmap 1 | ::print struct vm_area_struct vm_flags
    """
    task = find(session, address, which)
    target = session.target
    space = None if quick else processes.user_memory(target, task)
    for vma in processes.vmas(target, task):
        held = None
        if space is not None:
            mapped = getattr(space, "mappings", None)
            held = None if mapped is None else sum(
                min(run.end, vma.end) - max(run.start, vma.start) for run in mapped(vma.start, vma.end))
        name = vma.name or " [ anon ]"
        shown = f"{held >> 10}k" if held is not None else None
        yield Row(vma.address, (vma.address, vma.start, f"{vma.end - vma.start >> 10}k", shown, vma.permissions, name))


@dcmd("fd", yields="struct file", group="Processes")
def fd(
    session: Session, address: int | None, number: Annotated[Decimal, Word("num", "of the descriptor, in decimal")],
) -> Iterator[Output]:
    """Print the address of the struct file of a descriptor, of a task or the process context; ::pfiles lists all.

    Examples:
      ::pgrep -x victim | ::fd 0
      ::pgrep -x victim | ::fd 0 | ::print struct file f_flags
    """
    task = find(session, address, None)
    for one in files.open_files(session.target, task.address):
        if one.fd == number:
            yield Item(one.file, "struct file")
            return
    raise KshellError(f"{task.comm}/{task.pid} has no descriptor {number}", hint="::pfiles lists those it has")


@dcmd("threadlist", columns=THREADS, yields=TASK, group="Processes")
def threadlist(
    session: Session, address: int | None,
    stacks: Annotated[bool, Flag("-v", "the stack of each, as ::findstack shows it")],
    by_thread: Annotated[bool, Flag("-t", "as without: every task is a thread")],
) -> Iterator[Output]:
    """List all threads, or the one at the address: task, leader of its process, id and name.

    Examples:
      ::threadlist
      ::pid2proc 2 | ::threadlist -v
    """
    target = session.target
    require_kernel(target)
    yield Table(THREADS)
    for task in tasks.iter_threads(target) if address is None else [processes.by_address(target, address)]:
        leader = target.value(TASK, task.address).integer("group_leader")
        name = task.comm if task.is_kernel_thread else f"{task.comm}/{task.pid}"
        yield Row(task.address, (task.address, leader, task.pid, name))
        if stacks:
            yield from session.eval(f"0x{task.address:x}::findstack")


@dcmd("cpustack", group="Stacks")
def cpustack(
    session: Session, cpu: Annotated[Decimal | None, Option("-c", "cpu", "of this CPU, in decimal")],
    detailed: Annotated[bool, Flag("-v", "as ::stack -v")],
) -> Iterator[Output]:
    """Show the stack of a CPU: ::stack -c.

    Examples:
      ::cpustack -c 1
    """
    yield from session.eval(f"::stack{' -v' * detailed} -c {session.cpu.number if cpu is None else cpu}")


@dcmd("cpuregs", group="Stacks")
def cpuregs(
    session: Session, cpu: Annotated[Decimal | None, Option("-c", "cpu", "of this CPU, in decimal")],
) -> Iterator[Output]:
    """Show the registers of a CPU: ::regs -c.

    Examples:
      ::cpuregs -c 1
    """
    yield from session.eval(f"::regs -c {session.cpu.number if cpu is None else cpu}")


@dcmd("panicinfo", group="Kernel")
def panicinfo(session: Session) -> Iterator[Output]:
    """Show which CPU and thread panicked, the message, and the registers; ::panic says more.

    Examples:
      ::panicinfo
    """
    target = session.target
    require_kernel(target)
    if target.live:
        raise KshellError("panicinfo can only be run on a system dump")
    found = crash.read_crash(target)
    if not found.happened:
        yield Note(found.nothing)
        return
    facts: dict[str, object] = {"cpu": found.cpu}
    facts["thread"] = f"{found.task.address:x}" if found.task is not None else None
    facts["message"] = found.reason or (found.failure.text if found.failure is not None else "")
    facts |= {name: f"{value:x}" for name, value in found.registers.items()}
    lines = [f"{name:>16} {value:>16}" for name, value in facts.items() if value is not None]
    yield Record(lines, lambda: facts)


@dcmd("page_num2pp", yields="struct page", group="Memory")
def page_num2pp(
    session: Session, address: int | None,
    frame: Annotated[Number | None, Word("pfn", "the number, without an address")],
) -> Iterator[Output]:
    """Print the address of the struct page of a page frame, whose number is the address.

    Examples:
      100::page_num2pp
      100::page_num2pp | ::print struct page flags
    """
    number = address if address is not None else frame
    if number is None:
        raise UsageError("which page: its number is the address")
    array = page_types.PageTypes(session.target).array
    if number >= array.frames:
        raise KshellError(f"no page 0x{number:x}: memory ends with page 0x{array.frames - 1:x}")
    yield Item(array.start + number * array.size, "struct page")
