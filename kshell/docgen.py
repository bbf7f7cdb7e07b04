"""The pages made from the registry and the command line: ``python -m kshell.docgen`` writes, ``--check`` compares.

``docs/commands.md`` has every dcmd and walker, ``docs/man.md`` is the source of kshell(1). Neither is edited by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from pathlib import Path

from kshell.builtin import make_registry
from kshell.registry import Dcmd, Registry, Walker

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- Made by python -m kshell.docgen; do not edit. -->\n"


def _body(function: object) -> Iterator[str]:
    """Yield a docstring as Markdown: its paragraphs, and its examples as a block."""
    description, _, examples = cleandoc(function.__doc__ or "").partition("\nExamples:\n")
    for paragraph in description.strip().split("\n\n"):
        lines = paragraph.splitlines()
        if all(line.startswith("  ") for line in lines):
            yield from ("```text", *lines, "```", "")
        else:
            yield from (paragraph.replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*"), "")
    if examples:
        yield from ("```text", *(f"> {line.strip()}" for line in examples.splitlines() if line.strip()), "```", "")


def _verb(name: str) -> str:
    return name if name[:1] in "$:>/\\?@=" else f"::{name}"


def _dcmd(found: Dcmd) -> Iterator[str]:
    yield from (f"### `{_verb(found.name)}`", "", "```text", found.usage, "```", "")
    yield from _body(found.function)
    options = [p for p in found.parameters if p.role in ("flag", "option") or (p.role == "word" and p.help)]
    if options:
        yield from ("| | |", "|---|---|")
        for parameter in options:
            word = f"-{parameter.letter}" if parameter.letter else parameter.metavar
            word += f" {parameter.metavar}" if parameter.role == "option" else ""
            yield f"| `{word}` | {parameter.help.replace('|', chr(92) + '|')} |"
        yield ""
    if found.aliases:
        yield from (f"Also: {', '.join(f'`{_verb(name)}`' for name in found.aliases)}.", "")


def commands_page(registry: Registry) -> str:
    """Return the page of all dcmds and walkers."""
    groups: dict[str, list[Dcmd]] = {}
    for entry in registry.dcmds():
        if not entry.alias:
            found = registry.find_dcmd(entry.name)
            groups.setdefault(found.group or "Others", []).append(found)
    lines = [MADE, "# Dcmds and walkers", ""]
    for group in sorted(groups):
        lines += [f"## {group}", ""]
        for found in sorted(groups[group], key=lambda item: item.name):
            lines += _dcmd(found)
    lines += ["## Walkers", ""]
    for entry in registry.walkers():
        walker: Walker = registry.find_walker(entry.name)
        lead = {"required": "addr", "optional": "[addr]", "refused": ""}[walker.address]
        lines += [f"### `{walker.name}`", "", "```text", f"{lead}::walk {walker.name}", "```", ""]
        lines += _body(walker.function)
    return "\n".join(lines).rstrip() + "\n"


def man_page(registry: Registry) -> str:
    """Return the source of kshell(1)."""
    import click

    from kshell.__main__ import _EPILOG, cli

    context = click.Context(cli, info_name="kshell")
    usage = cli.get_usage(context).removeprefix("Usage: ")
    lines = [MADE, "# kshell", "", "## Synopsis", "", "```text", usage, "```", ""]
    lines += ["## Description", "", *cleandoc(cli.help or "").splitlines(), "", "## Options", ""]
    for parameter in cli.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            lines += [f"`{record[0]}`", f": {record[1]}", ""]
    examples = [line for line in _EPILOG.splitlines() if line.startswith("  ")]
    lines += ["## Examples", "", "```text", *examples, "```", "", "## Commands", ""]
    for entry in registry.dcmds():
        if not entry.alias:
            lines += [f"`{_verb(entry.name)}`", f": {entry.summary}", ""]
    for title, text in (("Exit status", EXIT_STATUS), ("Files", FILES)):
        lines += [f"## {title}", "", *cleandoc(text).splitlines(), ""]
    return "\n".join(lines).rstrip() + "\n"


EXIT_STATUS = """
0 after a normal end, also of a script on standard input with errors in it, as in mdb. 1 when the target cannot be
opened, or, with `-e` or `-f`, after a parse error or when the last dcmd failed; with `--stop-on-error` after any
failure. 2 after wrong usage, 130 when interrupted. A reader that went away (`| head`) is no error.
"""
FILES = """
`$XDG_CONFIG_HOME/kshell/plugins/*.py` are loaded as plugins. `$XDG_STATE_HOME/kshell/` has the history and the trace of
the last internal error. `$XDG_CACHE_HOME/kshell/index/` keeps indexes of symbols and types; it may be deleted at any
time, and `KSHELL_CACHE=off` does without it. Nothing is read from the current directory.
"""


def main(arguments: Sequence[str]) -> int:
    """Write the pages; with ``--check`` compare only, and return 1 when one differs."""
    registry = make_registry(lambda text: None, plugins=False)
    stale = 0
    for path, text in ((DOCS / "commands.md", commands_page(registry)), (DOCS / "man.md", man_page(registry))):
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        print(f"{path}: {'out of date; run python -m kshell.docgen' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            path.write_text(text)
    return int(stale > 0 and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
