"""The words after ``::print``: a type of one or more words, then members; or members only, of a global's own type.

Pure: words in, types out. Rules: mdb-language.md 11.2. Words that are integers are ``$[...]``, already evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kshell.errors import KshellError, TypeNotFoundError, UsageError
from kshell.lang.numbers import show_base
from kshell.types.model import CType, Kind, StructType, Symbol
from kshell.value.path import route

#: words that make up the names of C's own types, and qualifiers
BASE_WORDS = frozenset(
    {"unsigned", "signed", "long", "short", "int", "char", "float", "double", "_Bool", "const", "volatile"}
)
TAGS = frozenset({"struct", "union", "enum"})
TAGGED = frozenset({Kind.STRUCT, Kind.UNION, Kind.ENUM})


class TypedTarget(Protocol):
    """What finding the type takes."""

    def type(self, name: str) -> CType: ...
    def symbolize(self, address: int) -> tuple[Symbol, int] | None: ...
    def type_of(self, symbol: Symbol) -> CType | None: ...
    def untyped(self) -> str: ...


class Typed(NamedTuple):
    """What the words say.

    :ivar type: of the object
    :ivar name: as it was written, or of the symbol's type
    :ivar members: the words that are left: members and ``$[offset]``
    :ivar symbol: whose type was taken, if none was written
    """

    type: CType
    name: str
    members: tuple[str | int, ...]
    symbol: Symbol | None = None


def type_words(words: Sequence[str | int]) -> tuple[str, int]:
    """Return the type name that *words* begin with and how many words it takes; ("", 0) if the first is a number.

    ``struct x``, ``mod`struct x``, ``unsigned long``, ``pid_t``; words of only ``*`` after it belong to it.
    """
    if not words or not isinstance(words[0], str):
        return "", 0
    count = 0
    while count < len(words) and words[count] in ("const", "volatile"):
        count += 1
    first = str(words[count]).rpartition("`")[2] if count < len(words) else ""
    if first in TAGS:
        count = min(count + 2, len(words))
    elif first.rstrip("*") in BASE_WORDS:
        while count < len(words) and str(words[count]).rpartition("`")[2].rstrip("*") in BASE_WORDS:
            count += 1
    else:
        count = min(count + 1, len(words))
    while count < len(words) and isinstance(words[count], str) and str(words[count]).strip("*") == "" != words[count]:
        count += 1
    return " ".join(str(word) for word in words[:count]), count


def type_and_members(
    words: Sequence[str | int], target: TypedTarget, address: int | None, *, immediate: bool = False,
) -> Typed:
    """Return the type and members that *words* name.

    :param address: the address given, or None
    :param immediate: the address is a value (``-i``): no symbol is looked for there
    :raises UsageError: no type, and no address that could tell one
    :raises TypeNotFoundError: a first word that is no type, and no symbol of known type at *address*
    :raises KshellError: no words, and no symbol of known type at *address*
    """
    if words and isinstance(words[0], str):
        if words[0][:1] in ("+", "-") and not words[0].startswith("->"):
            raise UsageError(f"illegal option {words[0]}")
        name, count = type_words(words)
        if words[0] in TAGS and count < 2:
            raise UsageError(f"{words[0]} is not a valid type")
        found = None if address is None or immediate else _at(target, address)
        kind = None if found is None else target.type_of(found)
        try:
            named = target.type(name)
        except TypeNotFoundError:
            _check_blank(target, kind, name)
            if kind is None or "`" in name or words[0] in TAGS:
                raise
            return Typed(kind, str(kind), tuple(words), found)
        # "pid" alone also finds struct pid: init_task::print pid means the member.
        if named.kind in TAGGED and name == words[0] and kind is not None and _has(kind, name):
            return Typed(kind, str(kind), tuple(words), found)
        return Typed(named, name, tuple(words[count:]))
    if address is None or immediate:
        raise UsageError("a type is missing")
    found = _at(target, address)
    if found is None:
        raise KshellError(f"no symbol information for {show_base(address, 16)}")
    kind = target.type_of(found)
    if kind is None:
        raise KshellError(f"no type data available for {found.name}", hint=target.untyped())
    return Typed(kind, str(kind), tuple(words), found)


def piped_type(
    words: Sequence[str | int], target: TypedTarget, address: int | None, piped: str | CType | None, *,
    immediate: bool = False,
) -> Typed:
    """Return the type and members that *words* name; without a type in them that of what a pipe passes.

    :param piped: that type, None where it is not known or there is no pipe
    Raises as :func:`type_and_members`.
    """
    if piped is None or address is None:
        return type_and_members(words, target, address, immediate=immediate)
    kind = target.type(piped) if isinstance(piped, str) else piped
    given = Typed(kind, str(kind), tuple(words))
    try:
        found = type_and_members(words, target, address, immediate=immediate)
    except KshellError:
        if words and words[0] in TAGS:
            raise
        return given
    # A word that is a member of what the pipe passes means the member, unless it says "struct".
    first = words[0] if words else None
    if first is None or (isinstance(first, str) and first not in TAGS and _is_path(kind, first)):
        return given
    return found


def _check_blank(target: TypedTarget, kind: CType | None, name: str) -> None:
    """:raises UsageError: *name* is a type and members as crash(8) has them: ``struct task_struct.pid,comm``"""
    head, dot, rest = name.replace("->", ".").partition(".")
    if not dot or (kind is not None and _has(kind, head)):
        return
    try:
        target.type(head)
    except KshellError:
        return
    members = rest.replace(",", " ")
    raise UsageError(f"{name} is no type", hint=f"members stand behind a blank: {head} {members}")


def _is_path(type: CType, path: str) -> bool:
    try:
        route(type, path)
    except KshellError:
        return path == "."
    return True


def _has(type: CType, name: str) -> bool:
    bare = type.strip()
    return isinstance(bare, StructType) and bare.has(name)


def _at(target: TypedTarget, address: int) -> Symbol | None:
    """Return the symbol that begins exactly at *address*."""
    found = target.symbolize(address)
    return None if found is None or found[1] else found[0]
