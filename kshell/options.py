"""What the user may choose of how a session behaves."""

from __future__ import annotations

from typing import ClassVar

from kshell.errors import UsageError
from kshell.lang.numbers import decimal_value

PROMPT = "> "


class Options:
    """What ``::set`` and the command line change; see mdb-language.md 11.8 for the names that mdb has."""

    SWITCHES: ClassVar = ("autowrap", "ignoreeof", "pager", "repeatlast", "write_readback")
    LIMITS: ClassVar = ("array_mem_limit", "array_str_limit")

    def __init__(self) -> None:
        self.repeatlast = False
        self.ignoreeof = False
        self.autowrap = False
        self.pager = True
        self.write_readback = True
        self.array_mem_limit: int | None = 32
        self.array_str_limit: int | None = 1024
        self.symbol_distance = 0
        self.width = 80
        #: the width was set by hand: the terminal's is no longer asked for
        self.width_fixed = False
        self.prompt = PROMPT
        #: folders in which ``$<name`` and ``$<<name`` look for what is not beside them
        self.macro_path: tuple[str, ...] = ()
        #: folders in which ``::load name`` looks; None: the user's folder of plugins
        self.module_path: tuple[str, ...] | None = None

    def switch(self, words: str, on: bool) -> None:
        """Obey ``-o words`` or ``+o words``: options with commas between them, NAME or NAME=VALUE.

        :raises UsageError: there is no such option, or the value is none of its
        """
        for word in words.split(","):
            name, equals, value = word.partition("=")
            if name in self.LIMITS:
                if not equals:
                    raise UsageError(f"option requires an argument -- {name}")
                limit = decimal_value(value)
                if value != "none" and limit is None:
                    raise UsageError(f"invalid argument for option {name} -- {value}", hint="a decimal number, or none")
                setattr(self, name, limit)
            elif name not in self.SWITCHES and name != "adb":
                known = ", ".join((*self.SWITCHES, *self.LIMITS, "adb"))
                raise UsageError(f"invalid debugger option -- {name}", hint=f"one of {known}")
            elif equals:
                raise UsageError(f"option does not accept an argument -- {name}")
            elif name == "adb":
                self.prompt = "" if on else PROMPT
                self.repeatlast, self.pager = on, not on
            else:
                setattr(self, name, on)
