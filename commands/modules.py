"""``::modinfo``: kernel modules, and the walker ``modctl``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import ADDRESS, DECIMAL, HEX, Column, Flag, Output, Row, Session, Table, UsageError, Word, dcmd, walker
from kshell.linux import modules

MODULE = "struct module"
COLUMNS = (
    Column("ADDR", kind=ADDRESS), Column("BASE", kind=ADDRESS), Column("SIZE", 8, HEX, ">"), Column("REF", 4, DECIMAL),
    Column("STATE", 9), Column("TAINT", 5), Column("NAME", 20), Column("USED BY", key="used_by"),
)
SECTIONS = (Column("ADDR", kind=ADDRESS), Column("SECTION", 32), Column("NAME"))


@dcmd("modinfo", aliases=("lsmod",), columns=COLUMNS, yields=MODULE, group="Kernel")
def modinfo(
    session: Session, address: int | None, sections: Annotated[bool, Flag("-s", "the sections of each")],
    names: Annotated[list[str], Word("name", "only these")],
) -> Iterator[Output]:
    """List the kernel modules.

    ADDR is the struct module, BASE the start of its text, SIZE (hex) all its memory, REF how many use it. With an
    address, the module whose struct is there; with names, those only.

    Examples:
      ::modinfo
      ::modinfo -s ext4
      ::lsmod | ::print struct module name srcversion
    """
    target = session.target
    if address is not None:
        if names:
            raise UsageError("an address or names, not both")
        chosen = iter([modules.read_module(target, target.value(MODULE, address))])
    elif names:
        chosen = (modules.find_module(target, name) for name in names)
    else:
        chosen = modules.iter_modules(target)
    if sections:
        yield Table(SECTIONS)
    for module in chosen:
        if sections:
            for section in modules.sections(target, target.value(MODULE, module.address)):
                yield Row(section.address, (section.address, section.name, module.name))
            continue
        cells = (module.address, module.base, module.size, module.references, module.state, module.taints, module.name)
        yield Row(module.address, (*cells, ",".join(module.used_by)))


@walker("modctl", yields=MODULE)
def modctl(session: Session) -> Iterator[int]:
    """Walk the kernel modules."""
    for module in modules.iter_modules(session.target):
        yield module.address


@walker("modules", yields=MODULE)
def modules_(session: Session) -> Iterator[int]:
    """Walk the kernel modules; another name of modctl."""
    for module in modules.iter_modules(session.target):
        yield module.address
