"""The words of a command line bound to a dcmd's parameters, and its usage line made from them.

Options are mdb's (``mdb_getopts``): single letters, grouped (``-at``), values glued or next (``-l10``, ``-l 10``); they
end at the first word that is none, at ``-``, and at ``--``, which is dropped. Numbers are in the current radix unless
they have a prefix (0x 0t 0o 0i); process ids are decimal, because they are printed in decimal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kshell.arguments import Argument, Parameter
from kshell.errors import EvaluateError, UsageError, bare_name
from kshell.lang.numbers import number_value

_PREFIXES = {"0x", "0t", "0o", "0i"}


def parse_number(text: str, radix: int) -> int:
    """Return the number *text* means: with a prefix in its base, else in *radix*; a sign is allowed.

    :raises UsageError: not a number
    """
    digits = text.removeprefix("-")
    try:
        if not digits or digits[0] in "_." or (digits[:2].lower() in _PREFIXES and not digits[2:]):
            raise ValueError("no digits")
        value = number_value(digits, radix)
    except ValueError as error:
        word = {16: "a hexadecimal", 10: "a decimal"}.get(radix, f"a base {radix}")
        hint = "prefixes: 0x hex, 0t decimal, 0o octal"
        raise UsageError(f'"{text}" is not {word} number: {error}', hint=hint) from None
    return -value if text[:1] == "-" else value


def convert(value: Argument, parameter: Parameter, evaluate: Callable[[str], int], radix: int) -> Any:
    """Return *value* as *parameter* wants it."""
    how = parameter.kind.convert
    if how == "raw":
        return value
    if how == "text":
        if isinstance(value, int):
            if parameter.role == "option":
                raise UsageError(f"string argument required for -{parameter.letter}")
            raise UsageError(f"string argument required for {parameter.metavar}")
        return value
    if isinstance(value, int):
        return value
    if how == "expression":
        try:
            return evaluate(value)
        except EvaluateError as error:
            raise EvaluateError(f"{bare_name(value)}: {error}", hint=error.hint) from error
    return parse_number(value, 10 if how == "decimal" else radix)


def _type_words(words: Sequence[Argument]) -> tuple[str, int]:
    from kshell.value.args import type_words

    name, taken = type_words(words)
    if not taken:
        raise UsageError("a type name is expected")
    return name, taken


def bind(
    known: Sequence[Parameter], words: Sequence[Argument], evaluate: Callable[[str], int], radix: int = 16,
) -> dict[str, Any]:
    """Return the keyword arguments that *words* give to the options and words among *known*.

    :param evaluate: evaluates an expression in the language
    :raises UsageError: words that do not fit; its text says which
    """
    bound = {p.name: p.empty() for p in known if p.role in ("flag", "option", "word")}
    for name, value in bound.items():
        if isinstance(value, list):
            bound[name] = list(value)
    rest = _bind_options(known, list(words), bound, evaluate, radix)
    for parameter in known:
        if parameter.role != "word":
            continue
        if parameter.many:
            bound[parameter.name] += [convert(word, parameter, evaluate, radix) for word in rest]
            rest = []
        elif rest:
            if parameter.kind.complete == "type":
                bound[parameter.name], taken = _type_words(rest)
                rest = rest[max(taken, 1):]
            else:
                bound[parameter.name] = convert(rest.pop(0), parameter, evaluate, radix)
        elif parameter.required:
            raise UsageError(f"{parameter.metavar} is missing")
    if rest:
        raise UsageError(f"too many arguments: {' '.join(map(str, rest))}")
    return bound


def _bind_options(
    known: Sequence[Parameter], words: list[Argument], bound: dict[str, Any], evaluate: Callable[[str], int],
    radix: int,
) -> list[Argument]:
    letters = {p.letter: p for p in known if p.role in ("flag", "option")}
    while words and isinstance(words[0], str) and words[0][:1] == "-" and words[0] != "-":
        word = words[0]
        if word == "--":
            return words[1:]
        if word[1].isdigit() and word[1] not in letters:  # -5 is a number, for the dcmd to take
            break
        del words[0]
        letters_left = word[1:]
        while letters_left:
            letter, letters_left = letters_left[0], letters_left[1:]
            parameter = letters.get(letter)
            if parameter is None:
                raise UsageError(f"illegal option -- {letter}")
            if parameter.role == "flag":
                bound[parameter.name] = bound[parameter.name] + 1 if parameter.many else True
                continue
            value: Argument
            if letters_left:
                value, letters_left = letters_left, ""
            elif words:
                value = words.pop(0)
                if parameter.kind.complete == "type" and isinstance(value, str):
                    value, taken = _type_words([value, *words])
                    del words[: taken - 1]
            else:
                raise UsageError(f"option requires an argument -- {letter}")
            try:
                converted = convert(value, parameter, evaluate, radix)
            except UsageError as error:
                raise UsageError(f"-{letter}: {error}", hint=error.hint) from None
            if parameter.many:
                bound[parameter.name].append(converted)
            else:
                bound[parameter.name] = converted
    return words


def usage(known: Sequence[Parameter], verb: str) -> str:
    """Return the usage line of a dcmd whose verb is *verb* (``::ps``, ``$c``)."""
    address = next((p for p in known if p.role == "address"), None)
    head = "" if address is None else "[address]" if address.optional or not address.required else "address"
    if any(p.role == "count" for p in known):
        head += "[,count]"
    words = [head + verb]
    flags = "".join(p.letter for p in known if p.role == "flag")
    if flags:
        words.append(f"[-{flags}]")
    for p in known:
        if p.role == "option":
            words.append(f"[-{p.letter} {p.metavar}]" + (" ..." if p.many else ""))
    for p in known:
        if p.role == "word":
            word = p.metavar + (" ..." if p.many else "")
            words.append(word if p.required else f"[{word}]")
    return " ".join(words)
