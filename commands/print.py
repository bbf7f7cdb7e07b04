"""``::print``, ``::sizeof``, ``::offsetof``, ``::list``, ``::array``: objects with their C types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

from kshell.api import (
    Abort,
    Argument,
    ArrayType,
    Batch,
    Call,
    CType,
    Fault,
    Flag,
    Item,
    Items,
    KshellError,
    Many,
    MemberName,
    NotFoundError,
    Number,
    Option,
    Output,
    PrintOptions,
    Record,
    Records,
    Selection,
    Session,
    StructType,
    Text,
    TypeLike,
    TypeName,
    UsageError,
    Value,
    Values,
    VariableName,
    Warn,
    Word,
    batches,
    dcmd,
    format_layout,
    format_value,
    offsetof,
    offsetof_text,
    offsetof_value,
    pipe_value,
    piped_type,
    sizeof,
    sizeof_text,
    to_json,
    type_and_members,
)

if TYPE_CHECKING:
    from kshell.api import Objects
from kshell.linux.lists import chain, visited_before

#: the first page is never mapped, so that NULL->member is caught
NULL_PAGE = 1 << 12
WORDS = Word("type [member]", "a C type and members of it: struct task_struct pid mm->pgd; $[8] the one at byte 8")


@dcmd("print", group="Types")
def print_(
    session: Session, address: int | None, call: Call, values: Values | None,
    addresses: Annotated[bool, Flag("-a", "the address before each member; in a pipe addresses of members")],
    all_text: Annotated[bool, Flag("-C", "no limit to strings")],
    decimal: Annotated[bool, Flag("-d", "integers in decimal")],
    holes: Annotated[bool, Flag("-h", "show padding")],
    immediate: Annotated[bool, Flag("-i", "the address is the value itself")],
    all_elements: Annotated[bool, Flag("-L", "no limit to arrays")],
    plain: Annotated[bool, Flag("-n", "pointers without symbols")],
    physical: Annotated[bool, Flag("-p", "the address is physical")],
    types: Annotated[bool, Flag("-t", "the type before each member")],
    base_types: Annotated[bool, Flag("-T", "the type, and what it is a typedef of")],
    hexadecimal: Annotated[bool, Flag("-x", "integers in hexadecimal")],
    text_limit: Annotated[Number | None, Option("-c", "lim", "bytes of a string")],
    limit: Annotated[Number | None, Option("-l", "lim", "elements of an array")],
    depth: Annotated[Number | None, Option("-s", "depth", "levels of structures that are opened")],
    words: Annotated[list[Argument], WORDS],
) -> Iterator[Output]:
    """Print an object by its C type, whole or some members.

    Without a type the one of the symbol at the address is taken, or of what a pipe passes. Members are paths:
    mm->pgd, cpus_mask.bits[0], parent->comm; indexes are in the current radix. Without an address the layout of the
    type is shown. Into a pipe go numbers and pointers as values, structures as their addresses.

    Examples:
      init_task::print pid comm parent
      ::ps | ::print comm mm->pgd
      ::print -at struct list_head
    """
    if immediate and physical:
        raise UsageError("-i and -p do not go together")
    if immediate and address is None:
        raise UsageError("the value is missing: VALUE::print -i TYPE")
    options = PrintOptions(
        addresses=addresses, decimal=decimal, holes=holes, plain=plain, depth=depth, base_types=base_types, types=types,
        hexadecimal=hexadecimal,
        string_limit=None if all_text else session.options.array_str_limit if text_limit is None else text_limit,
        limit=None if all_elements else session.options.array_mem_limit if limit is None else limit)
    shown = _Wanted(options, physical, immediate, words)
    if values is not None:
        yield from _print_many(session, values, call, shown)
    else:
        yield from _print_one(session, address, call, call.type, shown)


class _Wanted(NamedTuple):
    """What the words after ``::print`` ask for."""

    options: PrintOptions
    physical: bool
    immediate: bool
    words: list[Argument]


def _print_many(session: Session, values: Values, call: Call, wanted: _Wanted) -> Iterator[Output]:
    """Print the objects that a pipe brings, many at once where all are of one type."""
    known: dict[TypeLike | None, Many | None] = {}
    for batch in batches(session, values):
        if batch.type not in known:
            known[batch.type] = many = _many(session, batch, wanted)
            if many is not None and many.selection is not None:
                yield from map(Warn, many.selection.warnings)
        many = known[batch.type]
        if many is None or isinstance(batch.space, KshellError):
            yield from _print_each(session, batch.items(), call, wanted)
            continue
        items = list(batch.items()) if batch.bindings is not None else None
        for start in range(0, len(batch.addresses), many.block):
            objects = many.read(batch.addresses[start : start + many.block], batch.space)
            for first, end, good in objects.runs():
                if not good:
                    part = batch._replace(addresses=batch.addresses[start + first : start + end])
                    yield from _print_each(session, part.items(), call, wanted)
                elif not call.pipe_out:
                    yield _records(objects, many, batch.addresses[start + first : start + end], first, end, wanted)
                else:
                    numbers = objects.numbers(first, end, wanted.options.addresses)
                    if items is None:
                        yield Items(numbers)
                        continue
                    each = len(numbers) // (end - first)
                    yield from (Item(number, None, items[start + first + at // each].bindings)
                                for at, number in enumerate(numbers))
        session.dot, session.increment = (batch.addresses[-1] + sizeof(many.type)) & (1 << 64) - 1, 0


def _print_each(session: Session, items: Iterable[Item], call: Call, wanted: _Wanted) -> Iterator[Output]:
    """Print objects one by one; one that fails does not keep the others."""
    for item in items:
        session.bind(item.bindings)
        try:
            for output in _print_one(session, item.value, call, item.type, wanted):
                yield output._replace(bindings=item.bindings) if isinstance(output, Item) else output
        except Abort:
            raise
        except KshellError as error:
            yield Warn(error)


def _records(
    objects: Objects, many: Many, addresses: Sequence[int], first: int, end: int, wanted: _Wanted,
) -> Records:
    def data() -> Iterator[dict[str, object]]:
        depth, limit = wanted.options.depth, wanted.options.limit
        for number in range(first, end):
            value = objects.value(number)
            yield (_object(value, depth, limit) if many.selection is None
                   else many.selection.json(value, depth, limit))

    return Records(lambda: objects.text(first, end), data, addresses, many.type)


def _many(session: Session, batch: Batch, wanted: _Wanted) -> Many | None:
    """Return what prints objects of the type of *batch*; None when each has to be looked at on its own."""
    if wanted.physical or wanted.immediate:
        return None
    try:
        found = piped_type(wanted.words, session.typed, batch.addresses[0], batch.type)
        if found.symbol is not None:
            return None
        selection = Selection(found.type, found.members, session.radix) if found.members else None
    except KshellError:
        return None  # the first one says why
    return Many(session.typed, found.type, selection, wanted.options)


def _print_one(
    session: Session, address: int | None, call: Call, piped: TypeLike | None, wanted: _Wanted,
) -> Iterator[Output]:
    options, physical, immediate, words = wanted
    target = session.typed
    kind, members = _type(session, address, piped, words, immediate)
    try:
        selection = Selection(kind, members, session.radix) if members else None
    except KshellError as error:  # the others of a pipe do not have the member either
        raise Abort(str(error), hint=error.hint) from error
    for warning in selection.warnings if selection else ():
        yield Warn(warning)
    if address is None:
        lines = selection.layout(target, options) if selection else format_layout(target, kind, options)
        yield from lines
        return
    if immediate:
        value = Value.immediate(target, kind, address)
    else:
        value = target.value(kind, address, session.physical if physical else session.space(address))
    if call.pipe_out:
        whole = options.addresses
        for number in selection.pipe(value, whole) if selection else (pipe_value(value, whole),):
            yield Item(number)
    elif selection:
        yield from _shown(selection.lines(value, options), lambda: selection.json(value, options.depth, options.limit),
                          address, kind)
    else:
        yield from _shown(format_value(value, options), lambda: _object(value, options.depth, options.limit),
                          address, kind)
    if not immediate:
        session.dot, session.increment = (address + sizeof(kind)) & (1 << 64) - 1, 0


def _shown(
    lines: Iterator[str], json: Callable[[], dict[str, object]], address: int, kind: CType,
) -> Iterator[Output]:
    """Yield *lines*, which read the target as they are written; raise what stopped them as the dcmd's own error."""
    failed: list[KshellError] = []

    def guarded() -> Iterator[str]:
        try:
            yield from lines
        except KshellError as error:
            failed.append(error)

    yield Record(guarded(), json, address, kind)
    if failed:
        raise _explained(failed[0])


def _explained(error: KshellError) -> KshellError:
    """Return *error* with a hint, when NULL was followed."""
    if isinstance(error, Fault) and error.address < NULL_PAGE and error.hint is None:
        error.hint = "a small number: NULL and the offset of a member?"
    return error


def _object(value: Value, depth: int | None, limit: int | None) -> dict[str, object]:
    found = to_json(value, depth, limit)
    if isinstance(found, dict):
        return found
    return {"_addr": f"0x{value.address:x}", "_type": str(value.type), "value": found}


def _type(
    session: Session, address: int | None, piped: TypeLike | None, words: list[Argument], immediate: bool,
) -> tuple[CType, list[Argument]]:
    """Return the type and the members that *words*, the pipe or the symbol at the address name."""
    try:
        found = piped_type(words, session.typed, address, piped, immediate=immediate)
    except KshellError as error:
        if isinstance(error, UsageError):
            raise
        told = "" if isinstance(error, NotFoundError) else "failed to look up type: "
        raise Abort(f"{told}{error}", hint=error.hint) from error
    return found.type, list(found.members)


@dcmd("sizeof", group="Types")
def sizeof_(
    session: Session, call: Call, type: TypeName, member: MemberName | None,
) -> Iterator[Output]:
    """Show the size of a type, or of a member of it.

    Into a pipe it passes the number.

    Examples:
      ::sizeof struct task_struct
      ::sizeof struct task_struct comm
    """
    kind = session.typed.type(type)
    if call.pipe_out:
        yield Item(sizeof(kind, member or ""))
        return
    yield Text(sizeof_text(type, kind, member or "", session.radix), sizeof(kind, member or ""))


@dcmd("offsetof", group="Types")
def offsetof_(session: Session, call: Call, type: TypeName, member: MemberName) -> Iterator[Output]:
    """Show the offset of a member in a type, and its size.

    Into a pipe it passes the offset in bytes.

    Examples:
      ::offsetof struct task_struct comm
      ::offsetof struct task_struct se.vruntime
    """
    kind = session.typed.type(type)
    if call.pipe_out:
        yield Item(offsetof_value(type, kind, member))
        return
    yield Text(offsetof_text(type, kind, member, session.radix))


@dcmd("list", group="Types")
def list_(
    session: Session, address: int, words: Annotated[list[Argument], Word("type member [variable]", "or $[offset]")],
) -> Iterator[Output]:
    """Walk a chain of structures through a pointer member until NULL or the first one comes again.

    The member points to the next structure: this is for plain next pointers. Linux's list_head links list_head to
    list_head: use ::walk list, hlist or llist. A chain that loops elsewhere is an error. Instead of a type and member,
    $[offset] says where the pointer is.

    Examples:
      *file_systems::list struct file_system_type next
      *file_systems::list struct file_system_type next | ::print name
    """
    kind: str | None = None
    rest: list[Argument] = []
    if words and isinstance(words[0], int):
        offset, rest = words[0], words[1:]
    else:
        found = type_and_members(words, session.typed, None)
        if not found.members or not isinstance(found.members[0], str):
            raise UsageError("a member that points to the next one is missing")
        offset, bits = offsetof(found.type, found.members[0])
        if bits:
            raise UsageError(f"{found.members[0]} is a bit-field, no pointer")
        _check_pointer(found.type.strip(), found.members[0])
        kind, rest = found.name, list(found.members[1:])
    if len(rest) > 1:
        raise UsageError(f"too many arguments: {' '.join(map(str, rest[1:]))}")
    variable = str(rest[0]) if rest else None
    try:
        nodes = chain(session.typed, address, offset)
    except KshellError as error:
        yield from _elements(session, [address, *visited_before(error)], kind, variable)
        raise
    yield from _elements(session, nodes, kind, variable)


def _check_pointer(owner: CType, name: str) -> None:
    """Refuse a member that is a structure: following its first word as if it were a pointer finds no objects."""
    member = owner.member(name).type.strip() if isinstance(owner, StructType) and name in owner.names() else None
    if isinstance(member, StructType):
        raise Abort(f"{name} is a {member}, no pointer", hint=_LISTS.get(str(member)))


_LISTS = {
    "struct list_head": "HEAD::walk list walks list_heads", "struct hlist_node": "HEAD::walk hlist walks hlist_nodes",
    "struct hlist_head": "ADDR::walk hlist walks from one", "struct llist_node": "HEAD::walk llist walks llist_nodes",
    "struct rb_node": "ROOT::walk rbtree walks trees",
}


def _elements(session: Session, nodes: list[int], kind: TypeLike | None, variable: str | None) -> Iterator[Output]:
    for node in nodes:
        yield Item(node, kind, None if variable is None else session.bind_also(variable, node))


@dcmd("array", group="Types")
def array(
    session: Session, address: int, type: TypeName | None,
    count: Annotated[str | None, Word("count", "elements; hexadecimal, 0t decimal")], variable: VariableName | None,
) -> Iterator[Output]:
    """Walk the elements of an array.

    Without a type the address is that of an array whose type is known: a global variable.

    Examples:
      __per_cpu_offset::array "unsigned long" 4
      *vmemmap_base::array "struct page" 0t10 | ::print flags
    """
    if count is None:
        if type is not None:
            raise UsageError("count is missing")
        element, elements = _global_array(session, address)
    else:
        assert type is not None
        element, elements = session.typed.type(type), session.evaluate(count)
    size = sizeof(element)
    if address + elements * max(size, 1) > 1 << 64:
        raise Abort(f"0x{elements:x} elements of {size} bytes at 0x{address:x} go past the end of memory")
    for number in range(elements):
        yield from _elements(session, [(address + number * size) & (1 << 64) - 1], element, variable)


def _global_array(session: Session, address: int) -> tuple[CType, int]:
    """Return the element type and length of the array that begins at *address*."""
    found = session.target.symbolize(address)
    kind = None if found is None or found[1] else session.target.type_of(found[0])
    array = None if kind is None else kind.strip()
    if not isinstance(array, ArrayType):
        raise Abort(f"no array of known type at 0x{address:x}", hint="name the type: address::array TYPE COUNT")
    return array.target, array.count
