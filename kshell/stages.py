"""One stage of a pipeline: a dcmd or a verb run for an address, a count, or the values of a pipe.

Reference: mdb-language.md 7.1 (flags), 7.2 (return codes), 7.3 (counts), 8.1 (values). An error of kshell's own kind is
reported and the next value is tried; any other exception is a bug: it is named, its trace is kept, the session goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kshell.arguments import Abort, Call, Next, Values
from kshell.binding import bind
from kshell.errors import EvaluateError, KshellError, ParseError, UsageError
from kshell.lang import ast
from kshell.output import Block, Done, EndLine, Item, Items, Note, Output, Record, Records, Row, Table, Text, Warn
from kshell.pipeline import DcmdStage, Status, Stopped, TooDeep, VerbStage
from kshell.registry import Dcmd

if TYPE_CHECKING:
    from kshell.pipeline import Frame
    from kshell.session import Session

_MASK = (1 << 64) - 1
MOST_STUCK = 1000


def run_stage(
    session: Session, stage: DcmdStage | VerbStage, call: Call, address: int | None,
    source: Iterator[Item | Items] | None, statuses: list[Status | None], position: int,
) -> Iterator[Output]:
    """Run *stage* as often as it is due and yield its output; its status goes to ``statuses[position]``.

    :raises Stopped: it ended with USAGE or ABORT
    """
    if isinstance(stage, DcmdStage):
        roles = {parameter.role: parameter for parameter in stage.dcmds[0].parameters}
        values = roles.get("values")
        if values is not None and (source is not None or values.required):
            if source is None:
                statuses[position] = Status.USAGE
                session.failed = True
                session.report(Warn(_usage(stage, "works in a pipe only")), _verb(stage))
                raise Stopped
            call.loop = True
            given = Values(source)
            yield from _once(session, stage, call, None, given, statuses, position)
            return
        takes_count = "count" in roles
    else:
        takes_count = not isinstance(stage.node, ast.Assign)
    if source is not None:
        call.loop = True
        for item in Values(source):
            session.dot = item.value
            call.type = item.type
            if item.bindings is not session.bindings:
                session.bind(item.bindings)
            yield from _once(session, stage, call, item.value, None, statuses, position)
            call.first = False
        return
    call.loop = call.count is not None
    stuck = 0  # rounds that failed and left dot where it was: with a count of 2^63 there would be no end of them
    for round_ in range(1 if call.count is None or takes_count else call.count):
        if round_:
            session.dot = (session.dot + session.increment) & _MASK
            call.first = False
            if address is not None:
                address = session.dot
        start = session.dot
        yield from _once(session, stage, call, address, None, statuses, position)
        moved = (session.dot + session.increment) & _MASK != start
        stuck = stuck + 1 if statuses[position] is Status.ERR and not moved else 0
        if stuck == MOST_STUCK:
            problem = f"{MOST_STUCK} rounds have failed at 0x{start:x}; the others are left out"
            session.report(Warn(problem), _verb(stage))
            return


def _verb(stage: DcmdStage | VerbStage) -> str:
    if isinstance(stage, DcmdStage):
        return stage.dcmds[0].verb if len(stage.dcmds) == 1 else "::" + stage.node.name.lstrip(":")
    node = stage.node
    if isinstance(node, ast.Assign):
        return ">"
    return node.verb + getattr(node, "letter", "")


def _usage(stage: DcmdStage | VerbStage, why: str, hint: str | None = None) -> UsageError:
    lines = [hint] if hint else []
    if isinstance(stage, DcmdStage):
        dcmd = stage.dcmds[0]
        lines += [f"Usage: {dcmd.usage}", f"try '::help {dcmd.name}' for more information"]
    return UsageError(why, hint="\n".join(lines) or None)


def _once(
    session: Session, stage: DcmdStage | VerbStage, call: Call, address: int | None, values: Values | None,
    statuses: list[Status | None], position: int,
) -> Iterator[Output]:
    """Run a stage for one address; report what goes wrong."""
    if address is not None:
        session.last_address = address
    verb = _verb(stage)
    status = Status.OK
    try:
        for item in _outputs(session, stage, call, address, values):
            if isinstance(item, Note | Warn):
                session.report(item, verb)
                if isinstance(item, Warn):
                    status = Status.ERR
                continue
            yield item
    except Stopped:
        statuses[position] = statuses[position] or Status.ABORT
        raise
    except UsageError as error:
        status = Status.USAGE
        session.report(Warn(_usage(stage, str(error), error.hint)), verb)
    except TooDeep:
        statuses[position] = session.status = Status.ABORT
        session.failed = True
        raise
    except RecursionError:
        statuses[position] = session.status = Status.ABORT
        session.failed = True
        raise TooDeep("commands are nested too deeply", hint="fewer stages, or fewer ::eval in one another") from None
    except (Abort, ParseError) as error:
        status = Status.ABORT
        session.report(Warn(error), verb)
    except KshellError as error:
        status = Status.ERR
        session.report(Warn(error), verb)
    except BrokenPipeError:
        raise
    except Exception as error:
        from kshell.bugs import keep_trace

        status = Status.ABORT
        module = stage.dcmds[0].module if isinstance(stage, DcmdStage) else "kshell"
        session.report(Warn(keep_trace(error, module)), verb)
    statuses[position] = session.status = status
    if status is not Status.OK:
        session.failed = True
    if status in (Status.USAGE, Status.ABORT):
        raise Stopped


def _outputs(
    session: Session, stage: DcmdStage | VerbStage, call: Call, address: int | None, values: Values | None,
) -> Iterator[Output]:
    if isinstance(stage, VerbStage):
        if isinstance(stage.node, ast.Assign):
            assign(session, stage.node)
            return
        from kshell.verbs import run_verb

        yield from run_verb(session, stage.node, call, call.count if call.count is not None and not call.piped else 1)
        return
    for dcmd in stage.dcmds:
        try:
            yield from call_dcmd(session, dcmd, stage.words, call, address, values)
        except Next:
            continue
        return


def call_dcmd(
    session: Session, dcmd: Dcmd, words: Iterable[Any], call: Call, address: int | None, values: Values | None = None,
) -> Iterator[Output]:
    """Call *dcmd* with *words* and yield what it yields, a Table before its first row.

    :raises UsageError: the words or the address do not fit
    """
    arguments = bind(dcmd.parameters, tuple(words), session.evaluate, session.radix)
    takes_address = False
    for parameter in dcmd.parameters:
        if parameter.role == "address":
            if address is None and parameter.required:
                raise UsageError("an address is needed")
            arguments[parameter.name], takes_address = address, True
        elif parameter.role == "count":
            arguments[parameter.name] = call.count
        elif parameter.role == "call":
            arguments[parameter.name] = call
        elif parameter.role == "values":
            arguments[parameter.name] = values
    if address is not None and not takes_address:
        raise UsageError("takes no address")
    result = dcmd.function(session, **arguments)
    if result is None:
        return
    if isinstance(result, _SINGLE):
        result = (result,)
    tabled = False
    for item in result:
        if type(item) is Row and not tabled:
            tabled = True
            yield Table(dcmd.columns, dcmd.yields)
        elif type(item) is Table:
            tabled = True
            yield item if item.yields or not dcmd.yields else item._replace(yields=dcmd.yields)
            continue
        elif isinstance(item, Item | Items) and item.type is None and dcmd.yields:
            item = item._replace(type=dcmd.yields)
        yield item


_SINGLE = (Row, Table, Text, Item, Items, Block, Record, Records, Note, Warn, str, int)


def assign(session: Session, node: ast.Assign) -> None:
    """Obey ``>name`` and ``>/m/name``: the variable becomes dot, or its low 1, 2, 4 or 8 bytes."""
    names = [word.text if isinstance(word, ast.Word) else "" for word in node.arguments]
    if len(names) != 1:
        raise UsageError("one variable name is expected after >")
    value = session.dot
    if node.modifier is not None:
        size = {"c": 1, "s": 2, "i": 4, "l": 8, "1": 1, "2": 2, "4": 4, "8": 8}.get(node.modifier)
        if size is None:
            raise KshellError(f"{node.modifier} is not a valid // modifier", hint="c, s, i or l: 1, 2, 4 or 8 bytes")
        value &= (1 << 8 * size) - 1
    session.variables[names[0]] = value


def to_items(session: Session, outputs: Frame) -> Iterator[Item | Items]:
    """Yield the values that *outputs* pass to the next stage. Lines of text are obeyed: each must be an expression.

    :raises Stopped: a line is not an expression (reported)
    """
    for item in _values(session, outputs):
        bindings = outputs.bindings
        if bindings is None:
            yield item
            continue
        for one in item.each() if isinstance(item, Items) else (item,):
            yield one if one.bindings is not None else one._replace(bindings=bindings)


def _values(session: Session, outputs: Iterable[Output]) -> Iterator[Item | Items]:
    yields: Any = None
    text = ""
    for item in outputs:
        if type(item) is Row:
            if item.value is not None:
                yield Item(item.value, item.type or yields)
        elif type(item) is Item:
            yield item
        elif type(item) is int:
            yield Item(item)
        elif type(item) is Table:
            yields = item.yields
        elif type(item) is Record:
            for value in (item.value,) if isinstance(item.value, int) else item.value or ():
                yield Item(value, item.type)
        elif type(item) is Items:
            yield item
        elif type(item) is Records:
            yield Items(item.values, item.type)
        elif type(item) is Text and item.value is not None:
            yield Item(item.value, item.type)
        elif isinstance(item, Done | EndLine):
            line, text = text, ""
            yield from _line_items(session, line)
        elif isinstance(item, Text | str | Block):
            *lines, text = (text + _plain(item)).split("\n")
            for line in lines:
                yield from _line_items(session, line)
    yield from _line_items(session, text)


def _plain(item: Text | str | Block) -> str:
    if isinstance(item, str):
        return item + "\n"
    if isinstance(item, Text):
        return item.text + item.end
    return item.data if isinstance(item.data, str) else item.data.decode("utf-8", "backslashreplace")


def _line_items(session: Session, line: str) -> Iterator[Item]:
    if not line.strip():
        return
    from kshell.lang.parser import parse

    try:
        for statement in parse(line):
            if statement.is_blank:
                continue
            if statement.address is None or statement.count or statement.pipeline or statement.shell:
                raise ParseError("syntax error: a line in a pipe must be an expression", line, 0, len(line))
            yield Item(session.value(statement.address))
    except (ParseError, EvaluateError) as error:
        session.failed = True
        session.status = Status.ABORT
        session.report(Warn(error), "|")
        raise Stopped from None
