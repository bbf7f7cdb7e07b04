"""Statements executed: addresses, counts, pipelines, naked expressions, strings that are obeyed.

Reference: mdb-language.md 3 (statements), 5.1 (dot), 7 (running commands), 8 (pipelines). Everything is a generator of
outputs, so that the first row appears at once and whoever has seen enough can stop the rest. Unlike in mdb, the stages
of a pipeline run interleaved; each has its own dot, so that they do not notice.

``$[...]``, addresses and counts are evaluated when a statement is prepared, once, with the dot of before.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.arguments import Argument, Call
from kshell.errors import EvaluateError, KshellError, NotFoundError, ParseError, UsageError
from kshell.lang import ast
from kshell.lang.parser import Parser
from kshell.output import EndLine, Item, Items, Output
from kshell.registry import Dcmd, Walker

if TYPE_CHECKING:
    from kshell.session import Session


class Status(enum.Enum):
    """How a dcmd ended (mdb-language.md 7.2). USAGE and ABORT stop the loop and the pipeline, ERR does not."""

    OK = 0
    ERR = 1
    USAGE = 2
    ABORT = 4


class DcmdStage(NamedTuple):
    """A call of a dcmd: the dcmds of its name in the order in which they are asked, and its arguments."""

    dcmds: tuple[Dcmd, ...]
    words: tuple[Argument, ...]
    node: ast.DcmdCall


class VerbStage(NamedTuple):
    """A formatting verb, write, search or assignment; every ``$[ ]`` in it is a number by now."""

    node: ast.Format | ast.HexDump | ast.Write | ast.Search | ast.Assign


Stage = DcmdStage | VerbStage | ast.ShellStage


class Prepared(NamedTuple):
    """A pipeline ready to run, perhaps again (mdb's last command list)."""

    stages: tuple[Stage, ...]
    shell: ast.ShellEscape | None


class Stopped(Exception):
    """A stage failed with USAGE or ABORT, or its text was no expression: the pipeline stops. Already reported."""


class TooDeep(KshellError):
    """Strings and files of commands that obey one another without end: everything up to the prompt is left."""


MAX_NESTED = 32  # strings and files of commands in one another; each costs Python's stack a dozen frames
MAX_ROUNDS = (1 << 63) - 1


@contextmanager
def nested(session: Session) -> Iterator[None]:
    """Count a string or a file of commands as one level.

    :raises TooDeep: there are too many in one another
    """
    if session.nesting >= MAX_NESTED:
        raise TooDeep(f"commands are nested more than {MAX_NESTED} deep",
                      hint="::eval, ::map, ::grep, $< and !< that obey one another: does one call itself?")
    session.nesting += 1
    try:
        yield
    finally:
        session.nesting -= 1


# -- preparing --------------------------------------------------------------------------------------------------------


def check_dcmd(session: Session) -> Any:
    """Return the parser's question: why can the dcmd of this name not be run? None if it can."""

    def check(name: str) -> str | None:
        if session.registry.has_dcmd(name):
            return None
        try:
            session.registry.find_dcmds(name)
        except NotFoundError as error:
            if error.kind == "loaded module":
                return "specified module is not loaded"
            near = " or ".join("::" + guess if guess[:1] not in "$:" else guess for guess in error.near)
            return "unknown dcmd name" + (f"; did you mean {near}?" if near else "")
        return None

    return check


def _fixed(session: Session, item: Any) -> Any:
    """Return *item* with the expression of an Immediate replaced by its value."""
    if isinstance(item, ast.Immediate):
        number = ast.Number(f"0x{session.value(item.expression):x}", start=item.start, end=item.end)
        return item.replace(expression=number)
    return item


def prepare(session: Session, pipeline: ast.Pipeline, shell: ast.ShellEscape | None = None) -> Prepared:
    """Return *pipeline* with its dcmds found and its ``$[ ]`` evaluated.

    :raises EvaluateError: an expression has no value
    :raises NotFoundError: there is no such dcmd
    """
    stages: list[Stage] = []
    for node in pipeline.stages:
        if isinstance(node, ast.DcmdCall):
            words: list[Argument] = [
                session.value(word.expression) if isinstance(word, ast.Immediate) else word.text
                for word in node.arguments]
            stages.append(DcmdStage(tuple(session.registry.find_dcmds(node.name)), tuple(words), node))
        elif isinstance(node, ast.ShellStage):
            stages.append(node)
        elif isinstance(node, ast.Format):
            stages.append(VerbStage(node.replace(items=tuple(_fixed(session, item) for item in node.items))))
        elif isinstance(node, ast.HexDump):
            stages.append(VerbStage(node.replace(size=_fixed(session, node.size))))
        else:
            fixed = node.replace(arguments=tuple(_fixed(session, item) for item in node.arguments))
            stages.append(VerbStage(fixed))
    return Prepared(tuple(stages), shell)


# -- statements -------------------------------------------------------------------------------------------------------


def run_statement(session: Session, statement: ast.Statement, *, string: bool) -> Generator[Output, None, Status]:
    """Run one statement, yielding its output; return the status of its last dcmd.

    :param string: it stands in ``::eval`` or ``-e``, where a naked address only sets dot
    :raises EvaluateError: before anything has run
    """
    if _leaves(statement):
        return (yield from _run_statement(session, statement, string=string))
    session.check()
    if _asks_itself(statement):
        return (yield from _run_statement(session, statement, string=string))
    with session.question():
        return (yield from _run_statement(session, statement, string=string))


def _run_statement(session: Session, statement: ast.Statement, *, string: bool) -> Generator[Output, None, Status]:
    prepared = None
    if statement.pipeline is not None:
        prepared = prepare(session, statement.pipeline, statement.shell)
    count = None if statement.count is None else session.value(statement.count)
    if statement.count is not None and count is not None and count > MAX_ROUNDS:
        where = statement.count.start, statement.count.end
        raise EvaluateError(f"a count of {count:#x} is too large, or negative", *where, hint="at most 2^63-1")
    address = None if statement.address is None else session.value(statement.address)
    if prepared is not None:
        status = yield from run(session, prepared, address, count)
        session.last = prepared
        return status
    if statement.shell is not None:
        from kshell.shellpipe import run_alone

        return (yield from run_alone(session, statement.shell))
    return (yield from _naked(session, address, count, string))


def _leaves(statement: ast.Statement) -> bool:
    """Whether *statement* is nothing but ``::quit``, which an image that is gone must not hold up."""
    stages = () if statement.pipeline is None else statement.pipeline.stages
    return len(stages) == 1 and isinstance(stages[0], ast.DcmdCall) and stages[0].name in ("quit", "$q", "$Q", "$%")


def _asks_itself(statement: ast.Statement) -> bool:
    """Whether *statement* is ``::watch``: each of its rounds is a question, between which the target moves."""
    stages = () if statement.pipeline is None else statement.pipeline.stages
    return len(stages) == 1 and isinstance(stages[0], ast.DcmdCall) and stages[0].name == "watch"


def _naked(
    session: Session, address: int | None, count: int | None, string: bool,
) -> Generator[Output, None, Status]:
    """Run the last command list again: for a naked address, a naked count, and (``repeatlast``) a blank line."""
    blank = address is None and count is None
    if string:
        if address is not None:
            session.dot, session.increment = address, 0
        return Status.OK
    if session.last is None or (blank and not session.options.repeatlast):
        return Status.OK
    if address is None:
        session.dot = (session.dot + session.increment) % (1 << 64)
    return (yield from run(session, session.last, address, count))


def obey(session: Session, text: str) -> Generator[Output, None, Status]:
    """Obey the command line *text* as ``::eval`` does; return the status of its last dcmd.

    :raises ParseError, EvaluateError: at the statement that has one; the statements before it have run
    """
    status = Status.OK
    with nested(session):
        parser = Parser(text, check_dcmd(session))
        while not session.done and (statement := parser.next_statement()) is not None:
            try:
                status = yield from run_statement(session, statement, string=True)
            except EvaluateError as error:
                raise ParseError(str(error), text, error.start, error.end, hint=error.hint) from error
            yield EndLine()
    return status


# -- pipelines --------------------------------------------------------------------------------------------------------


def run(
    session: Session, prepared: Prepared, address: int | None, count: int | None,
) -> Generator[Output, None, Status]:
    """Run a pipeline from *address*, its first command *count* times; return the status of the last dcmd that ran."""
    from kshell.stages import run_stage, to_items

    if address is not None:
        session.dot = address
    if count == 0:
        return Status.OK
    statuses: list[Status | None] = [None] * len(prepared.stages)
    source: Iterator[Item | Items] | None = None
    shell_source: Iterator[Output] | None = None
    if prepared.shell is not None:
        from kshell.shellpipe import feed_shell
    final = len(prepared.stages) - 1
    bindings = session.bindings
    try:
        for position, stage in enumerate(prepared.stages):
            outputs: Iterator[Output]
            if isinstance(stage, ast.ShellStage):
                from kshell.shellpipe import shell_stage

                outputs = shell_stage(session, stage.text, shell_source)
            else:
                to_shell = (prepared.shell is not None) if position == final else isinstance(
                    prepared.stages[position + 1], ast.ShellStage)
                call = Call(
                    count=count if position == 0 else None, piped=position > 0, shell_out=to_shell,
                    pipe_out=position < final and not to_shell)
                outputs = run_stage(session, stage, call, address if position == 0 else None, source,
                                    statuses, position)
            if position == final:
                if prepared.shell is not None:
                    outputs = feed_shell(session, prepared.shell, outputs)
                yield from outputs
            elif isinstance(prepared.stages[position + 1], ast.ShellStage):
                shell_source = Frame(session, outputs)
            else:
                source = to_items(session, Frame(session, outputs))
    except Stopped:
        pass
    finally:
        session.bindings = bindings
    status = next((found for found in reversed(statuses) if found is not None), Status.OK)
    session.status = status
    return status


class Frame:
    """The outputs of a stage, whose maker has a dot and an increment of its own; its shell commands are captured.

    :ivar bindings: the walk variables that held when the latest output was made
    """

    def __init__(self, session: Session, outputs: Iterator[Output]) -> None:
        self._session, self._outputs = session, outputs
        self._own = session.dot, session.increment
        self.bindings = session.bindings

    def __iter__(self) -> Iterator[Output]:
        return self

    def __next__(self) -> Output:
        session = self._session
        outer = session.dot, session.increment, session.direct_output, session.bindings
        session.dot, session.increment, session.direct_output, session.bindings = *self._own, False, self.bindings
        try:
            return next(self._outputs)
        finally:
            self._own, self.bindings = (session.dot, session.increment), session.bindings
            session.dot, session.increment, session.direct_output, session.bindings = outer


def walk(session: Session, walker: Walker, address: int | None) -> Iterator[Output]:
    """Yield what *walker* finds, with its type.

    :raises UsageError: it needs an address and has none, or the other way round
    """
    if walker.address == "refused":
        if address is not None:
            raise UsageError(f"walker {walker.name} takes no address")
        found = walker.function(session)
    elif walker.address == "required" and address is None:
        raise UsageError(f"walker {walker.name} needs an address: address::walk {walker.name}")
    else:
        found = walker.function(session, address)
    for item in found:
        yield Item(item, walker.yields) if isinstance(item, int) else item


