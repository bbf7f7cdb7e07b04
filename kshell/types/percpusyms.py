"""Per-CPU variables as symbols, by the kernel's BTF: for a kernel whose kallsyms has no variables.

BTF tells the offset of each in its section (DATASEC ``.data..percpu``). Where the section begins, at 0 before Linux
6.15 (9d7de2aa8b41 "x86/percpu/64: Use relative percpu offsets"), variables tell that are in BTF and exported, both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from kshell.errors import FormatError, KshellError
from kshell.types.btf import Btf
from kshell.types.linkedsyms import LinkedSymbols, Row
from kshell.types.model import Symbol

KERNEL = 1 << 63  # below lie offsets, which cover no memory
LABELS = ("__start_", "__stop_")  # names of tables begin with these, and no per-CPU variable's


class PercpuSymbols:
    """The symbols, made when a name is first looked for that no other source has.

    :param types: gives the kernel's BTF; :param exported: the symbols of its export table
    """

    def __init__(self, types: Callable[[], Btf | None], exported: LinkedSymbols) -> None:
        self._types, self._exported = types, exported
        self._made: LinkedSymbols | None = None

    @property
    def _table(self) -> LinkedSymbols:
        if self._made is None:
            self._made = LinkedSymbols.of([])  # who makes the types may ask for names
            try:
                btf = self._types()
                if btf is not None:
                    self._made = LinkedSymbols.of(percpu_rows(btf, self._exported))
            except KshellError:
                pass  # without types per-CPU variables are of no use
        return self._made

    def find(self, name: str) -> list[Symbol]:
        if name.startswith(LABELS):
            return []  # types, from which the table is made, may be looked for by it
        return self._table.find(name)

    def lowest(self) -> int:
        """Return an address below which no symbol lies."""
        return KERNEL

    def at(self, address: int) -> Symbol | None:
        return self._table.at(address) if address >= KERNEL else None

    def below(self, address: int, lowest: int = KERNEL) -> Symbol | None:
        """Return the closest symbol not above *address*, whatever its size; None for one that is below *lowest*."""
        return self._table.below(address, lowest) if address >= lowest else None

    def starting(self, prefix: str, limit: int) -> list[str]:
        return self._table.starting(prefix, limit)

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def percpu_rows(btf: Btf, exported: LinkedSymbols) -> list[Row]:
    """Return the variables that *exported* lacks, and the labels of the section that they are in.

    :raises FormatError: nothing tells where the section begins
    """
    told = btf.percpu()
    bases = Counter(symbol.address - told[symbol.name][0] for symbol in exported if symbol.name in told)
    if not bases:
        raise FormatError("no per-CPU variable is exported: nothing tells where their section begins")
    base = bases.most_common(1)[0][0]
    rows: list[Row] = [(base + offset, 0, "D", name) for name, (offset, _) in told.items() if not exported.find(name)]
    end = max(base + offset + (kind.size or 1) for offset, kind in told.values())
    return [(base, 0, "D", "__per_cpu_start"), *rows, (end, 0, "D", "__per_cpu_end")]
