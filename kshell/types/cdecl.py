"""C declarations: structures, unions, enums and typedefs as somebody writes them, turned into types.

Source: C11 6.7 (declarations), with GCC's anonymous members, zero-length arrays and the attributes ``packed`` and
``aligned``. Names that are not declared are looked up by whoever declares: the types of the target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from kshell.errors import KshellError, ParseError
from kshell.types.ctokens import Token, Tokens, constant
from kshell.types.layout import Aligned, Field, check_size, lay_out
from kshell.types.model import (
    ArrayType,
    CType,
    Enumerator,
    EnumType,
    FunctionType,
    Kind,
    PointerType,
    QualifiedType,
    StructType,
    TypedefType,
    VoidType,
)

BASE = frozenset("void char short int long float double signed unsigned _Bool bool __int128 __signed__".split())
QUALIFIERS = {"const": "const", "volatile": "volatile", "restrict": "restrict", "__restrict": "restrict",
              "__const": "const", "__volatile__": "volatile", "_Atomic": "_Atomic"}
STORAGE = frozenset(
    "typedef extern static inline __inline __inline__ register auto _Thread_local __extension__".split())
TAGS = {"struct": Kind.STRUCT, "union": Kind.UNION}
MAX_FIELDS = 1 << 16

Wrap = Callable[[CType], CType]


class Scope(Protocol):
    """Where declarations go, and where names come from."""

    aligned: Aligned
    pointer_size: int

    def base(self, words: list[str]) -> CType | None:
        """Return the base type that *words* spell ("unsigned", "long"), or None."""

    def lookup(self, kind: str, name: str) -> CType | None:
        """Return a type that is declared, or that the target has; *kind* is "struct", "union", "enum" or ""."""

    def own(self, kind: str, name: str) -> CType | None:
        """Return a type that is declared here, or None."""

    def add(self, kind: str, name: str, type: CType) -> None:
        """Declare a type."""

    def enumerator(self, name: str) -> int | None:
        """Return the value of a declared enumerator, or None."""

    def add_enumerator(self, name: str, value: int) -> None:
        """Declare an enumerator."""


class _Attributes:
    def __init__(self) -> None:
        self.packed = False
        self.align = 0


class Parser:
    """Parses declarations into *scope*; what it declared before an error stays, so *scope* should be a copy.

    :raises ParseError: from every method, with the place
    """

    def __init__(self, text: str, scope: Scope) -> None:
        self.tokens, self.scope = Tokens(text), scope

    # -- whole declarations -------------------------------------------------------------------------------------------

    def declarations(self) -> list[tuple[int, int]]:
        """Parse all declarations; return where each stands in the text."""
        places: list[tuple[int, int]] = []
        tokens = self.tokens
        while tokens.now.kind != "end":
            if tokens.has(";"):
                continue
            start = tokens.now.start
            self._declaration()
            places.append((start, tokens.now.start))
        return places

    def _declaration(self) -> None:
        tokens = self.tokens
        is_typedef, base, _ = self._specifiers()
        if tokens.now.kind != "end" and not tokens.has(";"):
            while True:
                at = tokens.now
                name, wrap = self._declarator()
                self._attributes(_Attributes())
                if not name:
                    tokens.wrong("a name is expected", at)
                made = self._wrapped(wrap, base)
                if is_typedef:
                    if self.scope.lookup("", name) is not None:
                        tokens.refuse(f"typedef name {name} already exists", at)
                    self.scope.add("", name, TypedefType(name, made))
                if not tokens.has(","):
                    break
            if tokens.now.kind != "end":  # the last ; may be left out
                tokens.want(";")

    def type_name(self) -> CType:
        """Parse the name of a type, as in a cast, up to the end of the text."""
        made = self._type_name()
        if self.tokens.now.kind != "end":
            self.tokens.wrong("nothing is expected behind a type")
        return made

    def _type_name(self) -> CType:
        _, base, _ = self._specifiers()
        at = self.tokens.now
        name, wrap = self._declarator()
        if name:
            self.tokens.wrong("a type has no name here", at)
        return self._wrapped(wrap, base)

    # -- specifiers ---------------------------------------------------------------------------------------------------

    def _specifiers(self) -> tuple[bool, CType, _Attributes]:
        """Return whether it is a typedef, the type before the declarators, and attributes among them."""
        tokens = self.tokens
        words: list[str] = []
        found: CType | None = None
        is_typedef = False
        qualifiers: list[str] = []
        attributes = _Attributes()
        start = tokens.now
        while tokens.now.kind == "word":
            text = tokens.now.text
            if text in STORAGE:
                is_typedef |= tokens.take().text == "typedef"
            elif text in QUALIFIERS:
                qualifiers.append(QUALIFIERS[tokens.take().text])
            elif text in ("__attribute__", "__attribute", "_Alignas"):
                self._attributes(attributes)
            elif text in BASE:
                if found is not None:
                    tokens.wrong("two types")
                words.append(tokens.take().text)
            elif text in TAGS or text == "enum":
                if found is not None or words:
                    tokens.wrong("two types")
                found = self._enum() if text == "enum" else self._struct()
            elif found is None and not words:
                found = self.scope.lookup("", text)
                if found is None:
                    tokens.refuse(f"type {text} does not exist",
                                 hint="declare it, or write struct, union or enum before it")
                tokens.take()
            else:
                break
        if words:
            found = VoidType() if words == ["void"] else self.scope.base(words)
            if found is None:
                tokens.wrong(f"{' '.join(words)} is no type", start)
        if found is None:
            tokens.wrong("a type is expected", start)
        for qualifier in qualifiers[:1]:
            found = QualifiedType(qualifier, found)
        return is_typedef, found, attributes

    def _attributes(self, into: _Attributes) -> None:
        tokens = self.tokens
        while tokens.now.text in ("__attribute__", "__attribute", "_Alignas"):
            if tokens.take().text == "_Alignas":
                tokens.want("(")
                into.align = max(into.align, self._alignment())
                tokens.want(")")
                continue
            tokens.want("(")
            tokens.want("(")
            while not tokens.has(")"):
                name = tokens.take()
                if name.kind == "end":
                    tokens.wrong("expected )")
                word = name.text.strip("_")
                if word == "packed":
                    into.packed = True
                elif word == "aligned" and tokens.has("("):
                    into.align = max(into.align, self._alignment())
                    tokens.want(")")
                elif word == "aligned":
                    into.align = max(into.align, 16)
                elif tokens.has("("):
                    self._skip_parentheses()
                tokens.has(",")
            tokens.want(")")

    def _skip_parentheses(self) -> None:
        depth = 1
        while depth:
            token = self.tokens.take()
            if token.kind == "end":
                self.tokens.wrong("expected )")
            depth += (token.text == "(") - (token.text == ")")

    def _alignment(self) -> int:
        at = self.tokens.now
        value = self._constant()
        if value <= 0 or value & (value - 1) or value > 1 << 28:
            self.tokens.refuse("an alignment is a power of two", at)
        return value

    def _constant(self) -> int:
        return constant(self.tokens, self.scope.enumerator, self._sizeof)

    def _sizeof(self) -> int:
        size = self._type_name().size
        return self.tokens.wrong("the type is incomplete") if size is None else size

    # -- structures and enums -----------------------------------------------------------------------------------------

    def _struct(self) -> CType:
        tokens = self.tokens
        kind = TAGS[tokens.now.text]
        tag = tokens.take().text
        attributes = _Attributes()
        self._attributes(attributes)
        at = tokens.now
        name = tokens.take().text if at.kind == "word" else None
        if not tokens.has("{"):
            if name is None:
                tokens.wrong("a name or { is expected")
            found = self.scope.lookup(tag, name)
            if found is None:
                found = StructType(name, None, (), kind)
                self.scope.add(tag, name, found)
            return found
        made = self.scope.own(tag, name) if name else None
        others = self.scope.lookup(tag, name) if name and made is None else None
        if others is not None and others.size is not None:
            self._taken(tag, name or "", at)
        if made is None:
            made = StructType(name, None, (), kind)
            if name:
                self.scope.add(tag, name, made)
        elif made.size is not None or not isinstance(made, StructType):
            self._taken(tag, name or "", at)
        assert isinstance(made, StructType)
        fields = self._fields(made, kind)
        self._attributes(attributes)
        try:
            members, size, align = lay_out(
                fields, kind, self.scope.aligned, packed=attributes.packed, align=attributes.align)
        except KshellError as error:
            tokens.refuse(str(error), at)
        made._members, made.size, made.shape, made._index = members, size, None, None
        self.scope.aligned.remember(made, align)
        return made

    def _taken(self, tag: str, name: str, at: Token) -> NoReturn:
        hint = "::typedelete forgets a declared type" if self.scope.own(tag, name) else "the target has this type"
        self.tokens.refuse(f"type name {tag} {name} already in use", at, hint)

    def _fields(self, owner: StructType, kind: Kind) -> list[Field]:
        tokens = self.tokens
        tokens.deeper()
        fields: list[Field] = []
        seen: set[str] = set()
        flexible = None
        while not tokens.has("}"):
            if tokens.now.kind == "end":
                tokens.refuse("Missing closing brace")
            if tokens.has(";"):
                continue
            start = tokens.now
            _, base, attributes = self._specifiers()
            if tokens.has(";"):
                bare = base.strip()
                if isinstance(bare, StructType) and bare.name is None:
                    fields.append(Field(None, base, None, attributes.align, attributes.packed))
                    for name in bare.names():
                        self._once(name, seen, start)
                elif not isinstance(bare, (StructType, EnumType)):
                    tokens.wrong("a member without a name", start)
                continue
            while True:
                at = tokens.now
                if flexible is not None:
                    tokens.refuse("a flexible array is the last member", flexible)
                name, wrap = ("", _same) if at.text == ":" else self._declarator()
                made = self._wrapped(wrap, base)
                width = self._width(made) if tokens.has(":") else None
                own = _Attributes()
                own.align, own.packed = attributes.align, attributes.packed
                self._attributes(own)
                if not name and width is None:
                    tokens.wrong("a name is expected", at)
                if name:
                    self._once(name, seen, at)
                if made.size is None and width is None:
                    what = "a function" if made.strip().kind is Kind.FUNCTION else f"the incomplete type {made}"
                    hint = "a structure cannot hold itself, only a pointer to itself" if made is owner else None
                    tokens.refuse(f"member {name} has {what}", at, hint)
                if isinstance(made, ArrayType) and made.count == 0 and kind is Kind.STRUCT and self._unbounded:
                    flexible = at
                fields.append(Field(name or None, made, width, own.align, own.packed))
                if len(fields) > MAX_FIELDS:
                    tokens.refuse(f"more than {MAX_FIELDS} members", at)
                if not tokens.has(","):
                    break
            tokens.want(";")
        tokens.depth -= 1
        return fields

    def _once(self, name: str, seen: set[str], at: object) -> None:
        if name in seen:
            self.tokens.refuse(f"duplicate name detected: {name}", at)  # type: ignore[arg-type]
        seen.add(name)

    def _width(self, type: CType) -> int:
        at = self.tokens.now
        width = self._constant()
        bare = type.strip()
        if bare.kind not in (Kind.INT, Kind.BOOL, Kind.CHAR, Kind.ENUM):
            self.tokens.refuse(f"a bit-field of {type}", at)
        if not 0 <= width <= (1 if bare.kind is Kind.BOOL else 8 * (bare.size or 0)):
            self.tokens.refuse(f"{width} bits do not fit {type}", at)
        return width

    def _enum(self) -> CType:
        tokens = self.tokens
        tokens.take()
        attributes = _Attributes()
        self._attributes(attributes)
        at = tokens.now
        name = tokens.take().text if at.kind == "word" else None
        if not tokens.has("{"):
            if name is None:
                tokens.wrong("a name or { is expected")
            found = self.scope.lookup("enum", name)
            if found is None:
                tokens.refuse(f"enum {name} does not exist", at)
            return found
        if name and self.scope.lookup("enum", name) is not None:
            self._taken("enum", name, at)
        values: list[Enumerator] = []
        following = 0
        while not tokens.has("}"):
            word = tokens.take()
            if word.kind != "word":
                tokens.wrong("Missing closing brace" if word.kind == "end" else "an enumerator is expected", word)
            if tokens.has("="):
                following = self._constant()
            values.append(Enumerator(word.text, following))
            self.scope.add_enumerator(word.text, following)
            following += 1
            if not tokens.has(",") and tokens.now.text != "}":
                tokens.wrong("expected , or }")
            if len(values) > MAX_FIELDS:
                tokens.refuse(f"more than {MAX_FIELDS} enumerators", word)
        if not values:
            tokens.refuse("an enum without enumerators", at)
        self._attributes(attributes)
        low, high = min(v.value for v in values), max(v.value for v in values)
        signed = low < 0
        sizes = (1, 2, 4, 8) if attributes.packed else (4, 8)
        size = next((size for size in sizes if -(1 << 8 * size - 1) <= low and high < 1 << 8 * size - signed), 8)
        made = EnumType(name, size, signed, values)
        if name:
            self.scope.add("enum", name, made)
        return made

    # -- declarators --------------------------------------------------------------------------------------------------

    _unbounded = False

    def _declarator(self) -> tuple[str, Wrap]:
        """Parse ``*name[3]``, ``(*name)(int)``, or these without a name; return the name and how the type is made."""
        tokens = self.tokens
        tokens.deeper()
        try:
            stars: list[list[str]] = []
            while tokens.has("*"):
                stars.append([])
                while tokens.now.text in QUALIFIERS or tokens.now.text in ("__attribute__", "__user", "__rcu"):
                    if tokens.now.text in QUALIFIERS:
                        stars[-1].append(QUALIFIERS[tokens.take().text])
                    elif tokens.now.text == "__attribute__":
                        self._attributes(_Attributes())
                    else:
                        tokens.take()  # sparse's annotations
            inner: Wrap = _same
            name = ""
            if tokens.now.text == "(" and (tokens.after.text in ("*", "(", "[") or self._is_name(tokens.after.text)):
                tokens.take()
                name, inner = self._declarator()
                tokens.want(")")
            elif tokens.now.kind == "word" and tokens.now.text not in ("__attribute__", "__attribute"):
                if tokens.now.text in BASE or tokens.now.text in TAGS:
                    tokens.refuse(f"The name {tokens.now.text} is not a valid C identifier.")
                name = tokens.take().text
            elif tokens.now.kind == "number":
                tokens.refuse(f"The name {tokens.now.text} is not a valid C identifier.")
            suffix = self._suffixes()
            size = self.scope.pointer_size

            def wrap(type: CType) -> CType:
                for qualifiers in stars:
                    type = PointerType(type, size)
                    for qualifier in qualifiers[:1]:
                        type = QualifiedType(qualifier, type)
                return inner(suffix(type))

            return name, wrap
        finally:
            tokens.depth -= 1

    def _is_name(self, text: str) -> bool:
        """Whether *text* behind ``(`` is a name in parentheses rather than the type of a parameter."""
        return (text.isidentifier() and text not in BASE and text not in TAGS and text != "enum"
                and text not in QUALIFIERS and self.scope.lookup("", text) is None)

    def _suffixes(self) -> Wrap:
        """Parse ``[3][4]`` and ``(int, ...)``; return how they are applied, the last one first."""
        tokens = self.tokens
        made: list[Wrap] = []
        self._unbounded = False
        while len(made) < 64:
            if tokens.has("["):
                at = tokens.now
                while tokens.now.text in ("static", *QUALIFIERS):
                    tokens.take()
                self._unbounded = not made and tokens.now.text == "]"
                count = 0 if tokens.now.text == "]" else self._constant()
                if count < 0:
                    tokens.refuse("Array lengths cannot be negative", at)
                tokens.want("]")
                made.append(lambda type, count=count: ArrayType(type, count))  # type: ignore[misc]
            elif tokens.has("("):
                parameters, variadic = self._parameters()
                made.append(lambda type, p=parameters, v=variadic: FunctionType(type, p, v))  # type: ignore[misc]
            else:
                break

        def wrap(type: CType) -> CType:
            for one in reversed(made):
                type = one(type)
            return type

        return wrap

    def _parameters(self) -> tuple[list[tuple[str, Callable[[], CType]]], bool]:
        tokens = self.tokens
        found: list[tuple[str, Callable[[], CType]]] = []
        if tokens.has(")"):
            return found, False
        if tokens.now.text == "void" and tokens.after.text == ")":
            tokens.take()
            tokens.take()
            return found, False
        while True:
            if tokens.has("..."):
                tokens.want(")")
                return found, True
            _, base, _ = self._specifiers()
            name, wrap = self._declarator()
            self._attributes(_Attributes())
            made = self._wrapped(wrap, base)
            if isinstance(made, ArrayType):
                made = PointerType(made.target, self.scope.pointer_size)
            elif isinstance(made, FunctionType):
                made = PointerType(made, self.scope.pointer_size)
            found.append((name, lambda made=made: made))  # type: ignore[misc]
            if not tokens.has(","):
                tokens.want(")")
                return found, False

    def _wrapped(self, wrap: Wrap, base: CType) -> CType:
        made = wrap(base)
        try:
            inner = made
            for _ in range(100):
                check_size(inner)
                if not isinstance(inner, ArrayType):
                    break
                inner = inner.target
                if inner.size is None:
                    self.tokens.refuse(f"an array of the incomplete type {inner}")
        except ParseError:
            raise
        except KshellError as error:
            self.tokens.refuse(str(error))
        return made


def _same(type: CType) -> CType:
    return type
