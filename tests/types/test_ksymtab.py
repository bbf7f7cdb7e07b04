"""The export table of real kernels, against /proc/kallsyms; and a kernel whose kallsyms has no variables."""

from __future__ import annotations

import struct

import pytest

from kshell.errors import FormatError, SymbolNotFoundError
from kshell.linux.tasks import iter_processes
from kshell.target.open import open_target
from kshell.types.ksymtab import load_exported
from tests.guest.fixtures import have
from tests.guest.spec import named_spec
from tests.memory.held import Held
from tests.target.thin import cut_down

GUESTS = ["5.10", "6.1", "6.12"]


@pytest.mark.guest
@pytest.mark.parametrize("name", GUESTS)
def test_exported_variables_are_those_of_the_kernel(name: str) -> None:
    guest = have(named_spec(name))
    with open_target(str(guest.elf)) as target:
        found = load_exported(target.kernel, lambda label: target.symbol(label).address)
        told: dict[str, set[int]] = {}
        for line in guest.oracle.kallsyms():
            if line.module is None:
                told.setdefault(line.name, set()).add(line.address)
        assert len(found) > 500 and {"init_task", "init_net", "page_offset_base"} <= {one.name for one in found}
        wrong = [one for one in found if one.address not in told.get(one.name, ())]
        assert not wrong and all(one.size == 0 for one in found)


@pytest.mark.guest
@pytest.mark.parametrize("name", GUESTS)
def test_a_kernel_without_variables_in_kallsyms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be without CONFIG_KALLSYMS_ALL: functions and labels only."""
    cut_down(monkeypatch)
    guest = have(named_spec(name))
    with open_target(str(guest.elf)) as target:
        assert set(guest.oracle.pids()) <= {task.pid for task in iter_processes(target)}
        with pytest.raises(SymbolNotFoundError) as caught:
            target.symbol("btf_idr")
        assert "no CONFIG_KALLSYMS_ALL" in (caught.value.hint or "")
        assert target.object("init_task").member("comm").string() == "swapper/0"
        named = target.symbolize(target.symbol("init_task").address)
        assert named is not None and named[0].name == "init_task"
        assert target.symbolize(target.symbol("init_task").address + 16) is None
        assert target.symbolize(target.symbol("schedule").address + 4) == (target.symbol("schedule"), 4)
        told = target.findings["symbols"]
        assert "no CONFIG_KALLSYMS_ALL" in told and "by the export table" in told
        if name == "5.10":  # its BTF has no per-CPU variables: pahole writes them since 1.19
            assert target.symbols.get("runqueues") is None
            return
        places = {line.name: line.address for line in guest.oracle.kallsyms() if line.module is None}
        for word in ("runqueues", "__per_cpu_start", "cpu_info", "current_task", "pcpu_hot"):
            found = target.symbols.get(word)
            assert (found is None and word not in places) or (found and found.address == places[word]), word
        assert [target.percpu("runqueues", cpu)["cpu"].integer() for cpu in range(2)] == [0, 1]


BASE = 0xFFFF_FFFF_8000_0000


def made(size: int, relative: bool) -> Held:
    """Return a memory with two tables of one entry each and their strings."""
    data = bytearray(0x1000)
    for at, text, value in ((0x100, 0x800, 0x900), (0x200, 0x810, 0x910)):
        if relative:
            struct.pack_into("<ii", data, at, value - at, text - at - 4)
        else:
            struct.pack_into("<QQ", data, at, BASE + value, BASE + text)
    data[0x800:0x806], data[0x810:0x816] = b"first\0", b"other\0"
    return Held({BASE: bytes(data)})


@pytest.mark.parametrize("size, relative", [(12, True), (8, True), (16, False), (24, False)])
def test_every_layout(size: int, relative: bool) -> None:
    places = {"__start___ksymtab": 0x100, "__stop___ksymtab": 0x100 + size, "__start___ksymtab_gpl": 0x200,
              "__stop___ksymtab_gpl": 0x200 + size}
    memory = made(size, relative)
    found = load_exported(memory, lambda name: BASE + places[name] if name in places else None)
    assert [(one.name, one.address) for one in found] == [("first", BASE + 0x900), ("other", BASE + 0x910)]
    for changed, why in (({"__stop___ksymtab": 1 << 40}, "impossible size"), ({"__stop___ksymtab": 0x107}, "no known"),
                         ({"__stop___ksymtab": 0x100, "__stop___ksymtab_gpl": 0x200}, "exports nothing"),
                         ({"__start___ksymtab": 0x400, "__stop___ksymtab": 0x400 + size}, "no known layout")):
        now = {label: BASE + at for label, at in (places | changed).items()}
        with pytest.raises(FormatError, match=why):
            load_exported(memory, now.get)
    with pytest.raises(FormatError, match="no label"):
        load_exported(memory, lambda name: None)
