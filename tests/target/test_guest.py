"""Real kernels: symbols, types, page tables, per-CPU data and CPUs are what the guest itself said of them."""

from __future__ import annotations

import re
import struct
from itertools import islice

import numpy as np
import pytest

from kshell.errors import Fault, Reason
from kshell.linux.tasks import find_task
from kshell.memory.elfcore import ElfCore
from kshell.target.kernel import read_btf
from kshell.target.open import open_target
from kshell.target.space import AddressSpace
from kshell.types.btf import Btf
from kshell.types.model import IntType
from tests.target.conftest import Guest

PAGE = 4096

#: modules that belong to no file: the kernel makes them up for /proc/kallsyms
MADE_UP = ("bpf", "__builtin__ftrace", "__builtin__kprobes")


#: guests whose dump QEMU made, and the one whose dump its crash kernel made
QEMU = pytest.mark.parametrize("guest", ["6.1", "6.12", "la57", "nokaslr"], indirect=True)
KDUMP = pytest.mark.parametrize("guest", ["kdump"], indirect=True)


def kernel_space(guest: Guest) -> AddressSpace:
    assert isinstance(guest.target.kernel, AddressSpace)
    return guest.target.kernel


# -- symbols -----------------------------------------------------------------------------------------------------------


def test_every_symbol_is_that_of_proc_kallsyms(guest: Guest) -> None:
    kernel: list[tuple[int, str, str]] = []
    modules: list[tuple[str, int, str, str]] = []
    for name, address, _, letter, module in guest.target.symbols:
        if module is None:
            kernel.append((address, letter, name))
        else:
            modules.append((module, address, letter.lower(), name))
    told = guest.oracle.kallsyms()
    assert kernel == [(line.address, line.kind, line.name) for line in told if line.module is None]
    assert len(kernel) > 50_000
    # of modules, capital letters are another thing there: exported by EXPORT_SYMBOL (is_exported() in
    # kernel/module/kallsyms.c)
    assert sorted(modules) == sorted((line.module, line.address, line.kind.lower(), line.name) for line in told
                                     if line.module is not None and line.module not in MADE_UP)
    assert len(modules) > 1000


def test_addresses_lead_back_to_their_symbol(guest: Guest) -> None:
    target = guest.target
    rows = [line for line in guest.oracle.kallsyms() if line.kind in "tT" and line.address >> 63]
    for line in rows[:: len(rows) // 300]:
        found = target.symbolize(line.address)
        assert found is not None and (found[0].address, found[1]) == (line.address, 0), line
        inside = target.symbolize(line.address + max(found[0].size - 1, 0))
        assert inside is not None and inside[0] == found[0]


def test_names_that_are_not_there_have_neighbours(guest: Guest) -> None:
    assert guest.target.symbols.get("init_tsk") is None
    assert "init_task" in guest.target.symbols.near("init_tsk")


# -- types -------------------------------------------------------------------------------------------------------------


def test_btf_is_what_sys_kernel_btf_shows(guest: Guest) -> None:
    start, stop = (guest.target.symbol(name).address for name in ("__start_BTF", "__stop_BTF"))
    assert guest.target.kernel.read(start, stop - start) == guest.oracle.content("sys/kernel/btf/vmlinux")
    assert len(read_btf(guest.target)) == len(Btf(guest.oracle.content("sys/kernel/btf/vmlinux")))


def test_module_btf_is_what_sys_kernel_btf_shows(guest: Guest) -> None:
    types = guest.target.types
    assert types.get("struct there_is_none") is None  # so the modules have joined
    folder = guest.oracle.path("sys/kernel/btf")
    told = {path.name: path for path in folder.iterdir() if path.name != "vmlinux"}
    ours = {module: btf for btf, module in types.modules() if module is not None}
    # the kernel keeps no BTF of a module that adds none to its own
    assert ours.keys() == told.keys() and len(told) > 5
    for module, btf in ours.items():
        assert isinstance(btf, Btf) and isinstance(types.base, Btf)
        other = Btf(told[module].read_bytes(), types.base)
        assert (btf.first, btf.last, btf.string_end) == (other.first, other.last, other.string_end), module
        assert list(btf.names()) == list(other.names()), module


def test_every_type_of_the_kernel_can_be_made(guest: Guest) -> None:
    btf = guest.target.types.base
    assert btf is not None
    count = 0
    for kind, name in islice(btf.names(), 0, None, 7):
        found = btf.find(kind, name)
        assert found is not None
        for member in getattr(found.strip(), "members", ()):
            assert found.size is not None and member.offset <= found.size, (kind, name, member)
            assert str(member.type)
            count += 1
    assert count > 5000


def test_per_cpu_variables_have_types(guest: Guest) -> None:
    target = guest.target
    for cpu in target.cpu_numbers():
        number = target.percpu("cpu_number" if target.symbols.get("cpu_number") else "pcpu_hot", cpu)
        value = number if isinstance(number.type.strip(), IntType) else number["cpu_number"]
        assert value.integer() == cpu
    assert target.types.of_symbol(target.symbol("runqueues")) is target.types.find("struct rq")


# -- spaces ------------------------------------------------------------------------------------------------------------


def test_page_tables_lead_back_to_themselves(guest: Guest) -> None:
    space, info = kernel_space(guest), guest.target.vmcoreinfo
    assert info is not None
    root = info.symbol("swapper_pg_dir")
    assert root is not None and space.translate(root) == space.root
    assert space.format.levels == (5 if guest.name == "la57" else 4)
    steps = space.walk(root)
    assert [step.level for step in steps] == list(range(space.format.levels, 1, -1)), "the image is in 2 MiB pages"
    assert steps[0].table == space.root


def test_windows_say_what_the_page_tables_say(guest: Guest) -> None:
    """Each arithmetic window at its ends and at 64 pages within, against the walk."""
    guest.target.symbol("init_task")  # so that the windows are known
    space = kernel_space(guest)
    assert len(space._linear) >= 4
    for window in space._linear:
        pages = (window.end - window.start) // PAGE
        addresses = [window.start + PAGE * (pages * step // 64) for step in range(64)]
        addresses += [window.end - 1]
        for address in addresses:
            try:
                start, shift = space.walker.leaf(address)
            except Fault as fault:
                # memory that is not RAM (below 1 MiB, holes), and what debugging or protection unmapped
                assert fault.reason is Reason.NOT_MAPPED
                continue
            assert start + (address & ((1 << shift) - 1)) == window.paddr + address - window.start


def test_translating_many_is_translating_each(guest: Guest) -> None:
    space = kernel_space(guest)
    addresses = [line.address for line in guest.oracle.kallsyms()[::37]]
    addresses += [mapping.start + 12 for mapping in islice(space.mappings(), 200)]
    found, mapped = space.translate_all(np.array(addresses, np.uint64))
    for address, paddr, ok in zip(addresses, found.tolist(), mapped.tolist(), strict=True):
        try:
            expected = space.translate(address)
        except Fault:
            assert not ok
        else:
            assert ok and paddr == expected


def test_the_banner_reads_the_same_through_every_door(guest: Guest) -> None:
    target, space = guest.target, kernel_space(guest)
    banner = target.symbol("linux_banner").address
    text = target.kernel.read(banner, 256).split(b"\0")[0].decode()
    assert text == guest.oracle.text("proc/version")
    assert target.physical.read(space.translate(banner), len(text)).decode() == text
    assert bytes(space.gather([banner, banner], len(text)).data[1]).decode() == text


def test_vmalloc_and_module_memory_is_readable(guest: Guest) -> None:
    for module in guest.oracle.modules()[:4]:
        data = guest.target.kernel.read(module.address, PAGE)
        assert len(data) == PAGE and data.strip(b"\0")


def test_an_address_between_mappings_is_not_mapped(guest: Guest) -> None:
    for address in (0, 0x1000, 0x7FFF_FFFF_F000, 1 << 63, 0xFFFF_FFFF_FFFF_F000):
        with pytest.raises(Fault) as caught:
            guest.target.kernel.read(address, 8)
        assert caught.value.reason is Reason.NOT_MAPPED
        assert caught.value.address == address


# -- user memory -------------------------------------------------------------------------------------------------------


def user_space(guest: Guest, pid: int) -> AddressSpace:
    task = guest.target.value("struct task_struct", find_task(guest.target, pid))
    return guest.target.user_space(task["mm"].integer())


def pattern(start: int, size: int) -> bytes:
    return bytes((7 * i + 3) & 255 for i in range(start, start + size))


def test_the_victims_mappings(guest: Guest) -> None:
    facts = guest.oracle.victim()
    space = user_space(guest, facts["pid"])
    assert space.read(facts["greeting"], 35) == b"kshell victim: the quick brown fox\0"
    assert space.read(facts["pattern"], facts["pattern_size"]) == pattern(0, facts["pattern_size"])
    assert space.read(facts["behind_hole"], 16) == b"behind the hole\0"
    assert space.read(facts["prot_none"], 24) == b"content behind PROT_NONE", "inverted entry"
    assert space.read(facts["read_only"], 17) == b"read-only content"
    assert space.read(facts["shared_file"] + PAGE - 4, 12) == b"across pages"


def test_what_the_victim_does_not_have(guest: Guest) -> None:
    facts = guest.oracle.victim()
    space = user_space(guest, facts["pid"])
    data, fault = space.read_upto(facts["hole"] - 100, 200)
    assert data == pattern(facts["pattern_size"] - 100, 100)
    assert fault is not None and fault.reason is Reason.NOT_MAPPED
    assert (fault.address, fault.done, fault.partial) == (facts["hole"], 100, data)
    for address in (facts["hole"], facts["never_touched"], 0, guest.target.symbol("init_task").address):
        with pytest.raises(Fault) as caught:
            space.read(address, 1)
        assert caught.value.reason is Reason.NOT_MAPPED


def test_swapped_pages_say_so(guest: Guest) -> None:
    facts = guest.oracle.part("swapped")
    assert facts["pageout"] == 0
    space = user_space(guest, facts["pid"])
    pagemap = guest.oracle.pagemap(facts["pid"])
    for address in range(facts["swapped"], facts["swapped"] + facts["swapped_size"], PAGE):
        entry = pagemap[address]
        assert entry >> 62 == 1, "the rig did not swap it out"
        with pytest.raises(Fault) as caught:
            space.read(address, 1)
        assert caught.value.reason is Reason.SWAPPED
        # pagemap: the swap type is in bits 0-4, the offset above
        assert caught.value.detail == f"swap device {entry & 31}, page 0x{(entry & (1 << 55) - 1) >> 5:x}"
    assert space.read(facts["resident"], PAGE) == pattern(8 * PAGE, PAGE)


@pytest.mark.parametrize("part", ["hugetlb", "thp"])
def test_huge_user_pages(guest: Guest, part: str) -> None:
    facts = guest.oracle.part(part)
    space = user_space(guest, facts["pid"])
    address = facts["huge"]
    assert space.walk(address)[-1].level == 2
    assert space.read(address + 0x1F_0000, 0x1_0000) == pattern(0x1F_0000, 0x1_0000)


def test_every_page_of_the_victim_is_where_pagemap_says(guest: Guest) -> None:
    facts = guest.oracle.victim()
    space = user_space(guest, facts["pid"])
    pages = sorted(guest.oracle.pagemap(facts["pid"]))
    found, mapped = space.translate_all(np.array(pages, np.uint64))
    told = [guest.oracle.vtop(facts["pid"], page) for page in pages]
    ours = [paddr if ok else None for paddr, ok in zip(found.tolist(), mapped.tolist(), strict=True)]
    assert sum(page is not None for page in told) > 256
    assert ours == told


# -- CPUs --------------------------------------------------------------------------------------------------------------


@QEMU
def test_registers_are_those_that_qemu_shows(guest: Guest) -> None:
    shown = re.split(r"(?m)^CPU#\d+$", guest.image.registers)[1:]
    assert len(shown) == len(guest.target.cpus) == 2
    for cpu, text in zip(guest.target.cpus, shown, strict=True):
        values = dict(re.findall(r"\b(R[A-Z0-9]{1,2} ?|CR[0-4])=([0-9a-f]+)", text))
        for name, value in values.items():
            name = {"RFL": "rflags"}.get(name.strip(), name.strip().lower())
            assert cpu.registers[name] == int(value, 16), name
        bases = dict(re.findall(r"(?m)^(FS|GS|LDT|TR) ?=\w+ (\w+)", text))
        bases |= dict(re.findall(r"(?m)^(GDT|IDT)= +(\w+)", text))
        for name, value in bases.items():
            assert cpu.registers[f"{name.lower()}_base"] == int(value, 16), name
        assert cpu.note == "PRSTATUS+QEMU" and cpu.pid == cpu.number + 1


@KDUMP
def test_kdump_cpus_name_the_task_that_panicked(guest: Guest) -> None:
    cpus = guest.target.cpus
    assert [cpu.note for cpu in cpus] == ["PRSTATUS"] * 2
    assert all(guest.target.symbolize(cpu.registers["rip"]) for cpu in cpus)
    assert guest.target.vmcoreinfo is not None and guest.target.vmcoreinfo.crash_time
    pids = {line.pid: line.comm for line in guest.oracle.processes()}
    assert "collect" in {pids.get(cpu.pid or 0) for cpu in cpus}


# -- the same memory in another file -----------------------------------------------------------------------------------


@QEMU
def test_a_dump_with_paging_answers_the_same(guest: Guest) -> None:
    """QEMU's ``paging=true``: segments by virtual address, many and overlapping, of the same physical memory."""
    with open_target(str(guest.image.elf_paging)) as paging:
        assert isinstance(paging.physical, ElfCore)
        assert len(paging.physical.segments) > 10
        raw = guest.image.raw.open("rb")
        with raw:
            for item in guest.target.physical.ranges():
                if item.end > guest.image.raw.stat().st_size:
                    continue
                for address in range(item.start, item.end - 16, 0x9_1000):
                    raw.seek(address)
                    assert guest.target.physical.read(address, 16) == raw.read(16)
        facts = guest.oracle.victim()
        ours, theirs = user_space(guest, facts["pid"]), user_space(guest._replace(target=paging), facts["pid"])
        assert theirs.read(facts["pattern"], 1 << 16) == ours.read(facts["pattern"], 1 << 16)
        assert list(islice(paging.symbols, 500)) == list(islice(guest.target.symbols, 500))
        assert [cpu.registers for cpu in paging.cpus] == [cpu.registers for cpu in guest.target.cpus]
        # by virtual address, as the boot CPU saw it
        init_task = paging.symbol("init_task").address
        assert paging.physical.virtual.read(init_task, 64) == guest.target.kernel.read(init_task, 64)


@KDUMP
def test_makedumpfile_elf_answers_the_same_or_says_excluded(guest: Guest) -> None:
    path = guest.image.folder / "makedumpfile.elf"
    with open_target(str(path)) as small:
        whole = guest.target
        assert small.symbol("init_task") == whole.symbol("init_task")
        excluded = [item for item in small.physical.ranges() if item.reason is Reason.EXCLUDED]
        assert sum(item.end - item.start for item in excluded) > 64 << 20, "-d 31 leaves free and user pages out"
        with pytest.raises(Fault) as caught:
            small.physical.read(excluded[0].start, 8)
        assert caught.value.reason is Reason.EXCLUDED
        # of user memory only short runs are left, for the sake of fewer segments: the victim's bytes or a reason
        facts = guest.oracle.victim()
        space = user_space(guest._replace(target=small), facts["pid"])
        reasons: list[Reason] = []
        for offset in range(0, facts["pattern_size"], PAGE):
            data, fault = space.read_upto(facts["pattern"] + offset, PAGE)
            if fault is None:
                assert data == pattern(offset, PAGE)
            else:
                assert (fault.space, data) == ("user", b"")
                reasons.append(fault.reason)
        assert set(reasons) == {Reason.EXCLUDED}
        for item in small.physical.ranges():
            if item.held:
                size = min(item.end - item.start, 64)
                assert small.physical.read(item.start, size) == whole.physical.read(item.start, size)
        pages = [mapping.start for mapping in islice(kernel_space(guest).mappings(), 2000)]
        rows, ok = small.kernel.gather(np.array(pages, np.uint64), 64)
        for page, row, good in zip(pages, rows, ok.tolist(), strict=True):
            got, fault = small.kernel.read_upto(page, 64)
            assert good == (fault is None) and (not good or bytes(row) == got == whole.kernel.read(page, 64))


def test_struct_module_has_what_the_reader_wants(guest: Guest) -> None:
    """The types behind the module reader, so that a missing member is seen here and not as missing symbols."""
    module = guest.target.type("struct module").strip()
    assert {"list", "name", "kallsyms"} <= set(module.names())  # type: ignore[attr-defined]
    assert "typetab" in set(guest.target.type("struct mod_kallsyms").strip().names())  # type: ignore[attr-defined]
    assert struct.calcsize("<IBBHQQ") == guest.target.type("struct elf64_sym").size
