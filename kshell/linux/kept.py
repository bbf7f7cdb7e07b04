"""What was found out of a target once, until its memory is written or moves on: indexes that answer many questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from kshell.target.target import Target

Found = TypeVar("Found")

_KEPT: WeakKeyDictionary[Any, tuple[int, dict[str, Any]]] = WeakKeyDictionary()


def kept(target: Target, name: str, make: Callable[[Target], Found]) -> Found:
    """Return ``make(target)``, made once for each state of the memory (:class:`kshell.memory.model.Epoch`).

    What is made must not refer to the target. An error is not kept.
    """
    epoch = target.physical.epoch.count
    found = _KEPT.get(target)
    if found is None or found[0] != epoch:
        found = _KEPT[target] = epoch, {}
    values = found[1]
    if name not in values:
        values[name] = make(target)
    result: Found = values[name]
    return result
