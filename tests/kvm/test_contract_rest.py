"""libkvm.md section 8, items 69 to 84: translation, symbols, commands, errors, threads."""

from __future__ import annotations

import errno
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kshell import kvm
from kshell.kvm import (
    KAS,
    PHYS,
    CorruptDumpError,
    FaultError,
    Kvm,
    Nlist,
    kvm_aread,
    kvm_awrite,
    kvm_getcmd,
    kvm_geterr,
    kvm_getproc,
    kvm_getu,
    kvm_kread,
    kvm_kwrite,
    kvm_nextproc,
    kvm_nlist,
    kvm_physaddr,
    kvm_pread,
    kvm_pwrite,
    kvm_setproc,
    kvm_uread,
    kvm_uwrite,
    kvm_walk_pages,
)
from tests.guest.image import GuestImage
from tests.kvm.fixture_m import ARG_START, KERNEL_FRAMES, SYMBOLS, Image, K, open_m
from tests.kvm.labs import Lab, child_process

pytest_plugins = ["tests.guest.fixtures"]
P = 4096
NO_ADDRESS = 2**64 - 1


def test_item_69_physaddr() -> None:
    with open_m() as kd:
        for page in (0, 1, 2, 4):
            assert kvm_physaddr(kd, KAS, K + page * P + 5) == KERNEL_FRAMES[page] * P + 5


def test_item_69_pread_there_is_kread(kd: Kvm, lab: Lab) -> None:
    for page in range(3):
        address = lab.k + page * P + 5
        one, two = bytearray(64), bytearray(64)
        assert kvm_pread(kd, kvm_physaddr(kd, KAS, address), one) == kvm_kread(kd, address, two) == 64
        assert one == two
    proc = kd.proc(lab.pid)
    for space in (proc, proc.space):
        assert space is not None
        assert kd.pread(kd.vtop(lab.u, space), 8) == lab.user(0, 8)


def test_item_69_physaddr_is_what_the_guest_says(guest: GuestImage) -> None:
    """The victim's /proc/PID/pagemap told its kernel's own translation."""
    oracle = guest.oracle
    pid = oracle.victim()["pid"]
    pages = {page: oracle.vtop(pid, page) for page in oracle.pagemap(pid)}
    with kvm.open(guest.elf) as kd:
        proc = kd.proc(pid)
        found = {page: kvm_physaddr(kd, proc, page) for page in pages}
    assert found == {page: NO_ADDRESS if paddr is None else paddr for page, paddr in pages.items()}
    assert len(set(found.values())) > 256          # the pattern alone has 256 pages


def test_item_70_physaddr_of_a_hole(kd: Kvm, lab: Lab) -> None:
    assert kvm_physaddr(kd, KAS, lab.k + 3 * P) == NO_ADDRESS
    assert kd.errno == errno.EFAULT
    with pytest.raises(FaultError):
        kd.vtop(lab.k + 3 * P)
    with pytest.raises(FaultError):
        kd.vtop(lab.u + 2 * P, kd.proc(lab.pid))
    assert kvm_physaddr(kd, kd.proc(lab.kthread), lab.u) == NO_ADDRESS


def test_item_71_frames_that_are_not_there(kd: Kvm, lab: Lab) -> None:
    b = bytearray(16)
    assert kvm_pread(kd, 1 << 45, b) == -1
    assert kd.errno == errno.EFAULT
    end = max(part.end for part in kd.backend.physical.ranges() if part.held)
    assert kvm_pread(kd, end - 4, b) == 4
    assert kd.errno == errno.EFAULT


def nlist(kd: Kvm, *names: str | None) -> list[Nlist]:
    entries = [Nlist(name) for name in names]
    for entry in entries:
        entry.n_value = entry.n_type = 99
    assert kvm_nlist(kd, entries) == 0
    return entries


def test_item_72_nlist() -> None:
    with open_m() as kd:
        data, code, absolute, missing = nlist(kd, "kas", "start", "absolute", "nope")
        assert (data.n_value, data.n_type, data.n_scnum) == (SYMBOLS[1].address, 1, 65521)
        assert (code.n_value, code.n_type) == (SYMBOLS[3].address, 2)
        assert (absolute.n_value, absolute.n_type) == (0x1000, 0)
        assert (missing.n_value, missing.n_type, missing.n_scnum) == (0, 0, 0)


def test_item_72_nlist_of_a_kernel(guest: GuestImage) -> None:
    with kvm.open(guest.elf) as kd:
        names = ["init_task", "schedule", "linux_banner", "init_mm", "no_such_symbol"]
        entries = nlist(kd, *names)
        assert [entry.n_value for entry in entries] == [*(guest.oracle.symbol(name) for name in names[:4]), 0]
        assert [entry.n_type for entry in entries] == [1, 2, 1, 1, 0]


def test_item_72_no_table_at_all() -> None:
    image = Image()
    image.symbols = None
    with open_m("r", image) as kd:
        entry = Nlist("kas")
        entry.n_value = 99
        assert kvm_nlist(kd, [entry]) == -1
        assert entry.n_value == 0
        assert kd.errno == errno.EIO


def test_item_73_duplicates() -> None:
    with open_m() as kd:
        first, second = nlist(kd, "twice", "twice")
        assert first.n_value == second.n_value == SYMBOLS[4].address
        assert nlist(kd, "mixed")[0].n_value == SYMBOLS[5].address       # a global beats a local
        assert kd.symbol("twice").address == SYMBOLS[4].address


def test_item_73_duplicates_of_a_kernel(guest_61: GuestImage) -> None:
    found: dict[str, list[tuple[int, str]]] = {}
    for line in guest_61.oracle.kallsyms():
        if line.module is None:
            found.setdefault(line.name, []).append((line.address, line.kind))
    names = [name for name, rows in found.items() if len(rows) > 1][:200]
    assert len(names) == 200
    with kvm.open(guest_61.elf) as kd:
        for name in names:
            rows = found[name]
            chosen = [row for row in rows if row[1].isupper()] or rows
            first, second = nlist(kd, name, name)
            assert first.n_value == second.n_value == chosen[-1][0], name


def test_item_74_ends(kd: Kvm) -> None:
    assert kvm_nlist(kd, []) == 0
    for end in ("", None):
        found, stop, after = nlist(kd, "init_mm", end, "init_mm")
        assert found.n_value
        assert (stop.n_value, after.n_value) == (99, 99)
    with pytest.raises(TypeError):
        kvm_nlist(kd, ["init_mm"])  # type: ignore[list-item]


def test_item_75_symbol(kd: Kvm) -> None:
    with pytest.raises(KeyError, match="nope"):
        kd.symbol("nope")
    found = kd.nlist("init_mm", "nope")
    assert found["nope"] is None
    assert found["init_mm"] == kd.symbol("init_mm")


def test_item_76_getcmd(kd: Kvm, lab: Lab) -> None:
    proc = kd.proc(lab.pid)
    user = kvm_getu(kd, proc)
    arg: list[str] = ["old"]
    env: list[str] = ["old"]
    assert kvm_getcmd(kd, proc, user, arg, env) == 0
    assert (arg, env) == (lab.argv, lab.environ)
    env = ["old"]
    assert kvm_getcmd(kd, proc, user, arg, None) == 0
    assert kvm_getcmd(kd, proc, user, None, env) == 0
    assert env == lab.environ
    assert proc.argv() == lab.argv
    assert proc.environ() == dict(text.split("=", 1) for text in lab.environ)
    with pytest.raises(TypeError):
        kvm_getcmd(kd, proc, user, (), None)  # type: ignore[arg-type]


def test_item_76_of_a_live_process() -> None:
    with child_process("a", "bc", environ={"X": "1"}) as found, kvm.open() as kd:
        proc = kd.proc(found.pid)
        arg: list[str] = []
        env: list[str] = []
        assert kvm_getcmd(kd, proc, kvm_getu(kd, proc), arg, env) == 0
        assert arg[-2:] == ["a", "bc"]
        assert env == ["X=1"]


def test_item_77_reads_the_process_it_is_given(kd: Kvm, lab: Lab) -> None:
    proc = kd.proc(lab.pid)
    user = kvm_getu(kd, proc)
    kvm_getu(kd, kd.proc(lab.other[0]))
    arg: list[str] = []
    assert kvm_getcmd(kd, proc, user, arg, None) == 0
    assert arg == lab.argv
    assert kd.selected is not None
    assert kd.selected.pid == lab.other[0]


def test_item_78_no_command(kd: Kvm, lab: Lab) -> None:
    pids = [lab.kthread, lab.zombie, 0] + [lab.other[0]] * (lab.name == "M")     # 200's pages are not mapped
    for pid in pids:
        arg, env = ["old"], ["old"]
        assert kvm_getcmd(kd, kd.proc(pid), None, arg, env) == -1
        assert (arg, env) == (["old"], ["old"])
        assert kvm_geterr(kd)


def test_item_78_impossible_areas() -> None:
    image = Image()
    for area in ((ARG_START, ARG_START - 1), (ARG_START, ARG_START + (1 << 40))):
        image.arguments[100] = (*area, ARG_START, ARG_START)
        with open_m("r", image) as kd:
            arg = ["old"]
            assert kvm_getcmd(kd, kd.proc(100), None, arg, None) == -1
            assert (arg, kd.errno) == (["old"], errno.EIO)


def test_item_79_bytes_that_are_no_text() -> None:
    with open_m("r+") as kd:
        proc = kd.proc(100)
        proc.write(ARG_START, b"\xff\0\xc3\xa9\0\x80=\xfe\0")
        arg: list[str] = []
        env: list[str] = []
        assert kvm_getcmd(kd, proc, None, arg, env) == 0
        assert [text.encode("utf-8", "surrogateescape") for text in arg] == [b"\xff", b"\xc3\xa9"]
        assert [text.encode("utf-8", "surrogateescape") for text in env] == [b"\x80=\xfe"]


def test_item_80_geterr(kd: Kvm, lab: Lab) -> None:
    assert kvm_geterr(kd) == ""
    assert kvm_geterr(None) == ""
    assert kvm_kread(kd, lab.k + 3 * P, bytearray(1)) == -1
    text = kvm_geterr(kd)
    assert text
    assert kvm_kread(kd, lab.k, bytearray(1)) == 1
    assert kvm_geterr(kd) == text


def test_item_81_no_function_raises(kd: Kvm, lab: Lab) -> None:
    choose = random.Random(81)
    procs = list(kd.procs())
    spaces: list[kvm.Space | kvm.Proc] = [KAS, PHYS, *procs[:40]]
    places = [lab.k, lab.u, 0, 2**63, 2**64 - P, 0x1000_0000, lab.k + 3 * P]
    places += [choose.randrange(2**64) for _ in range(40)]
    b = bytearray(3 * P)
    calls = (
        lambda a, n: kvm_kread(kd, a, b, n),
        lambda a, n: kvm_uread(kd, a, b, n),
        lambda a, n: kvm_pread(kd, a, b, n),
        lambda a, n: kvm_kwrite(kd, a, b, n),
        lambda a, n: kvm_uwrite(kd, a, b, n),
        lambda a, n: kvm_pwrite(kd, a, b, n),
        lambda a, n: kvm_aread(kd, a, b, n, choose.choice(spaces)),
        lambda a, n: kvm_awrite(kd, a, b, n, choose.choice(spaces)),
        lambda a, n: kvm_physaddr(kd, choose.choice(spaces), a),
        lambda a, n: kvm_getu(kd, choose.choice(procs)),
        lambda a, n: kvm_getproc(kd, a % 500),
        lambda a, n: kvm_getcmd(kd, choose.choice(procs), None, [], []),
        lambda a, n: kvm_nextproc(kd),
        lambda a, n: kvm_nlist(kd, [Nlist("init_task"), Nlist("x")]),
        lambda a, n: kvm_setproc(kd) if n < 8 else 0,
    )
    for _ in range(10_000 if lab.name == "M" else 3_000):
        address = min(max(choose.choice(places) + choose.randrange(-P, P), 0), 2**64 - 1)
        answer = choose.choice(calls)(address, choose.choice((0, 1, 8, 64, P, 2 * P)))
        assert not isinstance(answer, int) or answer >= -1


def test_item_82_eight_threads(kd: Kvm, lab: Lab) -> None:
    procs = [kd.proc(lab.pid), kd.proc(lab.other[0])]
    choose = random.Random(82)
    wanted = [(choose.choice(procs), lab.u + choose.randrange(0, 3 * P), choose.randrange(1, 600)) for _ in range(400)]
    wanted += [(proc, lab.other[1], 8) for proc in procs] * 20
    alone = [proc.read_upto(address, size) for proc, address, size in wanted]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: job[0].read_upto(job[1], job[2]), wanted * 4))
    assert together == alone * 4


@pytest.mark.parametrize("link", [-1, 25, 24 * 10_000, 2**63 + 8], ids=["loop", "misaligned", "out of range", "wild"])
def test_item_83_corrupt_chain(link: int) -> None:
    image = Image()
    image.kernel.bend(K // P + 1, link)
    with open_m("r+", image) as kd:
        b = bytearray(16)
        assert kvm_kread(kd, K + P, b) == -1
        assert kd.errno == errno.EIO
        assert "corrupt" in kvm_geterr(kd)
        assert image.kernel.steps <= 1001
        assert kvm_kread(kd, K + P - 8, b) == 8
        assert kvm_kwrite(kd, K + P, b"x") == -1
        assert kvm_physaddr(kd, KAS, K + P) == NO_ADDRESS
        for call in (lambda: kd.kread(K + P, 1), lambda: kd.vtop(K + P), lambda: kd.kwrite(K + P, b"x"),
                     lambda: kd.kread_upto(K + P, 1)):
            with pytest.raises(CorruptDumpError):
                call()
        with pytest.raises(CorruptDumpError) as caught:
            kd.kread(K + P - 8, 16)
        assert (caught.value.moved, len(caught.value.partial)) == (8, 8)


def test_item_83_page_tables_of_a_real_dump(guest_61: GuestImage) -> None:
    """A table that leads to itself, to nowhere, or out of RAM: one answer each, in bounded time."""
    with kvm.open(guest_61.elf, mode="c") as kd:
        proc = kd.proc(guest_61.oracle.process("victim").pid)
        address = proc.user().arg_start
        space = kd.backend.user_space(proc.facts)
        levels = space.walk(address)  # type: ignore[attr-defined]
        leaf = levels[-1].table + 8 * levels[-1].slot
        b = bytearray(8)
        assert kvm_aread(kd, address, b, 8, proc) == 8
        old = kd.pread(leaf, 8)
        for entry in (0xF_FFFF_FFFF_F067, 0x8000_0001_0000_0067, (1 << 64) - 1, 0):
            kd.pwrite(leaf, entry.to_bytes(8, "little"))
            assert kvm_aread(kd, address, b, 8, proc) == -1, hex(entry)
            assert kd.errno in (errno.EFAULT, errno.EIO)
        root = levels[0].table
        kd.pwrite(leaf, (root | 0x67).to_bytes(8, "little"))
        assert proc.read(address & -P, P) == kd.pread(root, P)      # what the entry says, and nothing kept from before
        for level in levels[:-1]:
            kd.pwrite(level.table + 8 * level.slot, (root | 0x67).to_bytes(8, "little"))
        assert kvm_aread(kd, address, b, 8, proc) in (-1, 8)
        kd.pwrite(leaf, old)


def test_item_84_repr(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab.open("r") as kd:
        monkeypatch.setattr(type(kd.backend), "kernel", property(lambda self: pytest.fail("read")))
        monkeypatch.setattr(type(kd.backend), "physical", property(lambda self: pytest.fail("read")))
        text = repr(kd)
        for part in (kd.backend.kind, kd.path, "mode 'r'", "open"):
            assert part in text
    assert "closed" in repr(kd)


def test_bsd_functions(kd: Kvm, lab: Lab) -> None:
    assert kvm.kvm_native(kd) in (True, False)
    assert kvm.kvm_kerndisp(kd) % P == 0
    seen: list[tuple[int, object]] = []
    total = 0

    def few(page: kvm.Page, arg: object) -> bool:
        seen.append((page.paddr, arg))
        return len(seen) < 5

    def count(page: kvm.Page, arg: object) -> bool:
        nonlocal total
        total += page.size
        return True

    assert kvm_walk_pages(kd, few, "arg") == 0
    assert len(seen) == 5
    assert seen == sorted(seen)
    assert {arg for _, arg in seen} == {"arg"}
    assert all(len(kd.pread(paddr, P)) == P for paddr, _ in seen)
    assert kvm_walk_pages(kd, count) == 1
    assert total == sum(part.end - part.start for part in kd.backend.physical.ranges() if part.held)


def test_kerndisp_is_kaslr(guest: GuestImage, guest_nokaslr: GuestImage) -> None:
    with kvm.open(guest.elf) as kd:
        assert kvm.kvm_kerndisp(kd) == guest.oracle.symbol("_stext") - 0xFFFF_FFFF_8100_0000 != 0
    with kvm.open(guest_nokaslr.elf) as kd:
        assert kvm.kvm_kerndisp(kd) == 0


def test_the_manuals_functions_are_all_there() -> None:
    text = Path(kvm.__file__ or "").read_text()
    names = set(re.findall(r"kvm_\w+", text))
    assert names >= {
        "kvm_open", "kvm_close", "kvm_nlist", "kvm_getproc", "kvm_nextproc", "kvm_setproc", "kvm_getu", "kvm_getcmd",
        "kvm_kread", "kvm_kwrite", "kvm_uread", "kvm_uwrite", "kvm_read", "kvm_write", "kvm_aread", "kvm_awrite",
        "kvm_pread", "kvm_pwrite", "kvm_physaddr", "kvm_namelist", "kvm_geterr", "kvm_native", "kvm_kerndisp",
        "kvm_walk_pages",
    }
    assert all(hasattr(kvm, name) for name in kvm.__all__)
