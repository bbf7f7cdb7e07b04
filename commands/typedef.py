"""``::typedef`` and ``::typedelete``: types that the user declares, in C (mdb-language.md 11.6)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    Abort,
    FileName,
    Flag,
    KshellError,
    Note,
    Option,
    Output,
    ParseError,
    Session,
    Text,
    TypeName,
    UsageError,
    Word,
    dcmd,
    escape,
)

MAX_FILE = 8 << 20


@dcmd("typedef", group="Types")
def typedef(
    session: Session,
    model: Annotated[str | None, Option("-c", "model", "the data model of C's own types: LP64, LP32, ILP32")],
    listed: Annotated[bool, Flag("-l", "list the types that are declared")],
    delete: Annotated[bool, Flag("-d", "forget them all")],
    read: Annotated[FileName | None, Option("-r", "file", "declare what a file of C declares")],
    write: Annotated[FileName | None, Option("-w", "file", "write the declarations to a new file")],
    words: Annotated[list[str], Word("declaration", "C, quoted; or a type and a new name for it", "type")],
) -> Iterator[Output]:
    """Declare types in C: structures, unions, enums, typedefs.

    A declaration is quoted and may hold several, as a header has them; or it is a type and a new name for it.
    Bit-fields, arrays, function pointers, anonymous members, forward references, packed and aligned lie where GCC puts
    them. Names that are not declared are the target's. Declared types work wherever types do, without a target too.

    Examples:
      ::typedef 'struct pair { int a, b; unsigned low : 4; }'
      ::typedef 'struct task_struct *' task_p
      ::typedef -l
    """
    types = session.typed.types
    declared = types.declared
    if sum((model is not None, listed, delete, read is not None, write is not None, bool(words))) != 1:
        raise UsageError("one of -c, -d, -l, -r, -w or a declaration is expected")
    try:
        if model is not None:
            declared.choose(model)
        elif listed:
            for kind, name in declared.names():
                yield Text(f"{kind} {name}".strip())
        elif delete:
            declared.clear()
        elif read is not None:
            added = declared.declare(_content(read))
            yield Note(f"{len(added)} types declared")
        elif write is not None:
            _write(write, declared.texts)
        else:
            declared.declare(_declaration(words))
    except ParseError as error:
        raise Abort(f"{error}{_place(error)}", hint=error.hint) from error
    finally:
        types.changed()


def _declaration(words: list[str]) -> str:
    """Return the C that the words mean: a declaration in one word, or a type and a name for it."""
    if len(words) == 1:
        if not any(mark in words[0] for mark in "{;") and "typedef" not in words[0]:
            raise UsageError("a name for the type is missing", hint="::typedef 'unsigned int' u_int")
        return words[0]
    *type_, name = words
    text = " ".join(type_)
    if not name.isidentifier():
        raise ParseError(f"The name {name} is not a valid C identifier.", name, 0, len(name))
    tag = text.partition("{")[0].split()[:2]
    if "{" in text and len(tag) == 2 and tag[0] in ("struct", "union", "enum"):
        return f"{text}; typedef {' '.join(tag)} {name};"
    return f"typedef {text} {name};" if "(*" not in text else f"typedef {text.replace('(*', '(*' + name, 1)};"


def _place(error: ParseError) -> str:
    """Return where in a declaration of several lines an error is."""
    before = error.text[: error.start]
    line = before.count("\n") + 1
    near = error.text[error.start :].partition("\n")[0][:30]
    where = f" (line {line})" if "\n" in error.text else ""
    return f"{where} at {escape(near)!r}" if near and near not in str(error) else where


def _content(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise KshellError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise KshellError(f"{path} is larger than {MAX_FILE >> 20} MiB")
    return data.decode("utf-8", "replace")


def _write(path: str, texts: list[str]) -> None:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.writelines(f"{text.rstrip(';')};\n" for text in texts)
    except FileExistsError as error:
        raise KshellError(f"{path} is there already", hint="it is not overwritten: remove it first") from error
    except OSError as error:
        raise KshellError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error


@dcmd("typedelete", group="Types")
def typedelete(session: Session, type: TypeName, name: Annotated[str | None, Word("name")]) -> None:
    """Forget a type that was declared with ::typedef. Types made of it keep it.

    Examples:
      ::typedef 'struct gone { int a; }'; ::typedelete struct gone
    """
    types = session.typed.types
    kind, _, bare = f"{type} {name or ''}".strip().rpartition(" ")
    try:
        types.declared.remove(kind, bare)
    finally:
        types.changed()
