"""Choosing stacks by what is on them: functions, places in functions, modules, what is waited for, states."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kshell.errors import KshellError, NotFoundError, UsageError
from kshell.linux.blocked import KIND_NAMES, KINDS, USER_KIND_NAMES, USER_KINDS, waits_for
from kshell.linux.modules import find_module
from kshell.linux.stacks import Frame, Stack
from kshell.linux.userland import module_named, user_facts

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
QUIET = {"WORK", "SIGNAL", "POLL", "TIMER", "CHILD", "CV", "JOIN"}
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
    :param module: names; "kernel" for what is in no module. Of a process: of its libraries, "a.out" for the program
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
        self._user = user_facts(target) is not None
        kinds = USER_KIND_NAMES if self._user else KIND_NAMES
        for word in (*kind, *no_kind):
            if word.upper() not in kinds:
                raise UsageError(f"nothing waits for {word}: the kinds are {', '.join(kinds).lower()}")
        self._target = target
        self._with = [_matcher(target, evaluate, word) for word in function]
        self._without = [_matcher(target, evaluate, word) for word in no_function]
        self._modules, self._no_modules = (
            {self._module_named(word) for word in words} for words in (module, no_module))
        self._kinds, self._no_kinds = ({word.upper() for word in words} for words in (kind, no_kind))
        if active:
            self._no_kinds |= QUIET
        self._active = active

    def __call__(self, stack: Stack) -> bool:
        """Whether *stack* is wanted."""
        frames = [frame for frame in stack.frames if frame.kind != "user"]
        if self._active and not frames:
            return False
        if self._with and not any(test(stack, frame) for test in self._with for frame in frames):
            return False
        if any(test(stack, frame) for test in self._without for frame in frames):
            return False
        if self._modules or self._no_modules:
            found = {self._module(stack, frame) for frame in frames} - {""}
            if (self._modules and not found & self._modules) or found & self._no_modules:
                return False
        if self._kinds or self._no_kinds:
            kind = self.kind(stack)
            return (not self._kinds or kind in self._kinds) and kind not in self._no_kinds
        return True

    def kind(self, stack: Stack) -> str:
        """Return what a task or thread with this *stack* waits for, "" if unknown."""
        found = [stack.symbolize(self._target, frame) for frame in stack.frames if frame.kind != "user"]
        names = [one[0].name if one is not None else "" for one in found]
        return waits_for(names, USER_KINDS if self._user else KINDS)

    def _module(self, stack: Stack, frame: Frame) -> str:
        found = stack.symbolize(self._target, frame)
        return "" if found is None else found[0].module or ("a.out" if self._user else "kernel")

    def _module_named(self, name: str) -> str:
        """Return what :meth:`_module` says of the module that *name* means. :raises KshellError: none has that name"""
        if self._user:
            return module_named(self._target, name) or "a.out"
        if name != "kernel":
            try:
                find_module(self._target, name)
            except NotFoundError:
                raise
            except KshellError:
                pass  # the list is damaged: the module may be behind that
        return name.replace("-", "_")


def _matcher(target: Target, evaluate: Callable[[str], int], word: str) -> Callable[[Stack, Frame], bool]:
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
            return lambda stack, frame: _inside(target, stack, frame, whole[0].name, None, None)
        return lambda stack, frame: frame.pc == address
    low = int(found["low"], 16) if found["low"] else None
    high = int(found["high"], 16) if found["high"] else low
    if low is not None and high is not None and high < low:
        raise UsageError(f"{word}: the range ends before it begins")
    return lambda stack, frame: _inside(target, stack, frame, found["name"], low, high)


def _inside(target: Target, stack: Stack, frame: Frame, name: str, low: int | None, high: int | None) -> bool:
    found = stack.symbolize(target, frame)
    if found is None or found[0].name != name:
        return False
    return low is None or high is None or low <= found[1] <= high
