"""Variables that are found by their shape, on real kernels whose kallsyms is cut down; /proc/kallsyms is the oracle."""

from __future__ import annotations

import pytest

from kshell.errors import SymbolNotFoundError
from kshell.linux.clock import read_clock
from kshell.linux.modules import iter_modules
from kshell.linux.swap import iter_swap
from kshell.linux.taints import kernel_taints, named
from kshell.linux.tasks import iter_processes
from kshell.target import deduced, operands, scalars, swapper
from kshell.target.image import image_bytes
from kshell.target.open import open_target
from kshell.target.space import AddressSpace
from kshell.types.kallsyms_scan import Run
from kshell.types.linkedsyms import LinkedSymbols
from kshell.types.model import StructType
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
        assert target.symbol("schedule")
        assert "init_task" not in target.findings["deduced"]  # nobody has asked
        assert target.symbol("init_task").address == places_of(guest)["init_task"]
        assert "; init_task: the one task_struct of swapper/0 in the image" in target.findings["deduced"]
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


#: lists that a kernel does not have, or whose members' type its BTF lacks
WITHOUT = {"5.10": {"btf_modules"}, "6.1": set(), "6.12": {"vmap_area_list"}}


@pytest.mark.guest
@pytest.mark.parametrize("name", GUESTS)
def test_lists_by_the_operands_of_functions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_down(monkeypatch)
    guest = have(named_spec(name))
    places = places_of(guest)
    with open_target(str(guest.elf)) as target:
        assert target.symbol("schedule") and target.type("struct module") and "deduced" not in target.findings
        found = {word: symbol.address for word in deduced.LISTED if (symbol := target.symbols.get(word)) is not None}
        assert found == {word: places[word] for word in deduced.LISTED if word not in WITHOUT[name]}
        assert "modules: by operands of " in target.findings["deduced"] and "m_next" in target.findings["deduced"]
        assert target.object("slab_caches")["next"].integer() == target.kernel.u64(places["slab_caches"])


@pytest.mark.guest
@pytest.mark.parametrize("name", GUESTS)
def test_modules_and_their_symbols_come_by_the_list(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_down(monkeypatch)
    guest = have(named_spec(name))
    lines = [line for line in guest.oracle.kallsyms() if line.module is not None and line.kind in "tT"]
    with open_target(str(guest.elf)) as target:
        assert {module.name for module in iter_modules(target)} == {line.name for line in guest.oracle.modules()}
        for line in lines[:: max(len(lines) // 50, 1)]:
            addresses = [one.address for one in target.symbols.find_all(line.name) if one.module == line.module]
            assert line.address in addresses, line
        assert target.findings["modules"] == f"symbols of {len(guest.oracle.modules())} modules"


@pytest.mark.guest
def test_a_list_that_is_not_right_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_down(monkeypatch)
    guest = have(named_spec("6.1"))
    places = places_of(guest)
    with open_target(str(guest.elf)) as target:
        module = target.type("struct module").strip()
        assert isinstance(module, StructType)
        link, text = module.member("list").offset, module.member("name").offset
        second = target.kernel.u64(target.kernel.u64(places["modules"]))
    for where in (second + 8, second - link + text):  # a link back, the first letter of a name
        with open_target(str(guest.elf), mode="c") as target:
            target.kernel.write(where, b"\x01")
            with pytest.raises(SymbolNotFoundError, match="modules"):
                target.symbol("modules")
            assert "no operand of m_next" in target.findings["deduced"]
    with open_target(str(guest.elf), mode="c") as target:  # an empty one
        target.kernel.write(places["modules"], places["modules"].to_bytes(8, "little") * 2)
        assert target.symbols.get("modules") is None
    both = operands.LISTS["modules"]._replace(functions=("m_next", "slab_next"), looks_right=lambda member: True)
    monkeypatch.setitem(operands.LISTS, "modules", both)
    with open_target(str(guest.elf)) as target:
        assert target.symbols.get("modules") is None
        assert "several operands of m_next, slab_next lead to a list of struct module: 0x" in target.findings["deduced"]


@pytest.mark.guest
@pytest.mark.parametrize("name", [*GUESTS, "la57"])
def test_variables_by_the_operands_of_functions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_down(monkeypatch)
    guest = have(named_spec(name))
    places = places_of(guest)
    names = ("tk_core", *deduced.VARIABLES)
    with open_target(str(guest.elf)) as target:
        found = {word: symbol.address for word in names if (symbol := target.symbols.get(word)) is not None}
        assert found == {word: places[word] for word in names}
        assert "max_pfn: by the operand that dma_direct_get_required_mask, dma_direct" in target.findings["deduced"]
        clock = read_clock(target)
        assert list(kernel_taints(target)) == list(named(int(guest.oracle.text("/proc/sys/kernel/tainted"))))
        assert len(list(iter_swap(target))) == 1
    monkeypatch.undo()
    with open_target(str(guest.elf)) as target:
        whole = read_clock(target)
    assert abs(clock.uptime - whole.uptime) < 10**8 and abs(clock.wall - whole.wall) < 10**8  # that one is of its copy


#: a variable, a member of what it leads to, and the bytes that spoil it
SPOILT = [
    ("tainted_mask", "", b"\xff" * 8), ("max_pfn", "", b"\x01\x01"), ("sock_inode_cachep", "", bytes(8)),
    ("worker_pool_idr", "idr_base", b"\x01"), ("swap_info", "", bytes(8)), ("nr_swapfiles", "", b"\x02"),
]


@pytest.mark.guest
@pytest.mark.parametrize("name, member, data", SPOILT)
def test_a_variable_that_is_not_right_is_none(
    name: str, member: str, data: bytes, monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_down(monkeypatch)
    guest = have(named_spec("6.1"))
    with open_target(str(guest.elf), mode="c") as target:
        inner = target.type("struct idr").strip().member(member).offset if member else 0  # type: ignore[attr-defined]
        target.kernel.write(places_of(guest)[name] + inner, data)
        assert target.symbols.get(name) is None
        assert f"{name}: not found: no operand that " in target.findings["deduced"]


@pytest.mark.guest
def test_operands_that_look_alike_or_do_not_agree_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_down(monkeypatch)
    guest = have(named_spec("6.1"))
    several = scalars.VARIABLES["nr_swapfiles"]._replace(looks_right=lambda *_: True)
    monkeypatch.setitem(scalars.VARIABLES, "tainted_mask", several)
    monkeypatch.setitem(scalars.VARIABLES, "max_pfn", scalars.VARIABLES["max_pfn"]._replace(functions=(("schedule",),)))
    read = operands.used_by
    monkeypatch.setattr(scalars, "used_by", lambda target, names, *rest: (
        {at + 64: by for at, by in read(target, names).items()} if "ktime_get_seconds" in names
        else read(target, names, *rest)))
    with open_target(str(guest.elf)) as target:
        assert [target.symbols.get(name) for name in ("tainted_mask", "max_pfn", "tk_core")] == [None, None, None]
        told = target.findings["deduced"]
        assert "tainted_mask: not found: several operands of si_swapinfo, __do_sys_swapoff/__x64" in told
        assert "max_pfn: not found: of the functions that use it (schedule) two are needed, and 1 can be read" in told
        assert "do not agree about where it is" in told


@pytest.mark.guest
def test_what_a_table_names_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vmlinux or System.map that is added later brings the truth."""
    cut_down(monkeypatch)
    with open_target(str(have(named_spec("6.1")).elf)) as target:
        target.symbols.add(LinkedSymbols.of([(0xFFFF_FFFF_8234_5678, 0, "D", "modules")]))
        assert target.symbol("modules").address == 0xFFFF_FFFF_8234_5678
        assert "deduced" not in target.findings
