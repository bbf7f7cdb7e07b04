"""``::stack -u``: user code of tasks in real dumps, by their memory alone, against the file's symbols and bytes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from kshell.errors import KshellError
from kshell.linux import processes, stacks, tasks, user_stack
from kshell.linux.page_cache import CachedFiles
from kshell.memory.bytes import ByteMemory
from kshell.target.open import open_target
from kshell.types.dynamic import read_dynamic_symbols
from kshell.unwind.frametable import loaded_at
from tests.linux.conftest import Guest

pytestmark = pytest.mark.guest
#: calls that every process of victim.c is in: its own main function, and the assembler's that began it
OUTERMOST = ["begin", "_start"]
MEMBERS = {"threads": "be_threads", "hugetlb": "be_huge", "thp": "be_huge"}


def functions(path: Path) -> list[tuple[int, str]]:
    with path.open("rb") as file:
        table: Any = ELFFile(file).get_section_by_name(".symtab")
        assert table is not None
        return sorted((one["st_value"], one.name) for one in table.iter_symbols() if one["st_shndx"] == 1 and one.name)


def name_of(known: list[tuple[int, str]], address: int) -> str:
    return max(one for one in known if one[0] <= address)[1]


def test_frames_are_calls_in_the_file(guest: Guest) -> None:
    """tcc writes no unwind tables: first instructions and frame pointers tell, and all frames are sure."""
    known, data = functions(guest.image.victim), guest.image.victim.read_bytes()
    checked = 0
    for task in processes.iter_processes(guest.target):
        if task.is_kernel_thread or task.is_zombie or task.comm not in (
                "victim", "threads", "hugetlb", "thp", "swapped", "stopped", "sleeper"):
            continue
        stack = user_stack.with_user_frames(guest.target, stacks.task_stack(guest.target, task.address))
        frames = [frame for frame in stack.frames if frame.stack == "user"]
        assert not stack.end and all(frame.reliable for frame in stack.frames) and len(frames) >= 4
        names = [name_of(known, frame.lookup) for frame in frames]
        assert names[0] == "syscall6" and names[-2:] == OUTERMOST, names
        if task.comm in MEMBERS:
            assert MEMBERS[task.comm] in names
        for callee, frame in zip(names, frames[1:], strict=False):
            at = frame.pc - 0x400000  # the file's text is loaded there, from offset 0 on
            assert data[at - 5] == 0xE8, "behind a direct call"
            target = frame.pc + struct.unpack_from("<i", data, at - 4)[0]
            assert name_of(known, target) == callee, "of the very function of the inner frame"
        for one in frames:
            found = stack.symbolize(guest.target, one)
            assert found is not None and found[0].name == "victim" and found[1] == one.pc - 0x400000
        checked += 1
    assert checked >= 6


def test_the_vdso(guest: Guest) -> None:
    """Its pages are the kernel's own; few processes have touched all of them, and each sees the same."""
    seen: dict[int, set[bytes]] = {}
    untouched = 0
    for task in processes.iter_processes(guest.target):
        if task.is_kernel_thread or task.is_zombie:
            continue
        program = user_stack.task_program(guest.target, task.address)
        assert isinstance(program.memory, CachedFiles)
        for region in program.regions:
            if region.name == "[vdso]":
                for address in range(region.start, region.end, 4096):
                    seen.setdefault(address - region.start, set()).add(program.memory.read(address, 4096))
                    untouched += program.memory.below.read_upto(address, 1)[1] is not None
    assert untouched and all(len(pages) == 1 for pages in seen.values())
    assert next(iter(seen[0])).startswith(b"\x7fELF\2\1\1")


def test_the_page_cache(guest: Guest) -> None:
    """What one process has mapped and another has not is the same file all the same."""
    users = [task for task in processes.iter_processes(guest.target)
             if not task.is_kernel_thread and not task.is_zombie]
    programs = [user_stack.task_program(guest.target, task.address) for task in users]
    known: dict[tuple[str, int], set[bytes]] = {}
    cached = 0
    for program in programs:
        memory = program.memory
        assert isinstance(memory, CachedFiles)
        for region in program.regions:
            if region.permissions[:3] != "r-x" or region.name[:1] != "/":
                continue
            for address in range(region.start, region.end, 4096):
                data, fault = memory.read_upto(address, 4096)
                own = memory.below.read_upto(address, 4096)[1]
                if fault is None:
                    known.setdefault((region.name, region.offset + address - region.start), set()).add(data)
                    cached += own is not None
    assert cached > 50 and all(len(found) == 1 for found in known.values())
    whole = programs[0].memory.read(programs[0].regions[0].start, 3 * 4096)
    assert whole[4000:9000] == programs[0].memory.read(programs[0].regions[0].start + 4000, 5000)
    with pytest.raises(KshellError):
        programs[0].memory.read(0, 1)


def test_who_has_no_user_code(guest: Guest) -> None:
    for name in ("kthreadd",):
        address = processes.by_name(guest.target, name)[0].address
        with pytest.raises(KshellError, match="no user memory"):
            user_stack.with_user_frames(guest.target, stacks.task_stack(guest.target, address))
    with pytest.raises(KshellError, match="of no task"):
        user_stack.with_user_frames(guest.target, stacks.Stack(0, None, ()))


def test_the_registers_at_the_top_of_a_stack(guest: Guest) -> None:
    """Found by the trace, they are where the kernel keeps them."""
    victim = tasks.find_task(guest.target, guest.image.oracle.victim()["pid"])
    registers = user_stack.user_registers(guest.target, victim)
    vmas = list(processes.vmas(guest.target, processes.by_address(guest.target, victim)))
    text = next(one for one in vmas if one.start <= registers["rip"] < one.end)
    stack = next(one for one in vmas if one.start <= registers["rsp"] < one.end)
    assert "x" in text.permissions and stack.name == "[stack]" and registers["cs"] == 0x33


def test_names_by_the_dynamic_section() -> None:
    """What readelf knows of libc's dynamic symbols, from what is loaded of it."""
    path = next(iter(sorted(Path("/lib/x86_64-linux-gnu").glob("libc.so.6"))), None)
    if path is None:
        pytest.skip("no libc in /lib/x86_64-linux-gnu")
    with path.open("rb") as file, open_target(str(path)) as target:
        table: Any = ELFFile(file).get_section_by_name(".dynsym")
        assert table is not None
        wanted = {(one.name, one["st_value"]) for one in table.iter_symbols()
                  if one["st_shndx"] != "SHN_UNDEF" and one["st_shndx"] != "SHN_ABS" and one.name
                  and one["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT", "STT_NOTYPE", "STT_LOOS", "STT_GNU_IFUNC")}
        loaded = loaded_at(target.kernel, 0)
        found = {(one.name, one.address) for one in read_dynamic_symbols(target.kernel, loaded.dynamic, 0, None)}
        assert found == wanted and len(found) > 2000
    assert read_dynamic_symbols(ByteMemory(b""), 0, 0, None) == []
    with pytest.raises(KshellError):
        read_dynamic_symbols(ByteMemory(bytes(64), 16), 16, 0, None)
