"""Tasks as cells of tables: what ``::ps`` and its like add to a row, made for many tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kshell.errors import Fault, KshellError
from kshell.linux import clock, task_details
from kshell.linux.tasks import Task, task_type
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

NS = 1_000_000_000
Cells = tuple[Any, ...]


def places(target: Target, tasks: Sequence[Task]) -> list[tuple[Any, bool]]:
    """Return (CPU it is on or was last, whether it runs now) of each task."""
    return [(one.cpu, one.running) for one in task_details.placed(target, [task.address for task in tasks])]


def time_cells(target: Target, tasks: Sequence[Task], threads: bool) -> list[Cells]:
    """Return CPU, priority, policy, user and system seconds, and for how long it has lived and not run."""
    addresses = [task.address for task in tasks]
    placed = task_details.placed(target, addresses)
    spent = (task_details.times if threads else task_details.process_times)(target, addresses)
    scheduler, uptime = moment(task_details.now, target), moment(lambda one: clock.read_clock(one).uptime, target)
    return [
        (place.cpu, place.prio, place.policy, seconds(time.user), seconds(time.system), since(time.started, uptime),
         since(time.last_ran, scheduler) if time.last_ran else "never")
        for place, time in zip(placed, spent, strict=True)]


def size_cells(target: Target, tasks: Sequence[Task], _threads: bool) -> list[Cells]:
    """Return virtual, resident and swapped KiB."""
    sizes = task_details.memory(target, [task.mm for task in tasks])
    return [tuple(cell if isinstance(cell, Fault) else cell >> 10 for cell in size) for size in sizes]


def namespace_cells(target: Target, tasks: Sequence[Task], _threads: bool) -> list[Cells]:
    """Return the ids in the pid namespaces as one text, "200 1"."""
    found = task_details.namespace_pids(target, [task.address for task in tasks])
    return [(pids if isinstance(pids, Fault) else " ".join(map(str, pids)),) for pids in found]


def credential_cells(target: Target, tasks: Sequence[Task], _threads: bool) -> list[Cells]:
    """Return real and effective ids, and the effective capabilities as a number."""
    creds = Vector(target, task_type(target), [task.address for task in tasks]).column("real_cred")
    kind = target.type("struct cred")
    # Since 6.3 (f122a08b197d) kernel_cap_t is one number, before it two of 32 bits
    wide = target.value(kind, 0)["cap_effective"].has("val")
    paths = ["cap_effective.val"] if wide else ["cap_effective.cap[0]", "cap_effective.cap[1]"]
    good = [cred for cred in dict.fromkeys(creds) if isinstance(cred, int) and cred]
    columns = Vector(target, kind, good).columns("uid.val", "euid.val", "gid.val", "egid.val", *paths)
    found: dict[int, Cells] = {}
    for cred, *ids, in zip(good, *columns, strict=True):
        words = ids[4:]
        fault = next((word for word in words if isinstance(word, Fault)), None)
        caps = fault if fault is not None else sum(word << 32 * at for at, word in enumerate(words))
        found[cred] = (*ids[:4], caps)
    return [found.get(cred, (cred,) * 5) for cred in creds]


#: the name of an option of ::ps -> what makes its cells
MAKERS: dict[str, Callable[[Target, Sequence[Task], bool], list[Cells]]] = {
    "times": time_cells, "sizes": size_cells, "namespaces": namespace_cells, "creds": credential_cells}


def moment(read: Callable[[Target], int], target: Target) -> int | KshellError:
    """Return what a clock says, or why it cannot be told."""
    try:
        return read(target)
    except KshellError as error:
        return error


def seconds(nanoseconds: Any) -> Any:
    """Return a time as seconds with two digits; a fault stays one."""
    return nanoseconds if isinstance(nanoseconds, Fault) else f"{nanoseconds / NS:.2f}"


def since(time: Any, now: Any) -> Any:
    """Return how long ago *time* was, in words of a column's width; an error of either stays one."""
    for cell in (time, now):
        if isinstance(cell, KshellError):
            return cell
    return duration(max(now - time, 0))


def duration(nanoseconds: int) -> str:
    """Return a duration: "1.25s", "12:03", "5:00:01", "12d 4h"."""
    if nanoseconds < 60 * NS:
        return f"{nanoseconds / NS:.2f}s"
    whole = nanoseconds // NS
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"
