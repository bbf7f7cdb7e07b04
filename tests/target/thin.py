"""A guest's kernel as it would be without CONFIG_KALLSYMS_ALL: its kallsyms has functions and labels only."""

from __future__ import annotations

import pytest

from kshell.target import kernel, labels, places
from kshell.types import kallsyms
from kshell.types.kallsyms import Kallsyms
from kshell.types.linkedsyms import LinkedSymbols

#: labels that kallsyms has without CONFIG_KALLSYMS_ALL (seen on a 6.18 kernel built so; a 6.1 kernel has none of them)
LABELS = ("__start_", "__stop_")
#: those of the export tables
EXPORTS = ("__start___ksymtab", "__stop___ksymtab")


def cut_down(monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...] = ()) -> None:
    """Have targets read kallsyms so, and leave out names that begin with one of *without*."""
    def thin(table: Kallsyms) -> LinkedSymbols:
        return LinkedSymbols.of([(one.address, 0, one.type, one.name) for one in table
                                 if (one.type in "tTwW" or one.name.startswith(LABELS))
                                 and not one.name.startswith(without)])

    if without == EXPORTS:  # nor are they found by their shape
        monkeypatch.setattr(labels, "ANCHOR", b"there is no such name")
    load, scan = kallsyms.load_kallsyms, places.scanned_kallsyms
    monkeypatch.setattr(kernel, "load_kallsyms", lambda *words: thin(load(*words)))
    monkeypatch.setattr(places, "scanned_kallsyms", lambda target: thin(scan(target)))
