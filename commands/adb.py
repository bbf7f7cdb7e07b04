"""What mdb keeps of adb, and other small things: ``$s $W $V $f $a``, ``::xdata``, ``::term`` (mdb-language.md 11.1)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from kshell.api import KshellError, Output, Session, Text, dcmd

#: the disassembler's modes as mdb names them, by architecture
MODES = {"x86_64": "amd64", "aarch64": "aarch64"}


@dcmd("$s", group="Session")
def distance(session: Session, address: int | None) -> Iterator[Output]:
    """Show how far behind a symbol addresses carry its name, or set it to the address.

    0 is smart: as far as the symbol is long. ::set -s does the same.

    Examples:
      $s
      100$s; 0$s
    """
    if address is not None:
        session.set_symbol_distance(address)
        return
    now = session.options.symbol_distance
    mode = "absolute" if now else "smart"
    yield Text(f"symbol matching distance = {session.format_number(now)} ({mode} mode)")


@dcmd("$W", group="Session")
def writable(session: Session) -> None:
    """Make sure that the target is open for writing; that is chosen when kshell starts.

    Examples:
      $W
    """
    session.require_writable()


@dcmd("dismode", aliases=("$V",), group="Session")
def dismode(session: Session, mode: str | None) -> Iterator[Output]:
    """Show the mode of the disassembler.

    Examples:
      ::dismode
    """
    known = _mode(session)
    if mode is not None and mode != known:
        raise KshellError(f"failed to set disassembly mode: unknown disassembler name {mode}",
                          hint="::disasms lists them")
    yield Text(f"disassembly mode is {known}")


@dcmd("disasms", group="Session")
def disasms(session: Session) -> Iterator[Output]:
    """List the modes of the disassembler: the target's architecture has one.

    Examples:
      ::disasms
    """
    yield Text(f"{_mode(session):<24} - {session.target.arch.name}, by capstone")


def _mode(session: Session) -> str:
    name = session.target.arch.name
    return MODES.get(name, name)


@dcmd("files", aliases=("$f",), group="Symbols")
def files(session: Session) -> Iterator[Output]:
    """List the source files of the target's symbols, which kallsyms does not keep."""
    raise KshellError("command is not supported by current target",
                      hint="kallsyms keeps no names of source files; ::nm lists symbols")


@dcmd("xdata", group="Help")
def xdata(session: Session) -> Iterator[Output]:
    """List what is kept with the image beside memory: what the kernel told of itself, the CPUs' registers.

    Examples:
      ::xdata
    """
    target = session.target
    if target.vmcoreinfo is not None:
        size = len(target.vmcoreinfo.raw)
        yield Text(f"{'vmcoreinfo':<24} - what the kernel tells of itself ({size} bytes)")
    for cpu in target.cpus:
        name = f"cpu{cpu.number}"
        yield Text(f"{name:<24} - registers of CPU {cpu.number}: {cpu.note} ({8 * len(cpu.registers)} bytes)")


@dcmd("term", group="Session")
def term(session: Session) -> Iterator[Output]:
    """Show the type of the terminal.

    Examples:
      ::term
    """
    kind = os.environ.get("TERM")
    if not kind:
        raise KshellError("no terminal type: TERM is not set")
    yield Text(kind)


@dcmd("$a", aliases=("obey",), group="Session")
def no_adb(session: Session) -> Iterator[Output]:
    """Tell that this is not adb; mdb has the joke too.

    Examples:
      $a
    """
    yield Text("No adb here.")
