"""``::panic``: why the kernel died; ``::triage``: the first look at any dump."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import Flag, Note, Output, Record, Session, Warn, dcmd
from kshell.linux import crash, crash_report, triage


@dcmd("panic", group="Kernel")
def panic(
    session: Session, verbose: Annotated[bool, Flag("-v", "say of every register what it points to")],
) -> Iterator[Output]:
    """Say why the kernel died: reason, place, instruction, address, registers, taints, stack.

    The reason and what failed before it are the log's, the place is that on the stack of the CPU that panicked (of an
    oops without a panic, the log's). The instruction that failed is marked =>, and the address it stumbled over is
    explained: a member of a structure at NULL, freed memory, a guard page, or what ::whatis says of it. What cannot be
    told says why. Of a kernel that did not panic it says what its log complains about.

    Examples:
      ::panic
      ::panic -v
    """
    found = crash.read_crash(session.target)
    if not found.happened:
        yield Note(found.nothing)
        for problem in found.problems:
            yield Note(problem)
        return
    facts = crash_report.describe(session.target, found, verbose)
    yield Record(crash_report.lines(facts), lambda: facts)


@dcmd("triage", group="Kernel")
def show_triage(session: Session) -> Iterator[Output]:
    """Take the first look at a dump: everything one asks before knowing what to ask.

    In sections: what the dump is and how complete; the verdict; the panic; the log; what each CPU was doing; tasks by
    state and those that are blocked longest; stacks that are alike; locks and deadlocks; where memory went, processes,
    slabs; modules and taints. A section that cannot be told says why and costs no other. `kshell triage DUMP` is the
    same from the command line; with --json each section is an object.

    Examples:
      ::triage
      ::triage ! less
    """
    first = True
    for section in triage.triage(session.target):
        yield Record(
            [*([] if first else [""]), f"== {section.name} ==", *section.lines],
            lambda section=section: {"section": section.name, **section.facts,  # type: ignore[misc]
                                     **({"problem": section.problem} if section.problem else {})})
        first = False
        if section.problem:
            yield Warn(f"{section.name}: {section.problem}")
