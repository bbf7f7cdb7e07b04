"""``::head ::tail ::count ::sum ::sort ::uniq ::tojson``: what pipelines end in; mdb has only the first of them.

Those that pass values on pass their types too, so that ``::print`` and the like know the members behind them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from kshell.api import (
    COUNT,
    HEX,
    Abort,
    Argument,
    Call,
    Column,
    Decimal,
    Fault,
    Flag,
    Item,
    Items,
    KshellError,
    MemberName,
    Option,
    Output,
    Record,
    Row,
    Selection,
    Session,
    UsageError,
    Values,
    Warn,
    Word,
    dcmd,
    dump_json,
    offsetof,
    parse_number,
    piped_type,
    to_json,
)

MASK = (1 << 64) - 1


@dcmd("count", group="Language")
def count(session: Session, values: Values) -> Iterator[Output]:
    """Count the values of a pipe, in decimal.

    Examples:
      ::ps | ::count
      ::walk modctl | ::count
    """
    number = sum(len(item.values) if isinstance(item, Items) else 1 for item in values.chunks())
    yield Record([str(number)], lambda: {"count": number}, number)


@dcmd("sum", group="Language")
def sum_(session: Session, values: Values) -> Iterator[Output]:
    """Add the values of a pipe, as unsigned numbers, and show the sum in decimal.

    Into a pipe goes its lower half of 64 bits.

    Examples:
      ::walk kmem_cache | ::print object_size | ::sum
      ::ps | ::print nvcsw | ::sum
    """
    number = sum(sum(item.values) if isinstance(item, Items) else item.value for item in values.chunks())
    yield Record([str(number)], lambda: {"sum": number}, number & MASK)


HowMany = Annotated[Decimal | None, Option("-n", "num", "how many, in decimal")]
DashNumber = Annotated[str | None, Word("-num", "as -n num")]


def _how_many(number: int | None, word: str | None) -> int:
    """Return how many values ``-n NUM`` or ``-NUM`` asks for; 10 without either."""
    if word is not None:
        if number is not None:
            raise UsageError("-NUM or -n NUM, not both")
        try:
            number = parse_number(word.removeprefix("-"), 10)
        except KshellError as error:
            raise UsageError(f"{word}: {error}", hint="-NUM or -n NUM") from error
    if number is not None and number < 0:
        raise UsageError(f"{number} is not a number of values")
    return 10 if number is None else number


@dcmd("head", group="Language")
def head(session: Session, values: Values, number: HowMany, count: DashNumber) -> Iterator[Output]:
    """Pass on the first values of a pipe, 10 without a number.

    Examples:
      ::walk proc | ::head -5 | ::print comm
      ::ps | ::head -n 3
    """
    yield from islice(values, min(_how_many(number, count), 1 << 62))


@dcmd("tail", group="Language")
def tail(session: Session, values: Values, number: HowMany, count: DashNumber) -> Iterator[Output]:
    """Pass on the last values of a pipe, 10 without a number.

    Examples:
      ::walk proc | ::tail -2 | ::print comm
      ::ps | ::tail -n 3
    """
    yield from deque(values, maxlen=min(_how_many(number, count), 1 << 32))


@dcmd("sort", group="Language")
def sort(
    session: Session, values: Values, reverse: Annotated[bool, Flag("-r", "the largest first")],
    member: Annotated[MemberName | None, Word("member", "by this member of the objects: a number or a string")],
) -> Iterator[Output]:
    """Pass on the values of a pipe, sorted: by themselves, or by a member of what they are the addresses of.

    Equal ones keep their order. Those whose member cannot be read are told, and come last.

    Examples:
      ::ps | ::sort comm | ::print comm
      ::walk kmem_cache | ::sort -r object_size | ::head -3 | ::print name object_size
    """
    if member is None:
        yield from sorted(values, key=lambda item: item.value, reverse=reverse)
        return
    keyed: list[tuple[int | str, Item]] = []
    unread: list[Item] = []
    for item in values:
        try:
            keyed.append((_key(session, item, member), item))
        except Fault as fault:
            yield Warn(fault)
            unread.append(item)
    kinds = {type(key) for key, _ in keyed}
    if len(kinds) > 1:
        raise Abort(f"{member} is a string of some of the objects and a number of others")
    keyed.sort(key=lambda pair: pair[0], reverse=reverse)
    yield from (item for _, item in keyed)
    yield from unread


def _key(session: Session, item: Item, member: str) -> int | str:
    """Return the number or the string that *member* of the object behind *item* is."""
    if item.type is None:
        raise Abort(f"the type of 0x{item.value:x} is not known, so it has no {member}",
                    hint="what passes typed objects on: walkers, tables; ::sort alone sorts the values")
    kind = session.target.type(item.type) if isinstance(item.type, str) else item.type
    try:
        offsetof(kind, member)
    except KshellError as error:
        if "behind a pointer" not in str(error):
            raise Abort(str(error), hint=error.hint) from error
    found = session.target.value(kind, item.value, session.space(item.value))[member]
    if found.shape.integer:
        return found.integer()
    try:
        return found.string()
    except Fault:
        raise
    except KshellError as error:
        raise Abort(f"{member} is neither a number nor a string: {error}") from error


@dcmd("uniq", columns=(Column("COUNT", 8, COUNT), Column("VALUE", 16, HEX, "<")), group="Language")
def uniq(
    session: Session, values: Values,
    counted: Annotated[bool, Flag("-c", "a table of how often each value came, the most frequent first")],
) -> Iterator[Output]:
    """Pass on each value of a pipe once, when it first comes; the values need not be sorted.

    Examples:
      ::ps | ::print real_parent | ::uniq | ::print struct task_struct comm
      ::walk thread | ::print mm | ::uniq -c
    """
    if counted:
        often: dict[int, tuple[int, Item]] = {}
        for item in values:
            number, first = often.get(item.value, (0, item))
            often[item.value] = number + 1, first
        for number, item in sorted(often.values(), key=lambda pair: -pair[0]):
            yield Row(item.value, (number, item.value), item.type)
        return
    seen: set[int] = set()
    for item in values:
        if item.value not in seen:
            seen.add(item.value)
            yield item


@dcmd("tojson", group="Language")
def tojson(
    session: Session, address: int, call: Call,
    words: Annotated[list[Argument], Word("type [member]", "as for ::print; without them what the pipe knows")],
) -> Iterator[Output]:
    """Print an object, or members of it, as a line of JSON.

    Numbers beyond 2^53 and addresses are strings in hex; what cannot be read is {"error": reason}. Structures are
    opened, pointers are not followed.

    Examples:
      ::ps | ::tojson pid comm
      init_task::tojson struct task_struct pid comm se.vruntime
      ::walk modctl | ::head -1 | ::tojson name refcnt
    """
    target = session.target
    try:
        if not words and call.type is None and call.piped:
            raise KshellError("the type of what the pipe passes is not known", hint="name it: ::tojson TYPE [member]")
        found = piped_type(words, target, address, call.type)
        chosen = Selection(found.type, found.members, session.radix) if found.members else None
    except UsageError:
        raise
    except KshellError as error:
        raise Abort(str(error), hint=error.hint) from error
    value = target.value(found.type, address, session.space(address)).snapshot()
    shown = chosen.json(value) if chosen is not None else to_json(value)
    data = shown if isinstance(shown, dict) else {"addr": f"0x{address:x}", "value": shown}
    yield Record([dump_json(data).rstrip("\n")], lambda: data, address, found.type)
