"""Dcmds and walkers: how they are declared, and the registry that finds them by name.

A module with dcmds holds :class:`Dcmd` and :class:`Walker` values made by the decorators; nothing happens on import.
The dcmds that come with kshell are found through generated tables (``commands/_index.py``, ``plugins/_index.py``, made
by ``python -m kshell.index``), so that starting imports no command. Names of dcmds are kept without the ``::``; the
punctuation names (``$c``, ``:c``) with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.arguments import Parameter, parameters
from kshell.binding import usage
from kshell.errors import KshellError, NotFoundError
from kshell.output import Column

if TYPE_CHECKING:
    from types import ModuleType

    from kshell.session import Session

#: The version of :mod:`kshell.api`. A plugin that says it needs a newer one (``API_VERSION = n``) is refused.
API_VERSION = 1

#: a bare name may hold none of these
_METACHARACTERS = frozenset(" \t\n#%^&*-+=,:$/\\?<>;|!`'\"[](){}")


class _Declared:
    """What a dcmd and a walker have in common."""

    def __init__(self, function: Callable[..., Any], name: str, yields: str | None) -> None:
        self.function, self.name, self.yields = function, name, yields
        self.module = function.__module__.rpartition(".")[2]

    @property
    def summary(self) -> str:
        """The first line of the docstring, which ``::dcmds``, ``::walkers`` and ``::help`` show."""
        return (self.function.__doc__ or "").strip().partition("\n")[0].rstrip(".")

    @property
    def address(self) -> str:
        """Whether it takes an address: "required", "optional" or "refused"."""
        names = self.function.__code__.co_varnames[: self.function.__code__.co_argcount]
        if "address" not in names:
            return "refused"
        if self.function.__defaults__ and "address" in names[-len(self.function.__defaults__):]:
            return "optional"
        return "optional" if "None" in str(self.function.__annotations__.get("address", "")) else "required"

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.module}`{self.name}>"


class Dcmd(_Declared):
    """A debugger command.

    :ivar function: ``function(session, **parameters)``, returning None, an output or an iterable of outputs
    :ivar columns: of the rows it yields
    :ivar yields: the C type behind the values of its rows
    :ivar module: the short name of the module that has it, for ``module`name``
    """

    def __init__(
        self, function: Callable[..., Any], name: str, *, columns: Sequence[Column] = (), yields: str | None = None,
        aliases: Sequence[str] = (), group: str = "",
    ) -> None:
        super().__init__(function, name, yields)
        self.columns, self.aliases, self.group = tuple(columns), tuple(aliases), group
        self._parameters: tuple[Parameter, ...] | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it takes; its annotations are looked at when this is first asked."""
        if self._parameters is None:
            self._parameters = parameters(self.function)
        return self._parameters

    @property
    def verb(self) -> str:
        """How it is called: ``::ps``, ``$c``."""
        return self.name if self.name[:1] in "$:" else "::" + self.name

    @property
    def usage(self) -> str:
        """One line: ``[address]::ps [-T] [pid ...]``."""
        return usage(self.parameters, self.verb)


class Walker(_Declared):
    """An iterator over a data structure: ``function(session, address)`` yields addresses or Items.

    :ivar yields: the C type of the objects at the addresses
    :ivar family: serves names that depend on the target, such as those of slab caches: ``family(session, name)``
        returns the address to walk from, or None when it does not know the name
    """

    def __init__(
        self, function: Callable[..., Any], name: str, *, yields: str | None = None,
        family: Callable[[Session, str], int | None] | None = None,
    ) -> None:
        super().__init__(function, name, yields)
        self.family = family


def dcmd(
    name: str, *, columns: Sequence[Column] = (), yields: str | None = None, aliases: Sequence[str] = (),
    group: str = "",
) -> Callable[[Callable[..., Any]], Dcmd]:
    """Declare the function below as the dcmd *name* (without ``::``; ``$c`` and ``:c`` with their punctuation).

    :param columns: of the rows it yields
    :param yields: the C type of the objects whose addresses its rows and items carry
    :param aliases: other names
    :param group: the heading under which ``::help`` lists it
    """
    for word in (name, *aliases):
        _check_name(word)
    return lambda function: Dcmd(
        function, name, columns=columns, yields=yields, aliases=aliases, group=group)


def walker(
    name: str, *, yields: str | None = None, family: Callable[[Session, str], int | None] | None = None,
) -> Callable[[Callable[..., Any]], Walker]:
    """Declare the function below as the walker *name*; *yields* is the C type of what it finds, *family* serves others.

    See :class:`Walker`.
    """
    _check_name(name)
    return lambda function: Walker(function, name, yields=yields, family=family)


def _check_name(name: str) -> None:
    bare = name[1:] if name == "$<<" or (name[:1] in "$:" and len(name) == 2) else name
    if not bare or len(bare) > 30 or (bare == name and _METACHARACTERS & set(bare)):
        raise ValueError(f"not a name for a dcmd or a walker: {name!r}")


class Entry(NamedTuple):
    """A dcmd or walker that is known by name; ``found`` is the thing itself once its module has been imported.

    :ivar path: the module to import, as ``import`` names it
    :ivar alias: it is another name of the dcmd
    """

    name: str
    module: str
    path: str
    summary: str
    address: str
    alias: bool
    found: Dcmd | Walker | None


class Registry:
    """The dcmds and walkers of a session. The first one of a name wins; others are reached as ``module`name``."""

    def __init__(self) -> None:
        self._dcmds: dict[str, list[Entry]] = {}
        self._walkers: dict[str, list[Entry]] = {}
        self._families: list[str] = []
        self._pending: list[Callable[[], None]] = []
        self.modules: dict[str, ModuleType | None] = {}

    # -- filling ------------------------------------------------------------------------------------------------------

    def add_index(
        self, package: str, dcmds: Mapping[str, Sequence[Any]], walkers: Mapping[str, Sequence[Any]],
        families: Sequence[str] = (),
    ) -> None:
        """Add what a generated index lists: name -> (module, summary, address, alias)."""
        self._families += families
        for table, names in ((self._dcmds, dcmds), (self._walkers, walkers)):
            for name, (module, summary, address, alias) in names.items():
                entry = Entry(name, module, f"{package}.{module}", summary, address, alias, None)
                table.setdefault(name, []).append(entry)
                self.modules.setdefault(module, None)

    def add_module(self, module: ModuleType, name: str | None = None) -> int:
        """Add the dcmds and walkers that *module* defines; return how many.

        :param name: its short name, for ``module`name``
        :raises KshellError: it needs a newer API, has one name twice, or the name of a module that is loaded
        """
        short = name or module.__name__.rpartition(".")[2]
        if short in self.modules:
            raise KshellError(f"module {short} is already loaded")
        wanted = getattr(module, "API_VERSION", API_VERSION)
        if not isinstance(wanted, int) or wanted > API_VERSION:
            raise KshellError(f"module {short} requires kshell API version {wanted}, this is {API_VERSION}")
        dcmds: dict[str, Entry] = {}
        walkers: dict[str, Entry] = {}
        for thing in vars(module).values():
            if not isinstance(thing, Dcmd | Walker) or thing.function.__module__ != module.__name__:
                continue
            table = dcmds if isinstance(thing, Dcmd) else walkers
            thing.module = short
            if isinstance(thing, Dcmd):
                _ = thing.parameters  # annotations that mean nothing are found now, not when the dcmd is first called
            for alias in (thing.name, *(thing.aliases if isinstance(thing, Dcmd) else ())):
                if alias in table:
                    raise KshellError(f"module {short} defines {alias!r} twice")
                table[alias] = Entry(
                    alias, short, module.__name__, thing.summary, thing.address, alias != thing.name, thing)
        for entry in dcmds.values():
            self._dcmds.setdefault(entry.name, []).append(entry)
        for entry in walkers.values():
            self._walkers.setdefault(entry.name, []).append(entry)
            if isinstance(entry.found, Walker) and entry.found.family is not None:
                self._families.append(f"{short}`{entry.name}")
        self.modules[short] = module
        return len(dcmds) + len(walkers)

    def add_pending(self, fill: Callable[[], None]) -> None:
        """Call *fill* when a name is not found, or when all names are wanted: plugins that are costly to find."""
        self._pending.append(fill)

    def remove_module(self, name: str) -> None:
        """Forget the dcmds and walkers of the module *name*; others of the same names take over."""
        if name not in self.modules:
            raise NotFoundError("module", name)
        module = self.modules[name]
        if module is None or module.__name__.startswith(("kshell.commands.", "kshell.plugins.")):
            raise KshellError(f"cannot unload built-in module {name}")
        for table in (self._dcmds, self._walkers):
            for key in list(table):
                table[key] = [entry for entry in table[key] if entry.module != name]
                if not table[key]:
                    del table[key]
        del self.modules[name]
        sys.modules.pop(module.__name__, None)

    def _settle(self) -> None:
        pending, self._pending = self._pending, []
        for fill in pending:
            fill()

    # -- finding ------------------------------------------------------------------------------------------------------

    def _entries(self, table: dict[str, list[Entry]], name: str) -> list[Entry]:
        scope, tick, bare = name.rpartition("`")
        found = table.get(bare if tick else name, [])
        if tick:
            found = [entry for entry in found if entry.module == scope]
        if not found and self._pending:
            self._settle()
            return self._entries(table, name)
        return found

    def has_dcmd(self, name: str) -> bool:
        """Whether *name* (perhaps ``module`name``) is a dcmd."""
        return bool(self._entries(self._dcmds, name))

    def find_dcmds(self, name: str) -> list[Dcmd]:
        """Return the dcmds of this name in the order in which they are asked.

        :raises NotFoundError: there is none; carries names that are near
        """
        found = [self._load(self._dcmds, entry) for entry in self._entries(self._dcmds, name)]
        if not found:
            raise self._unknown("dcmd", name, self._dcmds)
        return [thing for thing in found if isinstance(thing, Dcmd)]

    def find_dcmd(self, name: str) -> Dcmd:
        """Return the first dcmd of this name. Raises as :meth:`find_dcmds`."""
        return self.find_dcmds(name)[0]

    def find_walker(self, name: str) -> Walker:
        """Return the walker *name*. Raises as :meth:`find_dcmds`."""
        entries = self._entries(self._walkers, name)
        if not entries:
            raise self._unknown("walker", name, self._walkers)
        thing = self._load(self._walkers, entries[0])
        assert isinstance(thing, Walker)
        return thing

    def families(self) -> Iterator[Walker]:
        """Yield the walkers that serve names of the target's own."""
        for name in self._families:
            if self._entries(self._walkers, name):
                yield self.find_walker(name)

    def _unknown(self, kind: str, name: str, table: dict[str, list[Entry]]) -> NotFoundError:
        from kshell.types.model import near_names

        scope, tick, bare = name.rpartition("`")
        if tick and scope not in self.modules:
            return NotFoundError("loaded module", scope, near_names(scope, list(self.modules)))
        what = "failed to perform walk: unknown walk name" if kind == "walker" else None
        near = near_names(bare if tick else name, list(table))
        return NotFoundError(kind, name, near, what=what, hint=None if near else f"::{kind}s lists them")

    def _load(self, table: dict[str, list[Entry]], entry: Entry) -> Dcmd | Walker:
        if entry.found is not None:
            return entry.found
        import importlib

        module = importlib.import_module(entry.path)
        self.modules[entry.module] = module
        wanted = Walker if table is self._walkers else Dcmd
        for thing in vars(module).values():
            if not isinstance(thing, wanted):
                continue
            if entry.name == thing.name or (isinstance(thing, Dcmd) and entry.name in thing.aliases):
                assert isinstance(thing, Dcmd | Walker)
                # In one step: completion and the status line may load the same one in threads of their own.
                table[entry.name] = [one._replace(found=thing) if one == entry else one for one in table[entry.name]]
                return thing
        raise KshellError(f"{entry.path} has no {entry.name}", hint="python -m kshell.index makes the table anew")

    def dcmds(self) -> Iterator[Entry]:
        """Yield every dcmd, sorted by name; one that is hidden behind another of the same name too."""
        self._settle()
        for name in sorted(self._dcmds):
            yield from self._dcmds[name]

    def walkers(self) -> Iterator[Entry]:
        """Yield every walker, sorted by name."""
        self._settle()
        for name in sorted(self._walkers):
            yield from self._walkers[name]
