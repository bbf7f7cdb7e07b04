"""``::where`` and ``::select``: rows chosen and columns chosen, over the objects of a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from kshell.api import (
    ADDRESS,
    DECIMAL,
    HEX,
    TEXT,
    Abort,
    Argument,
    Batch,
    Column,
    Condition,
    Fault,
    Flag,
    Items,
    KshellError,
    Option,
    Output,
    Row,
    Selection,
    Session,
    Table,
    UsageError,
    Value,
    Values,
    Vector,
    Warn,
    Word,
    batches,
    dcmd,
    format_value,
    parse_condition,
)

if TYPE_CHECKING:
    from kshell.api import CType, TypeLike

TYPE = Option("-t", "type", "the C type of the objects, when the pipe does not know it or knows another")


@dcmd("where", group="Language")
def where(
    session: Session, values: Values, type: Annotated[str | None, TYPE],
    words: Annotated[list[Argument], Word("expr", "a condition over members; quote it", "member")],
) -> Iterator[Output]:
    """Pass on the objects of a pipe for which a condition over their members holds.

    Operators are C's: == != < <= > >= && || ! & | ^ ~ + - * << >> ( ), and =~ !~ for regular expressions. Operands are
    members (mm->pgd), the value of the pipe itself (.), numbers in the current radix, strings in double quotes,
    enumerators and symbols. char arrays, char pointers and enums compare with strings. An object whose members cannot
    be read is told and not passed on.

    Examples:
      ::walk proc | ::where 'pid > 0t100 && comm == "victim"' | ::print pid comm
      ::walk proc | ::where 'mm == 0' | ::count
      ::walk modctl | ::where 'name =~ "^virtio"' | ::print name
    """
    text = " ".join(word if isinstance(word, str) else f"0x{word:x}" for word in words)
    if not text.strip():
        raise UsageError("a condition is missing", hint="::where 'pid > 0t100'")
    node = parse_condition(text, session.radix)
    known: dict[TypeLike | None, Condition] = {}
    for batch in batches(session, values):
        condition = known.get(batch.type)
        if condition is None:
            condition = known[batch.type] = _bound(session, text, node, _type(session, batch, type))
        if isinstance(batch.space, KshellError):
            raise Abort(str(batch.space), hint=batch.space.hint)
        passed: list[int] = []
        items = list(batch.items()) if batch.bindings is not None else None
        for number, holds in enumerate(condition.rows(batch.addresses, batch.space)):
            if isinstance(holds, Fault):
                yield Warn(holds)
            elif holds and items is not None:
                yield items[number]
            elif holds:
                passed.append(batch.addresses[number])
        if passed:
            yield Items(passed, batch.type)


def _bound(session: Session, text: str, node: Any, type: CType | None) -> Condition:
    try:
        return Condition(session.target, node, text, type, session.radix)
    except KshellError as error:
        raise Abort(error.args[0] if error.args else str(error), hint=error.hint) from error


def _type(session: Session, batch: Batch, given: str | None) -> CType | None:
    found = given or batch.type
    return session.target.type(found) if isinstance(found, str) else found


@dcmd("select", group="Language")
def select(
    session: Session, values: Values, type: Annotated[str | None, TYPE],
    decimal: Annotated[bool, Flag("-d", "integers in decimal")],
    addresses: Annotated[bool, Flag("-a", "a first column with the addresses of the objects")],
    members: Annotated[list[Argument], Word("member", "members, or paths of them: comm mm->pgd", "member")],
) -> Iterator[Output]:
    """Show members of the objects of a pipe as a table.

    Integers are in hexadecimal without -d. Into a pipe go the objects themselves. With --json each is an object with
    the members as keys.

    Examples:
      ::walk proc | ::select -d pid comm
      ::walk modctl | ::select -a name state refcnt.counter
      ::walk proc | ::where 'mm != 0' | ::select pid comm mm->pgd
    """
    if not members:
        raise UsageError("members are missing", hint="::select pid comm")
    known: dict[TypeLike | None, _Columns] = {}
    shown: _Columns | None = None
    for batch in batches(session, values):
        columns = known.get(batch.type)
        if columns is None:
            kind = _type(session, batch, type)
            if kind is None:
                raise Abort("the type of what the pipe passes is not known", hint="name it: ::select -t TYPE MEMBER")
            columns = known[batch.type] = _Columns(session, kind, members, decimal=decimal, address=addresses)
        if isinstance(batch.space, KshellError):
            raise Abort(str(batch.space), hint=batch.space.hint)
        if columns is not shown:
            shown = columns
            yield Table(columns.columns)
        vector = Vector(session.target, columns.type, batch.addresses, batch.space)
        for address, cells in zip(batch.addresses, columns.rows(vector, batch.addresses), strict=True):
            yield Row(address, cells, batch.type or columns.type)


class _Columns:
    """The columns of one type: where the members are, and how their cells are written."""

    def __init__(
        self, session: Session, type: CType, members: list[Argument], *, decimal: bool, address: bool,
    ) -> None:
        self.type, self._address = type, address
        try:
            selection = Selection(type, members, session.radix)
        except KshellError as error:
            raise Abort(str(error), hint=error.hint) from error
        self._parts = selection.parts
        self._flat = [part.route.shape.integer or _is_text(part.route.type) for part in self._parts]
        own = (Column("ADDR", kind=ADDRESS),) if address else ()
        self.columns = own + tuple(self._column(part.name, part.route.type, flat, decimal)
                                   for part, flat in zip(self._parts, self._flat, strict=True))

    @staticmethod
    def _column(name: str, type: CType, flat: bool, decimal: bool) -> Column:
        bare = type.strip()
        kind = bare.kind.name
        size = bare.size or 8
        if not flat:
            return Column(name, 20, TEXT, key=name)
        if kind == "POINTER":
            return Column(name, 16, ADDRESS, key=name)
        if kind == "ARRAY":
            return Column(name, size, TEXT, key=name)
        if kind == "ENUM":
            return Column(name, 20, TEXT, key=name)
        if decimal:
            return Column(name, min(3 * size, 20), DECIMAL, key=name)
        return Column(name, 2 * size, HEX, ">", key=name)

    def rows(self, vector: Vector, addresses: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """Yield the cells of each object; what cannot be read is its error."""
        flat = iter(vector.cells([part.route for part, plain in zip(self._parts, self._flat, strict=True) if plain]))
        made: list[Any] = [addresses] if self._address else []
        for part, plain in zip(self._parts, self._flat, strict=True):
            if not plain:
                made.append(_others(vector, part.route))
                continue
            cells = next(flat)
            shape = part.route.shape
            if shape.kind.name == "ENUM":
                cells = [shape.names.text(cell) if isinstance(cell, int) else cell for cell in cells]
            elif shape.integer and shape.signed and self.columns[len(made)].kind == HEX:
                mask = (1 << (part.route.width or 8 * shape.size)) - 1
                cells = [cell & mask if isinstance(cell, int) else cell for cell in cells]
            made.append(cells)
        return zip(*made, strict=True)


def _is_text(type: CType) -> bool:
    bare = type.strip()
    return bare.kind.name == "ARRAY" and (bare.target.strip().size or 0) == 1  # type: ignore[attr-defined]


def _others(vector: Vector, route: Any) -> Iterator[Any]:
    """Yield structures and arrays, as ``::print`` has them but in one line."""
    for value in vector:
        try:
            space, address = value.locate(route)
            lines = format_value(Value(value.target, route.type, address, space))
            yield " ".join(line.strip() for line in lines)
        except Fault as fault:
            yield fault
