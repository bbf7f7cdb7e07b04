"""Colours for the command line: a pygments lexer over kshell's own tokens, and the style."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pygments.lexer import Lexer
from pygments.token import (
    Comment,
    Error,
    Generic,
    Keyword,
    Literal,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    _TokenType,
)

from kshell.lang.lexer import tokens
from kshell.lang.tokens import Kind

_COLOURS: dict[Kind, _TokenType] = {
    Kind.NUMBER: Number.Hex, Kind.CHAR: String.Char, Kind.HEX_WORD: Number.Hex, Kind.SYMBOL: Name.Variable,
    Kind.DOT: Keyword.Constant, Kind.VARIABLE: Name.Variable.Instance, Kind.CAST: Operator, Kind.OPERATOR: Operator,
    Kind.VERB: Keyword, Kind.WRITE: Keyword.Type, Kind.SEARCH: Keyword, Kind.DCMD: Name.Function, Kind.ASSIGN: Operator,
    Kind.FORMAT_COUNT: Number.Integer, Kind.FORMAT_CHAR: Literal, Kind.FORMAT_STRING: String.Double,
    Kind.WORD: Text, Kind.OPEN: Punctuation, Kind.CLOSE: Punctuation, Kind.PIPE: Punctuation,
    Kind.SHELL: Generic.Prompt, Kind.SHELL_TEXT: String.Backtick, Kind.SHELL_QUOTED: String.Backtick,
    Kind.COMMENT: Comment.Single, Kind.END: Punctuation, Kind.ERROR: Error,
}


class KshellLexer(Lexer):
    """mdb's language. Unknown dcmds are errors when the registry is asked through *known*."""

    name = "kshell"
    aliases = ("kshell", "mdb")
    filenames = ("*.kst",)
    url = "https://illumos.org/man/1/mdb"

    #: asked for the name of each dcmd
    known: Callable[[str], bool] | None = None

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, _TokenType, str]]:
        """Yield (offset, colour, text) of every token and of the blanks between them."""
        here = 0
        for token in tokens(text):
            if token.start > here:
                yield here, Text, text[here : token.start]
            colour = _COLOURS[token.kind]
            if token.kind is Kind.DCMD and self.known is not None and not self.known(token.value):
                colour = Error
            elif token.kind is Kind.WORD:
                colour = _word_colour(token.text)
            yield token.start, colour, token.text
            here = max(here, token.end)
        if here < len(text):
            yield here, Text, text[here:]


def _word_colour(text: str) -> _TokenType:
    if text[0] in "\"'":
        return String.Double
    if text[0] == "-" and len(text) > 1:
        return Name.Attribute
    return Keyword.Type if text in ("struct", "union", "enum") else Text


#: prompt_toolkit style rules, in the 16 colours that every terminal has
STYLE = {
    "pygments.literal.number": "ansicyan", "pygments.name.function": "bold", "pygments.keyword": "ansimagenta",
    "pygments.keyword.type": "ansiyellow", "pygments.literal": "ansimagenta", "pygments.literal.string": "ansigreen",
    "pygments.name.attribute": "ansiyellow", "pygments.comment": "ansibrightblack",
    "pygments.error": "ansired underline", "pygments.generic.prompt": "ansiyellow",
    "pygments.name.variable.instance": "ansiblue", "bottom-toolbar": "noreverse ansibrightblack",
    "bottom-toolbar.error": "ansired", "bottom-toolbar.now": "bold", "prompt.write": "bold ansired",
}
