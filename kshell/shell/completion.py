"""What Tab offers: dcmds, options, types, members, symbols, walkers, variables, files.

Where the cursor is, is told by :mod:`kshell.lang.complete`; which kind of word fits there, by the dcmd's declaration.
Limits are measured ones: symbols only from three characters on or when Tab asks, and 200 names at most.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from kshell.arguments import Parameter
from kshell.bugs import keep_trace
from kshell.errors import KshellError, NotFoundError
from kshell.escape import escape
from kshell.lang.complete import CompletionContext, Want, context_at
from kshell.lang.unparse import quote_word
from kshell.types.model import CType, StructType

if TYPE_CHECKING:
    from kshell.registry import Dcmd, Entry
    from kshell.session import Session

LIMIT = 200


class KshellCompleter(Completer):
    """Completes mdb's language over a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        context = context_at(document.text, document.cursor_position)
        back = context.start - document.cursor_position
        try:
            for text, meta in self.offers(context, asked=complete_event.completion_requested):
                yield Completion(text, start_position=back, display_meta=meta)
        except KshellError:
            return  # a damaged table of names: no offers; the command itself will say why
        except Exception as error:  # or the prompt would show a traceback over the line that is being typed
            keep_trace(error, "kshell")

    def offers(self, context: CompletionContext, *, asked: bool = True) -> Iterator[tuple[str, str]]:
        """Yield (text, remark) for what fits.

        :param asked: the user pressed Tab; costly or long lists wait for that
        """
        session, word = self._session, context.word
        if context.want is Want.DCMD:
            for name, summary in _ranked(session.registry.dcmds(), word):
                yield ("" if name[0] in "$:" else "::") + name, summary
        elif context.want is Want.WALKER:
            yield from _ranked(session.registry.walkers(), word)
        elif context.want is Want.VARIABLE:
            for variable in session.variables:
                if variable.name.startswith(word):
                    yield variable.name, session.format_number(variable.value)
        elif context.want is Want.SYMBOL:
            yield from self._symbols(word, asked)
        elif context.want is Want.ARGUMENT and session.registry.has_dcmd(context.name):
            yield from self._argument(session.registry.find_dcmd(context.name), context, asked)

    def _symbols(self, word: str, asked: bool) -> Iterator[tuple[str, str]]:
        if self._session.has_target and (len(word) >= 3 or (asked and word)):
            for name in self._session.target.symbols.starting(word, LIMIT):
                yield name, ""

    def _argument(self, dcmd: Dcmd, context: CompletionContext, asked: bool) -> Iterator[tuple[str, str]]:
        parameter, words = current_parameter(dcmd, context.before)
        switch = parameter is not None and parameter.role == "option" and parameter.letter == "o"
        if dcmd.name == "set" and (switch or words[-1:] == ("+o",)):
            yield from self._options(context)
            return
        if context.word[:1] == "-" and not words:
            for option in dcmd.parameters:
                if option.role in ("flag", "option"):
                    yield f"-{option.letter}", option.help
            return
        if parameter is not None:
            yield from self._words(parameter.kind.complete, words, context, asked)

    def _words(
        self, kind: str, words: tuple[str, ...], context: CompletionContext, asked: bool,
    ) -> Iterator[tuple[str, str]]:
        session, word = self._session, context.word
        if kind == "type+member" and words and "%" in words[0]:
            words = words[1:]  # the format of ::printf
        if (kind == "type+member" and not words) or kind == "member":
            yield from self._members_of(self._known(context), word)
        if kind == "type+member":
            from kshell.value.args import type_words

            kind = "member" if words and type_words(words)[1] <= len(words) and words[-1] not in _TAGS else "type"
            kind = "type+member" if kind == "member" and not word else kind
        if kind == "type":
            yield from self._types(words, word, asked)
        elif kind in ("member", "type+member"):
            yield from self._members(words, word)
        elif kind == "symbol":
            yield from self._symbols(word, asked)
        elif kind == "walker":
            yield from _ranked(session.registry.walkers(), word)
        elif kind == "dcmd":
            yield from _ranked(session.registry.dcmds(), word.removeprefix("::"))
        elif kind == "variable":
            yield from ((v.name, "") for v in session.variables if v.name.startswith(word))
        elif kind == "module":
            yield from ((name, "") for name in sorted(session.registry.modules) if name.startswith(word))
        elif kind == "file":
            yield from _files(word)
        elif kind == "pid" and asked:
            yield from self._processes(word)

    def _processes(self, word: str) -> Iterator[tuple[str, str]]:
        from kshell.linux.processes import iter_processes

        if not self._session.has_target:
            return
        for task in islice(iter_processes(self._session.target), 10 * LIMIT):
            if word and escape(task.comm).startswith(word):
                yield quote_word(task.comm), f"pid {task.pid}"
            elif str(task.pid).startswith(word):
                yield str(task.pid), escape(task.comm)

    def _types(self, words: tuple[str, ...], word: str, asked: bool) -> Iterator[tuple[str, str]]:
        if not self._session.has_target or not (asked or word):
            return
        tag = f"{words[-1]} " if words and words[-1] in _TAGS else ""
        for name in self._session.target.types.complete(tag + word, LIMIT):
            yield name.removeprefix(tag), ""
        if not tag and len(word) >= 2:  # a tag may stand alone: task_struct
            for name in self._session.target.types.complete("struct " + word, LIMIT):
                yield name.removeprefix("struct "), "struct"

    def _members(self, words: tuple[str, ...], word: str) -> Iterator[tuple[str, str]]:
        """Offer members of the type that *words* begin with; behind ``a.b.`` those of what the path leads to."""
        from kshell.value.args import type_words

        if not self._session.has_target or not words:
            return
        yield from self._members_of(self._session.target.types.get(type_words(words)[0]), word)

    def _members_of(self, found: CType | None, word: str) -> Iterator[tuple[str, str]]:
        from kshell.value.path import route

        if found is None:
            return
        ctype = found.strip()
        head, last = _split_path(word)
        if head:
            ctype = route(ctype, head.removesuffix(".").removesuffix("->")).type.strip()
            ctype = getattr(ctype, "target", ctype).strip() if head.endswith("->") else ctype
        if isinstance(ctype, StructType):
            for name in ctype.names():
                if name.startswith(last):
                    member = ctype.member(name)
                    yield head + name, f"{member.type}  +0x{member.offset:x}"


    def _known(self, context: CompletionContext) -> CType | None:
        """Return the type of the object at the dcmd's address: a symbol's, or what the stage before it yields."""
        session = self._session
        if not session.has_target:
            return None
        if context.symbol:
            symbol = session.target.symbols.get(context.symbol)
            return None if symbol is None else session.target.type_of(symbol)
        for name, words in context.stages:
            if name in PASSING:
                continue
            yields = None
            if name == "walk" and words:
                try:
                    yields = session.registry.find_walker(words[0]).yields
                except NotFoundError:
                    yields = f"struct {words[0]}"  # a slab cache: named after its type, where it has one
            elif session.registry.has_dcmd(name):
                yields = session.registry.find_dcmd(name).yields
            return None if yields is None else session.target.types.get(yields)
        return None

    def _options(self, context: CompletionContext) -> Iterator[tuple[str, str]]:
        """Offer the options of the session, of which ``::set -o`` takes several with commas between."""
        done, comma, last = context.word.rpartition(",")
        chosen = self._session.options
        for name in (*chosen.LIMITS, *chosen.SWITCHES):
            now, limit = getattr(chosen, name), name in chosen.LIMITS
            if name.startswith(last):
                shown = "none" if now is None else str(now) if limit else ("on" if now else "off")
                yield done + comma + name + "=" * limit, shown


#: dcmds that pass on what they get
PASSING = frozenset({"head", "tail", "sort", "uniq", "where", "grep"})
_TAGS = ("struct", "union", "enum")


def _split_path(word: str) -> tuple[str, str]:
    """Split ``a.b->c`` into ``a.b->`` and ``c``."""
    cut = max(word.rfind(".") + 1, word.rfind("->") + 2 if "->" in word else 0)
    return word[:cut], word[cut:]


def current_parameter(dcmd: Dcmd, before: tuple[str, ...]) -> tuple[Parameter | None, tuple[str, ...]]:
    """Return the parameter that the word behind *before* goes to, and the words before it that are no options."""
    options = {p.letter: p for p in dcmd.parameters if p.role in ("flag", "option")}
    words = list(before)
    while words and words[0][:1] == "-" and len(words[0]) > 1:
        first = words.pop(0)
        if first == "--":
            break
        known = [options[letter] for letter in first[1:] if letter in options]
        taker = next((option for option in known if option.role == "option"), None)
        if taker is not None and first.endswith(taker.letter):
            if not words:
                return taker, ()
            words.pop(0)
    rest = tuple(words)
    taken = 0
    for parameter in dcmd.parameters:
        if parameter.role != "word":
            continue
        if parameter.many:
            return parameter, rest
        size = 1
        if parameter.kind.complete == "type":
            tagged = rest[taken : taken + 1] and rest[taken] in _TAGS
            size = 2 if tagged else 1
        if taken + size > len(rest):
            return parameter, rest
        taken += size
    return None, rest


def _ranked(entries: Iterable[Entry], word: str) -> Iterator[tuple[str, str]]:
    """Yield names that begin with *word*, then those that have its letters in order."""
    found = {entry.name: entry.summary for entry in entries if not entry.alias}
    first = [name for name in found if name.startswith(word)]
    later = [name for name in found if name not in first and len(word) > 1 and _has_letters(name, word)]
    for name in (*first, *later):
        yield name, found[name]


def _has_letters(name: str, letters: str) -> bool:
    rest = iter(name)
    return all(letter in rest for letter in letters)


def _files(word: str) -> Iterator[tuple[str, str]]:
    head, slash, last = word.rpartition("/")
    try:
        with os.scandir(os.path.expanduser(head + slash or ".")) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries[:5000]:
        if entry.name.startswith(last) and (last or not entry.name.startswith(".")):
            yield head + slash + entry.name + ("/" if _is_folder(entry) else ""), ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be looked into
        return False
