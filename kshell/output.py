"""What a dcmd yields: rows, text, records, pipe values, notes. Nobody here prints; :mod:`kshell.render` does.

The engine decides what becomes of each: the last stage of a line makes a table or, with ``--json``, objects; a stage
before a pipe makes values. The JSON schema is part of the interface: keys are the column names in lower case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union

if TYPE_CHECKING:
    from kshell.errors import KshellError
    from kshell.types.model import CType

    #: a C type, by name or looked up
    TypeLike = str | CType
else:
    TypeLike = Any

ColumnKind = Literal["text", "decimal", "hex", "address", "count", "octal"]

#: text: any string, escaped. decimal: an integer. hex: an integer in hex without prefix (zero-filled to ``zeros``).
#: address: 16 hex digits. count: an integer that counts things or bytes, decimal. octal: a mode.
TEXT: ColumnKind = "text"
DECIMAL: ColumnKind = "decimal"
HEX: ColumnKind = "hex"
ADDRESS: ColumnKind = "address"
COUNT: ColumnKind = "count"
OCTAL: ColumnKind = "octal"


class Column(NamedTuple):
    """A column of a table.

    :ivar name: the header
    :ivar width: characters; 0 lets an address have 16 and others as many as the header. The last column is free
    :ivar kind: how a cell is written, see above
    :ivar align: "<" or ">"; None: text and addresses left, numbers right
    :ivar key: the JSON key; None: the name in lower case
    :ivar zeros: digits a hex number is zero-filled to; 0 is 16 for an address
    :ivar prefix: hex numbers begin with 0x
    """

    name: str
    width: int = 0
    kind: ColumnKind = TEXT
    align: Literal["<", ">"] | None = None
    key: str | None = None
    zeros: int = 0
    prefix: bool = False


class Row(NamedTuple):
    """A row of a table, and the value that a pipe gets for it.

    :ivar value: usually the address of the object; None: the row gives nothing to a pipe
    :ivar cells: one for each column: str, int, None (empty), bool, or an error, for what could not be read
    :ivar type: the C type of the object at ``value``; None: what the dcmd declares as ``yields``
    :ivar style: how a terminal shows the line: "error", "warning", "strong", "dim", or "" as usual
    """

    value: int | None
    cells: tuple[Any, ...]
    type: TypeLike | None = None
    style: str = ""


class Table(NamedTuple):
    """Start a table with other columns than the dcmd declares (options may choose the layout).

    :ivar yields: the C type of the objects that its rows carry, as in the declaration
    :ivar joint: what stands between the cells of a row
    :ivar header: show the names of the columns
    """

    columns: tuple[Column, ...]
    yields: str | None = None
    joint: str = " "
    header: bool = True


class Text(NamedTuple):
    """One or more lines of text. Control characters in it are escaped, newlines and tabs are kept.

    Before a pipe, ``value`` is what passes; without one each line is parsed as an expression, as mdb does.

    :ivar end: what follows; "" leaves the line open
    :ivar prose: on a terminal narrower than its lines its paragraphs are laid out anew, broken between words
    """

    text: str
    value: int | None = None
    type: TypeLike | None = None
    end: str = "\n"
    prose: bool = False


class Item(NamedTuple):
    """A pipe value. As the last stage it is printed in the current radix, one a line.

    :ivar type: the C type of the object at ``value``, when it is an address and the type is known
    :ivar bindings: walk variables (``::walk proc p``) with what they were when this value, or what it was made of, came
    """

    value: int
    type: TypeLike | None = None
    bindings: Mapping[str, int] | None = None


class Items(NamedTuple):
    """Many pipe values of one type at once: whoever takes one by one gets each as an :class:`Item`."""

    values: Sequence[int]
    type: TypeLike | None = None

    def each(self) -> Iterator[Item]:
        """Yield the values as Items."""
        for value in self.values:
            yield Item(value, self.type)


class Block(NamedTuple):
    """Many lines at once, ready to be written: the maker has escaped what came from the target."""

    data: str | bytes


class Record(NamedTuple):
    """An object with a text form of many lines and a JSON form of its own (``::print``).

    :ivar lines: the text, without newlines at the ends
    :ivar data: makes the JSON object; called only for ``--json``
    :ivar value: what a pipe gets: one value, several, or None
    """

    lines: Iterable[str]
    data: Callable[[], Mapping[str, Any]]
    value: int | tuple[int, ...] | None = None
    type: TypeLike | None = None


class Records(NamedTuple):
    """Many objects at once, as :class:`Record` has one; nothing is made that is not asked for.

    :ivar text: makes the lines of all, with a newline behind each
    :ivar data: makes the JSON object of each
    :ivar values: what a pipe gets of each
    """

    text: Callable[[], str]
    data: Callable[[], Iterable[Mapping[str, Any]]]
    values: Sequence[int]
    type: TypeLike | None = None


class Note(NamedTuple):
    """A remark on stderr: never in a pipe, silenced by ``-q``."""

    text: str


class Warn(NamedTuple):
    """Something went wrong and the dcmd goes on: a line on stderr, and the status of the dcmd becomes ERR."""

    problem: str | KshellError


class Flush(NamedTuple):
    """Bring out what has been written so far, because somebody else is about to write to the terminal."""


class Done(NamedTuple):
    """A statement of a file of commands has ended: so do its line, its table and the count of its errors."""


class EndLine(NamedTuple):
    """A statement of an obeyed string has ended, and so does its line if it is open."""


# What a dcmd may yield: a str is Text, an int is an Item.
Output = Union[Row, Table, Text, Item, Items, Block, Record, Records, Note, Warn, Flush, Done, EndLine, str, int]  # noqa: UP007
