"""Choosing stacks by what is on them: functions, places in functions, modules, what is waited for, states."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kshell.errors import KshellError, NotFoundError, UsageError
from kshell.linux.blocked import KIND_NAMES, waits_for
from kshell.linux.modules import find_module
from kshell.linux.stacks import Frame, Stack, function, symbolize

if TYPE_CHECKING:
    from kshell.target.target import Target

#: letters of :class:`kshell.linux.tasks.Task` and the words for them
STATES = {
    "R": "running", "S": "interruptible", "D": "uninterruptible", "T": "stopped", "t": "traced", "X": "dead",
    "Z": "zombie", "P": "parked", "I": "idle",
}
#: mdb's words, and more that people use
OTHER_WORDS = {
    "run": "R", "sleep": "SDIP", "stop": "Tt", "zomb": "Z", "free": "X", "wait": "S", "disk": "D", "trace": "t",
}
#: what a task that is not active waits for
QUIET = {"WORK", "SIGNAL", "POLL", "TIMER", "CHILD"}
_NUMBER = r"(?:0x)?[0-9a-fA-F]+"
_PLACE = re.compile(
    rf"(?:[\w.]+`)?(?P<name>[A-Za-z_][\w.$]*)(?:\+(?P<low>{_NUMBER})(?:-(?P<high>{_NUMBER}))?)?$")


def in_state(words: Iterable[str], letter: object, name: object) -> bool:
    """Whether a task is in one of the states, or has one of the names (with ``*`` and ``?``), that *words* give."""
    for word in words:
        letters = word if word in STATES else OTHER_WORDS.get(word, "")
        letters = letters or next((key for key, text in STATES.items() if text == word), "")
        if letters:
            if isinstance(letter, str) and letter in letters:
                return True
        elif isinstance(name, str) and fnmatchcase(name, word):
            return True
    return False


class StackFilter:
    """Whether a stack is wanted. Words of one list mean either; a ``no_`` list excludes.

    :param evaluate: the value of an expression, for addresses
    :param function: names, ``name+0x31`` (that place), ``name+0x10-0x40`` (from there to there), or addresses
    :param module: names; "kernel" for what is in no module
    :param kind: what is waited for, see :mod:`kshell.linux.blocked`
    :param active: leave out those that wait for work or a signal, and those without a stack
    :raises NotFoundError: a function or module that the kernel does not have
    :raises UsageError: a kind that nothing waits for
    """

    def __init__(
        self, target: Target, evaluate: Callable[[str], int], *, function: Sequence[str] = (),
        no_function: Sequence[str] = (), module: Sequence[str] = (), no_module: Sequence[str] = (),
        kind: Sequence[str] = (), no_kind: Sequence[str] = (), active: bool = False,
    ) -> None:
        for word in (*module, *no_module):
            _check_module(target, word)
        for word in (*kind, *no_kind):
            if word.upper() not in KIND_NAMES:
                raise UsageError(f"nothing waits for {word}: the kinds are {', '.join(KIND_NAMES).lower()}")
        self._target = target
        self._with = [_matcher(target, evaluate, word) for word in function]
        self._without = [_matcher(target, evaluate, word) for word in no_function]
        self._modules, self._no_modules = ({word.replace("-", "_") for word in words} for words in (module, no_module))
        self._kinds, self._no_kinds = ({word.upper() for word in words} for words in (kind, no_kind))
        if active:
            self._no_kinds |= QUIET
        self._active = active

    def __call__(self, stack: Stack) -> bool:
        """Whether *stack* is wanted."""
        frames = [frame for frame in stack.frames if frame.kind != "user"]
        if self._active and not frames:
            return False
        if self._with and not any(test(frame) for test in self._with for frame in frames):
            return False
        if any(test(frame) for test in self._without for frame in frames):
            return False
        if self._modules or self._no_modules:
            found = {self._module(frame) for frame in frames} - {""}
            if (self._modules and not found & self._modules) or found & self._no_modules:
                return False
        if self._kinds or self._no_kinds:
            kind = waits_for([function(self._target, frame) for frame in frames])
            return (not self._kinds or kind in self._kinds) and kind not in self._no_kinds
        return True

    def _module(self, frame: Frame) -> str:
        found = symbolize(self._target, frame)
        return "" if found is None else found[0].module or "kernel"


def _check_module(target: Target, name: str) -> None:
    """:raises NotFoundError: no module has that name"""
    if name == "kernel":
        return
    try:
        find_module(target, name)
    except NotFoundError:
        raise
    except KshellError:
        return  # the list is damaged: the module may be behind that


def _matcher(target: Target, evaluate: Callable[[str], int], word: str) -> Callable[[Frame], bool]:
    """Return what a frame must be: in a function, at a place in it, between two, or at an address."""
    found = _PLACE.match(word)
    if found is None or target.symbols.get(found["name"]) is None:
        try:
            address = evaluate(word)
        except KshellError:
            if found is not None:
                target.symbol(found["name"])  # says what names are near
            raise
        whole = target.symbolize(address)
        if whole is not None and whole[1] == 0:
            return lambda frame: _inside(target, frame, whole[0].name, None, None)
        return lambda frame: frame.pc == address
    low = int(found["low"], 16) if found["low"] else None
    high = int(found["high"], 16) if found["high"] else low
    if low is not None and high is not None and high < low:
        raise UsageError(f"{word}: the range ends before it begins")
    return lambda frame: _inside(target, frame, found["name"], low, high)


def _inside(target: Target, frame: Frame, name: str, low: int | None, high: int | None) -> bool:
    found = symbolize(target, frame)
    if found is None or found[0].name != name:
        return False
    return low is None or high is None or low <= found[1] <= high
