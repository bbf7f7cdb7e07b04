"""``::nm``: symbols; ``::whatis``: what an address is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    HEX,
    Abort,
    Address,
    Call,
    Column,
    Flag,
    KshellError,
    Option,
    Output,
    Row,
    Session,
    Symbol,
    Text,
    UsageError,
    Values,
    Warn,
    Word,
    dcmd,
)
from kshell.linux import processes
from kshell.linux import whatis as answers

#: letters of nm(1) for the kinds of mdb's ::nm -t
KINDS = {"func": "TtWw", "objt": "DdBbRrVvGgSs", "noty": "AaNn?"}
NM_COLUMNS = (
    Column("Value", kind=ADDRESS), Column("Size", 16, HEX, "<", zeros=16), Column("Type", 5), Column("Bind", 5),
    Column("Module", 16), Column("Name"),
)


@dcmd("nm", columns=NM_COLUMNS, group="Symbols")
def nm(
    session: Session, address: int | None,
    global_: Annotated[bool, Flag("-g", "global symbols only")],
    private: Annotated[bool, Flag("-P", "those that ::nmadd added only")],
    by_name: Annotated[bool, Flag("-n", "sorted by name")],
    by_value: Annotated[bool, Flag("-v", "sorted by address")],
    kinds: Annotated[str | None, Option("-t", "func|objt|noty", "of these kinds, joined by commas")],
    module: Annotated[str | None, Option("-m", "module", "of this module; vmlinux is the kernel")],
    pattern: Annotated[str | None, Word("pattern", "names that match this regular expression")],
) -> Iterator[Output]:
    """List symbols, or with an address the one that covers it.

    Types are FUNC, OBJT or NOTY, as the letter of kallsyms tells; a size of 0 is not known. The value of a per-CPU
    symbol is its offset in the per-CPU area. Into a pipe it passes addresses.

    Examples:
      ::nm -v ^tcp_v4
      schedule+10::nm
      ::nm -m ext4 -t func
    """
    if address is not None:
        found = session.target.symbols.at(address)
        if found is None:
            raise KshellError(f"no symbol corresponds to address 0x{address:x}")
        yield _row(found[0])
        return
    letters = "".join(_letters(kind) for kind in kinds.split(",")) if kinds else None
    try:
        matches = re.compile(pattern or "").search
    except re.error as error:
        raise UsageError(f"{pattern}: {error}") from None
    wanted: Iterable[Symbol] = (
        symbol for symbol in (session.target.symbols.private if private else _all(session, module))
        if matches(symbol.name) and (not global_ or symbol.type.isupper())
        and (letters is None or symbol.type in letters))
    if by_name:
        wanted = sorted(wanted, key=lambda symbol: symbol.name)
    elif by_value:
        wanted = sorted(wanted, key=lambda symbol: symbol.address)
    some = False
    for symbol in wanted:
        some = True
        yield _row(symbol)
    if not some:
        hint = "::nmadd adds one" if private else "the pattern is a regular expression; ::nm has all of them"
        raise KshellError("no symbol matches", hint=hint)


def _all(session: Session, module: str | None) -> Iterator[Symbol]:
    if module is None:
        yield from session.target.symbols
        return
    wanted = None if module in ("vmlinux", "kernel") else module.replace("-", "_")
    known: set[str] = set()
    found = False
    for symbol in session.target.symbols:
        if symbol.module == wanted:
            found = True
            yield symbol
        elif symbol.module:
            known.add(symbol.module)
    if not found:
        raise KshellError(f"no symbols of module {module}", hint="::modinfo lists the modules")


def _letters(kind: str) -> str:
    if kind not in KINDS:
        raise UsageError(f"{kind} is not a kind of symbol", hint=f"one of {', '.join(KINDS)}")
    return KINDS[kind]


def _row(symbol: Symbol) -> Row:
    kind = next((name for name, letters in KINDS.items() if symbol.type in letters), "noty").upper().ljust(4)
    bind = "WEAK" if symbol.type in "WwVv" else "GLOB" if symbol.type.isupper() else "LOCL"
    cells = (symbol.address, symbol.size, kind.strip(), bind, symbol.module or "vmlinux", symbol.name)
    return Row(symbol.address, cells)


@dcmd("whatis", group="Symbols")
def whatis(
    session: Session, address: int | None, call: Call, values: Values | None,
    every: Annotated[bool, Flag("-a", "all answers, not only the most specific one")],
    which: Annotated[list[Address], Word("addr", "an address or expression")],
) -> Iterator[Output]:
    """Say what an address is: a symbol, a task or its stack, a mapping, a module, a page of memory.

    Kernel addresses are looked for in the symbols, tasks and their stacks, per-CPU areas, modules, vmalloc areas and
    the memory map; user addresses in the mappings of the process context.

    Examples:
      schedule+10::whatis
      ::ps | ::whatis -a
      ::whatis jiffies init_task+8
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
        if context is None and number < half:
            yield Text(f"{number:x} is unknown: a user address, and there is no process context (::getu)")
            continue
        some = False
        broken: list[str] = []
        mm, comm = (context.mm, f"process {context.pid} ({context.comm})") if context is not None else (0, "")
        found = answers.whatis(session.target, number, mm, comm) if mm or number >= half else _mapping(session, number)
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
