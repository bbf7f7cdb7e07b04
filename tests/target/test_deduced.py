"""Variables that are found by their shape, on real kernels whose kallsyms is cut down; /proc/kallsyms is the oracle."""

from __future__ import annotations

import pytest

from kshell.errors import SymbolNotFoundError
from kshell.linux.tasks import iter_processes
from kshell.target import swapper
from kshell.target.image import image_bytes
from kshell.target.open import open_target
from kshell.target.space import AddressSpace
from kshell.types.kallsyms_scan import Run
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec
from tests.target.thin import EXPORTS, cut_down

GUESTS = ["5.10", "6.1", "6.12"]


def places_of(guest: GuestImage) -> dict[str, int]:
    """Return the guest's own variables and functions."""
    return {line.name: line.address for line in guest.oracle.kallsyms() if line.module is None}


@pytest.mark.guest
@pytest.mark.parametrize("name", GUESTS)
def test_the_first_task_of_a_kernel_that_names_it_nowhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As without CONFIG_KALLSYMS_ALL and CONFIG_MODULES: no variables, no export table."""
    cut_down(monkeypatch, EXPORTS)
    guest = have(named_spec(name))
    with open_target(str(guest.elf)) as target:
        assert target.symbols.starting("init_tas", 9) == []
        assert "deduced" not in target.findings  # nobody has asked
        assert target.symbol("init_task").address == places_of(guest)["init_task"]
        assert target.findings["deduced"] == "init_task: the one task_struct of swapper/0 in the image"
        assert "exported ones cannot be had" in target.findings["symbols"]
        assert target.object("init_task")["comm"].string() == "swapper/0"
        named = target.symbolize(target.symbol("init_task").address + 8)
        assert named is not None and (named[0].name, named[1]) == ("init_task", 8)
        assert len(list(iter_processes(target))) > 20


@pytest.mark.guest
def test_two_first_tasks_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like it twice is not believed; neither is a place where one of its members is wrong."""
    cut_down(monkeypatch, EXPORTS)
    guest = have(named_spec("6.1"))
    read = image_bytes
    with open_target(str(guest.elf)) as target:
        space, at = target.kernel, places_of(guest)["init_task"]
        assert isinstance(space, AddressSpace)
        task = swapper.find_init_task(target)
        assert task[0] == at
        monkeypatch.setattr(swapper, "image_bytes", lambda *words: [*read(*words), Run(at, space.read(at, 1 << 13))])
        with pytest.raises(SymbolNotFoundError, match="init_task"):
            target.symbol("init_task")
        assert "not found: 2 places in the kernel image look like it: 0x" in target.findings["deduced"]
    monkeypatch.setattr(swapper, "image_bytes", read)
    for member in ("pid", "tgid", "real_parent", "group_leader", "tasks", "comm"):
        with open_target(str(guest.elf), mode="c") as target:
            where = at + target.type("struct task_struct").strip().member(member).offset  # type: ignore[attr-defined]
            target.kernel.write(where, bytes([target.kernel.read(where, 1)[0] ^ 0x40]))
            with pytest.raises(SymbolNotFoundError):
                target.symbol("init_task")
            assert "no place in the kernel image has the shape" in target.findings["deduced"], member
