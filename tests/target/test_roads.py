"""Real kernels found with little told: no VMCOREINFO, no registers, no word of where kallsyms is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kshell.linux.printk import iter_records
from kshell.linux.tasks import iter_processes
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec
from tests.target.stripped import strip


def source(image: GuestImage) -> Path:
    return image.vmcore if image.spec.crash else image.elf


def answers(target: Target) -> tuple[object, ...]:
    """Return what needs symbols, types, lists, modules and the log."""
    tasks = sorted((task.pid, task.comm) for task in iter_processes(target))
    return (target.release, target.symbol("init_task"), tasks,
            [record.text for record in iter_records(target)], len(list(target.symbols.sources[0])))


@pytest.mark.parametrize("name, registers, how", [
    ("6.1", False, "their top table"), ("6.12", True, "CR3 of CPU 0"),
    ("la57", True, "5-level page tables found by CR3 of CPU 0"),
    ("la57", False, "5-level page tables found by the looks of their top table"),
    ("5.10", True, "CR3 of CPU 0"), ("kdump", False, "their top table"),
])  # fmt: skip
def test_a_kernel_without_vmcoreinfo(
    name: str, registers: bool, how: str, tmp_path: Path, index_cache: Path
) -> None:
    image = have(named_spec(name))
    bare = strip(source(image), tmp_path / "bare", registers=registers)
    with open_target(str(source(image))) as told, open_target(str(bare)) as found:
        assert how in found.findings["kernel"]
        assert found.vmcoreinfo is not None and told.vmcoreinfo is not None
        assert found.vmcoreinfo.number("phys_base") == told.vmcoreinfo.number("phys_base")
        assert found.vmcoreinfo.kernel_offset == told.vmcoreinfo.kernel_offset
        assert answers(found) == answers(told)


def test_symbols_of_a_kernel_that_does_not_tell_where_they_are(guest_510: GuestImage, index_cache: Path) -> None:
    with open_target(str(guest_510.elf)) as target:
        assert target.vmcoreinfo is not None and target.vmcoreinfo.symbol("kallsyms_names") is None
        told = {(line.address, line.kind, line.name) for line in guest_510.oracle.kallsyms() if line.module is None}
        assert {(s.address, s.type, s.name) for s in target.symbols.sources[0]} == told
        assert "shape of its tables" in target.findings["symbols"]
        assert {task.pid for task in iter_processes(target)} >= set(guest_510.oracle.pids())
