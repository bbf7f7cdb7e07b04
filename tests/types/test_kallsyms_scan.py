"""kallsyms found by the shape of its tables, in every layout, among other bytes and in damaged ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.errors import FormatError
from kshell.types.kallsyms_scan import Run, scan_kallsyms
from tests.types.encode_kallsyms import IMAGE, LAYOUTS, Encoded, encode


def symbols(absolute: bool) -> list[tuple[str, str, int]]:
    low = [(f"per_cpu_{number}", "A", 64 * number) for number in range(30)] if absolute else []
    middle = [(f"task_{number}_{'x' * (number % 90)}", "t", IMAGE + 16 * number + 16) for number in range(2000)]
    return [*low, ("_stext", "T", IMAGE), *middle]


def around(encoded: Encoded) -> list[Run]:
    noise = random.Random(1).randbytes(8192)
    data = bytes(encoded.memory.data)
    return [Run(IMAGE - 8192, noise + data + noise)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found(layout: str) -> None:
    wanted = symbols("percpu" in layout or layout in ("6.1", "6.2", "6.4"))
    encoded = encode(wanted, LAYOUTS[layout])
    found = scan_kallsyms(around(encoded))
    assert [(s.name, s.type, s.address) for s in found.table] == wanted
    assert found.places.items() >= {name: at for name, at in encoded.places.items() if "kallsyms" in name}.items()


def test_no_table_is_told() -> None:
    with pytest.raises(FormatError, match="no token table"):
        scan_kallsyms([Run(IMAGE, random.Random(2).randbytes(1 << 16))])


def test_a_table_of_another_image_is_refused() -> None:
    encoded = encode(symbols(False), LAYOUTS["6.15"])
    with pytest.raises(FormatError, match="not those of this image"):
        scan_kallsyms([Run(IMAGE + (1 << 28), bytes(encoded.memory.data))])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_damage_is_named_or_harmless(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(encode(symbols(True), LAYOUTS["6.4"]).memory.data)
    for at, piece in changes:
        at %= len(data)
        data[at : at + len(piece)] = piece
    try:
        found = scan_kallsyms([Run(IMAGE, bytes(data))])
    except FormatError:
        return
    assert len(found.table) == 2031
