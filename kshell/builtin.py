"""The registry that a session starts with: what comes with kshell, by its generated tables, and plugins when needed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from kshell.registry import Registry

#: the packages of dcmds that come with kshell; each has an ``_index`` made by :mod:`kshell.index`
PACKAGES = ("kshell.commands", "kshell.plugins")


def make_registry(complain: Callable[[str], None], *, plugins: bool = True) -> Registry:
    """Return a registry with what comes with kshell and, with *plugins*, the user's and installed plugins.

    Plugins are looked for when a name is not found among the built-in ones, or all are listed.

    :param complain: told of each plugin that is broken
    """
    registry = Registry()
    for package in PACKAGES:
        index = import_module(package + "._index")
        registry.add_index(package, index.DCMDS, index.WALKERS, index.FAMILIES)
    if plugins:
        def load() -> None:
            from kshell.loader import load_plugins

            load_plugins(registry, complain)

        registry.add_pending(load)
    return registry
