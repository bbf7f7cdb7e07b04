"""Plugins: Python files in the configuration folder, entry points of installed packages, and ``::load``.

A plugin is a module with dcmds and walkers (:mod:`kshell.api`). One that is broken is named with its reason and
skipped. Files are read from ``$XDG_CONFIG_HOME/kshell/plugins`` if the folder and the file belong to the user (or root)
and not everybody may write to them; nothing is ever read from the current directory. Entry points of the group
``kshell.plugins`` are found by looking into the ``entry_points.txt`` of what is installed, since importlib.metadata
costs 40 ms.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import NamedTuple, TypeVar

from kshell.errors import KshellError, NotFoundError, repr_name
from kshell.registry import Registry

GROUP = "kshell.plugins"
T = TypeVar("T")


class EntryPoint(NamedTuple):
    """``name = module`` in the group ``kshell.plugins`` of an installed package."""

    name: str
    module: str


def config_dir() -> Path | None:
    """Return kshell's folder of the user's configuration, existing or not; None when there is no home."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        base = base if base.is_absolute() else Path("~/.config").expanduser()
    except RuntimeError:
        return None
    return base / "kshell"


def plugin_dir() -> Path | None:
    """Return the folder of the user's plugins, existing or not; None when there is no home."""
    folder = config_dir()
    return None if folder is None else folder / "plugins"


def load_plugins(registry: Registry, complain: Callable[[str], None]) -> None:
    """Load all plugins that are found; a broken one is told to *complain* and skipped."""
    for path in _plugin_files(complain):
        if path.stem not in registry.modules:
            _guarded(str(path), partial(load_file, registry, path), complain)
    for entry in entry_points():
        if entry.name not in registry.modules:
            _guarded(entry.name, partial(load_entry, registry, entry), complain)


def _guarded(name: str, load: Callable[[], int], complain: Callable[[str], None]) -> None:
    try:
        load()
    except KshellError as error:
        complain(f"plugin {name} skipped: {error}")


def _plugin_files(complain: Callable[[str], None]) -> Iterator[Path]:
    folder = plugin_dir()
    try:
        paths = sorted(folder.glob("*.py")) if folder is not None and folder.is_dir() else []
        if paths and folder is not None and (why := unsafe(folder)):
            complain(f"plugins in {folder} skipped: the folder {why}")
            return
    except OSError as error:
        complain(f"plugins in {folder} skipped: {error.strerror}")
        return
    for path in paths:
        why = unsafe(path)
        if why:
            complain(f"plugin {path} skipped: it {why}")
        else:
            yield path


def unsafe(path: Path) -> str | None:
    """Return why *path* may hold what somebody else wrote, or None."""
    try:
        found = path.stat()
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to user {found.st_uid}"
    if found.st_mode & stat.S_IWOTH:
        return "may be written by everybody"
    return None


def entry_points() -> Iterator[EntryPoint]:
    """Yield the entry points of installed packages, without importing them or importlib.metadata."""
    seen = set()
    here = os.path.realpath(os.curdir)
    for folder in dict.fromkeys(sys.path):
        if not folder or os.path.realpath(folder) == here:
            continue
        try:
            names = [name for name in os.listdir(folder)
                     if name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for name in sorted(names):
            try:
                text = Path(folder, name, "entry_points.txt").read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if GROUP in text:
                for entry in _parse_entry_points(text):
                    if entry.name not in seen:
                        seen.add(entry.name)
                        yield entry


def _parse_entry_points(text: str) -> Iterator[EntryPoint]:
    inside = False
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            inside = line == f"[{GROUP}]"
        elif inside and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield EntryPoint(name.strip(), value.partition("[")[0].strip())


def load(registry: Registry, name: str, folders: Sequence[str] | None = None) -> int:
    """Obey ``::load``: load a file (a name with ``/``), a plugin of one of *folders*, or an installed one.

    :param folders: None: the user's folder of plugins
    :returns: how many dcmds and walkers it brought
    :raises KshellError: it cannot be found or is broken, or others may write it; says why
    """
    if "/" in name:
        return load_file(registry, Path(name).expanduser())
    own = plugin_dir()
    for folder in map(Path, folders) if folders is not None else [own] if own is not None else []:
        path = folder / f"{name.removesuffix('.py')}.py"
        if path.is_file():
            for place, what in ((folder, "its folder"), (path, "it")):
                if why := unsafe(place):
                    raise KshellError(f"plugin {path} is not loaded: {what} {why}",
                                      hint="::load with the whole path loads it all the same")
            return load_file(registry, path)
    for entry in entry_points():
        if entry.name == name:
            return load_entry(registry, entry)
    looked = f"looked in {', '.join(folders)}; " if folders else ""
    raise NotFoundError("module", name, hint=f"{looked}a plugin's name, or a path with a / in it")


def load_file(registry: Registry, path: Path) -> int:
    """Load the plugin in the file *path*. Raises as :func:`load`."""
    short = path.stem
    if not short.isidentifier():
        raise KshellError(f"{repr_name(short)} is not a name for a module")
    if short in registry.modules:
        raise KshellError(f"module {short} is already loaded")
    if not path.is_file():
        raise KshellError(f"no module {repr_name(str(path))} could be found")
    full = f"kshell_plugin_{short}"
    loader = SourceFileLoader(full, str(path.absolute()))
    spec = spec_from_loader(full, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[full] = module
    try:
        _run(lambda: loader.exec_module(module), short)
        return _run(lambda: registry.add_module(module, short), short)
    except KshellError:
        sys.modules.pop(full, None)
        raise


def load_entry(registry: Registry, entry: EntryPoint) -> int:
    """Load an installed plugin. Raises as :func:`load`."""
    module = _run(lambda: import_module(entry.module.partition(":")[0]), entry.name)
    return _run(lambda: registry.add_module(module, entry.name), entry.name)


def _run(call: Callable[[], T], name: str) -> T:
    """Run a plugin's code; whatever it raises becomes an error that names it."""
    try:
        return call()
    except KshellError:
        raise
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise KshellError(f"module {name} failed to initialize: {what}{_place(error, name)}") from error


def _place(error: BaseException, name: str) -> str:
    """Return " (line 3)": where in the plugin it went wrong."""
    if isinstance(error, SyntaxError):
        return ""
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).stem == name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""
