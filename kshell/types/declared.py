"""Types that the user declares: a source that is asked before all others (``::typedef``, mdb-language.md 11.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kshell.errors import KshellError
from kshell.types.cdecl import Parser
from kshell.types.layout import Aligned
from kshell.types.model import CType, FloatType, IntType, Kind

Outer = Callable[[str, str], CType | None]

#: bytes of long, of a pointer
MODELS = {"LP64": (8, 8), "LP32": (4, 4), "ILP32": (4, 4)}


def _base_types(long: int) -> dict[str, CType]:
    """Return the base types of C by their words, sorted."""
    types: dict[str, CType] = {
        "char": IntType("char", 1, True, Kind.CHAR), "char signed": IntType("signed char", 1, True),
        "char unsigned": IntType("unsigned char", 1, False), "_Bool": IntType("_Bool", 1, False, Kind.BOOL),
        "__int128": IntType("__int128", 16, True), "__int128 unsigned": IntType("unsigned __int128", 16, False),
        "float": FloatType("float", 4), "double": FloatType("double", 8),
        "double long": FloatType("long double", 16 if long == 8 else 12),
    }
    for name, words, size in (("short int", "short", 2), ("int", "", 4), ("long int", "long", long),
                              ("long long int", "long long", 8)):
        for sign, signed in (("", True), ("signed", True), ("unsigned", False)):
            shown = name if sign != "unsigned" else name.replace("int", "unsigned int")
            for last in ("", "int"):
                spelled = " ".join(sorted(f"{words} {sign} {last}".split()))
                if spelled:
                    types.setdefault(spelled, IntType(shown, size, signed))
    types["bool"] = types["_Bool"]
    return types


class Declared:
    """Declared types, by name space and name.

    :param outer: gives the types of the target: what a declaration may build on
    :param pointer_size: of the target, in bytes; ``long`` has as many
    :ivar texts: the declarations as they were written, in order
    """

    def __init__(self, outer: Outer | None = None, pointer_size: int = 8) -> None:
        self.outer = outer
        self.aligned = Aligned(pointer_size)
        self.native = self.pointer_size = pointer_size
        self.model = ""
        self.texts: list[str] = []
        self._types: dict[tuple[str, str], CType] = {}
        self._enumerators: dict[str, int] = {}
        self._bases = _base_types(pointer_size)

    # -- declaring ----------------------------------------------------------------------------------------------------

    def choose(self, model: str) -> None:
        """Choose the data model of the base types.

        :raises KshellError: there is no such model, or types have been declared with another one
        """
        sizes = MODELS.get(model.upper())
        if sizes is None:
            raise KshellError(f"invalid data model: {model}", hint=", ".join(MODELS))
        if self.model or self._types:
            raise KshellError("failed to create intrinsic types, maybe they already exist")
        self.model = model.upper()
        self._bases, self.pointer_size = _base_types(sizes[0]), sizes[1]

    def declare(self, text: str) -> list[tuple[str, str]]:
        """Declare what C *text* declares, all of it or nothing; return (kind, name) of each new type.

        :raises ParseError: it cannot be parsed, a name is taken, a type is not known; with the place
        """
        kept = dict(self._types), dict(self._enumerators)
        before = {key: type.size for key, type in self._types.items()}
        try:
            parser = Parser(text, self)
            places = parser.declarations()
        except KshellError:
            for key, type in self._types.items():  # a forward reference that was completed is one again
                if key in before and before[key] is None and type.size is not None:
                    type.size, type._members = None, ()  # type: ignore[attr-defined]
            self._types, self._enumerators = kept
            raise
        self.texts += [text[start:end].strip() for start, end in places]
        return [key for key, type in self._types.items() if key not in before or before[key] != type.size]

    def type_name(self, text: str) -> CType:
        """Return the type that *text* spells as in a cast: ``struct { int a; } *``, ``int (*)(void)``.

        :raises ParseError: it spells none
        """
        kept = dict(self._types), dict(self._enumerators)
        try:
            return Parser(text, self).type_name()
        finally:
            self._types, self._enumerators = kept

    def remove(self, kind: str, name: str) -> None:
        """Forget a declared type; types made of it keep it.

        :raises KshellError: no such type is declared
        """
        if self._types.pop((kind, name), None) is None:
            raise KshellError(f"{kind} {name}".strip() + " is not declared", hint="::typedef -l lists what is")
        self.texts = [text for text in self.texts if not _declares(text, kind, name)]

    def clear(self) -> None:
        """Forget all declared types."""
        self.__init__(self.outer, self.native)  # type: ignore[misc]

    # -- what the parser asks -----------------------------------------------------------------------------------------

    def base(self, words: list[str]) -> CType | None:
        words = ["signed" if word == "__signed__" else word for word in words]
        return self._bases.get(" ".join(sorted(words)))

    def lookup(self, kind: str, name: str) -> CType | None:
        found = self._types.get((kind, name))
        if found is None and self.outer is not None:
            found = self.outer(kind, name)
        return found

    def own(self, kind: str, name: str) -> CType | None:
        return self._types.get((kind, name))

    def add(self, kind: str, name: str, type: CType) -> None:
        self._types[kind, name] = type

    def enumerator(self, name: str) -> int | None:
        return self._enumerators.get(name)

    def add_enumerator(self, name: str, value: int) -> None:
        self._enumerators[name] = value

    # -- a TypeSource -------------------------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> CType | None:
        """Return the declared type *name* in the name space *kind*, or None."""
        return self._types.get((kind, name))

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield (kind, name) of every declared type, in order."""
        yield from self._types

    def starting(self, kind: str, prefix: str, limit: int) -> list[str]:
        """Return at most *limit* names of *kind* that begin with *prefix*, sorted."""
        return sorted(name for own, name in self._types if own == kind and name.startswith(prefix))[:limit]

    def __len__(self) -> int:
        return len(self._types)


def _declares(text: str, kind: str, name: str) -> bool:
    """Whether the declaration *text* is the one of this type alone."""
    import re

    if kind:
        return re.match(rf"(typedef\s+)?{kind}\s+{re.escape(name)}\s*{{", text) is not None
    return re.search(rf"\b{re.escape(name)}\s*(\[[^\]]*\]|\([^)]*\))*\s*;?$", text) is not None
