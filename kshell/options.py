"""What the user may choose of how a session behaves."""

from __future__ import annotations


class Options:
    """What ``::set`` changes; see mdb-language.md 11.8 for the names that mdb has."""

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
        self.prompt = "> "
