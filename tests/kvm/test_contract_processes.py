"""libkvm.md section 8, items 46 to 68: processes, the selection, user memory."""

from __future__ import annotations

import errno

import pytest

from kshell import kvm
from kshell.kvm import (
    KAS,
    PHYS,
    CorruptDumpError,
    FaultError,
    Kvm,
    NoProcessError,
    NoUserSpaceError,
    ReadOnlyError,
    kvm_aread,
    kvm_getproc,
    kvm_getu,
    kvm_kread,
    kvm_nextproc,
    kvm_pread,
    kvm_setproc,
    kvm_uread,
    kvm_uwrite,
)
from tests.guest.image import GuestImage
from tests.kvm.fixture_m import TASKS, Image, U, open_m
from tests.kvm.labs import Lab, select

pytest_plugins = ["tests.guest.fixtures"]
P = 4096
FILLER = 0xA5


def rest(kd: Kvm) -> list[int]:
    """Return the pids that kvm_nextproc still gives."""
    found = []
    while (proc := kvm_nextproc(kd)) is not None:
        found.append(proc.pid)
    return found


# -- the list ------------------------------------------------------------------------------------------------------


def test_item_46_each_process_once(kd: Kvm, lab: Lab) -> None:
    assert kvm_setproc(kd) == 0
    assert sorted(rest(kd)) == sorted(lab.pids)
    assert kvm_nextproc(kd) is None
    assert kvm_nextproc(kd) is None


def test_item_46_a_fresh_handle_is_rewound(kd: Kvm, lab: Lab) -> None:
    assert sorted(rest(kd)) == sorted(lab.pids) == sorted(proc.pid for proc in kd.procs())


def test_item_47_rewind(kd: Kvm) -> None:
    assert kvm_setproc(kd) == 0
    first = rest(kd)
    assert kvm_setproc(kd) == 0
    assert kvm_nextproc(kd) is not None
    assert kvm_setproc(kd) == 0
    assert rest(kd) == first


def test_item_48_getproc(kd: Kvm, lab: Lab) -> None:
    for pid in lab.pids:
        proc = kvm_getproc(kd, pid)
        assert proc is not None
        assert proc.pid == pid
    assert kvm_getproc(kd, lab.absent) is None
    assert kvm_getproc(kd, -1) is None
    with pytest.raises(NoProcessError) as caught:
        kd.proc(lab.absent)
    assert caught.value.errno == errno.ESRCH


def test_item_48_a_threads_number_is_no_process(guest: GuestImage) -> None:
    threads = [line for line in guest.oracle.threads() if line.pid != line.tgid]
    assert threads
    with kvm.open(guest.elf) as kd:
        for line in threads:
            assert kvm_getproc(kd, line.pid) is None
            assert kvm_getproc(kd, line.tgid) is not None


def test_item_49_getproc_moves_no_cursor(kd: Kvm, lab: Lab) -> None:
    kvm_setproc(kd)
    whole = rest(kd)
    kvm_setproc(kd)
    found = []
    while (proc := kvm_nextproc(kd)) is not None:
        found.append(proc.pid)
        if len(found) < 4:
            kvm_getproc(kd, lab.other[0])
            kvm_getproc(kd, lab.absent)
    assert found == whole


def test_item_50_a_proc_is_a_snapshot(kd: Kvm, lab: Lab) -> None:
    first, other = kvm_getproc(kd, lab.pid), kvm_getproc(kd, lab.other[0])
    assert first and other
    kvm_setproc(kd)
    rest(kd)
    assert (first.pid, other.pid) == (lab.pid, lab.other[0])
    assert first.read(lab.other[1], 8) == lab.other[2]
    assert other.read(lab.other[1], 8) == lab.other[3]
    with pytest.raises(AttributeError):
        first.pid = 7  # type: ignore[misc]


def test_item_51_a_list_that_loops() -> None:
    image = Image()
    facts, _ = image.tasks[TASKS + 0x2000]
    image.tasks[TASKS + 0x2000] = (facts, TASKS + 0x1000)
    with open_m("r", image) as kd:
        assert rest(kd) == [0, 2, 100]
        assert kd.errno == errno.EIO
        assert "loop" in kvm.kvm_geterr(kd)
        assert kvm_nextproc(kd) is None
        with pytest.raises(CorruptDumpError):
            list(kd.procs())


def damage_next(kd: Kvm, pid: int, link: int) -> None:
    """Let ``tasks.next`` of a process in a real dump lead elsewhere."""
    target = kd.backend.target  # type: ignore[attr-defined]
    member = target.type("struct task_struct").strip().member("tasks")
    kd.kwrite(kd.proc(pid).address + member.offset, link.to_bytes(8, "little"))


def test_item_51_a_real_list_that_loops(guest_61: GuestImage) -> None:
    with kvm.open(guest_61.elf, mode="c") as kd:
        target = kd.backend.target  # type: ignore[attr-defined]
        offset = target.type("struct task_struct").strip().member("tasks").offset
        pids = rest(kd)
        damage_next(kd, pids[9], kd.proc(pids[4]).address + offset)
        kvm_setproc(kd)
        assert set(rest(kd)) <= set(pids)
        assert kd.errno == errno.EIO
        with pytest.raises(CorruptDumpError):
            list(kd.procs())


def test_item_52_unreadable_element() -> None:
    image = Image()
    facts, _ = image.tasks[TASKS + 0x1000]
    image.tasks[TASKS + 0x1000] = (facts, 0xDEAD_0000)
    with open_m("r", image) as kd:
        assert rest(kd) == [0, 2]
        assert kd.errno == errno.EFAULT
        with pytest.raises(FaultError) as caught:
            list(kd.procs())
        assert caught.value.address == 0xDEAD_0000
    with open_m() as kd:
        rest(kd)
        assert kd.errno == 0        # a true end


def test_item_52_unreadable_element_of_a_real_list(guest_61: GuestImage) -> None:
    with kvm.open(guest_61.elf, mode="c") as kd:
        pids = rest(kd)
        assert kd.errno == 0
        damage_next(kd, pids[9], 0xFFFF_8000_0000_0000)
        kvm_setproc(kd)
        assert rest(kd) == pids     # those behind it by the list's other end
        assert kd.errno == errno.EFAULT
        with pytest.raises(FaultError):
            list(kd.procs())


def test_item_52_head_that_cannot_be_read() -> None:
    image = Image()
    image.first = 0xDEAD_0000
    with open_m("r", image) as kd:
        assert kvm_setproc(kd) == -1
        assert kvm_nextproc(kd) is None
        assert kd.errno == errno.EFAULT


def test_item_53_kernel_threads_and_zombies(kd: Kvm, lab: Lab) -> None:
    procs = {proc.pid: proc for proc in kd.procs()}
    assert procs[0].is_kernel
    assert procs[lab.kthread].is_kernel
    assert not procs[lab.pid].is_kernel
    assert procs[lab.zombie].state == "Z"
    assert not procs[lab.zombie].is_kernel
    assert [procs[pid].space for pid in (0, lab.kthread, lab.zombie)] == [None, None, None]
    assert procs[lab.pid].space is not None


def test_item_53_states_and_names_are_the_guests(guest: GuestImage) -> None:
    with kvm.open(guest.elf) as kd:
        found = {proc.pid: proc for proc in kd.procs() if proc.pid}
    assert sorted(found) == guest.oracle.pids()
    for line in guest.oracle.processes():
        proc = found[line.pid]
        assert proc.ppid == line.ppid
        # /proc tells of a kernel thread more than its comm has room for (fs/proc/array.c, proc_task_name).
        assert proc.comm == line.comm or (proc.is_kernel and line.comm.startswith(proc.comm))
        assert proc.state == line.state or {proc.state, line.state} <= set("RSDI")      # it ran on since it was asked


# -- the selection -------------------------------------------------------------------------------------------------


def test_item_54_nothing_selected(kd: Kvm, lab: Lab) -> None:
    b = bytearray(8)
    assert kvm_uread(kd, lab.u, b, 8) == -1
    assert kd.errno == errno.ENXIO
    assert b == bytes(8)
    with pytest.raises(NoProcessError):
        kd.uread(lab.u, 8)


def test_item_54_never_physical_memory() -> None:
    with open_m() as kd:
        assert kvm_uread(kd, 0x12 * P, bytearray(8)) == -1      # a frame that is there


def test_item_55_getproc_does_not_select(kd: Kvm, lab: Lab) -> None:
    assert kvm_getproc(kd, lab.pid)
    assert kvm_nextproc(kd)
    assert kvm_uread(kd, lab.u, bytearray(8), 8) == -1
    assert kd.errno == errno.ENXIO


def test_item_56_getu_selects(kd: Kvm, lab: Lab) -> None:
    user = select(kd, lab.pid)
    assert user.pid == lab.pid
    assert (6, P) in user.auxv          # AT_PAGESZ
    b = bytearray(8)
    assert kvm_uread(kd, lab.u, b, 8) == 8
    assert b == lab.user(0, 8)


def test_item_57_the_last_getu_counts(kd: Kvm, lab: Lab) -> None:
    select(kd, lab.pid)
    select(kd, lab.other[0])
    assert kd.uread(lab.other[1], 8) == lab.other[3]
    select(kd, lab.pid)
    assert kd.uread(lab.other[1], 8) == lab.other[2]


def test_item_58_nothing_else_selects(kd: Kvm, lab: Lab) -> None:
    pid, address, _, content = lab.other
    select(kd, pid)
    steps = (lambda: kvm_nextproc(kd), lambda: kvm_setproc(kd), lambda: kvm_getproc(kd, lab.pid),
             lambda: kvm_getproc(kd, lab.absent), lambda: kd.proc(lab.pid).user(), lambda: list(kd.procs()),
             lambda: kd.proc(lab.pid).argv(), lambda: kd.vtop(lab.u, kd.proc(lab.pid)))
    for step in steps:
        step()
        assert kd.uread(address, 8) == content
    assert kd.selected is not None
    assert kd.selected.pid == pid


def test_item_59_no_user_memory(kd: Kvm, lab: Lab) -> None:
    select(kd, lab.pid)
    for pid in (lab.kthread, lab.zombie, 0):
        proc = kvm_getproc(kd, pid)
        assert proc is not None
        assert kvm_getu(kd, proc) is None
        assert kd.errno == errno.ENXIO
        assert kd.uread(lab.u, 8) == lab.user(0, 8)
        with pytest.raises(NoUserSpaceError):
            kd.getu(proc)
        with pytest.raises(NoUserSpaceError):
            proc.read(lab.u, 8)


def test_item_60_the_hole(kd: Kvm, lab: Lab) -> None:
    select(kd, lab.pid)
    b = bytearray([FILLER] * 16)
    assert kvm_uread(kd, lab.u + 2 * P - 8, b, 16) == 8
    assert b == lab.user(2 * P - 8, 8) + bytes([FILLER] * 8)
    assert kvm_uread(kd, lab.u + 2 * P, b, 1) == -1
    assert kd.errno == errno.EFAULT


def test_item_61_kernel_addresses(kd: Kvm, lab: Lab) -> None:
    select(kd, lab.pid)
    assert kvm_kread(kd, lab.k, bytearray(8)) == 8
    assert kvm_uread(kd, lab.k, bytearray(8)) == -1
    assert kd.errno == errno.EFAULT
    with pytest.raises(FaultError):
        kd.proc(lab.pid).read(lab.k, 8)
    assert kvm_uread(kd, 2**64 - 8, bytearray(16)) == -1


def test_item_61_nor_across_the_border() -> None:
    image = Image()
    image.users[100].add(2**51 - 1, 0x20)        # the last page below 2**63
    image.users[100].add(2**51, 0x10)            # a kernel page behind it
    with open_m("r", image) as kd:
        select(kd, 100)
        assert kvm_uread(kd, 2**63 - 4, bytearray(8)) == 4


def test_item_62_uwrite(writable: Kvm, lab: Lab) -> None:
    select(writable, lab.pid)
    assert kvm_uwrite(writable, lab.u + P - 4, b"new bytes") == 9
    assert writable.uread(lab.u + P - 6, 13) == lab.user(P - 6, 2) + b"new bytes" + lab.user(P + 5, 2)
    assert kvm_uwrite(writable, lab.u + 2 * P - 4, b"12345678", 8) == 4
    assert writable.uread(lab.u + 2 * P - 6, 6) == lab.user(2 * P - 6, 2) + b"1234"
    assert kvm_uwrite(writable, lab.u + 2 * P, b"1") == -1
    assert writable.errno == errno.EFAULT
    assert kvm_uwrite(writable, lab.k, b"1") == -1
    writable.proc(lab.pid).write(lab.u, b"by proc")
    assert writable.uread(lab.u, 7) == b"by proc"


def test_item_62_read_only(kd: Kvm, lab: Lab) -> None:
    select(kd, lab.pid)
    assert kvm_uwrite(kd, lab.u, b"x") == -1
    assert kd.errno in (errno.EBADF, errno.EROFS)
    assert kvm_uwrite(kd, lab.u, b"") == 0
    assert kd.uread(lab.u, 1) == lab.user(0, 1)
    with pytest.raises(ReadOnlyError):
        kd.uwrite(lab.u, b"x")


def test_item_62_another_process_is_untouched() -> None:
    image = Image()
    with open_m("r+", image) as kd:
        select(kd, 100)
        kd.uwrite(U, b"mine")
        assert kd.proc(200).read(U, 4) == open_m().proc(200).read(U, 4)


# -- both ----------------------------------------------------------------------------------------------------------


def test_item_67_user_as_context_manager(kd: Kvm, lab: Lab) -> None:
    with kd.user(lab.pid) as user:
        assert user.pid == lab.pid
        assert kd.uread(lab.u, 8) == lab.user(0, 8)
    with pytest.raises(NoProcessError):
        kd.uread(lab.u, 8)
    select(kd, lab.other[0])
    with pytest.raises(ZeroDivisionError), kd.user(lab.pid):
        raise ZeroDivisionError
    assert kd.uread(lab.other[1], 8) == lab.other[3]
    with pytest.raises(NoUserSpaceError), kd.user(lab.kthread):
        pytest.fail("not reached")
    assert kd.uread(lab.other[1], 8) == lab.other[3]


def test_item_68_any_space(kd: Kvm, lab: Lab) -> None:
    proc = kd.proc(lab.pid)
    assert proc.space is not None
    for space in (proc, proc.space):
        b = bytearray(8)
        assert kvm_aread(kd, lab.u, b, 8, space) == 8
        assert b == lab.user(0, 8)
    assert kd.selected is None
    one, two = bytearray(16), bytearray(16)
    for address in (lab.k, lab.k + 3 * P - 4):
        assert kvm_aread(kd, address, one, 16, KAS) == kvm_kread(kd, address, two, 16)
        assert one == two
    paddr = kd.vtop(lab.k)
    assert kvm_aread(kd, paddr, one, 16, PHYS) == kvm_pread(kd, paddr, two, 16) == 16
    assert one == two
    for wrong in (None, 0, lab.pid, "KAS"):
        with pytest.raises(TypeError):
            kvm_aread(kd, lab.u, b, 8, wrong)  # type: ignore[arg-type]


def test_item_68_awrite(writable: Kvm, lab: Lab) -> None:
    assert kvm.kvm_awrite(writable, lab.u, b"through", 7, writable.proc(lab.pid)) == 7
    assert writable.proc(lab.pid).read(lab.u, 7) == b"through"
    writable.awrite(PHYS, writable.vtop(lab.k), b"below")
    assert writable.kread(lab.k, 5) == b"below"
