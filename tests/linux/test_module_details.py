"""Taints by name, parameters of modules with values, what modules need: beside /sys/module and /proc/modules."""

from __future__ import annotations

from contextlib import suppress

import pytest

from kshell.errors import KshellError
from kshell.linux import module_parameters, modules, taints
from kshell.linux.lists import member_offset
from kshell.target.open import open_target
from tests.guest.image import GuestImage
from tests.linux.conftest import Guest


def test_parameters(guest: Guest) -> None:
    checked = 0
    for module in modules.iter_modules(guest.target):
        value = guest.target.value("struct module", module.address)
        found = {one.name: one for one in module_parameters.parameters(guest.target, value)}
        folder = guest.oracle.path(f"sys/module/{module.name}/parameters")
        told = {path.name: path.read_text().rstrip("\n") for path in folder.iterdir()} if folder.exists() else {}
        assert {name for name, one in found.items() if one.mode} == set(told)
        for name, text in told.items():
            assert found[name].value == text, (module.name, name)
            checked += 1
    assert checked > 10


def test_needs_and_used_by_are_each_other_s_mirror(guest: Guest) -> None:
    users: dict[str, set[str]] = {}
    for module in modules.iter_modules(guest.target):
        for name in module_parameters.needs(guest.target, guest.target.value("struct module", module.address)):
            users.setdefault(name, set()).add(module.name)
    told = {line.name: set(line.used_by) for line in guest.oracle.modules() if line.used_by}
    assert users == told


def test_taints(guest: Guest) -> None:
    found = taints.kernel_taints(guest.target)
    assert sum(1 << taint.bit for taint in found) == int(guest.oracle.text("proc/sys/kernel/tainted"))


def test_a_module_that_taints(guest_null: GuestImage) -> None:
    with open_target(str(guest_null.elf)) as target:
        module = modules.find_module(target, "disaster")
        value = target.value("struct module", module.address)
        assert module.taints == "OE"
        assert {one.name: (one.kind, one.value) for one in module_parameters.parameters(target, value)} == {
            "delays": ("array of uint", "1,2"), "armed": ("bool", "Y"), "label": ("charp", "null"),
            "count": ("int", "10000")}
        assert {taint.letter for taint in taints.kernel_taints(target)} == set("DOE")


def test_a_bit_without_a_meaning_is_told() -> None:
    assert taints.letters(1 << 40 | 1) == "P?"
    assert "bit 40" in next(taints.named(1 << 40)).meaning


def test_a_table_that_cannot_be_read_costs_its_parameter(guest_null: GuestImage) -> None:
    with open_target(str(guest_null.elf), mode="c") as target:
        module = modules.find_module(target, "disaster")
        value = target.value("struct module", module.address)
        entry = target.type("struct kernel_param")
        for number in range(4):
            one = target.value(entry, value.integer("kp") + number * (entry.size or 0))
            if one["name"].string() == "label":
                target.kernel.write(one.integer("arg"), (0xDEAD).to_bytes(8, "little"))
        found = {one.name: one.value for one in module_parameters.parameters(target, value)}
        assert isinstance(found["label"], KshellError) and found["count"] == "10000"


def test_users_that_cannot_be_read_cost_neither_their_module_nor_the_others(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        whole = list(modules.iter_modules(target))
        used = next(module for module in whole if module.used_by)
        head = target.value("struct module", used.address)["source_list"].address
        target.kernel.write(target.kernel.u64(head), (0xDEAD_0000).to_bytes(8, "little"))
        found = list(modules.iter_modules(target))
        assert [module.name for module in found] == [module.name for module in whole]
        assert {module.name: module.used_by for module in found if "?" in module.used_by} == {used.name: ("?",)}


@pytest.mark.parametrize("leads_to", [0, 0xDEAD_0000, 0xFFFF_8000_0000_0000])
def test_a_damaged_list_of_modules_is_followed_from_both_ends(guest_61: GuestImage, leads_to: int) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        whole = list(modules.iter_modules(target))
        kind, names = target.type("struct module"), [module.name for module in whole]
        for number, member in ((3, "list.next"), (7, "list.prev")):
            target.kernel.write(
                whole[number].address + member_offset(kind, member), leads_to.to_bytes(8, "little"))
        found = []
        with pytest.raises(KshellError):
            for module in modules.iter_modules(target):
                found.append(module.name)
        assert found == names[:4] + names[7:]
        assert target.symbols.at(whole[-1].address) is not None  # its symbols are there too
        assert f"symbols of {len(found)} modules; not all: " in target.findings["modules"]


def test_a_module_that_cannot_be_read_costs_itself(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        names = [module.name for module in modules.iter_modules(target)]
        module = modules.find_module(target, names[4])
        place = module.address + member_offset(target.type("struct module"), "args")
        target.kernel.write(place, (0xDEAD_0000).to_bytes(8, "little"))
        found = []
        with suppress(KshellError):
            for one in modules.iter_modules(target):
                found.append(one.name)
        assert set(found) >= {*names} - {names[4]}
