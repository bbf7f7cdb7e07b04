"""Waits for locks as cells, as objects, and deadlocks drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kshell.errors import KshellError
from kshell.linux import task_details, task_rows
from kshell.linux.locks import Lock, Wait
from kshell.linux.stacks import symbolize
from kshell.linux.tasks import Task, read_task
from kshell.unwind.model import Frame

if TYPE_CHECKING:
    from kshell.target.target import Target


class Names:
    """Names tasks, locks and places of one target."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.now = task_rows.moment(task_details.now, target)
        self._tasks: dict[int, str] = {}

    def task(self, address: int) -> str:
        """Return "comm (pid)" of the task at *address*; its address when it cannot be read."""
        if address not in self._tasks:
            try:
                self._tasks[address] = who(read_task(self.target, address))
            except KshellError:
                self._tasks[address] = f"0x{address:x}"
        return self._tasks[address]

    def lock(self, address: int) -> str:
        """Return the symbol of a lock, "" for one in dynamic memory."""
        found = self.target.symbolize(address)
        return place(found) if found is not None else ""

    def owner(self, wait: Wait) -> str:
        """Return who holds the lock, in words of a column's width."""
        if wait.lock is None:
            return ""
        if wait.lock.owner:
            return self.task(wait.lock.owner)
        return f"{wait.lock.readers} readers" if wait.lock.readers else ""

    def caller(self, frame: Frame | None) -> str:
        found = symbolize(self.target, frame) if frame is not None else None
        return place(found) if found is not None else ""

    def since(self, task: Task) -> Any:
        """Return how long ago *task* last had a CPU, an error when that cannot be told."""
        (time,) = task_details.times(self.target, [task.address])
        return task_rows.since(time.last_ran, self.now)

    def cells(self, wait: Wait) -> tuple[Any, ...]:
        """Return the cells of ``::locks``."""
        lock = wait.lock
        kind = f"{wait.kind} {wait.wants[:1]}".rstrip()
        remark = wait.problem or (lock.note if lock is not None and not lock.owner else "")
        return (
            kind, lock.address if lock else None, self.lock(lock.address) if lock else "", self.owner(wait),
            wait.task.pid, wait.task.comm, wait.task.address, wait.task.state, self.since(wait.task),
            self.caller(wait.caller), remark)

    def data(self, wait: Wait) -> dict[str, Any]:
        """Return a wait as an object."""
        lock: Lock | None = wait.lock
        found: dict[str, Any] = {
            "pid": wait.task.pid, "comm": wait.task.comm, "task": f"0x{wait.task.address:x}", "kind": wait.kind,
            "wants": wait.wants, "caller": self.caller(wait.caller)}
        if lock is not None:
            found |= {"lock": f"0x{lock.address:x}", "name": self.lock(lock.address), "owner": self.owner(wait),
                      "note": lock.note}
        return {**found, "problem": wait.problem} if wait.problem else found

    def drawing(self, circle: Sequence[Wait]) -> Iterator[str]:
        """Yield the lines that show a deadlock: who waits where for what, and who holds it."""
        count = "a task waits for itself" if len(circle) == 1 else f"{len(circle)} tasks wait for each other"
        yield f"deadlock: {count}"
        for number, wait in enumerate(circle):
            assert wait.lock is not None
            name = self.lock(wait.lock.address)
            shown = f"{name} (0x{wait.lock.address:x})" if name else f"0x{wait.lock.address:x}"
            first, branch = ("+-> ", "|   ") if number == 0 else ("|   ", "|   ")
            yield f"{first}{who(wait.task)} in {self.caller(wait.caller) or 'unknown code'}"
            yield f"{branch}  waits for {wait.kind} {shown}"
            yield f"{branch}  held by {self.task(wait.lock.owner)}"
        yield f"+---- which is where it began: {who(circle[0].task)}"


def who(task: Task) -> str:
    return f"{task.comm} ({task.pid})"


def place(found: tuple[Any, int]) -> str:
    """Return "module`name+0x10" of a symbol and an offset."""
    symbol, offset = found
    name = f"{symbol.module}`{symbol.name}" if symbol.module else symbol.name
    return f"{name}+0x{offset:x}" if offset else name
