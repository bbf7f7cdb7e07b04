"""``::nm``: the symbols of the target, in mdb's table (mdb-language.md 11.7).

kallsyms keeps a name, an address and the letter of nm(1); what ELF's symbol tables have beside that is told from these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple

from kshell.api import (
    ADDRESS,
    DECIMAL,
    HEX,
    OCTAL,
    Column,
    Flag,
    KshellError,
    Option,
    Output,
    Row,
    Session,
    Symbol,
    Table,
    Text,
    UsageError,
    Word,
    dcmd,
)
from kshell.linux import modules
from kshell.linux.userland import module_named, user_facts

#: letters of nm(1) for the kinds of mdb's ::nm -t; kallsyms has no sections, files, registers and thread storage
KINDS = {
    "func": "TtWw", "objt": "DdBbRrVvGgSs", "noty": "AaNn?U", "comm": "C",
    "sect": "", "file": "", "tls": "", "regi": "",
}
#: what the letters tell of the section
SECTIONS = {"T": "text", "W": "text", "D": "data", "G": "data", "V": "data", "B": "bss", "S": "bss", "R": "rodata",
            "A": "ABS", "C": "COMMON", "U": "UNDEF"}
USUAL = "val,sz,type,bind,oth,shndx,name"


class Field(NamedTuple):
    """A column that ``-f`` can ask for."""

    column: Column
    cell: Callable[[Session, int, Symbol], Any]


def _type(symbol: Symbol) -> str:
    return next((name for name, letters in KINDS.items() if symbol.type in letters), "noty").upper()


def _bind(_session: Session, _index: int, symbol: Symbol) -> str:
    return "WEAK" if symbol.type in "WwVv" else "GLOB" if symbol.type.isupper() else "LOCL"


def _name(_session: Session, _index: int, symbol: Symbol) -> str:
    return symbol.shown


def _object(session: Session, _index: int, symbol: Symbol) -> str:
    return symbol.module or ("vmlinux" if user_facts(session.target) is None else "a.out")


def _ctype(session: Session, _index: int, symbol: Symbol) -> str:
    found = session.target.type_of(symbol)
    return "" if found is None else str(found)


FIELDS = {
    "ndx": Field(Column("Index", 7, DECIMAL, "<"), lambda _session, index, _symbol: index),
    "val": Field(Column("Value", 18, ADDRESS, prefix=True), lambda _session, _index, symbol: symbol.address),
    "sz": Field(Column("Size", 18, HEX, "<", zeros=16, prefix=True), lambda _session, _index, symbol: symbol.size),
    "type": Field(Column("Type", 5), lambda _session, _index, symbol: _type(symbol)),
    "bind": Field(Column("Bind", 5), _bind),
    "oth": Field(Column("Other", 5, HEX, "<", prefix=True), lambda _session, _index, _symbol: 0),
    "shndx": Field(Column("Shndx", 8), lambda _session, _index, symbol: SECTIONS.get(symbol.type.upper(), "?")),
    "name": Field(Column("Name"), _name),
    "mangled": Field(Column("Mangled"), lambda _session, _index, symbol: symbol.name),
    "ctype": Field(Column("C Type", 40), _ctype),
    "obj": Field(Column("Object", 15), _object),
}


@dcmd("nm", columns=tuple(FIELDS[name].column for name in USUAL.split(",")), group="Symbols")
def nm(
    session: Session, address: int | None,
    decimal: Annotated[bool, Flag("-d", "values and sizes in decimal")],
    octal: Annotated[bool, Flag("-o", "in octal")],
    hexadecimal: Annotated[bool, Flag("-x", "in hexadecimal, as without")],
    global_: Annotated[bool, Flag("-g", "global symbols only")],
    undefined: Annotated[bool, Flag("-u", "undefined symbols only")],
    private: Annotated[bool, Flag("-P", "those that ::nmadd added only")],
    dynamic: Annotated[bool, Flag("-D", "the dynamic symbols only")],
    by_name: Annotated[bool, Flag("-n", "sorted by name")],
    by_value: Annotated[bool, Flag("-v", "sorted by address")],
    bare: Annotated[bool, Flag("-h", "without the header")],
    again: Annotated[bool, Flag("-p", "as ::nmadd commands that add them")],
    fields: Annotated[str | None, Option("-f", "fmt", "these columns, joined by commas")],
    kinds: Annotated[str | None, Option("-t", "types", "of these types, joined by commas")],
    module: Annotated[str | None, Option("-m", "module", "of this module; vmlinux is the kernel")],
    pattern: Annotated[str | None, Word("object|pattern", "a module, or a regular expression for names")],
) -> Iterator[Output]:
    """List symbols, or with an address the one that covers it.

    The columns of -f are ndx val sz type bind oth shndx name mangled ctype obj. Types are noty objt func sect file comm
    tls regi, as far as the letters of kallsyms tell; a size of 0 is not known, Shndx is the kind of the section. The
    value of a per-CPU symbol is its offset in the per-CPU area. Names of C++ and Rust are as they were written; typed,
    and in patterns, they are mangled. Into a pipe it passes addresses.

    Examples:
      ::nm -v ^tcp_v4
      schedule+10::nm
      ::nm -t func -f val,sz,name ext4
      ::nm -p -v ^jiffies
    """
    if dynamic:
        raise KshellError("operation not supported by target", hint="a kernel has no dynamic symbol table")
    chosen = _chosen(fields)
    if decimal or octal:
        kind, digits = (DECIMAL, 0) if decimal else (OCTAL, 23)
        chosen = [field._replace(column=field.column._replace(
            kind=kind, zeros=digits, align="<", width=24, prefix=False)) if field.column.width == 18 else field
            for field in chosen]
    yield Table(tuple(field.column for field in chosen), joint="|", header=not bare)
    some = False
    for index, symbol in _wanted(session, address, private, module, pattern, kinds, by_name, by_value):
        if (global_ and not symbol.type.isupper()) or (undefined and symbol.type != "U"):
            continue
        some = True
        if again:
            yield Text(_command(symbol), symbol.address)
        else:
            yield Row(symbol.address, tuple(field.cell(session, index, symbol) for field in chosen))
    if not some:
        hint = "::nmadd adds one" if private else "the pattern is a regular expression; ::nm has all of them"
        raise KshellError("no symbol matches", hint=hint)


def _chosen(fields: str | None) -> list[Field]:
    names = ["sz" if name == "size" else name for name in (fields or USUAL).split(",")]
    for name in names:
        if name not in FIELDS:
            raise UsageError(f"{name or 'nothing'} is not a column", hint=f"one of {', '.join(FIELDS)}")
    return [FIELDS[name] for name in names]


def _wanted(
    session: Session, address: int | None, private: bool, module: str | None, pattern: str | None, kinds: str | None,
    by_name: bool, by_value: bool,
) -> Iterator[tuple[int, Symbol]]:
    """Yield what is asked for, each with its place in the table."""
    letters = "".join(_letters(kind) for kind in kinds.split(",")) if kinds else None
    if address is not None:
        covering = session.target.symbols.at(address)
        if covering is None:
            raise KshellError(f"no symbol corresponds to address 0x{address:x}")
        yield 0, covering[0]
        return
    if pattern is not None and module is None and not private and _is_object(session, pattern):
        module, pattern = pattern, None
    try:
        matches = re.compile(pattern or "").search
    except re.error as error:
        raise UsageError(f"{pattern}: {error}") from None
    found: Iterable[tuple[int, Symbol]] = (
        (index, symbol)
        for index, symbol in enumerate(session.target.symbols.private if private else _all(session, module))
        if matches(symbol.name) and (letters is None or symbol.type in letters))
    if by_name:
        found = sorted(found, key=lambda one: one[1].name)
    elif by_value:
        found = sorted(found, key=lambda one: one[1].address)
    yield from found


def _is_object(session: Session, name: str) -> bool:
    if name in ("vmlinux", "kernel"):
        return True
    if any(symbol.module == name for symbol in session.target.symbols.find_all("__this_module")):
        return True
    try:  # a kernel without KALLSYMS_ALL keeps no data symbols of modules
        return any(module.name == name for module in modules.iter_modules(session.target))
    except KshellError:
        return False


def _all(session: Session, module: str | None) -> Iterator[Symbol]:
    if module is None:
        yield from session.target.symbols
        return
    if user_facts(session.target) is not None:
        wanted = module_named(session.target, module)
    else:
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


def _command(symbol: Symbol) -> str:
    kind = {"FUNC": "-f ", "OBJT": "-o "}.get(_type(symbol), "")
    size = f"-s 0x{symbol.size:x} " if symbol.size else ""
    return f"0x{symbol.address:x}::nmadd {kind}{size}{symbol.name}"

