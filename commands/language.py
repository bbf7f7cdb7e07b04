"""``::echo``, ``::eval``, ``::map``, ``::grep``, ``::walk``: the dcmds that pipelines are made with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    Abort,
    Argument,
    Call,
    Item,
    Items,
    Output,
    Session,
    Text,
    UsageError,
    VariableName,
    WalkerName,
    Word,
    dcmd,
    show_base,
)

RADIXES = range(2, 17)
COMMAND = Word("command", "a command line; quote it")
Expression = Annotated[list[str], Word("expr", "an expression in .")]


@dcmd("echo", group="Language")
def echo(session: Session, words: Annotated[list[Argument], Word("arg")]) -> Iterator[Output]:
    """Print the arguments.

    $[expr] prints the value of an expression in the current radix.

    Examples:
      ::echo hello
      ::echo $[init_task+8]
    """
    shown = (word if isinstance(word, str) else _bare(word, session.radix) for word in words)
    yield Text("".join(word + " " for word in shown))


def _bare(value: int, radix: int) -> str:
    """Return *value* in *radix* without a prefix."""
    text = show_base(value, radix)
    return text[2:] if text[0] == "0" and len(text) > 2 else text


@dcmd("$d", group="Language")
def radix(session: Session, address: int | None) -> Iterator[Output]:
    """Show the radix of numbers without a prefix, or set it for input and output.

    The new one is itself read in the present one: 0t10$d is safe.

    Examples:
      $d
      0t10$d; 10=X; 0t16$d
    """
    if address is None:
        yield Text(f"radix = {session.radix} base ten")
    elif address not in RADIXES:
        raise UsageError(f"0t{address} is no radix: it is 2 to 0t16")
    else:
        session.radix = address


@dcmd("eval", group="Language")
def eval_(session: Session, address: int | None, words: Annotated[list[str], COMMAND]) -> Iterator[Output]:
    """Obey a command line, with dot = the address.

    In a pipe once for each value.

    Examples:
      ::walk proc | ::eval '.+8/J'
      ::eval '::ps 1; ::version'
    """
    if not words:
        raise UsageError("command is missing")
    status = yield from session.eval(" ".join(words), address)
    if status is not None and status.name in ("USAGE", "ABORT"):
        raise Abort(f"failed to eval {' '.join(words)}")


@dcmd("map", group="Language")
def map_(session: Session, address: int | None, words: Expression) -> Iterator[Output]:
    """Compute an expression of each value of a pipe.

    The expression is a command line: what it leaves in dot is passed on.

    Examples:
      ::walk proc | ::map .+8
      ::walk proc | ::map *(.+0t2336)
    """
    if not words:
        raise UsageError("expression is missing")
    yield Item(session.eval_dot(" ".join(words), session.dot if address is None else address))


@dcmd("grep", group="Language")
def grep(session: Session, address: int | None, call: Call, words: Expression) -> Iterator[Output]:
    """Pass on the values of a pipe for which an expression is not 0.

    The expression is a command line: what it leaves in dot is tested.

    Examples:
      ::walk proc | ::grep *(.+0t24)==2
      ::walk modctl | ::grep .-ffffffffc0400000
    """
    if not words:
        raise UsageError("expression is missing")
    value = session.dot if address is None else address
    if session.eval_dot(" ".join(words), value):
        yield Item(value, call.type)


@dcmd("walk", group="Language")
def walk(session: Session, address: int | None, name: WalkerName, variable: VariableName | None) -> Iterator[Output]:
    """Walk a data structure with a walker, printing the address of each element.

    ::walkers lists them. A variable that is named gets each address as it is passed on. list, hlist, llist, rbtree,
    maple_tree, xarray and idr start at the address of their head and pass the addresses of nodes or entries.

    Examples:
      ::walk proc | ::print comm
      modules::walk list
    """
    for output in session.walk(name, address):
        if variable is None or not isinstance(output, Item | Items):
            yield output
            continue
        for item in output.each() if isinstance(output, Items) else (output,):
            yield item._replace(bindings=session.bind_also(variable, item.value))
