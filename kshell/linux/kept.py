"""What was found out of a target once, until its memory is written or moves on: indexes that answer many questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from kshell.target.target import Target

Found = TypeVar("Found")


def kept(target: Target, name: str, make: Callable[[Target], Found], *state: int) -> Found:
    """Return ``make(target)``, made once for each state of the memory (:class:`kshell.memory.model.Epoch`).

    It lies in ``target.kept`` and goes with the target, which it may refer to. An error is not kept.

    :param state: what else must be as it was
    """
    now = (target.physical.epoch.count, target.kernel.epoch.count, *state)
    before = target.kept.get(name)
    if before is None or before[0] != now:
        before = target.kept[name] = now, make(target)
    result: Found = before[1]
    return result
