"""``::help``, ``::dcmds``, ``::walkers``, ``::dmods``, ``::which``, ``::load``, ``::unload``: what there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated

from kshell.api import (
    Column,
    Dcmd,
    FileName,
    Flag,
    ModuleName,
    Note,
    NotFoundError,
    Output,
    Row,
    Session,
    Table,
    Text,
    UsageError,
    Warn,
    Word,
    dcmd,
    load_module,
)

#: the verbs: summary, synopsis, description
VERBS = {
    "/": ("Show virtual memory in a format, write or search it",
          "[address][,count]/format ...", "/W value ... writes 4 bytes (v w Z: 1, 2, 8), /L value [mask] searches\n"
          "  for 4 bytes (l M: 2, 8), /40 is a hex dump of 40 (decimal) bytes. ::formats lists the letters."),
    "\\": ("Show physical memory in a format, write or search it", "[address][,count]\\format ...", "As /."),
    "@": ("Show physical memory in a format", "[address][,count]@format ...", "As \\, which is awkward in shells."),
    "?": ("Show the object file in a format", "[address][,count]?format ...",
          "As /, at the place of the file that the virtual address corresponds to."),
    "=": ("Show dot itself in a format", "[address][,count]=format ...", "::formats lists the letters."),
    ">": ("Set a variable to dot", "[value]>name  [value]>/modifier/name",
          "The modifiers c s i l keep the low 1, 2, 4, 8 bytes. <name is the value; ::vars lists all."),
}
LISTING = (Column("NAME", 24), Column("SUMMARY"))
OVERVIEW = """\
  ADDR::dcmd [options] [words]   run a dcmd; ::dcmds lists them, ::help NAME explains one
  dcmd | dcmd                    pass addresses on: ::ps | ::print comm
  ADDR/x  ADDR/40  ADDR\\x        show virtual memory in a format (::formats), as a hex dump; physical memory
  ADDR/W 5                       write 4 bytes; EXPR=X shows a number
  ::walk NAME                    walk a structure; ::walkers lists them
  dcmd ! command                 into a shell command
Numbers are hexadecimal without a prefix (0t12 is decimal); process ids in arguments are decimal, as they are printed.
::status tells what is being looked at, ::getu PID chooses the process that user addresses mean, ::quit leaves."""


@dcmd("help", group="Help")
def help_(session: Session, name: Annotated[str | None, Word("name", "a dcmd or walker")]) -> Iterator[Output]:
    """Explain a dcmd or walker, or give an overview.

    Examples:
      ::help ps
      ::help
    """
    if name is None:
        yield from _overview(session)
        return
    bare = name.removeprefix("::")
    if bare in VERBS:
        summary, synopsis, description = VERBS[bare]
        yield Text(f"NAME\n  {bare} - {summary}\n\nSYNOPSIS\n  {synopsis}\n\nDESCRIPTION\n  {description}", prose=True)
        return
    try:
        found = session.registry.find_dcmd(bare)
    except NotFoundError as error:
        try:
            walker = session.registry.find_walker(bare)
        except NotFoundError:
            raise error from None
        lead = {"required": "addr::", "optional": "[addr]::", "refused": "::"}[walker.address]
        yield Text(f"NAME\n  {walker.name} - {walker.summary}\n\nSYNOPSIS\n  {lead}walk {walker.name}\n", prose=True)
        yield from _text(walker.function.__doc__)
        yield Text(f"ATTRIBUTES\n  Module: {walker.module}\n  Yields: {walker.yields or 'addresses'}")
        return
    yield from _explain(found)


def _overview(session: Session) -> Iterator[Output]:
    yield Text(OVERVIEW + "\n", prose=True)
    groups: dict[str, list[str]] = {}
    for entry in session.registry.dcmds():
        if not entry.alias:
            groups.setdefault(entry.module, []).append(entry.name)
    for module in sorted(groups):
        names = " ".join(f"::{name}" if name[:1] not in "$:" else name for name in groups[module])
        yield Text(f"  {module:<12}  {names}", prose=True)


def _explain(found: Dcmd) -> Iterator[Output]:
    names = ", ".join(f"::{name}" if name[:1] not in "$:" else name for name in found.aliases)
    yield Text(f"NAME\n  {found.name} - {found.summary}\n\nSYNOPSIS\n  {found.usage}\n", prose=True)
    yield from _text(found.function.__doc__)
    options = [p for p in found.parameters if p.role in ("flag", "option") or (p.role == "word" and p.help)]
    if options:
        yield Text("OPTIONS")
        for parameter in options:
            word = f"-{parameter.letter}" if parameter.letter else parameter.metavar
            if parameter.role == "option":
                word += f" {parameter.metavar}"
            yield Text(f"  {word:<14}  {parameter.help}", prose=True)
        yield Text("")
    yield Text("ATTRIBUTES\n  Module: " + found.module + (f"\n  Also:   {names}" if names else ""))


def _text(doc: str | None) -> Iterator[Output]:
    """Yield DESCRIPTION and EXAMPLES of a docstring."""
    from inspect import cleandoc

    body = cleandoc(doc or "")
    description, _, examples = body.partition("\nExamples:\n")
    yield Text("DESCRIPTION\n" + "\n".join(f"  {line}".rstrip() for line in description.strip().splitlines()) + "\n",
               prose=True)
    if examples:
        yield Text("EXAMPLES\n" + "\n".join(f"  {line.strip()}" for line in examples.splitlines()) + "\n")


def _matcher(name_only: bool, pattern: str | None) -> Callable[[str, str], bool]:
    try:
        search = re.compile(pattern or "", re.IGNORECASE).search
    except re.error as error:
        raise UsageError(f"{pattern}: {error}") from None
    return lambda name, summary: bool(search(name) or (not name_only and search(summary)))


NameOnly = Annotated[bool, Flag("-n", "look at names only")]
Pattern = Annotated[str | None, Word("pattern", "a regular expression, in names and descriptions")]


@dcmd("dcmds", columns=LISTING, group="Help")
def dcmds(session: Session, name_only: NameOnly, pattern: Pattern) -> Iterator[Output]:
    """List the dcmds with what they do.

    Examples:
      ::dcmds
      ::dcmds memory
    """
    wanted = _matcher(name_only, pattern)
    yield Table(LISTING, joint=" - ", header=False)
    for entry in session.registry.dcmds():
        if wanted(entry.name, entry.summary):
            yield Row(None, (entry.name, entry.summary))


@dcmd("walkers", columns=LISTING, group="Help")
def walkers(session: Session, name_only: NameOnly, pattern: Pattern) -> Iterator[Output]:
    """List the walkers with what they walk.

    Examples:
      ::walkers
      ::walkers -n list
    """
    wanted = _matcher(name_only, pattern)
    yield Table(LISTING, joint=" - ", header=False)
    for entry in session.registry.walkers():
        if wanted(entry.name, entry.summary):
            yield Row(None, (entry.name, entry.summary))


@dcmd("dmods", group="Help")
def dmods(
    session: Session, long: Annotated[bool, Flag("-l", "with their dcmds and walkers")], name: ModuleName | None,
) -> Iterator[Output]:
    """List the modules that dcmds and walkers come from, plugins too.

    Examples:
      ::dmods
      ::dmods -l slab
    """
    entries = [("dcmd", entry) for entry in session.registry.dcmds()]
    entries += [("walk", entry) for entry in session.registry.walkers()]
    modules = sorted(set(session.registry.modules) | {entry.module for _, entry in entries})
    if name is not None:
        if name not in modules:
            raise NotFoundError("module", name, hint="::dmods lists them")
        modules = [name]
    for module in modules:
        yield Text(module)
        for word, entry in entries if long else ():
            if entry.module == module:
                yield Text(f"  {word} {entry.name:<20} - {entry.summary}")


@dcmd("which", aliases=("whence",), group="Help")
def which(
    session: Session, verbose: Annotated[bool, Flag("-v", "all that have the name, the first one is run")],
    names: Annotated[list[str], Word("name")],
) -> Iterator[Output]:
    """Say which module a dcmd or walker comes from.

    Examples:
      ::which ps
      ::which -v list
      ::which kmem_cache
    """
    if not names:
        raise UsageError("name is missing")
    entries = [("dcmd", entry) for entry in session.registry.dcmds()]
    entries += [("walker", entry) for entry in session.registry.walkers()]
    for name in names:
        if name in VERBS:
            yield Text(f"{name} is a built-in dcmd")
            continue
        found = [(word, entry) for word, entry in entries if entry.name == name.removeprefix("::")]
        for kind in ("dcmd", "walker"):
            same = [entry for word, entry in found if word == kind]
            for entry in same[:1]:
                yield Text(f"{entry.name} is a {kind} from module {entry.module}")
            for at, entry in enumerate(same if verbose else (), 1):
                yield Text(f"  [{at}] {entry.module}`{entry.name}")
        if not found:
            yield Warn(f"{name} not found")


@dcmd("load", group="Help")
def load(session: Session, name: FileName) -> Iterator[Output]:
    """Load a plugin: a name, or a path with a / in it.

    A plugin is a Python file with dcmds and walkers (docs/plugins.md). It runs with all rights of kshell. A name is
    looked for in the folders of ::set -L, the user's folder of plugins without one, and among installed packages.
    A dcmd whose name another module has already is called with its module in front: ::mine`ps.

    Examples:
      ::load mine
      ::load /usr/local/share/kshell/mine.py
    """
    before = set(session.registry.modules)
    count = load_module(session.registry, name, session.options.module_path)
    yield Text(f"{name}: {count} dcmds and walkers")
    first: dict[str, str] = {}
    for entry in session.registry.dcmds():
        module = first.setdefault(entry.name, entry.module)
        if entry.module not in before and module != entry.module:
            yield Note(f"::{entry.name} is still that of {module}; this one is ::{entry.module}`{entry.name}")


@dcmd("unload", group="Help")
def unload(session: Session, name: ModuleName) -> Iterator[Output]:
    """Forget the dcmds and walkers of a plugin.

    Examples:
      ::unload mine
    """
    session.registry.remove_module(name)
    yield Text(f"{name} unloaded")
