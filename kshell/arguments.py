"""Typed parameters of dcmds: what their annotations may say, and what a dcmd is told of how it is called.

Annotations are looked at when a dcmd is first used, not when it is declared: start-up does not pay for them.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin

from kshell.errors import KshellError

if TYPE_CHECKING:
    from kshell.output import Item, Items

#: an argument as the parser hands it over: a word, or the number of a ``$[expr]``
Argument = str | int


class Kind(NamedTuple):
    """What a word is: its name in usage texts, what completes it, and how it is converted.

    :ivar complete: "type", "member", "symbol", "walker", "dcmd", "variable", "file", "pid", "module" or "" (nothing)
    :ivar convert: "text", "number" (current radix), "decimal", or "expression" (evaluated in the language)
    """

    metavar: str
    complete: str = ""
    convert: str = "text"


class Flag(NamedTuple):
    """An option without a value. The parameter is a bool, or an int that counts how often it was given."""

    letter: str
    help: str = ""


class Option(NamedTuple):
    """An option with a value. The parameter's type says of which kind; a list collects a repeated option."""

    letter: str
    metavar: str = ""
    help: str = ""


class Word(NamedTuple):
    """Metadata of a positional word: its name in the usage text, its help, and what completes it (see :class:`Kind`).

    ``complete="type+member"`` is for a list of words that begins with a type and goes on with its members.
    """

    metavar: str
    help: str = ""
    complete: str = ""


Number = Annotated[int, Kind("n", "", "number")]
Decimal = Annotated[int, Kind("n", "", "decimal")]
Pid = Annotated[int, Kind("pid", "pid", "decimal")]
Address = Annotated[int, Kind("addr", "symbol", "expression")]
Expr = Annotated[int, Kind("expr", "symbol", "expression")]
TypeName = Annotated[str, Kind("type", "type")]
MemberName = Annotated[str, Kind("member", "member")]
SymbolName = Annotated[str, Kind("symbol", "symbol")]
WalkerName = Annotated[str, Kind("walker", "walker")]
DcmdName = Annotated[str, Kind("dcmd", "dcmd")]
VariableName = Annotated[str, Kind("variable", "variable")]
ModuleName = Annotated[str, Kind("module", "module")]
FileName = Annotated[str, Kind("file", "file")]

_PLAIN = Kind("", "", "text")
_NUMBER = Kind("n", "", "number")
_RAW = Kind("", "", "raw")


class Call:
    """How a dcmd is being called (mdb's flags). Declare a parameter of this type to be told.

    :ivar count: the ``,count``, or None when there was none
    :ivar loop: a count was given or the input is a pipe; ``first``: the first round, or no loop at all
    :ivar piped: the address comes from a pipe; ``type``: its C type when the stage before knew it
    :ivar pipe_out: the output goes into a pipe to another dcmd (or to a shell command: ``shell_out``)
    """

    __slots__ = ("count", "first", "loop", "pipe_out", "piped", "shell_out", "type")

    def __init__(
        self, *, count: int | None = None, loop: bool = False, first: bool = True, piped: bool = False,
        type: Any = None, pipe_out: bool = False, shell_out: bool = False,
    ) -> None:
        self.count, self.loop, self.first, self.piped = count, loop, first, piped
        self.type, self.pipe_out, self.shell_out = type, pipe_out, shell_out


class Values:
    """All values of the pipe, as they come. A dcmd with a parameter of this type runs once for all of them.

    Required: the dcmd works in a pipe only. ``Values | None``: None when there is no pipe.
    """

    def __init__(self, source: Iterator[Item | Items]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Item]:
        for item in self._source:
            each = getattr(item, "each", None)  # an import of kshell.output is not worth what it says
            if each is None:
                yield item  # type: ignore[misc]
            else:
                yield from each()

    def chunks(self) -> Iterator[Item | Items]:
        """Yield the values as they come: some one by one, others many at once."""
        return self._source


class Parameter:
    """A parameter of a dcmd, as seen from its annotation.

    :ivar role: "address", "count", "call", "values", "flag", "option" or "word"
    """

    __slots__ = ("default", "help", "kind", "letter", "many", "metavar", "name", "optional", "required", "role")

    def __init__(self, name: str, annotation: Any, default: Any) -> None:
        self.name, self.default = name, default
        self.required = default is MISSING
        self.letter = self.help = ""
        found: list[Any] = []
        base, self.optional, self.many = _unwrap(annotation, found)
        self.kind = next((item for item in found if isinstance(item, Kind)), None) or (
            _NUMBER if base is int else _RAW if base == Argument else _PLAIN)
        self.metavar = self.kind.metavar or name.replace("_", "-").rstrip("-")
        self.role = self._role(base, found)
        if self.optional or self.many or self.role in ("flag", "option"):
            self.required = self.required and self.role not in ("flag", "option") and not (self.optional or self.many)

    def _role(self, base: Any, found: list[Any]) -> str:
        if self.name == "address":
            return "address"
        if base is Call:
            return "call"
        if base is Values:
            return "values"
        for item in found:
            if isinstance(item, Flag):
                self.letter, self.help = item.letter.lstrip("-"), item.help
                self.many = base is int
                return "flag"
            if isinstance(item, Option):
                self.letter, self.help = item.letter.lstrip("-"), item.help
                self.metavar = item.metavar or self.metavar
                return "option"
            if isinstance(item, Word):
                self.metavar, self.help = item.metavar, item.help
                guessed = "type+member" if self.many and item.metavar.startswith("type") else ""
                guessed = "pid" if item.metavar.startswith("pid") else guessed
                self.kind = self.kind._replace(complete=item.complete or self.kind.complete or guessed)
        if self.name == "count" and base is int:
            return "count"
        return "word"

    def empty(self) -> Any:
        """Return the value when nothing was given."""
        if self.default is not MISSING:
            return self.default
        if self.role == "flag":
            return 0 if self.many else False
        return [] if self.many else None


class _Missing:
    pass


MISSING = _Missing()


def _unwrap(annotation: Any, found: list[Any]) -> tuple[Any, bool, bool]:
    """Return (base type, optional, list of it), and add the metadata of Annotated to *found*, outermost first."""
    optional = many = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *rest = get_args(annotation)
            found.extend(rest)
        elif origin in (Union, types.UnionType) and type(None) in get_args(annotation):
            optional = True
            rest = [item for item in get_args(annotation) if item is not type(None)]
            if len(rest) > 1:
                return (Argument if set(rest) == {str, int} else annotation), optional, many
            annotation = rest[0]
        elif origin in (Union, types.UnionType):
            return (Argument if set(get_args(annotation)) == {str, int} else annotation), optional, many
        elif origin is list:
            many = True
            annotation = get_args(annotation)[0]
        else:
            return annotation, optional, many


def parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return the parameters of *function* behind the session; annotations may be strings."""
    code = function.__code__
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    defaults = dict(function.__kwdefaults__ or {})
    positional = code.co_varnames[: code.co_argcount]
    for name, value in zip(reversed(positional), reversed(function.__defaults__ or ()), strict=False):
        defaults[name] = value
    found = []
    for name in names:
        annotation = function.__annotations__.get(name, str)
        if isinstance(annotation, str):
            annotation = eval(annotation, function.__globals__)
        found.append(Parameter(name, annotation, defaults.get(name, MISSING)))
    return tuple(found)


class Abort(KshellError):
    """Failed, and there is no point in going on: the loop and the pipeline stop."""


class Next(Exception):
    """Let the next dcmd of the same name, of another module, handle this call."""
