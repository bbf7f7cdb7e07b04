"""The disassembler of a session: operands get the names of its target's symbols and per-CPU variables."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from kshell.arch.disassembler import Disassembler

if TYPE_CHECKING:
    from kshell.session import Session


def disassembler(session: Session) -> Disassembler:
    """Return a disassembler for the session's target.

    :raises KshellError: there is no target, or its architecture is not supported
    """
    target = session.target
    percpu: list[tuple[int, int, str]] = []

    def name(address: int) -> str | None:
        found = target.symbolize(address)
        return None if found is None or session.variables.get("_") else session.name_of(address)

    def percpu_name(offset: int) -> str | None:
        if target.kind != "kernel":
            return None
        if offset >= target.arch.kernel_half:  # 6.15+ (9d7de2aa8b41): per-CPU symbols have ordinary addresses
            return name(offset)
        if not percpu and target.types.base is not None:
            percpu.extend(sorted(
                (start, kind.size or 1, name) for name, (start, kind) in target.types.base.percpu().items()))
        at = bisect_right(percpu, (offset, 1 << 64, "")) - 1
        if at < 0 or session.variables.get("_"):
            return None
        start, size, text = percpu[at]
        inside = offset - start
        if inside >= size:
            return None
        return f"{text}+{session.format_number(inside)}" if inside else text

    return Disassembler(target.arch.name, name, percpu_name)
