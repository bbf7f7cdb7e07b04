"""Top-level tables by their looks, in memory that was made to have too many of them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import kshell.target.toplevel as toplevel
from kshell.arch.x86_64 import X86_64
from kshell.memory.elfcore import open_elfcore
from kshell.target.image import Image, find_image
from kshell.target.space import AddressSpace
from tests.memory.cores import Load, core
from tests.target import tiny

PAGE = 4096


def test_the_kernels_own_table_is_found_and_a_copy_is_not(tmp_path: Path) -> None:
    low, tables = tiny.memory()
    data = bytearray(low.data)
    struct.pack_into("<Q", data, tiny.ROOT + 8, 0)  # tiny's root has a user half
    copy = bytes(data[tiny.ROOT : tiny.ROOT + PAGE])
    path = tmp_path / "core"
    path.write_bytes(core([Load(0, bytes(data)), tables, Load(1 << 30, copy)]))
    with open_elfcore(str(path)) as physical:
        roots = [space.root for space, _ in toplevel.kernel_roots(physical, X86_64())]
    assert roots == [tiny.ROOT]


def test_few_of_many_tables_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2000
    tried: list[int] = []
    data = bytearray(2 * count * PAGE)
    for number in range(count):
        struct.pack_into("<Q", data, number * PAGE + 8 * 511, (count + number) * PAGE | 3)

    def counted(space: AddressSpace) -> Image:
        tried.append(space.root)
        return find_image(space)

    monkeypatch.setattr(toplevel, "find_image", counted)
    path = tmp_path / "core"
    path.write_bytes(core([Load(0, bytes(data))]))
    with open_elfcore(str(path)) as physical:
        assert list(toplevel.kernel_roots(physical, X86_64())) == []
    assert 0 < len(tried) <= toplevel.MAX_IMAGES
