"""The memory file of a machine: where RAM lies in it, below and above 4 GiB, and files that are none."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kshell.errors import Fault, OpenError
from kshell.linux import tasks
from kshell.linux.processes import user_memory
from kshell.memory.guestram import likely_splits, parse_mtree, split_ram
from kshell.memory.qmp import Qmp
from kshell.target.formats import Options
from kshell.target.open import open_target
from kshell.target.space import AddressSpace
from tests.guest.build import boot
from tests.guest.fixtures import have
from tests.guest.oracle import Oracle
from tests.guest.spec import named_spec
from tests.target.test_qemu import place
from tests.target.test_qmp_damage import machine

pytest_plugins = ["tests.guest.fixtures"]


def test_a_file_that_is_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(2 << 20))
    with pytest.raises(OpenError, match="no Linux is found"):
        open_target(f"ram:{path}")
    with pytest.raises(OpenError, match="below4g=5G is no size"):
        open_target(f"ram:{path},below4g=5G")
    with pytest.raises(OpenError, match="cannot pause"):
        open_target(f"ram:{path}", options=Options(pause=True))


@pytest.mark.guest
@pytest.mark.parametrize("kind, size", [("pc", 5 << 30), ("q35", 5 << 30), ("pc", 0xB800_0000), ("q35", 0xB800_0000)])
def test_the_cut_is_qemus(tmp_path: Path, kind: str, size: int) -> None:
    with machine(tmp_path, "-machine", kind, "-m", f"{size >> 20}"), closing(Qmp(str(tmp_path / "qmp"))) as qmp:
        pieces = [piece for piece in parse_mtree(qmp.monitor("info mtree -f")) if piece.block == "pc.ram"]
        assert any(_covers(split_ram(size, low), pieces) for low in likely_splits(size))


def _covers(ours: list[Any], theirs: list[Any]) -> bool:
    """Whether each of QEMU's pieces lies in one of ours at the same place of the block, and the ends agree."""
    inside = all(any(one.start <= piece.start and piece.end <= one.end and
                     piece.start - one.start == piece.offset - one.offset for one in ours) for piece in theirs)
    return inside and max(piece.end for piece in theirs) == ours[-1].end


@pytest.mark.guest
def test_ram_above_4_gib() -> None:
    """A guest with 4 GiB, of which one is moved above the hole: its processes' memory is up there."""
    have(named_spec("6.1"))
    with boot(replace(named_spec("live"), name="live-4g", memory=4096)) as guest:
        oracle = Oracle(guest.oracle_folder)  # type: ignore[arg-type]
        told, lines = oracle.victim(), {line.pid: line.comm[:15] for line in oracle.processes()}
        pattern = bytes((7 * at + 3) & 255 for at in range(told["pattern_size"]))
        for path in (place(guest, "ram"), place(guest, "qmp"), f"gdb:{guest.gdb_socket}"):
            with open_target(path) as target, target.question():
                ours = {task.pid: task.comm for task in tasks.iter_processes(target)}
                assert all(ours[pid] == comm for pid, comm in lines.items() if not comm.startswith("kworker"))
                memory = user_memory(target, tasks.task_by_pid(target, told["pid"]))
                assert memory.read(told["pattern"], len(pattern)) == pattern
                assert isinstance(memory, AddressSpace)
                places = [memory.translate(told["pattern"] + at) for at in range(0, len(pattern), 4096)]
                assert any(paddr >= 4 << 30 for paddr in places)
                with pytest.raises(Fault, match="outside RAM"):
                    target.physical.read(3 << 30, 1)
                assert max(run.end for run in target.physical.ranges()) == 5 << 30
