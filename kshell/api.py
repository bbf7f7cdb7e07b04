"""What dcmds and plugins import. Everything here is kept compatible within one ``API_VERSION``.

A dcmd is a function over a session that yields what it finds::

    from kshell.api import Column, DECIMAL, ADDRESS, Flag, Output, Row, Session, dcmd

    @dcmd("ps", columns=(Column("PID", 6, DECIMAL), Column("ADDR", kind=ADDRESS), Column("NAME", key="comm")),
          yields="struct task_struct")
    def ps(session: Session, address: int | None, threads: Annotated[bool, Flag("-T", "threads too")],
           names: list[str]) -> Iterator[Output]:
        '''List processes; with an address, that task only.'''

Parameters are its interface: ``address: int`` requires an address, ``address: int | None`` takes one, without the
parameter it is refused. ``count: int | None`` takes the ``,count`` itself instead of being looped over. ``call: Call``
tells how it is called, ``values: Values`` receives the whole pipe at once. Options are ``Annotated`` with
:class:`Flag` or :class:`Option`; the others are words, in order. Strings from the target may be yielded as they are:
the engine escapes them. A dcmd never prints.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kshell.arguments import (
    Abort,
    Address,
    Argument,
    Call,
    DcmdName,
    Decimal,
    Expr,
    FileName,
    Flag,
    MemberName,
    ModuleName,
    Next,
    Number,
    Option,
    Pid,
    SymbolName,
    TypeName,
    Values,
    VariableName,
    WalkerName,
    Word,
)
from kshell.batches import Batch, batches
from kshell.binding import parse_number
from kshell.errors import (
    Fault,
    KshellError,
    MemberError,
    NoProcessError,
    NotFoundError,
    NoUserSpaceError,
    ParseError,
    Reason,
    SymbolNotFoundError,
    TypeNotFoundError,
    UsageError,
)
from kshell.journal import WRITE_PIECE, JournalEntry, RegisterEntry
from kshell.output import (
    ADDRESS,
    COUNT,
    DECIMAL,
    HEX,
    OCTAL,
    TEXT,
    Block,
    Column,
    Item,
    Items,
    Note,
    Output,
    Record,
    Records,
    Row,
    Table,
    Text,
    Warn,
)
from kshell.registry import API_VERSION, Dcmd, Walker, dcmd, walker
from kshell.session import Context, Session

if TYPE_CHECKING:
    from kshell import watching
    from kshell.arch.disassembler import Instruction
    from kshell.escape import escape, escape_bytes
    from kshell.events import Event
    from kshell.events import resolve as resolve_place
    from kshell.execution import control_of, debugger_of
    from kshell.hexdump import DumpOptions, dump
    from kshell.instructions import disassembler
    from kshell.lang.conditions import parse_condition
    from kshell.lang.formats import FORMATS, SEARCH_LETTERS, WRITE_LETTERS
    from kshell.lang.numbers import decimal_value, show_base
    from kshell.loader import load as load_module
    from kshell.memory.model import Memory
    from kshell.output import TypeLike
    from kshell.partial import read_prefix
    from kshell.printer import (
        EnumTable,
        Many,
        Printf,
        PrintOptions,
        Selection,
        address_text,
        format_layout,
        format_value,
        offsetof_text,
        offsetof_value,
        pipe_value,
        sizeof_text,
        to_json,
    )
    from kshell.printer.many import Objects
    from kshell.render import dump_json
    from kshell.running import Halted, Runner, check_condition
    from kshell.stepping import step_into, step_out, step_over
    from kshell.stepping import tell as tell_stop
    from kshell.types.model import ArrayType, CType, EnumType, StructType, Symbol, near_names
    from kshell.value import Value, Vector, offsetof, sizeof
    from kshell.value.args import piped_type, type_and_members
    from kshell.value.args import type_words as take_type
    from kshell.value.conditions import Condition
    from kshell.value.differences import differences, frozen

__all__ = [
    "ADDRESS", "API_VERSION", "COUNT", "DECIMAL", "FORMATS", "HEX", "OCTAL", "SEARCH_LETTERS", "TEXT", "WRITE_LETTERS",
    "WRITE_PIECE", "Abort", "Address", "Argument", "ArrayType", "Batch", "Block", "CType", "Call", "Column",
    "Condition", "Context", "Dcmd", "DcmdName", "Decimal", "DumpOptions", "EnumTable", "EnumType", "Event", "Expr",
    "Fault", "FileName", "Flag", "Halted", "Instruction", "Item", "Items", "JournalEntry", "KshellError", "Many",
    "MemberError", "MemberName", "Memory", "ModuleName", "Next", "NoProcessError", "NoUserSpaceError", "NotFoundError",
    "Note", "Number", "Objects", "Option", "Output", "ParseError", "Pid", "PrintOptions", "Printf", "Reason", "Record",
    "Records", "RegisterEntry", "Row", "Runner", "Selection", "Session", "StructType", "Symbol", "SymbolName",
    "SymbolNotFoundError", "Table", "Text", "TypeLike", "TypeName", "TypeNotFoundError", "UsageError", "Value",
    "Values", "VariableName", "Vector", "Walker", "WalkerName", "Warn", "Word", "address_text", "batches",
    "check_condition", "control_of", "dcmd", "debugger_of", "decimal_value", "differences", "disassembler", "dump",
    "dump_json", "escape", "escape_bytes", "format_layout", "format_value", "frozen", "load_module", "near_names",
    "offsetof", "offsetof_text", "offsetof_value", "parse_condition", "parse_number", "pipe_value", "piped_type",
    "read_prefix", "resolve_place", "show_base", "sizeof", "sizeof_text", "step_into", "step_out", "step_over",
    "take_type", "tell_stop", "to_json", "type_and_members", "walker", "watching",
]

#: what is imported when it is first used: name -> module, module:name, or "module:" for the module itself
_LATE = {
    "CType": "kshell.types.model",
    "Condition": "kshell.value.conditions",
    "DumpOptions": "kshell.hexdump",
    "EnumTable": "kshell.printer",
    "EnumType": "kshell.types.model",
    "ArrayType": "kshell.types.model",
    "FORMATS": "kshell.lang.formats",
    "SEARCH_LETTERS": "kshell.lang.formats",
    "WRITE_LETTERS": "kshell.lang.formats",
    "Instruction": "kshell.arch.disassembler",
    "Many": "kshell.printer",
    "Memory": "kshell.memory.model",
    "PrintOptions": "kshell.printer",
    "Objects": "kshell.printer.many",
    "Printf": "kshell.printer",
    "Selection": "kshell.printer",
    "StructType": "kshell.types.model",
    "Symbol": "kshell.types.model",
    "TypeLike": "kshell.output",
    "Value": "kshell.value",
    "Vector": "kshell.value",
    "address_text": "kshell.printer",
    "Event": "kshell.events",
    "Halted": "kshell.running",
    "Runner": "kshell.running",
    "check_condition": "kshell.running",
    "control_of": "kshell.execution",
    "debugger_of": "kshell.execution",
    "resolve_place": "kshell.events:resolve",
    "step_into": "kshell.stepping",
    "step_out": "kshell.stepping",
    "step_over": "kshell.stepping",
    "tell_stop": "kshell.stepping:tell",
    "differences": "kshell.value.differences",
    "frozen": "kshell.value.differences",
    "disassembler": "kshell.instructions",
    "dump": "kshell.hexdump",
    "dump_json": "kshell.render",
    "escape": "kshell.escape",
    "escape_bytes": "kshell.escape",
    "format_layout": "kshell.printer",
    "format_value": "kshell.printer",
    "load_module": "kshell.loader:load",
    "near_names": "kshell.types.model",
    "parse_condition": "kshell.lang.conditions",
    "offsetof": "kshell.value",
    "offsetof_text": "kshell.printer",
    "offsetof_value": "kshell.printer",
    "pipe_value": "kshell.printer",
    "piped_type": "kshell.value.args",
    "read_prefix": "kshell.partial",
    "decimal_value": "kshell.lang.numbers", "show_base": "kshell.lang.numbers",
    "sizeof": "kshell.value",
    "sizeof_text": "kshell.printer",
    "take_type": "kshell.value.args:type_words",
    "to_json": "kshell.printer",
    "type_and_members": "kshell.value.args",
    "watching": "kshell.watching:",
}


def __getattr__(name: str) -> Any:
    """Import what most dcmds do not need when it is first used: start-up does not pay for it."""
    where = _LATE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, colon, attribute = where.partition(":")
    loaded = import_module(module)
    found = globals()[name] = loaded if colon and not attribute else getattr(loaded, attribute or name)
    return found
