"""Values of the target as text and JSON, as mdb's ``::print`` shows them (mdb-language.md 11.2, 11.3)."""

from __future__ import annotations

from kshell.printer.enums import EnumTable
from kshell.printer.many import Many
from kshell.printer.members import Selection, pipe_value
from kshell.printer.options import DEFAULT, PrintOptions
from kshell.printer.printf import Printf
from kshell.printer.scalars import address_text, symbol_name
from kshell.printer.sizes import offsetof_text, offsetof_value, sizeof_text
from kshell.printer.structure import format_layout, format_value
from kshell.printer.tojson import error_json, to_json

__all__ = [
    "DEFAULT", "EnumTable", "Many", "PrintOptions", "Printf", "Selection", "address_text", "error_json",
    "format_layout", "format_value", "offsetof_text", "offsetof_value", "pipe_value", "sizeof_text", "symbol_name",
    "to_json",
]
