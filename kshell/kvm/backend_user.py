"""A process or the core of one seen with libkvm's eyes: one process, its memory and its names, and no kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from kshell.errors import Fault, Reason
from kshell.kvm.backend import Facts, Page, User
from kshell.kvm.names import find_symbols, near_names
from kshell.memory.model import Memory
from kshell.target.target import Unavailable
from kshell.types.model import Symbol

if TYPE_CHECKING:
    from kshell.target.user import UserTarget


class UserBackend:
    """The backend over a process or core; *owned*: it is closed with the backend."""

    displacement = 0

    def __init__(self, target: UserTarget, *, owned: bool = True) -> None:
        self.target, self._owned = target, owned
        self.kind, self.path, self.mode = target.kind, target.path, target.mode
        self.namelist = target.objects[0].path if target.objects else target.path
        self.native = target.arch.name == os.uname().machine
        self.user_end = target.arch.kernel_half
        what = "a process" if target.kind == "process" else "a core of a process"
        self.kernel: Memory = Unavailable("kernel", f"{what} has no kernel memory")
        self.physical: Memory = target.physical

    def question(self) -> AbstractContextManager[None]:
        return self.target.question()

    def processes(self) -> Iterator[Facts]:
        yield self._facts()

    def process(self, pid: int) -> Facts | None:
        return self._facts() if pid == self.target.facts.pid else None

    def _facts(self) -> Facts:
        facts = self.target.facts
        state = next((one.state for one in facts.threads()), "")
        return Facts(facts.pid, facts.parent, facts.comm, state, 0, False, 0, facts.pid, True)

    def user_space(self, process: Facts) -> Memory:
        return self.target.kernel  # of these targets their one memory

    def reopen(self, process: Facts) -> bool:
        return False

    def user(self, process: Facts) -> User:
        facts = self.target.facts
        ends = facts.string_ends()
        uid, gid = facts.owner()
        return User(facts.pid, facts.comm, *ends, tuple(facts.auxv()), facts.started, uid, gid)

    def vtop(self, process: Facts | None, address: int) -> int:
        if process is None:
            self.kernel.read(address, 1)  # says why
        raise Fault(address, 1, Reason.UNSUPPORTED, space="user", verb="translate",
                    detail="the target has no page tables")

    def symbols(self, name: str) -> Sequence[Symbol]:
        return find_symbols(self.target, name)

    def near(self, name: str) -> Sequence[str]:
        return near_names(self.target, name)

    def pages(self) -> Iterator[Page]:
        return iter(())

    def close(self) -> None:
        if self._owned:
            self.target.close()
