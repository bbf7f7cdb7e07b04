"""Real kernels found with little told: no VMCOREINFO, no registers, no word of where kallsyms is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kshell import cache
from kshell.linux.printk import iter_records
from kshell.linux.tasks import iter_processes
from kshell.memory import filekey
from kshell.target import image as kernel_image
from kshell.target import places
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


def never(*_: object) -> None:
    raise AssertionError("looked for again")


@pytest.mark.parametrize("registers", [False, True])
def test_what_a_road_found_is_kept_and_checked(
    guest_61: GuestImage, registers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = str(strip(guest_61.elf, tmp_path / "bare", registers=registers))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(filekey, "SETTLED", -1)  # the dump was written a moment ago
    with open_target(bare) as target:
        made = answers(target)
    with monkeypatch.context() as patch:
        patch.setattr(places, "scan_kallsyms", never)
        with open_target(bare) as target:
            assert answers(target) == made and target.findings["kallsyms"] == "by the shape of its tables"
    key = next(tmp_path.rglob("kallsyms-places-*")).name.removeprefix("kallsyms-places-")
    kept = cache.load(places.KIND, key, places.VERSION)
    assert kept is not None
    right = {name: int(at, 16) for name, at in map(str.split, bytes(kept).decode().splitlines())}
    wrong = [{}, {"linux_banner": right["linux_banner"]}, {name: at + (2 << 20) for name, at in right.items()},
             dict.fromkeys(right, 0), dict.fromkeys(right, (1 << 64) - 8)]
    wrong += [{name: at for name, at in right.items() if name != left_out} for left_out in right]
    wrong += [right | {name: at + 8} for name, at in right.items()]
    looked: list[object] = []

    def look(*words: Any) -> Any:
        looked.append(words)
        return kernel_image.looks(*words)

    monkeypatch.setattr(places, "looks", look)
    texts = ["".join(f"{name} {at:x}\n" for name, at in one.items()).encode() for one in wrong]
    for text in [*texts, b"\xff\xff", b"kallsyms_names\n", b"kallsyms_names x\n", b"a b c\n"]:
        cache.store(places.KIND, key, places.VERSION, text)
        looked.clear()
        with open_target(bare) as target:
            assert target.symbol("init_task") == made[1] and target.release == made[0] and looked, text
    assert cache.load(places.KIND, key, places.VERSION) == kept  # and it is right again


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
