"""``::vtop``, ``::vatopfn``: page tables; ``::mappings``: what is mapped where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kshell.api import (
    ADDRESS,
    HEX,
    Call,
    Column,
    Expr,
    Fault,
    Flag,
    Item,
    KshellError,
    Option,
    Output,
    Row,
    Session,
    Table,
    Text,
    Word,
    dcmd,
)
from kshell.linux import memory_map, processes, whatis_pages
from kshell.linux import vtop as vtop_
from kshell.linux.userland import user_facts

if TYPE_CHECKING:
    from kshell.target.space import AddressSpace


@dcmd("vtop", group="Memory")
def vtop(
    session: Session, address: int, call: Call,
    verbose: Annotated[bool, Flag("-v", "show each table on the way, and the page")],
    mm: Annotated[Expr | None, Option("-a", "mm", "in the address space of this mm_struct")],
) -> Iterator[Output]:
    """Translate a virtual address to a physical one.

    A kernel address through the kernel's page tables, a user address through those of the process context, or of -a.
    -v shows each level: the table, the index in it and the entry, and what the page is. Into a pipe it passes the
    physical address.

    Examples:
      init_task::vtop -v
      ::getu 812; 404010::vtop
    """
    space = _space(session, address, mm)
    for step in vtop_.steps(space, address) if verbose and not call.pipe_out else ():
        flags = f" ({step.flags})" if step.flags else ""
        yield Text(f"    {step.name} at {step.table:x}[{step.slot:x}] = {step.entry:x}{flags}")
    paddr = _physical(session, address, mm)
    if call.pipe_out:
        yield Item(paddr)
    else:
        yield Text(f"virtual {address:x} mapped to physical {paddr:x}", paddr)
        if verbose:
            try:
                yield Text(f"    {whatis_pages.page_text(session.target, paddr)}", paddr)
            except KshellError as error:
                yield Text(f"    page {paddr >> 12:x} ({error})", paddr)


@dcmd("vatopfn", group="Memory")
def vatopfn(
    session: Session, address: int, call: Call,
    mm: Annotated[Expr | None, Option("-a", "mm", "in the address space of this mm_struct")],
) -> Iterator[Output]:
    """Print the page frame that a virtual address is mapped to.

    A kernel address through the kernel's page tables, a user address through those of the process context, or of -a.
    Into a pipe it passes the frame's number.

    Examples:
      init_task::vatopfn
      init_task::vatopfn | ::page -f
    """
    frame = _physical(session, address, mm) >> 12
    yield Item(frame) if call.pipe_out else Text(f"virtual {address:x} mapped to pfn {frame:x}", frame)


def _physical(session: Session, address: int, mm: int | None) -> int:
    """Return the physical address of a virtual one: of the kernel, of the process context, or of the mm_struct *mm*."""
    space = _space(session, address, mm)
    try:
        return space.translate(address)
    except KshellError as error:
        raise KshellError(f"failed to get physical mapping: {_why(error)}", hint=error.hint) from error


def _space(session: Session, address: int, mm: int | None) -> AddressSpace:
    if user_facts(session.target) is not None:
        raise KshellError("failed to get physical mapping: a process or file has no page tables to look at")
    return vtop_.page_tables(session.target.user_space(mm) if mm is not None else session.space(address))


def _why(error: KshellError) -> str:
    """Return why there is no translation; the address was named by who asks."""
    if isinstance(error, Fault):
        return f"{error.reason.value} ({error.detail})" if error.detail else error.reason.value
    return str(error)


USER_COLUMNS = (
    Column("BASE", 16, ADDRESS, ">", key="start", zeros=1), Column("LIMIT", 16, ADDRESS, ">", key="end", zeros=1),
    Column("SIZE", 16, HEX, ">"),
    Column("PERM", 4, key="permissions"), Column("NAME"),
)
KERNEL_COLUMNS = (*USER_COLUMNS[:3], Column("NAME"))


@dcmd("mappings", aliases=("$m",), columns=USER_COLUMNS, group="Memory")
def mappings(
    session: Session, address: int | None,
    kernel: Annotated[bool, Flag("-k", "the kernel's address space even if there is a process context")],
    vmalloc: Annotated[bool, Flag("-v", "with each vmalloc area")],
    which: Annotated[str | None, Word("pid|name", "of this process; a pid is decimal")],
) -> Iterator[Output]:
    """List the mappings of the process context, or the regions of the kernel's address space.

    Of a target that is a process or a core its own mappings, of an ELF file its sections.
    With an address only the one that holds it. Names are those of /proc/PID/maps. Into a pipe it passes the bases,
    of a process's mappings their vm_area_structs.

    Examples:
      ::mappings -k
      ::mappings 812
      ::getu 812; 404010::mappings
    """
    user = not kernel and (which is not None or session.context is not None)
    if address is not None and which is None:
        user = address < session.target.arch.kernel_half
    if user_facts(session.target) is not None:
        found = _own(session, which, address)
    else:
        found = _process(session, which, address) if user else _kernel(session, vmalloc, address)
    some = False
    for item in found:
        some = some or type(item) is Row
        yield item
    if address is not None and not some:
        raise KshellError(f"failed to obtain mapping: no mapping for address 0x{address:x}")


def _own(session: Session, which: str | None, address: int | None) -> Iterator[Output]:
    facts = user_facts(session.target)
    assert facts is not None
    if which is not None and which not in (str(facts.pid), facts.comm):
        raise KshellError(f"the target is {facts.comm or 'a file'} alone, there is no {which}")
    for one in facts.mappings():
        if address is None or one.start <= address < one.end:
            yield Row(one.start, (one.start, one.end, one.end - one.start, one.permissions, one.name or "[ anon ]"))


def _process(session: Session, which: str | None, address: int | None) -> Iterator[Output]:
    if which is not None:
        task = processes.find(session.target, which)
    else:
        session.user  # noqa: B018 - raises when there is no context
        assert session.context is not None
        task = processes.by_pid(session.target, session.context.pid)
    for vma in processes.vmas(session.target, task):
        if address is None or vma.start <= address < vma.end:
            cells = (vma.start, vma.end, vma.end - vma.start, vma.permissions, vma.name or "[ anon ]")
            yield Row(vma.address or vma.start, cells, "struct vm_area_struct" if vma.address else None)


def _kernel(session: Session, vmalloc: bool, address: int | None) -> Iterator[Output]:
    yield Table(KERNEL_COLUMNS)
    target = session.target
    for region in memory_map.regions(target):
        if address is None or region.start <= address < region.end:
            yield Row(region.start, (region.start, region.end, region.end - region.start, region.name))
        if region.kind == "vmalloc" and (vmalloc or address is not None):
            for area in memory_map.iter_vmalloc(target):
                if address is None or area.start <= address < area.end:
                    caller = f"vmalloc by {session.name_of(area.caller)}" if area.caller else "vmalloc"
                    yield Row(area.start, (area.start, area.end, area.end - area.start, caller))
