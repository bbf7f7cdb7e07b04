"""Symbols and types of real kernels, beside the guests' own /proc/kallsyms, VMCOREINFO and the kernel's DWARF."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.errors import Fault, FormatError, Reason
from kshell.memory.model import Memory
from kshell.target.vmcoreinfo import Vmcoreinfo
from kshell.types.btf import Btf
from kshell.types.btf_index import DATASEC, DECL_TAG, VAR
from kshell.types.kallsyms import Kallsyms, load_kallsyms
from kshell.types.model import EnumType, StructType
from kshell.types.names import SymbolIndex, TypeIndex
from tests.guest.cache import cache_root
from tests.guest.image import GuestImage

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest

FRAME = 0xF_FFFF_FFFF_F000


class Dump(Memory):
    """Kernel memory of an ELF dump of QEMU's: a second, plain way to it, so that only kallsyms and BTF are tried."""

    space = "kernel"

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        head = self.file.read(64)
        (table,), (count,) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<H", head, 56)
        self.segments: list[tuple[int, int, int]] = []
        for number in range(count):
            self.file.seek(table + 56 * number)
            kind, _, offset, _, paddr, size, _, _ = struct.unpack("<IIQQQQQQ", self.file.read(56))
            if kind == 1:
                self.segments.append((paddr, paddr + size, offset))
            else:
                self.file.seek(offset)
                notes = self.file.read(size)
        text = notes[notes.index(b"OSRELEASE=") :].split(b"\0", 1)[0]
        self.info = Vmcoreinfo(text)
        self.levels = 5 if self.info.number("pgtable_l5_enabled") else 4
        root, base = self.info.symbol("swapper_pg_dir"), self.info.number("phys_base")
        assert root is not None and base is not None
        self.root = root - 0xFFFF_FFFF_8000_0000 + base

    def physical(self, paddr: int, size: int) -> bytes:
        for start, end, offset in self.segments:
            if start <= paddr and paddr + size <= end:
                self.file.seek(offset + paddr - start)
                return self.file.read(size)
        raise KeyError(paddr)

    def run(self, vaddr: int) -> tuple[int, int] | None:
        """Return (physical address, bytes up to the end of the page)."""
        table = self.root
        for level in range(self.levels - 1, -1, -1):
            shift = 12 + 9 * level
            (entry,) = struct.unpack("<Q", self.physical(table + (vaddr >> shift & 511) * 8, 8))
            if not entry & 1:
                return None
            if level == 0 or entry & 0x80:
                inside = vaddr % (1 << shift)
                return (entry & FRAME & -(1 << shift)) + inside, (1 << shift) - inside
            table = entry & FRAME
        raise AssertionError

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        parts: list[bytes] = []
        done = 0
        while done < size:
            found = self.run(address + done)
            if found is None:
                data = b"".join(parts)
                return data, Fault(address + done, size, Reason.NOT_MAPPED, partial=data, space=self.space)
            parts.append(self.physical(found[0], min(found[1], size - done)))
            done += len(parts[-1])
        return b"".join(parts), None


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep these tests out of the user's cache, and let later ones profit from earlier ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSHELL_GUEST_CACHE", str(cache_root()))  # or guests would be built there
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def dump(guest: GuestImage) -> Dump:
    return Dump(guest.elf)


@pytest.fixture(scope="module")
def table(dump: Dump) -> Kallsyms:
    return load_kallsyms(dump, dump.info.symbol)


def read_btf(dump: Dump, table: Kallsyms) -> bytes:
    (start,), (stop,) = table.find("__start_BTF"), table.find("__stop_BTF")
    return dump.read(start.address, stop.address - start.address)


@pytest.fixture(scope="module")
def btf(dump: Dump, table: Kallsyms) -> Btf:
    return Btf(read_btf(dump, table))


def test_every_symbol_is_the_guests(guest: GuestImage, dump: Dump) -> None:
    expected = [(line.name, line.address, line.kind) for line in guest.oracle.kallsyms() if line.module is None]
    for _ in ("decoded", "from the cache"):
        found = load_kallsyms(dump, dump.info.symbol)
        assert [(symbol.name, symbol.address, symbol.type) for symbol in found] == expected
    assert len(expected) > 50_000


def test_symbols_are_found_by_name_and_address(guest: GuestImage, table: Kallsyms) -> None:
    lines = [line for line in guest.oracle.kallsyms() if line.module is None]
    for line in lines[:: len(lines) // 500]:
        assert line.address in [symbol.address for symbol in table.find(line.name)]
        if line.address >> 63:
            found = table.at(line.address)
            assert found is not None and found.address == line.address
        assert table.starting(line.name, 1) == [line.name]
    assert table.find("init_task")[0].size > 4096


def test_a_dump_with_five_levels(guest_la57: GuestImage) -> None:
    dump = Dump(guest_la57.elf)
    (symbol,) = load_kallsyms(dump, dump.info.symbol).find("init_task")
    assert symbol.address == guest_la57.oracle.symbol("init_task")


def test_every_type_can_be_made(btf: Btf) -> None:
    made = 0
    for number in range(btf.last):
        try:
            ctype = btf.by_id(number)
        except FormatError:
            assert btf._record(number)[1] >> 24 & 0x1F in (VAR, DATASEC, DECL_TAG)
            continue
        made += 1
        assert str(ctype)
        if isinstance(ctype, StructType):
            for member in ctype.members:
                assert member.offset <= (ctype.size or 0)
                assert str(member.type)
            list(ctype.names())
        if isinstance(ctype, EnumType):
            assert all(enumerator.name for enumerator in ctype.enumerators)
    assert made > 80_000


NAMES = ("task_struct", "mm_struct", "vm_area_struct", "page", "file", "inode", "super_block", "module", "net_device",
         "sk_buff", "sock", "kmem_cache", "cred", "pid", "bio")


def test_offsets_are_drgns(guest: GuestImage, dump: Dump, btf: Btf) -> None:
    """drgn reads the DWARF of the kernel's -dbg package, where the rig has it."""
    drgn = pytest.importorskip("drgn")
    packages = Path("~/.cache/kshell/guests/packages").expanduser()
    debug = sorted(packages.glob(f"*/usr/lib/debug/boot/vmlinux-{dump.info.release}"))
    if not debug:
        pytest.skip(f"no vmlinux with DWARF of {dump.info.release}")
    prog = drgn.Program()
    prog.set_core_dump(str(guest.elf))
    prog.load_debug_info([str(debug[0])])
    for name in NAMES:
        theirs = prog.type(f"struct {name}")
        ours = btf.find("struct", name)
        assert isinstance(ours, StructType) and ours.size == theirs.size
        assert [(member.name, member.bit_offset, member.bit_size) for member in ours.members] == [
            (member.name, member.bit_offset, member.bit_field_size) for member in theirs.members], name


def test_offsets_are_vmcoreinfos(dump: Dump, btf: Btf) -> None:
    """The kernel itself tells sizes and offsets of some structures."""
    tried = 0
    for line in dump.info.raw.decode().splitlines():
        key, _, value = line.partition("=")
        what, _, name = key.rstrip(")").partition("(")
        if what not in ("SIZE", "OFFSET"):
            continue
        owner, _, member = name.partition(".")
        ctype = btf.find("struct", owner) or btf.find("", owner)
        ctype = ctype.strip() if ctype is not None else None
        if not isinstance(ctype, StructType) or (member and not ctype.has(member)):
            continue
        tried += 1
        assert int(value) == (ctype.member(member).offset if member else ctype.size), line
    assert tried > 20


def test_per_cpu_variables_are_where_the_symbols_are(btf: Btf, table: Kallsyms) -> None:
    variables = btf.percpu()
    assert len(variables) > 100 and str(variables["runqueues"][1]) == "struct rq"
    start = table.find("__per_cpu_start")[0].address
    for name, (offset, _) in variables.items():
        found = [symbol.address - start for symbol in table.find(name)]
        assert not found or offset in found, name


def test_functions_have_prototypes(btf: Btf) -> None:
    function = btf.function("schedule_timeout")
    assert function is not None
    assert function.declare("schedule_timeout") == "long int schedule_timeout(long int timeout)"


def test_known_globals_have_their_size(btf: Btf, table: Kallsyms) -> None:
    """A type larger than the room up to the next symbol is a wrong one."""
    symbols, types = SymbolIndex([table]), TypeIndex([btf])
    from kshell.types import known

    known.known_type("init_task")
    tried, wrong = 0, []
    for name in known._types or {}:
        symbol = symbols.get(name)
        ctype = types.of_symbol(symbol) if symbol is not None else None
        if symbol is None or ctype is None or not symbol.address >> 63:
            continue
        tried += 1
        if not ctype.size or ctype.size > symbol.size or symbol.size > ctype.size + 64 + ctype.size:
            wrong.append((name, str(ctype), ctype.size, symbol.size))
    assert wrong == [] and tried > 60
