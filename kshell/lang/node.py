"""The base of tokens and syntax tree nodes: what a frozen dataclass is, without the code that it makes at each start.

Forty dataclasses cost 35 ms whenever kshell starts (code made by ``exec`` is not kept in .pyc files); these cost none.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, dataclass_transform


def place(*, default: int, kw_only: bool) -> Any:
    """Declare a field that says where a node stands: by keyword only, and no part of what the node means."""
    return default


@dataclass_transform(frozen_default=True, field_specifiers=(place,))
class Record:
    """An immutable record. Subclasses declare their fields by annotations, with defaults if they have some.

    Records are equal when they are of one class and their fields are equal.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _places: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own = tuple(name for name in cls.__annotations__ if name not in cls._places)
        if "_places" not in cls.__dict__:
            cls._fields = (*cls._fields, *own)
        type.__setattr__(cls, "__match_args__", cls._fields)

    def __init__(self, *values: Any, **named: Any) -> None:
        made, fields, kind = self.__dict__, self._fields, type(self)
        if len(values) > len(fields):
            raise TypeError(f"{kind.__name__} takes {len(fields)} values, not {len(values)}")
        made.update(zip(fields, values, strict=False))
        for name in named:
            if name in made or (name not in fields and name not in self._places):
                raise TypeError(f"{kind.__name__} got an unexpected or repeated {name!r}")
        made.update(named)
        for name in (*fields, *self._places):
            if name not in made:
                try:
                    made[name] = getattr(kind, name)
                except AttributeError:
                    raise TypeError(f"{kind.__name__} needs {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"cannot assign to {name!r} of a {type(self).__name__}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"cannot delete {name!r} of a {type(self).__name__}")

    def _meaning(self) -> tuple[Any, ...]:
        made = self.__dict__
        return tuple([made[name] for name in self._fields])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash((type(self), self._meaning()))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
        return f"{type(self).__name__}({inside})"

    def replace(self, **changes: Any) -> Self:
        """Return a record like this one, at the same place, with other values of some fields."""
        return type(self)(**{**self.__dict__, **changes})


class Node(Record):
    """A record with its place: ``text[start:end]`` is what it was made of, which is no part of what it means."""

    _places: ClassVar[tuple[str, ...]] = ("start", "end")

    start: int = place(default=0, kw_only=True)
    end: int = place(default=0, kw_only=True)
