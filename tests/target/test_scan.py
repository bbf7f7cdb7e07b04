"""VMCOREINFO looked for in memory: in a dump without the note, and in built memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from kshell.errors import OpenError
from kshell.linux.tasks import iter_processes
from kshell.memory.elfcore import open_elfcore
from kshell.target.open import open_target
from kshell.target.scan import find_vmcoreinfo
from tests.guest.image import GuestImage
from tests.memory.cores import Load, core

GOOD = b"OSRELEASE=6.1.0\nSYMBOL(swapper_pg_dir)=ffffffff82610000\n"


def memory(pieces: dict[int, bytes], size: int = 64 << 12) -> bytes:
    data = bytearray(size)
    for at, text in pieces.items():
        data[at : at + len(text)] = text
    return bytes(data)


def test_only_texts_at_the_start_of_a_page_count(tmp_path: Path) -> None:
    path = tmp_path / "core"
    data = memory({0x1010: GOOD, 0x3000: GOOD, 0x5000: b"OSRELEASE=", 0x9000: GOOD.replace(b"6.1.0", b"6.1.1")})
    path.write_bytes(core([Load(1 << 20, data)]))
    with open_elfcore(str(path)) as physical:
        found = [(address, info.release) for address, info in find_vmcoreinfo(physical)]
    assert found == [((1 << 20) + 0x3000, "6.1.0"), ((1 << 20) + 0x9000, "6.1.1")]


def test_text_without_its_page_tables_is_no_kernel(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(core([Load(0, memory({0x3000: GOOD}))]))
    with pytest.raises(OpenError, match="none in its memory"):
        open_target(str(path))


def test_a_dump_without_the_note_answers_like_one_with_it(guest_novmcoreinfo: GuestImage) -> None:
    with open_target(str(guest_novmcoreinfo.elf)) as target:
        assert target.release == guest_novmcoreinfo.kernel_release
        assert "found in its memory" in target.findings["VMCOREINFO"]
        oracle = {(p.pid, p.comm) for p in guest_novmcoreinfo.oracle.processes()}
        assert {(t.pid, t.comm) for t in iter_processes(target)} >= {row for row in oracle if row[1] == "victim"}
        assert target.symbol("init_task").address == guest_novmcoreinfo.oracle.symbol("init_task")
