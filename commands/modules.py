"""``::modinfo``: kernel modules; ``::taint``: what taints the kernel; and the walker ``modctl``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    HEX,
    OCTAL,
    Column,
    Flag,
    KshellError,
    Output,
    Record,
    Row,
    Session,
    Table,
    UsageError,
    Word,
    dcmd,
    escape,
    walker,
)
from kshell.linux import module_parameters, modules, taints
from kshell.linux.modules import Module

MODULE = "struct module"
COLUMNS = (
    Column("ADDR", kind=ADDRESS), Column("BASE", kind=ADDRESS), Column("SIZE", 8, HEX, ">"), Column("REF", 4, DECIMAL),
    Column("STATE", 9), Column("TAINT", 5), Column("NAME", 20), Column("USED BY", key="used_by"),
)
PARAMETERS = (
    Column("MODULE", 20), Column("PARAMETER", 28), Column("MODE", 4, OCTAL), Column("TYPE", 16), Column("VALUE"),
)
SECTIONS = (Column("ADDR", kind=ADDRESS), Column("SECTION", 32), Column("NAME"))


@dcmd("modinfo", aliases=("lsmod",), columns=COLUMNS, yields=MODULE, group="Kernel")
def modinfo(
    session: Session, address: int | None,
    verbose: Annotated[bool, Flag("-v", "all that is known of each: memory, taints by name, parameters, sections")],
    parameters: Annotated[bool, Flag("-p", "the parameters of each, with their values")],
    sections: Annotated[bool, Flag("-s", "the sections of each")],
    names: Annotated[list[str], Word("name", "only these")],
) -> Iterator[Output]:
    """List the kernel modules.

    ADDR is the struct module, BASE the start of its text, SIZE (hex) all its memory, REF how many use it. TAINT is what
    the module taints the kernel with, in letters that ::taint explains. With an address, the module whose struct is
    there; with names, those only. A parameter whose text only the module's own code can make says so.

    Examples:
      ::modinfo
      ::modinfo -s ext4
      ::modinfo -v virtio_blk
      ::modinfo -p
      ::lsmod | ::print struct module name srcversion
    """
    target = session.target
    if verbose + parameters + sections > 1:
        raise UsageError("-v, -p and -s are three questions")
    if address is not None:
        if names:
            raise UsageError("an address or names, not both")
        chosen = iter([modules.read_module(target, target.value(MODULE, address))])
    elif names:
        chosen = (modules.find_module(target, name) for name in names)
    else:
        chosen = modules.iter_modules(target)
    if sections or parameters:
        yield Table(SECTIONS if sections else PARAMETERS)
    for module in chosen:
        if verbose:
            details = _details(session, module)
            yield Record(_lines(details), lambda details=details: details, module.address)  # type: ignore[misc]
        elif sections:
            for section in modules.sections(target, target.value(MODULE, module.address)):
                yield Row(section.address, (section.address, section.name, module.name))
        elif parameters:
            for one in module_parameters.parameters(target, target.value(MODULE, module.address)):
                yield Row(module.address, (module.name, one.name, one.mode, one.kind, one.value))
        else:
            cells = (
                module.address, module.base, module.size, module.references, module.state, module.taints, module.name)
            yield Row(module.address, (*cells, ",".join(module.used_by)))


def _details(session: Session, module: Module) -> dict[str, object]:
    """Return all that is known of a module; what cannot be read says why in its place."""
    target = session.target
    value = target.value(MODULE, module.address)
    found: dict[str, object] = {
        "name": module.name, "address": f"0x{module.address:x}", "state": module.state, "size": module.size,
        "version": module.version, "srcversion": module.srcversion, "references": module.references,
        "used_by": list(module.used_by)}
    try:
        found["depends_on"] = list(module_parameters.needs(target, value))
    except KshellError as error:
        found["depends_on"] = str(error)
    bits = value.integer("taints") if value.has("taints") else 0
    found["taints"] = {taint.letter: taint.meaning for taint in taints.named(bits)}
    found["memory"] = {
        region.kind: f"0x{region.base:x} to 0x{region.base + region.size:x}" for region in module.regions}
    try:
        found["parameters"] = {
            one.name: one.value if isinstance(one.value, str) else f"<{one.value}>"
            for one in module_parameters.parameters(target, value)}
    except KshellError as error:
        found["parameters"] = str(error)
    try:
        found["sections"] = {
            section.name: f"0x{section.address:x}" for section in modules.sections(target, value)}
    except KshellError as error:
        found["sections"] = str(error)
    return found


def _lines(details: dict[str, object]) -> Iterator[str]:
    for name, thing in details.items():
        label = f"{name.replace('_', ' ')}:"
        if isinstance(thing, dict):
            if thing:
                yield label
            for key, text in thing.items():
                yield f"    {escape(str(key)):<24} {escape(str(text))}"
        elif isinstance(thing, list):
            if thing:
                yield f"{label:<12} {escape(', '.join(map(str, thing)))}"
        elif thing != "":
            yield f"{label:<12} {escape(str(thing))}"


@dcmd("taint", columns=(Column("BIT", 3, DECIMAL), Column("TAINT", 5), Column("MEANING")), group="Kernel")
def taint(session: Session) -> Iterator[Output]:
    """Say what taints the kernel: what happened to it that makes its failures harder to trust.

    The letters are those of an oops and of ::modinfo. No rows: nothing taints it.

    Examples:
      ::taint
    """
    for one in taints.kernel_taints(session.target):
        yield Row(None, (one.bit, one.letter, one.meaning))


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
