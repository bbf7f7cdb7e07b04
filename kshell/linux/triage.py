"""The first look at a dump: what it is, why it died, what everybody was doing, who waits for whom, where memory went.

Every section stands alone: what one cannot tell costs that section, which says why. All is bounded, so that the answer
comes in seconds on a dump with thousands of tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.escape import escape
from kshell.linux import (
    clock,
    crash,
    crash_report,
    lock_rows,
    locks,
    modules,
    printk,
    taints,
    task_details,
    task_rows,
    uts,
)
from kshell.linux.cpus import cpu_states
from kshell.linux.kernel import build_id, require_kernel
from kshell.linux.pid_table import all_threads
from kshell.linux.stacks import cpu_stack, stacks
from kshell.linux.tasks import LETTERS, Task, read_task

if TYPE_CHECKING:
    from kshell.target.target import Target

#: how much of each is shown
LOG_LINES, OOPS_LINES, FRAMES, TOP, GROUPS = 12, 60, 16, 10, 8
#: of more tasks than this only those that are blocked or run are looked at for their stacks
MANY_TASKS = 20_000
#: a cache of a module with more objects than this, or one with a larger part of memory, is a suspect of a leak
SUSPECT_OBJECTS, SUSPECT_SHARE = 5_000, 0.05
MIB = 1 << 20


class Section(NamedTuple):
    """A part of the answer: ``facts`` for programs, ``lines`` (escaped) for people, ``problem`` when it failed."""

    name: str
    facts: dict[str, Any]
    lines: list[str]
    problem: str = ""


class Slab(NamedTuple):
    name: str
    objects: int
    bytes: int
    module: str
    reclaimable: bool


class Triage:
    """The sections of one target; what several need is read once."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def sections(self) -> Iterator[Section]:
        """Yield the sections in the order in which they are read, the verdict second."""
        parts: tuple[tuple[str, Callable[[], tuple[dict[str, Any], list[str]]]], ...] = (
            ("system", self._system), ("verdict", self._verdict), ("panic", self._panic), ("log", self._log),
            ("cpus", self._cpus), ("tasks", self._tasks), ("stacks", self._stacks), ("locks", self._locks),
            ("memory", self._memory), ("processes", self._processes), ("slabs", self._slabs),
            ("modules", self._modules))
        for name, make in parts:
            try:
                yield Section(name, *make())
            except KshellError as error:
                yield Section(name, {}, [], str(error))

    # -- what several sections need --------------------------------------------------------------------------------

    @cached_property
    def crash(self) -> crash.Crash:
        return crash.read_crash(self.target)

    @cached_property
    def _threads(self) -> tuple[list[Task], str]:
        return all_threads(self.target)

    @property
    def threads(self) -> list[Task]:
        return self._threads[0]

    @cached_property
    def waits(self) -> list[locks.Wait]:
        blocked = [task for task in self.threads if task.state == "D"]
        return list(locks.waits(self.target, blocked, self.threads))

    @cached_property
    def names(self) -> lock_rows.Names:
        return lock_rows.Names(self.target)

    @cached_property
    def slabs(self) -> list[Slab]:
        from kshell.linux.slab_usage import slab_usage

        found = []
        for usage in slab_usage(self.target):
            name = usage.cache.name if usage.cache is not None else f"0x{usage.address:x}"
            value = self.target.value("struct kmem_cache", usage.address)
            try:
                maker = self.target.symbolize(value.integer("ctor"))
                module = (maker[0].module or "") if maker else ""
                reclaimable = bool(value.integer("flags") & self._reclaim)
            except KshellError:
                module, reclaimable = "", False
            found.append(Slab(name, usage.allocated, usage.memory, module, reclaimable))
        return sorted(found, key=lambda slab: -slab.bytes)

    @cached_property
    def _reclaim(self) -> int:
        """The flag of caches whose memory can be had back: SLAB_RECLAIM_ACCOUNT, whose bit moved in 6.9."""
        from kshell.types.model import EnumType

        kind = self.target.types.get("enum _slab_flag_bits")
        bare = kind.strip() if kind is not None else None
        if isinstance(bare, EnumType):
            for one in bare.enumerators:
                if one.name == "_SLAB_RECLAIM_ACCOUNT":
                    return 1 << one.value
        return 0x2_0000

    # -- sections ---------------------------------------------------------------------------------------------------

    def _system(self) -> tuple[dict[str, Any], list[str]]:
        target = self.target
        facts: dict[str, Any] = {"target": target.path, "release": target.release}
        for name, ask in (("host", lambda: uts.uname(target).nodename), ("version", lambda: uts.uname(target).version),
                          ("build_id", lambda: build_id(target) or "unknown"), ("date", self._date),
                          ("up", lambda: task_rows.duration(clock.read_clock(target).uptime)),
                          ("cpus", lambda: len(target.cpu_numbers("online")))):
            facts[name] = told(ask)
        target.types  # noqa: B018 - found when first asked for, and told in the findings
        facts["found"] = dict(target.findings)
        facts["complete"] = self._completeness()
        lines = [f"{escape(str(facts['release']))} {escape(str(facts['version']))} on {escape(str(facts['host']))}",
                 f"{facts['date']}, up {facts['up']}, {facts['cpus']} CPUs online"]
        lines += [f"{name}: {escape(str(text))}" for name, text in facts["found"].items()]
        return facts, [*lines, f"pages: {facts['complete']}"]

    def _date(self) -> str:
        return f"{printk.wall_time(clock.read_clock(self.target).wall)[:19]} UTC"

    def _completeness(self) -> str:
        """Return how much of the memory the image has, and what is left out."""
        held, missing = 0, Counter[str]()
        for run in self.target.physical.ranges():
            if run.held:
                held += run.end - run.start
            else:
                missing[run.reason.name.lower() if run.reason is not None else "missing"] += run.end - run.start
        if not held and not missing:
            return "nothing tells which pages there are"
        return ", ".join([f"{held >> 20:,} MiB held", *(f"{size >> 20:,} MiB {why}" for why, size in missing.items())])

    def _verdict(self) -> tuple[dict[str, Any], list[str]]:
        found = list(self._findings())
        if not self.crash.happened and self.crash.problems:
            found.insert(0, f"not looked at ({self.crash.problems[0]})")
        lines = found or ["nothing stands out: no panic, no failure in the log, no deadlock, no suspect of a leak"]
        return {"findings": found}, [escape(line) for line in lines]

    def _findings(self) -> Iterator[str]:
        """Yield what stands out, the gravest first; what cannot be looked at says so."""
        for ask in (self._death, self._deadlocks, self._complaints, self._leaks):
            try:
                yield from ask()
            except KshellError as error:
                yield f"not looked at ({ask.__name__.strip('_')}): {error}"

    def _death(self) -> Iterator[str]:
        failure = self.crash.failure
        if self.crash.reason or self.crash.stack is not None or (failure is not None and failure.kind != "hungtask"):
            yield crash_report.verdict(self.target, self.crash)

    def _deadlocks(self) -> Iterator[str]:
        circles = locks.deadlocks(self.waits)
        for circle in circles:
            parts = [f"{lock_rows.who(wait.task)} in {self.names.caller(wait.caller)} waits for {wait.kind} "
                     f"{self._lock(wait)}" for wait in circle]
            yield f"deadlock: {'; '.join(parts)}: each is held by the other" if len(circle) == 2 else (
                f"deadlock of {len(circle)}: {'; '.join(parts)}")
        stuck = {wait.task.address for circle in circles for wait in circle}
        behind = Counter(wait.lock.owner for wait in self.waits
                         if wait.lock is not None and wait.lock.owner and wait.task.address not in stuck)
        for owner, count in behind.most_common(3):
            yield f"{count} more blocked behind {self.names.task(owner)}"

    def _complaints(self) -> Iterator[str]:
        """Yield what the log says of tasks that hang, when that did not end in a panic: often a deadlock's echo."""
        hung = [event for event in self.crash.events if event.kind == "hungtask"]
        if hung and not self.crash.reason:
            yield f"the log complains {len(hung)} times of hung tasks, first: {hung[0].text}"

    def _leaks(self) -> Iterator[str]:
        everything = sum(slab.bytes for slab in self.slabs if not slab.reclaimable) or 1
        memory = sum(run.end - run.start for run in self.target.physical.ranges()) or 1
        for slab in self.slabs:
            large = slab.bytes > SUSPECT_SHARE * memory and slab.bytes > everything / 4
            if slab.reclaimable or not (large or (slab.module and slab.objects >= SUSPECT_OBJECTS)):
                continue
            whose = f", made by module {slab.module}," if slab.module else ""
            yield (f"perhaps a leak: slab cache {slab.name}{whose} holds {slab.objects:,} objects in "
                   f"{slab.bytes / MIB:.1f} MiB, {slab.bytes * 100 // everything} % of the unreclaimable slab memory"
                   f"{self._allocators(slab)}")

    def _allocators(self, slab: Slab) -> str:
        """Return who allocated the objects of a cache, where the kernel keeps that, "" where not."""
        from kshell.linux.slab import find_cache
        from kshell.linux.slab_tracks import alloc_tracks
        from kshell.linux.slub_objects import cache_objects

        cache = find_cache(self.target, slab.name)
        objects = cache_objects(self.target, self.target.value("struct kmem_cache", cache.address))
        tracks = alloc_tracks(self.target, cache.address, objects.address[objects.allocated].tolist())
        if tracks is None:
            return ""
        (caller, count), = Counter(track.address for track in tracks if track is not None).most_common(1) or [(0, 0)]
        found = self.target.symbolize(caller)
        return f"; {count:,} were allocated by {lock_rows.place(found) if found else hex(caller)}" if count else ""

    def _lock(self, wait: locks.Wait) -> str:
        assert wait.lock is not None
        return self.names.lock(wait.lock.address) or f"0x{wait.lock.address:x}"

    def _panic(self) -> tuple[dict[str, Any], list[str]]:
        if not self.crash.happened:
            return {}, [f"none: {self.crash.nothing}"]
        facts = crash_report.describe(self.target, self.crash)
        return facts, list(crash_report.lines(facts))

    def _log(self) -> tuple[dict[str, Any], list[str]]:
        records = list(printk.iter_records(self.target))
        last = records[-LOG_LINES:]
        first = self.crash.failure.number if self.crash.failure is not None else len(records)
        shown = [*records[first : first + OOPS_LINES], *(one for one in last if one.seq >= records[min(
            first + OOPS_LINES, len(records) - 1)].seq)] if first < len(records) - LOG_LINES else last
        lines = [line for record in shown for line in record.lines()]
        return {"lines": lines}, [escape(line) for line in lines]

    def _cpus(self) -> tuple[dict[str, Any], list[str]]:
        cpus: list[dict[str, Any]] = []
        lines: list[str] = []
        for number in cpu_states(self.target):
            try:
                stack = cpu_stack(self.target, number)
                name = lock_rows.who(read_task(self.target, stack.task)) if stack.task else "no task"
                frames = crash_report.folded(self.target, stack.frames, FRAMES)
                problem = stack.end
            except KshellError as error:
                name, frames, problem = "unknown", [], str(error)
            cpus.append({"cpu": number, "task": name, "stack": frames, "problem": problem})
            lines += [f"CPU {number}: {escape(name)}", *(f"    {escape(frame)}" for frame in frames)]
            lines += [f"    [{escape(problem)}]"] if problem else []
        return {"cpus": cpus}, lines

    def _tasks(self) -> tuple[dict[str, Any], list[str]]:
        states = Counter(task.state for task in self.threads)
        counts = {letter: states[letter] for letter in LETTERS if states[letter]}
        blocked = [task for task in self.threads if task.state == "D"]
        times = task_details.times(self.target, [task.address for task in blocked])
        order = sorted(zip(blocked, times, strict=True),
                       key=lambda pair: pair[1].last_ran if isinstance(pair[1].last_ran, int) else 0)
        waits = {wait.task.address: wait for wait in self.waits}
        longest = []
        for task, time in order[:TOP]:
            wait = waits.get(task.address)
            longest.append({
                "pid": task.pid, "comm": task.comm, "blocked": str(task_rows.since(time.last_ran, self.names.now)),
                "in": self.names.caller(wait.caller) if wait is not None else "",
                "for": f"{wait.kind} {self._lock(wait)}" if wait is not None and wait.lock is not None else ""})
        shown = ", ".join(f"{count:,} {letter}" for letter, count in counts.items())
        damage = self._threads[1]
        lines = [f"{len(self.threads):,} tasks: {shown}", *([f"[{escape(damage)}]"] if damage else [])]
        for one in longest:
            text = f"    blocked {one['blocked']:>9}  {one['comm']} ({one['pid']})  {one['in']}  {one['for']}"
            lines.append(escape(text).rstrip())
        return {"states": counts, "count": len(self.threads), "longest_blocked": longest,
                "damage": damage}, lines

    def _stacks(self) -> tuple[dict[str, Any], list[str]]:
        chosen = self.threads
        if len(chosen) > MANY_TASKS:
            chosen = [task for task in chosen if task.state in "DR"]
        labels = [task.state for task in chosen]
        names = {task.address: task for task in chosen}
        groups = stacks(self.target, [task.address for task in chosen]).groups(labels)
        # those that are blocked or run tell more than the many that sleep
        order = sorted(groups, key=lambda group: (str(group.label) not in "DR", -len(group.tasks)))
        found = []
        lines = [f"{len(groups)} different stacks of {len(chosen):,} tasks; {min(GROUPS, len(groups))} of them:"]
        for group in order[:GROUPS]:
            frames = crash_report.folded(self.target, group.stack.frames, FRAMES)
            comms = Counter(names[task].comm for task in group.tasks)
            shown = ", ".join(f"{comm} x {count}" if count > 1 else comm for comm, count in comms.most_common(4))
            found.append({"count": len(group.tasks), "state": group.label, "comms": dict(comms.most_common(TOP)),
                          "stack": frames, "problem": group.stack.end})
            lines.append(escape(f"{len(group.tasks)} in state {group.label}: {shown}"))
            lines += [f"    {escape(frame)}" for frame in frames]
            lines += [f"    [{escape(group.stack.end)}]"] if group.stack.end else []
        return {"different": len(groups), "groups": found}, lines

    def _locks(self) -> tuple[dict[str, Any], list[str]]:
        circles = locks.deadlocks(self.waits)
        lines = []
        for wait in self.waits:
            owner = self.names.owner(wait)
            what = f"{wait.kind} {self._lock(wait)}" if wait.lock is not None else f"{wait.kind} ({wait.problem})"
            held = f", held by {owner}" if owner else f" ({wait.lock.note})" if wait.lock and wait.lock.note else ""
            lines.append(escape(f"{lock_rows.who(wait.task)} waits for {what}{held}"))
        for circle in circles:
            lines += map(escape, self.names.drawing(circle))
        facts = {"waits": [self.names.data(wait) for wait in self.waits],
                 "deadlocks": [[self.names.data(wait) for wait in circle] for circle in circles]}
        return facts, lines or ["nobody waits for a lock"]

    def _memory(self) -> tuple[dict[str, Any], list[str]]:
        from kshell.linux.memstat import memory

        found = memory(self.target)
        shares = {share.name: share.pages << 12 for share in found.shares if share.pages}
        total = found.total << 12
        lines = [f"{total / MIB:,.1f} MiB for the kernel and its processes"]
        for name, size in sorted(shares.items(), key=lambda item: -item[1])[:TOP]:
            lines.append(f"    {size / MIB:10,.1f} MiB  {size * 100 / max(total, 1):5.1f} %  {name}")
        lines += [f"    [{escape(str(problem))}]" for problem in found.problems]
        return {"total": total, "shares": shares, "problems": list(map(str, found.problems))}, lines

    def _processes(self) -> tuple[dict[str, Any], list[str]]:
        leaders = [task for task in self.threads if task.pid == task.tgid and task.mm]
        sizes = task_details.memory(self.target, [task.mm for task in leaders])
        known = [(size.resident, task) for task, size in zip(leaders, sizes, strict=True)
                 if not isinstance(size.resident, Fault)]
        largest = sorted(known, key=lambda pair: -pair[0])[:TOP]
        facts = [{"pid": task.pid, "comm": task.comm, "resident": size} for size, task in largest]
        lines = [escape(f"{size / MIB:10,.1f} MiB  {lock_rows.who(task)}") for size, task in largest]
        return {"largest": facts}, lines or ["no process has memory of its own"]

    def _slabs(self) -> tuple[dict[str, Any], list[str]]:
        top = self.slabs[:TOP]
        facts = [slab._asdict() for slab in top]
        lines = [f"{sum(slab.bytes for slab in self.slabs) / MIB:,.1f} MiB in {len(self.slabs)} caches"]
        for slab in top:
            kind = "reclaimable" if slab.reclaimable else f"of module {slab.module}" if slab.module else ""
            text = f"    {slab.bytes / MIB:10,.1f} MiB {slab.objects:10,} objects  {slab.name}  {kind}"
            lines.append(escape(text).rstrip())
        return {"largest": facts}, lines

    def _modules(self) -> tuple[dict[str, Any], list[str]]:
        every = list(modules.iter_modules(self.target))
        reasons = taints.kernel_taints(self.target)
        guilty = {module.name: module.taints for module in every if module.taints}
        lines = [f"tainted: {', '.join(f'{taint.letter} ({taint.meaning})' for taint in reasons) or 'not'}"]
        lines += [escape(f"module {name} taints it: {letters}") for name, letters in guilty.items()]
        lines.append(escape(f"{len(every)} modules: {' '.join(module.name for module in every)}"))
        return {"taints": [taint._asdict() for taint in reasons], "tainting": guilty,
                "modules": [module.name for module in every]}, lines


def told(ask: Callable[[], object]) -> object:
    """Return what *ask* returns, or why it cannot be told, in brackets."""
    try:
        return ask()
    except KshellError as error:
        return f"<{error}>"


def triage(target: Target) -> Iterator[Section]:
    """Yield the sections of the first look at *target*.

    :raises KshellError: the target is no kernel
    """
    if target.kind != "kernel":
        require_kernel(target)
    yield from Triage(target).sections()


def failed(sections: Sequence[Section]) -> list[str]:
    """Return the names of the sections that could not be told."""
    return [section.name for section in sections if section.problem]
