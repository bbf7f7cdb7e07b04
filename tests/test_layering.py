"""The storeys of docs/architecture.md: imports go down only; dcmds know the API and the kernel, and never print."""

from __future__ import annotations

import ast
import configparser
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: prefix of a module -> its storey; the longest prefix counts
STOREYS = {
    "kshell": 1, "kshell.errors": 1, "kshell.escape": 1, "kshell.demangle": 1, "kshell.builddate": 1,
    "kshell.lang": 2, "kshell.memory": 2, "kshell.types": 2, "kshell.arch": 2, "kshell.cache": 2,
    "kshell.memory.": 3, "kshell.memory.model": 2, "kshell.types.": 3, "kshell.types.model": 2, "kshell.unwind": 3,
    "kshell.target": 4, "kshell.value": 4,
    "kshell.linux": 5, "kshell.kvm": 5,
    "kshell.session": 6, "kshell.variables": 6, "kshell.arguments": 6, "kshell.binding": 6, "kshell.registry": 6,
    "kshell.pipeline": 6, "kshell.stages": 6, "kshell.shellpipe": 6, "kshell.verbs": 6, "kshell.evaluate": 6,
    "kshell.formatverb": 6, "kshell.rounds": 6, "kshell.screens": 6, "kshell.hexdump": 6,
    "kshell.page": 6, "kshell.partial": 6, "kshell.printer": 6,
    "kshell.output": 6, "kshell.watching": 6, "kshell.journal": 6,
    "kshell.batches": 6, "kshell.render": 6, "kshell.wrap": 6, "kshell.console": 6, "kshell.bugs": 6,
    "kshell.foreign": 6,
    "kshell.builtin": 6, "kshell.execution": 6, "kshell.options": 6, "kshell.events": 6, "kshell.running": 6,
    "kshell.stepping": 6,
    "kshell.loader": 6, "kshell.scripts": 6, "kshell.searchpath": 6, "kshell.index": 6, "kshell.instructions": 6,
    "kshell.api": 7,
    "kshell.commands": 8, "kshell.plugins": 8,
    "kshell.shell": 9, "kshell.__main__": 9, "kshell.docgen": 9,
}
#: third-party libraries that a file may import at its top
SHELL_LIBRARIES = {"click", "prompt_toolkit", "pygments"}
#: the storey that knows them
COMMAND_LINE = ("kshell.shell", "kshell.__main__", "kshell.docgen")
#: files that are imported inside functions only, and the library for which they exist
LATE = {"kshell.target.bulk": {"numpy"}, "kshell.unwind.many": {"numpy"}}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield (dotted name, file) of everything that is installed."""
    for folder in ("kshell", "commands", "plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if folder == "kshell" and parts[1] in ("commands", "plugins"):
                continue  # the links of the checkout
            if folder != "kshell":
                parts = ("kshell", *parts)
            yield ".".join(part for part in parts if part != "__init__"), path


def storey(name: str) -> int:
    best = max((prefix for prefix in STOREYS if (name + ".").startswith(prefix.rstrip(".") + ".")),
               key=lambda prefix: len(prefix.rstrip(".")))
    inner = best.rstrip(".") + "."
    return STOREYS[inner if inner in STOREYS and name != best else best]


def imports(tree: ast.AST, *, top: bool = False) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of the imports that run; those under TYPE_CHECKING do not.

    :param top: only those that run when the module is imported
    """
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module, node.lineno
            if node.module in ("kshell", "kshell.linux", "kshell.memory", "kshell.types", "kshell.lang"):
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif not (top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            todo += ast.iter_child_nodes(node)


FILES = list(modules())


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("name, path", FILES, ids=[name for name, _ in FILES])
def test_imports_go_down(name: str, path: Path) -> None:
    if name == "kshell":
        return
    for imported, line in imports(parsed(path)):
        if imported.split(".")[0] != "kshell" or imported == "kshell":
            continue
        assert storey(imported) <= storey(name), f"{path}:{line}: {name} is below {imported}"


@pytest.mark.parametrize("name, path", FILES, ids=[name for name, _ in FILES])
def test_libraries_are_imported_when_needed(name: str, path: Path) -> None:
    if path.name.startswith("_") and path.name not in ("__init__.py", "__main__.py"):
        return
    allowed = SHELL_LIBRARIES if name.startswith(COMMAND_LINE) else set()
    if name in LATE:
        allowed = LATE[name]
    for imported, line in imports(parsed(path), top=True):
        library = imported.split(".")[0]
        assert imported not in LATE or name in LATE, f"{path}:{line}: {imported} is for imports inside functions"
        if library != "kshell" and library not in sys.stdlib_module_names:
            assert library in allowed, f"{path}:{line}: {library} at the top"
    if not name.startswith(COMMAND_LINE):
        used = {imported.split(".")[0] for imported, _ in imports(parsed(path))}
        assert not used & SHELL_LIBRARIES, f"{path}: {used & SHELL_LIBRARIES} is the shell's"


DCMD_FILES = [(name, path) for name, path in FILES if name.startswith(("kshell.commands.", "kshell.plugins."))
              and not path.name.startswith("_")]


@pytest.mark.parametrize("name, path", DCMD_FILES, ids=[name for name, _ in DCMD_FILES])
def test_dcmds_import_the_api_and_never_print(name: str, path: Path) -> None:
    tree = parsed(path)
    for imported, line in imports(tree):
        if imported.split(".")[0] == "kshell":
            good = imported in ("kshell", "kshell.__version__", "kshell.api")
            good |= (imported + ".").startswith("kshell.linux.")
            assert good, f"{path}:{line}: {imported}; dcmds import kshell.api and kshell.linux"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path}:{node.lineno}: a dcmd yields, it never prints"
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("stdout", "stderr") or not (
                isinstance(node.value, ast.Name) and node.value.id == "sys"), f"{path}:{node.lineno}: sys.{node.attr}"


def test_every_module_has_a_storey_of_its_own_choice() -> None:
    top = {name.split(".")[1] for name, _ in FILES if "." in name}
    unknown = {name for name in top if f"kshell.{name}" not in STOREYS}
    assert not unknown, "add them to STOREYS, with thought"


def test_files_are_small() -> None:
    long = {str(path): lines for _, path in FILES if (lines := path.read_text("utf-8").count("\n")) > 500}
    assert not long


def test_the_package_list_is_the_folders() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    there = {name for name, path in FILES if path.name == "__init__.py"}
    assert listed == there
