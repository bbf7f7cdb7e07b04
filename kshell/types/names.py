"""Names to symbols and types: the sources of a target joined, and C type names parsed.

``struct task_struct *``, ``unsigned long`` and ``char [16]`` are understood, and a bare ``task_struct`` is forgiven;
function pointers are not spelled here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from kshell.errors import SymbolNotFoundError, TypeNotFoundError
from kshell.types.known import known_type
from kshell.types.model import ArrayType, CType, PointerType, QualifiedType, Symbol, VoidType, near_names

if TYPE_CHECKING:
    from kshell.types.declared import Declared
    from kshell.types.model import SymbolSource, TypeSource
    from kshell.types.private import PrivateSymbols

TAGS = ("struct", "union", "enum")
QUALIFIERS = ("const", "volatile", "restrict")
MAX_NAME = 4096
#: a word may be a name of C++, ``outer::Box<long int>::Rec``
_WORDS = re.compile(r"[A-Za-z_]\w*(?:<[^<>]*(?:<[^<>]*>[^<>]*)*>)?(?:::[A-Za-z_]\w*(?:<[^<>]*(?:<[^<>]*>[^<>]*)*>)?)*"
                    r"|\d\w*|[*\[\]()]|\S")

#: The many spellings of the base types of C, as sorted words, to the ones that compilers write into BTF and DWARF.
SPELLINGS = {
    "__int128 unsigned": ("__int128 unsigned", "unsigned __int128"),
    "char": ("char",), "char signed": ("signed char",), "char unsigned": ("unsigned char",),
    "short": ("short int", "short"), "int short": ("short int", "short"),
    "short unsigned": ("short unsigned int", "unsigned short"),
    "int short unsigned": ("short unsigned int", "unsigned short"),
    "int": ("int",),
    "unsigned": ("unsigned int",), "int unsigned": ("unsigned int",),
    "long": ("long int", "long"), "int long": ("long int", "long"),
    "long unsigned": ("long unsigned int", "unsigned long"),
    "int long unsigned": ("long unsigned int", "unsigned long"),
    "long long": ("long long int", "long long"), "int long long": ("long long int", "long long"),
    "long long unsigned": ("long long unsigned int", "unsigned long long"),
    "int long long unsigned": ("long long unsigned int", "unsigned long long"),
    "double long": ("long double",), "bool": ("_Bool", "bool"), "_Bool": ("_Bool", "bool"),
}


_T = TypeVar("_T")


class Later(Generic[_T]):
    """What is joined when it is first needed, and looked at again when it may have changed.

    :param find: gives all of it each time, quickly where nothing has changed
    :ivar found: what has been joined so far; another list when it is another
    :ivar joined: whether it is all there is, as far as is known
    """

    def __init__(self, find: Callable[[], Iterable[_T]] | None) -> None:
        self._find = find
        self.found: list[_T] = []
        self.joined = find is None

    def renew(self) -> None:
        """Have it looked at again when it is next needed."""
        self.joined = self._find is None

    def __call__(self) -> list[_T]:
        if not self.joined and self._find is not None:
            self.joined = True  # who looks for it may need names, which are those known so far
            found = list(self._find())
            if found != self.found:
                self.found = found
        return self.found


class SymbolIndex:
    """The symbols of several sources: the kernel's first, then its modules', joined when first needed."""

    def __init__(
        self, sources: Sequence[SymbolSource], more: Callable[[], Iterable[SymbolSource]] | None = None
    ) -> None:
        self.sources: list[SymbolSource] = list(sources)
        self._more = Later(more)
        self._private: PrivateSymbols | None = None
        self._low: tuple[list[SymbolSource], list[SymbolSource], int] = [], [], 0
        #: which symbols its sources lack as a whole, and what brings them
        self.missing = ""
        #: 0: a symbol covers its size ("smart"); else the bytes behind its beginning that carry its name
        self.distance = 0

    @property
    def private(self) -> PrivateSymbols:
        """The symbols that the user adds, which are looked at before all others."""
        if self._private is None:
            from kshell.types.private import PrivateSymbols

            self._private = PrivateSymbols()
            self.add(self._private, first=True)
        return self._private

    def add(self, source: SymbolSource, *, first: bool = False) -> None:
        """Add a source, behind the others or before them."""
        self.sources.insert(0 if first else len(self.sources), source)

    def renew(self) -> None:
        """Take note that other modules may be loaded by now: they are looked at when a name is not the kernel's."""
        self._more.renew()

    def _all(self) -> Iterator[SymbolSource]:
        yield from self.sources
        yield from self._more()

    def get(self, name: str, module: str | None = None) -> Symbol | None:
        """Return the symbol *name*, of *module* when given, else of the kernel before the modules; or None."""
        for source in self._all():
            for symbol in source.find(name):
                if module is None or symbol.module == module:
                    return symbol
        return None

    def own(self, name: str) -> Symbol | None:
        """Return the kernel's symbol *name*, or None; modules are not looked at, which may not be known yet."""
        return next((symbol for source in self.sources for symbol in source.find(name)), None)

    def lookup(self, name: str, module: str | None = None) -> Symbol:
        """Return the symbol *name*; ``module`name`` is understood too.

        :raises SymbolNotFoundError: no source has it; carries near names
        """
        if module is None and "`" in name:
            module, _, name = name.rpartition("`")
        found = self.get(name, module)
        if found is None:
            raise SymbolNotFoundError(name if module is None else f"{module}`{name}", self.near(name))
        return found

    def find_all(self, name: str) -> list[Symbol]:
        """Return every symbol of this name: statics of several files share names."""
        return [symbol for source in self._all() for symbol in source.find(name)]

    def at(self, address: int, *, private: bool = False) -> tuple[Symbol, int] | None:
        """Return the symbol that covers *address* and the offset in it, or None.

        :param private: look at those only that the user added
        """
        if private:
            own = None if self._private is None else self._private.at(address)
            return None if own is None else (own, address - own.address)
        if self._more.joined and address < self._lowest():
            return None
        if self.distance:
            return self._near(address)
        for source in self._all():
            symbol = source.at(address)
            if symbol is not None:
                return symbol, address - symbol.address
        return None

    def per_cpu(self, value: int) -> Symbol | None:
        """Return the symbol whose value is *value*, an offset and no address: a per-CPU variable of the kernel's."""
        for source in self.sources:
            find = getattr(source, "per_cpu", None)
            found: Symbol | None = None if find is None else find(value)
            if found is not None:
                return found
        return None

    def _near(self, address: int) -> tuple[Symbol, int] | None:
        """Return the closest symbol less than ``distance`` bytes below *address*, whatever its size."""
        below = [getattr(source, "below", source.at)(address) for source in self._all()]
        near = [one for one in below if one is not None and one.address <= address < one.address + self.distance]
        found = max(near, key=lambda one: one.address, default=None)
        return None if found is None else (found, address - found.address)

    def _lowest(self) -> int:
        """Return an address below which no symbol lies; pointers into the direct map need not be looked up."""
        if self._private is not None and len(self._private):
            return 0
        sources, more, lowest = self._low
        if sources != self.sources or more is not self._more.found:
            # a source that does not tell may have symbols anywhere
            lowest = min((getattr(source, "lowest", int)() for source in [*self.sources, *self._more.found]), default=0)
            self._low = self.sources.copy(), self._more.found, lowest
        return lowest

    def near(self, name: str, limit: int = 3) -> list[str]:
        """Return names that look like *name*, for "did you mean"."""
        for cut in (max(len(name) - 3, 3), 3, 2):
            rough: list[str] = []
            for source in [*self.sources, *self._more.found]:
                rough += source.starting(name[:cut], 4000)
            found = near_names(name, rough, limit)
            if found:
                return found
        return []

    def starting(self, prefix: str, limit: int) -> list[str]:
        """Return at most *limit* different names that begin with *prefix*, sorted."""
        found: set[str] = set()
        for source in self._all():
            found.update(source.starting(prefix, limit))
        return sorted(found)[:limit]

    def __iter__(self) -> Iterator[Symbol]:
        for source in self._all():
            yield from source

    def __len__(self) -> int:
        return sum(len(source) for source in self._all())


class TypeIndex:
    """The types of several sources: the kernel's first, then its modules', joined when first needed."""

    def __init__(
        self, sources: Sequence[TypeSource], more: Callable[[], Iterable[tuple[TypeSource, str]]] | None = None
    ) -> None:
        self.sources: list[tuple[TypeSource, str | None]] = [(source, None) for source in sources]
        self._more: Later[tuple[TypeSource, str | None]] = Later(more)
        self._found: dict[str, CType] = {}
        self._declared: Declared | None = None
        #: sources that are asked after all others, such as the DWARF of a vmlinux: looking through them takes long
        self._last: list[TypeSource] = []
        #: whether names mean what they mean in the kernel (:mod:`kshell.types.known`)
        self.known = True
        #: of the target, in bytes
        self.pointer_size = 8
        #: what types are known to be elsewhere, and the next step
        self.missing = ""

    @property
    def declared(self) -> Declared:
        """The types that the user declares, which are looked at before all others; see :meth:`changed`."""
        if self._declared is None:
            from kshell.types.declared import Declared

            self._declared = Declared(lambda kind, name: self._in_sources(kind, name, None), self.pointer_size)
        return self._declared

    def changed(self) -> None:
        """Forget what names meant, because types were declared or forgotten."""
        self._found.clear()

    def add(self, source: TypeSource, module: str | None = None, *, last: bool = False) -> None:
        """Add a source, behind the others, or behind those of modules too (*last*)."""
        if last:
            self._last.append(source)
        else:
            self.sources.append((source, module))

    @property
    def base(self) -> TypeSource | None:
        """The first source: the kernel's own."""
        return self.sources[0][0] if self.sources else None

    def __len__(self) -> int:
        return len(self.sources) + len(self._more.found) + len(self._last)

    def renew(self) -> None:
        """Take note that other modules may be loaded by now: see :meth:`SymbolIndex.renew`."""
        self._more.renew()

    def modules(self) -> list[tuple[TypeSource, str | None]]:
        """Return the sources of modules with their names; none where the kernel's own, which they need, is missing."""
        return self._more() if self.sources else []

    def _all(self) -> Iterator[tuple[TypeSource, str | None]]:
        yield from self.sources
        yield from self.modules()
        yield from ((source, None) for source in self._last)

    def get(self, name: str) -> CType | None:
        """Return the type that *name* spells, or None."""
        try:
            return self.find(name)
        except TypeNotFoundError:
            return None

    def find(self, name: str) -> CType:
        """Return the type that *name* spells: ``struct list_head *``, ``unsigned long``, ``char [16]``, ``u64``.

        A name without ``struct``, ``union`` or ``enum`` is a typedef or base type, else forgiven as one of those tags.
        ``module`struct x`` looks in one module only.

        :raises TypeNotFoundError: no source has it, or it is not the name of a type
        """
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._parse(name)
        return found

    def _parse(self, name: str) -> CType:
        module, _, spelled = name.rpartition("`")
        if ("{" in spelled or "(" in spelled) and not module:  # struct { int a; } *, int (*)(void)
            return self.declared.type_name(spelled)
        words = _WORDS.findall(spelled) if len(spelled) <= MAX_NAME else []
        if not words:
            raise TypeNotFoundError(name)
        qualifiers = [word for word in words if word in QUALIFIERS]
        words = [word for word in words if word not in QUALIFIERS]
        end = next((i for i, word in enumerate(words) if not (word[0].isalpha() or word[0] == "_")), len(words))
        base = self._base(words[:end], module or None, name)
        for qualifier in qualifiers[:1]:
            base = QualifiedType(qualifier, base)
        return _derive(base, words[end:], name, self.pointer_size)

    def _base(self, words: list[str], module: str | None, name: str) -> CType:
        if not words:
            raise TypeNotFoundError(name)
        if words[0] in TAGS and len(words) == 2:
            found = self._named(words[0], words[1], module)
        elif words == ["void"]:
            return VoidType()
        else:
            found = None
            if "signed" in words and "char" not in words:  # which is what the others are anyway
                words = [word for word in words if word != "signed"] or ["int"]
            for spelling in SPELLINGS.get(" ".join(sorted(words)), (" ".join(words),)):
                found = found or self._named("", spelling, module)
            if found is None and len(words) == 1:
                for tag in TAGS:
                    found = found or self._named(tag, words[0], module)
        if found is None and module is None:
            found = self.declared.base(words)  # C's own types are there without a target, too
        if found is None:
            raise TypeNotFoundError(name, self.near(words))
        return found

    def _named(self, kind: str, name: str, module: str | None) -> CType | None:
        if self._declared is not None and module is None:
            found = self._declared.find(kind, name)
            if found is not None:
                return found
        return self._in_sources(kind, name, module)

    def _in_sources(self, kind: str, name: str, module: str | None) -> CType | None:
        for source, owner in self._all():
            # a module's BTF goes on where the kernel's ends: all of that is the module's too
            if module is None or module in (owner, "vmlinux") or (owner is None and self._has_module(module)):
                found = source.find(kind, name)
                if found is not None:
                    return found
        return None

    def _has_module(self, module: str) -> bool:
        return any(owner == module for _, owner in self._all())

    def near(self, words: Sequence[str]) -> list[str]:
        """Return type names that look like *words*, for "did you mean"."""
        kinds = [words[0]] if words[0] in TAGS else ["", *TAGS]
        name = words[-1]
        rough: list[str] = []
        for kind in kinds:
            rough += [f"{kind} {n}".strip() for n in self._starting(kind, name[:3], 2000)]
        return near_names(" ".join(words), rough) or near_names(f"struct {name}", rough)

    def complete(self, prefix: str, limit: int) -> list[str]:
        """Return at most *limit* type names that begin with *prefix* ("struct ta", "u6")."""
        kind, space, rest = prefix.partition(" ")
        if space and kind in TAGS:
            return [f"{kind} {name}" for name in self._starting(kind, rest.strip(), limit)]
        found = [tag for tag in TAGS if tag.startswith(prefix)]
        return (found + self._starting("", prefix, limit))[:limit]

    def _starting(self, kind: str, prefix: str, limit: int) -> list[str]:
        found = set(self._declared.starting(kind, prefix, limit) if self._declared is not None else ())
        for source, _ in [*self.sources, *self._more.found]:
            found.update(source.starting(kind, prefix, limit))
        return sorted(found)[:limit]

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield (kind, name) of every named type, declared ones first."""
        if self._declared is not None:
            yield from self._declared.names()
        for source, _ in self._all():
            yield from source.names()

    def of_symbol(self, symbol: Symbol) -> CType | None:
        """Return the type of a variable: from the shipped table of globals, or a source that tells; else None."""
        spelled = known_type(symbol.name) if self.known else None
        if spelled is None or symbol.module is not None:
            return self._variable(symbol)
        if spelled.endswith("[]"):
            element = self.get(spelled[:-2].strip())
            if element is None or not element.size:
                return None
            return ArrayType(element, symbol.size // element.size)
        return self.get(spelled)

    def _variable(self, symbol: Symbol) -> CType | None:
        last: list[tuple[TypeSource, str | None]] = [(source, None) for source in self._last]
        for source, owner in [*self.sources[:1], *last, *self.sources[1:], *self._more.found]:
            if owner in (None, symbol.module):
                found = source.variable_type(symbol.name, symbol.address)
                if found is not None:
                    return found
        return None


def _derive(base: CType, words: Sequence[str], name: str, pointer_size: int) -> CType:
    """Apply ``* ** [3] [2][4]`` to *base*.

    :raises TypeNotFoundError: something else follows the type
    """
    ctype = base
    at = 0
    while at < len(words) and words[at] == "*":
        ctype = PointerType(ctype, pointer_size)
        at += 1
    counts: list[int] = []
    while at < len(words):
        closing = at + (1 if words[at + 1 : at + 2] == ["]"] else 2)
        if words[at] != "[" or words[closing : closing + 1] != ["]"]:
            hint = f"not understood from {words[at]!r} on; only pointers and arrays may follow a type"
            raise TypeNotFoundError(name, hint=hint)
        try:
            counts.append(int(words[at + 1], 0) if closing == at + 2 else 0)
        except ValueError as error:
            raise TypeNotFoundError(name, hint=f"{words[at + 1]!r} is not a number of elements") from error
        at = closing + 1
    for count in reversed(counts):
        if count < 0 or count > 1 << 32:
            raise TypeNotFoundError(name, hint="an impossible number of elements")
        ctype = ArrayType(ctype, count)
    return ctype
