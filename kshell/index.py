"""The tables of dcmds and walkers that start-up reads instead of importing them: ``python -m kshell.index``.

Writes ``commands/_index.py`` and ``plugins/_index.py``; with ``--check`` writes nothing and fails when one is stale.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from kshell.builtin import PACKAGES
from kshell.registry import Dcmd, Walker

_HEAD = '''"""Which module has which dcmd and walker. Made by ``python -m kshell.index``; do not edit.

name -> (module, summary, address: required, optional or refused, whether the name is an alias)
"""

# ruff: noqa: E501

'''


def make_index(package: ModuleType) -> str:
    """Return the text of the index of *package*; imports all its modules.

    :raises KshellError: a name is there twice, or a dcmd has no summary
    """
    dcmds: dict[str, tuple[str, str, str, bool]] = {}
    walkers: dict[str, tuple[str, str, str, bool]] = {}
    families: list[str] = []
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for thing in vars(module).values():
            if not isinstance(thing, Dcmd | Walker) or thing.function.__module__ != module.__name__:
                continue
            table = dcmds if isinstance(thing, Dcmd) else walkers
            if not thing.summary:
                raise SystemExit(f"{thing!r} has no docstring")
            for name in (thing.name, *(thing.aliases if isinstance(thing, Dcmd) else ())):
                if name in table:
                    raise SystemExit(f"{thing!r}: {table[name][0]} has a {name} already")
                table[name] = (info.name, thing.summary, thing.address, name != thing.name)
            if isinstance(thing, Dcmd):
                _ = thing.parameters
            elif thing.family is not None:
                families.append(f"{info.name}`{thing.name}")
    tables = "\n\n".join(_table(name, table) for name, table in (("DCMDS", dcmds), ("WALKERS", walkers)))
    named = "".join(f"{_quoted(name)}, " for name in sorted(families)).rstrip()
    return f"{_HEAD}{tables}\n#: walkers that serve names of the target's own\nFAMILIES: tuple[str, ...] = ({named})\n"


def _table(name: str, table: dict[str, tuple[str, str, str, bool]]) -> str:
    lines = [f"    {_quoted(key)}: ({', '.join(map(_quoted, table[key]))}),\n" for key in sorted(table)]
    return f"{name}: dict[str, tuple[str, str, str, bool]] = {{" + ("\n" + "".join(lines) if lines else "") + "}\n"


def _quoted(thing: object) -> str:
    if not isinstance(thing, str):
        return repr(thing)
    return '"' + thing.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main(arguments: Sequence[str]) -> int:
    """Write the indexes; with ``--check`` compare only, and return 1 when one differs."""
    stale = 0
    for name in PACKAGES:
        package = importlib.import_module(name)
        path = Path(package.__path__[0]) / "_index.py"
        text = make_index(package)
        if not path.exists() or path.read_text() != text:
            stale += 1
            print(f"{path}: {'out of date' if '--check' in arguments else 'written'}")
            if "--check" not in arguments:
                path.write_text(text)
    return int(stale > 0 and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
