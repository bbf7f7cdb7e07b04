"""``::dis``: instructions of a function, or around an address (mdb-language.md 11.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    Expr,
    Flag,
    Instruction,
    Number,
    Option,
    Output,
    Record,
    Session,
    Word,
    dcmd,
    disassembler,
)

DEFAULT = 10
LABEL = 32


@dcmd("dis", group="Memory")
def dis(
    session: Session, address: int | None,
    numeric: Annotated[bool, Flag("-a", "addresses as numbers")],
    both: Annotated[bool, Flag("-b", "addresses as numbers and names")],
    object: Annotated[bool, Flag("-f", "from the object file")],
    window: Annotated[bool, Flag("-w", "those around the address, at the start of a function too")],
    number: Annotated[Number | None, Option("-n", "num", "instructions after the first, in a window before it too")],
    where: Annotated[Expr | None, Word("addr", "an address or symbol, instead of the one on the left")],
) -> Iterator[Output]:
    """Disassemble a function, or the instructions around an address.

    At the start of a function all of it, with -n its first instructions; elsewhere, and with -w, those before and
    after the address. Without an address it goes on from dot. Addresses in operands have their names in <>: those of
    calls, jumps, memory relative to %rip, and per-CPU variables. Memory that cannot be read is named in its place, and
    a byte that begins no instruction is shown as .byte. Into a pipe go the addresses of the instructions.

    Examples:
      schedule::dis
      schedule::dis -n 4
      schedule+0t20::dis -b -n 3
      ::dis -a do_exit ! head -5
    """
    given = where if where is not None else address
    start = session.dot if given is None else given
    memory = session.memory("object" if object else "virtual", start)
    code = disassembler(session)
    count = DEFAULT if number is None else max(number, 0)
    covering = session.target.symbolize(start)
    function = covering is not None and covering[0].type in "TtWw" and covering[0].size > 0
    before: list[Instruction] = []
    end: int | None = None
    if window or (given is not None and not (function and covering is not None and not covering[1])):
        first = covering[0].address if function and covering is not None else None
        before, start = code.before(memory, start, count, first)
    elif given is not None and number is None and covering is not None:
        end = start + covering[0].size
    after = start
    for one in before:
        yield _line(session, one, numeric, both)
    for at, one in enumerate(code.run(memory, start) if end is None else code.run(memory, start, end)):
        yield _line(session, one, numeric, both)
        after = one.address + one.size
        if end is None and at >= count:
            break
    session.dot, session.increment = after % (1 << 64), 0


def _line(session: Session, one: Instruction, numeric: bool, both: bool) -> Record:
    name = session.name_of(one.address)
    label = f"0x{one.address:x}" if numeric else f"0x{one.address:x}  {name}" if both else name
    # to the next multiple of 8 behind a long label
    width = max(LABEL, (len(label) + 9) // 8 * 8)
    return Record([f"{label + ':':<{width}}{one}"], lambda: _data(one, name), one.address)


def _data(one: Instruction, name: str) -> dict[str, object]:
    found: dict[str, object] = {
        "addr": f"0x{one.address:x}", "symbol": name, "bytes": one.data.hex(), "text": one.text}
    if one.name and one.target is not None:
        found["target"], found["target_symbol"] = f"0x{one.target:x}", one.name
    return found
