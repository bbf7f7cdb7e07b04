"""``$v``, ``::typeset``, ``::unset``, ``$w``, ``$P``: variables and small settings (mdb-language.md 5.2, 11.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import Flag, KshellError, NotFoundError, Output, Session, Text, UsageError, Warn, Word, dcmd

NARROWEST, WIDEST = 16, 1 << 16
PROMPT = 35


def _listed(session: Session, *, nonzero: bool) -> Iterator[Output]:
    for variable in session.variables:
        if variable.value or not nonzero:
            yield Text(f"{variable.name} = {session.format_number(variable.value)}", variable.value)


@dcmd("$v", group="Session")
def values(session: Session) -> Iterator[Output]:
    """List the variables that are not 0.

    Examples:
      5>mine; $v
    """
    yield from _listed(session, nonzero=True)


@dcmd("typeset", group="Session")
def typeset(
    session: Session, address: int | None, tag: Annotated[bool, Flag("-t", "tag them, for ::vars -t")],
    names: Annotated[list[str], Word("[+t] var", "variables; +t before them takes the tag away")],
) -> Iterator[Output]:
    """Define variables.

    With an address they get it as their value; without one a new variable is 0 and one that exists stays as it is.
    Without a name it lists all of them.

    Examples:
      10::typeset -t mine
      ::typeset +t mine
    """
    variables = session.variables
    untag = names[:1] == ["+t"]
    if untag:
        names = names[1:]
    if tag and untag:
        raise UsageError("-t or +t, not both")
    if not names:
        if tag or untag:
            raise UsageError("which variables?")
        yield from _listed(session, nonzero=False)
        return
    for name in names:
        try:
            if address is not None:
                variables[name] = address
            elif name not in variables:
                variables[name] = 0
            if tag or untag:
                variables.tag(name, tag)
        except KshellError as error:
            yield Warn(error)


@dcmd("unset", group="Session")
def unset(session: Session, names: Annotated[list[str], Word("name", "variables")]) -> Iterator[Output]:
    """Remove variables; kshell's own and the registers stay.

    Examples:
      5>mine; ::unset mine
    """
    for name in names:
        try:
            session.variables.unset(name)
        except NotFoundError:
            yield Warn(f"variable '{name}' not defined")
        except KshellError as error:
            yield Warn(error)


@dcmd("$w", group="Session")
def width(session: Session, address: int | None) -> Iterator[Output]:
    """Show the width of the output page, or set it to the address; a terminal's own is used until it is set.

    Examples:
      $w
      0t100$w
    """
    if address is None:
        yield Text(f"output page width = {session.options.width}")
        return
    if not NARROWEST <= address <= WIDEST:
        raise UsageError(f"a page of {address} columns", hint=f"between {NARROWEST} and {WIDEST}")
    session.options.width, session.options.width_fixed = address, True


@dcmd("$P", group="Session")
def prompt(session: Session, text: str | None) -> None:
    """Set the prompt; without a text it is the usual one again.

    Examples:
      $P "dump> "
    """
    if text is not None and len(text) > PROMPT:
        raise UsageError(f"a prompt of {len(text)} characters", hint=f"at most {PROMPT}")
    session.options.prompt = "> " if text is None else text
