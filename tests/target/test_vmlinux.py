"""``kshell DUMP VMLINUX``: the right vmlinux or System.map adds symbols; another kernel's, or a damaged one, is named.

The real one is the 6.1 -dbg package, where it is in the rig's cache (``python -m tests.guest debuginfo 6.1``).
"""

from __future__ import annotations

import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kshell import cache
from kshell.errors import Fault, FormatError, OpenError, TypeNotFoundError
from kshell.linux import processes
from kshell.memory import filekey
from kshell.memory.elfcore import EHDR, SHDR
from kshell.target import places
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.target.vmlinux import image_build_id
from kshell.types import elfsym, linkedsyms
from kshell.types.elffile import ElfFile
from kshell.types.elfsym import ElfSymbols, read_symbols
from tests.commands.asking import ask
from tests.guest.answers import vmlinux_of
from tests.guest.cache import cache_root
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.oracle import Oracle
from tests.guest.spec import named_spec
from tests.memory import containers
from tests.memory.cores import note
from tests.programs import compiler
from tests.target import tiny
from tests.target.conftest import Guest
from tests.target.stripped import strip
from tests.target.thin import LABELS, cut_down

BUILD_ID = bytes(range(20))


def vmlinux(
    symbols: dict[str, int], build_id: bytes | None = None, *, section: str = ".notes", kind: int = 2,
    ident: bytes = b"\x02\x01\x01",
) -> bytes:
    """Return an ELF executable with a symbol table and notes, Xen's first as in a kernel."""
    strings, table = bytearray(b"\0"), bytearray(24)
    for name, address in symbols.items():
        table += struct.pack("<IBBHQQ", len(strings), 0x12, 0, 1, address, 8)
        strings += name.encode() + b"\0"
    notes = note("Xen", 3, struct.pack("<Q", tiny.START)) + (b"" if build_id is None else note("GNU", 3, build_id))
    names = b"\0.symtab\0.strtab\0.shstrtab\0" + section.encode() + b"\0"
    parts = [bytes(table), bytes(strings), notes, names]
    at = EHDR.size
    rows = [bytes(SHDR.size)]
    for number, (name, kind_of, link) in enumerate(((".symtab", 2, 2), (".strtab", 3, 0), (section, 7, 0),
                                                    (".shstrtab", 3, 0))):
        entry = 24 if name == ".symtab" else 0
        place = names.index(name.encode() + b"\0")
        rows.append(SHDR.pack(place, kind_of, 0, 0, at, len(parts[number]), link, 0, 8, entry))
        at += len(parts[number])
    head = EHDR.pack(b"\x7fELF" + ident + bytes(9), kind, 62, 1, 0, 0, at, 0, 64, 0, 0, 64, 5, 4)
    return b"".join([head, *parts, *rows])


RIGHT = {"_stext": tiny.START, "swapper_pg_dir": tiny.START + tiny.ROOT, "only_here": tiny.START + 0x123}


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "dump"
    path.write_bytes(tiny.image())
    return path


def put(folder: Path, data: bytes, name: str = "vmlinux") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def test_it_adds_symbols_behind_those_of_the_image(dump: Path, tmp_path: Path) -> None:
    with open_target(str(dump), put(tmp_path, vmlinux({**RIGHT, "init_task": 1}, BUILD_ID))) as target:
        assert target.symbol("only_here").address == tiny.START + 0x123
        assert target.symbol("init_task").address == tiny.START + tiny.INIT_TASK, "the image's own come first"
        assert "vmlinux" in target.findings


def test_kaslr_moves_them(tmp_path: Path) -> None:
    """The image is where KASLR put it; the file says where it was linked."""
    linked = {name: address - 0x100_0000 for name, address in RIGHT.items()}
    path = put(tmp_path, tiny.image(KERNELOFFSET="1000000"), "dump")
    with open_target(path, put(tmp_path, vmlinux({**linked, "percpu": 0x40}))) as target:
        assert target.symbol("only_here").address == tiny.START + 0x123
        assert target.symbol("percpu").address == 0x40, "an offset in the per-CPU area is not moved"


def test_a_system_map(dump: Path, tmp_path: Path) -> None:
    lines = "".join(f"{address:x} T {name}\n" for name, address in RIGHT.items())
    with open_target(str(dump), put(tmp_path, lines.encode(), "System.map")) as target:
        assert target.symbol("only_here").address == tiny.START + 0x123


@pytest.mark.parametrize("data, kind, words", [
    (vmlinux({**RIGHT, "swapper_pg_dir": tiny.START + 0x9000}), "version", "swapper_pg_dir at 0xffffffff80009000"),
    (vmlinux({**RIGHT, "_stext": tiny.START + 0x200_0000}), "version", "in the image at 0xffffffff80000000"),
    (vmlinux({"main": 0x401000}), "symbols", "no symbol _stext"),
    (vmlinux({}), "symbols", "no symbol _stext"),
    (vmlinux(RIGHT, ident=b"\x01\x01\x01"), "symbols", "ELF"),
    (vmlinux(RIGHT, ident=b"\x02\x02\x01"), "symbols", "ELF"),
    (vmlinux(RIGHT)[:100], "symbols", "ELF"),
    (b"ffffffff80000000 T _stext\nffffffff80009000 D swapper_pg_dir\n", "version", "swapper_pg_dir"),
    (b"ffffffff80000000 T nothing_known\n", "version", "none of its symbols"),
    (b"0000000000000000 T _stext\n", "symbols", "no addresses"),
    (b"this is not a map\n", "symbols", "not a line of symbols"),
    (b"\xff\xfe\x00binary\n\0\0\0", "symbols", "not a line of symbols"),
    (b"", "symbols", "no symbols"),
    (b"ffffffff80000000 T _stext\nffffffff80000000 T _text\n", "version", "only _stext"),  # as any kernel's
    (containers.lime([(0, bytes(4096))]), "symbols", "a LiME image: neither a vmlinux"),
    (b"0" * 100_000, "symbols", "not a line of symbols"),
])
def test_another_kernels_and_no_vmlinux(dump: Path, tmp_path: Path, data: bytes, kind: str, words: str) -> None:
    with pytest.raises(OpenError) as caught:
        open_target(str(dump), put(tmp_path, data))
    assert words in str(caught.value) and caught.value.kind == kind, str(caught.value)
    assert str(tmp_path / "vmlinux") in str(caught.value)


def test_a_device_without_end_is_no_system_map(dump: Path) -> None:
    for path in ("/dev/zero", "/dev/urandom"):
        with pytest.raises(OpenError, match="not a line of symbols"):
            open_target(str(dump), path)


def test_one_that_is_not_there(dump: Path, tmp_path: Path) -> None:
    for name in ("nothing", "."):
        with pytest.raises(OpenError):
            open_target(str(dump), str(tmp_path / name))


def test_the_build_id_of_vmcoreinfo_is_no_evidence(dump: Path, tmp_path: Path) -> None:
    """Some kernels wrote garbage there; the one in the image's notes is asked, and this image has none."""
    with open_target(str(dump), put(tmp_path, vmlinux(RIGHT, b"\x77" * 20))) as target:
        assert image_build_id(target) is None and target.symbol("only_here")


@pytest.mark.parametrize("section", [".notes", ".note.gnu.build-id"])
def test_the_build_id_of_a_file(tmp_path: Path, section: str) -> None:
    """Xen's notes have the same type; only GNU's is a build id."""
    assert ElfSymbols(put(tmp_path, vmlinux(RIGHT, BUILD_ID, section=section))).build_id == BUILD_ID.hex()
    assert ElfSymbols(put(tmp_path, vmlinux(RIGHT))).build_id is None


def test_damaged_elf_files_are_format_errors(tmp_path: Path) -> None:
    whole = vmlinux(RIGHT, BUILD_ID)
    path = tmp_path / "vmlinux"
    draw = random.Random(3)
    places = [*range(64), *range(len(whole) - 5 * SHDR.size, len(whole)), *draw.sample(range(len(whole)), 60)]
    for at in places:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            ElfSymbols(str(path)).symbols(0)
        except FormatError as error:
            assert str(path) in str(error) or "section" in str(error)
    for size in range(0, len(whole), 13):
        path.write_bytes(whole[:size])
        try:
            ElfSymbols(str(path))
        except FormatError:
            continue


def test_a_section_of_impossible_size(tmp_path: Path) -> None:
    whole = bytearray(vmlinux(RIGHT, BUILD_ID))
    struct.pack_into("<Q", whole, len(whole) - 4 * SHDR.size + 32, 24 << 40)  # sh_size of .symtab
    with pytest.raises(FormatError, match=r"section \.symtab lies outside the file"):
        ElfSymbols(put(tmp_path, bytes(whole)))


# -- types -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The tiny dump without its BTF, that tells the size of a list_head."""
    path = tmp_path / "bare"
    path.write_bytes(tiny.image(**{"SIZE(list_head)": "16", "OFFSET(list_head.prev)": "8"}).replace(
        tiny.types().bytes()[:8], bytes(8)))
    return path


def test_without_types_the_command_that_needs_them_says_so(bare: Path) -> None:
    with open_target(str(bare)) as target:
        assert target.kernel.read(target.symbol("greeting").address, 5) == b"hello"
        with pytest.raises(TypeNotFoundError) as caught:
            target.type("struct task_struct")
        assert "kshell DUMP VMLINUX" in (caught.value.hint or "") and "6.4.0-tiny" in (caught.value.hint or "")


def test_a_btf_file(bare: Path, tmp_path: Path) -> None:
    with open_target(str(bare), put(tmp_path, tiny.types().bytes(), "btf")) as target:
        assert target.type("struct task_struct").size == 48 and "BTF of" in target.findings["types"]


def test_a_btf_file_of_another_kernel(dump: Path, tmp_path: Path) -> None:
    image = tiny.image(**{"SIZE(list_head)": "24"})
    path = put(tmp_path, tiny.types().bytes(), "btf")
    with pytest.raises(OpenError, match=r"struct list_head has 16 bytes, in the image 24"):
        open_target(put(tmp_path, image, "dump2"), path)
    image = tiny.image(**{"OFFSET(list_head.prev)": "0"})
    with pytest.raises(OpenError, match=r"list_head.prev is at byte 8, in the image at 0"):
        open_target(put(tmp_path, image, "dump2"), path)
    with pytest.raises(OpenError, match="BTF"):
        open_target(str(dump), put(tmp_path, tiny.types().bytes()[:20], "btf"))


VMLINUX = """
typedef int pid_t;
struct list_head { struct list_head *next, *prev; };
struct task_struct { pid_t pid; struct list_head tasks __attribute__((aligned(16))); char comm[16]; };
struct task_struct init_task __attribute__((section(".init_task"))) = {0};
static char greeting[13] __attribute__((section(".greeting"), used)) = {0};
void _start(void) { }
"""


@pytest.fixture(scope="module")
def dwarf_vmlinux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vmlinux of the tiny kernel, built without BTF, linked a megabyte below where the image is."""
    folder = tmp_path_factory.mktemp("vmlinux")
    (folder / "v.c").write_text(VMLINUX)
    places = {".init_task": tiny.INIT_TASK, ".greeting": tiny.GREETING, ".text": 0x7000}
    flags = [f"-Wl,--section-start={name}={tiny.START - 0x10_0000 + at:#x}" for name, at in places.items()]
    flags += [f"-Wl,--defsym={name}={tiny.START - 0x10_0000 + at:#x}" for name, at in
              (("_stext", 0), ("swapper_pg_dir", tiny.ROOT))]
    command = [compiler(), "-g", "-nostdlib", "-static", "-no-pie", "-mcmodel=kernel", "-fno-pic", "-Wl,--build-id"]
    subprocess.run([*command, *flags, "-o", str(folder / "vmlinux"), str(folder / "v.c")], check=True)
    return folder / "vmlinux"


def test_a_kernel_without_btf_and_its_vmlinux(dwarf_vmlinux: Path, tmp_path: Path) -> None:
    image = tiny.image(KERNELOFFSET="100000").replace(tiny.types().bytes()[:8], bytes(8))
    with open_target(put(tmp_path, image, "dump"), str(dwarf_vmlinux)) as target:
        assert target.type("struct task_struct").size == 48
        assert target.findings["types"].startswith("DWARF of")
        assert target.object("init_task").member("comm").string() == "swapper/0"
        assert target.object("greeting").string() == "hello, world", "a static variable, moved by KASLR"


def test_the_bytes_of_the_vmlinux(dwarf_vmlinux: Path, tmp_path: Path) -> None:
    """``?`` reads the file where ``/`` reads the memory that was made of it."""
    with open_target(put(tmp_path, tiny.image(KERNELOFFSET="100000"), "dump"), str(dwarf_vmlinux)) as target:
        assert target.object_file is not None
        greeting = target.symbol("greeting").address
        assert target.kernel.read(greeting, 5) == b"hello" and target.object_file.read(greeting, 5) == bytes(5)
        with pytest.raises(Fault):
            target.object_file.read(greeting - 0x10_0000, 5)


def test_dwarf_adds_to_the_images_own_types(dwarf_vmlinux: Path, tmp_path: Path) -> None:
    path = put(tmp_path, tiny.image(KERNELOFFSET="100000"), "dump")
    with open_target(path, str(dwarf_vmlinux)) as target:
        assert target.type("struct mm_struct").size == 8, "of the image's BTF"
        assert str(target.type("pid_t")) == "pid_t", "of the vmlinux"
        assert str(target.object("greeting").type) == "char [13]"


# -- real ones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guest", ["6.1", "6.12"], indirect=True)
def test_the_images_own_build_id(guest: Guest) -> None:
    notes = guest.oracle.content("sys/kernel/notes")
    built = image_build_id(guest.target)
    assert built is not None and bytes.fromhex(built) in notes
    assert guest.target.vmcoreinfo is not None and guest.target.vmcoreinfo.build_id == built


@pytest.mark.parametrize("guest", ["6.1"], indirect=True)
def test_a_program_is_no_vmlinux(guest: Guest) -> None:
    with pytest.raises(OpenError, match="no symbol _stext"):
        open_target(str(guest.path), str(guest.image.victim))


def debug_file(name: str, series: str = "6.1") -> str:
    """Return a file of a -dbg package, from the rig's cache only: it is 700 MB to download."""
    found = sorted((cache_root() / "packages").glob(f"linux-image-{series}.*-dbg_*/usr/lib/debug/boot/{name}-*"))
    if not found:
        pytest.skip(f"the {series} -dbg package is not cached (python -m tests.guest debuginfo {series})")
    return str(found[-1])


@pytest.mark.parametrize("guest", ["6.1"], indirect=True)
@pytest.mark.parametrize("name", ["vmlinux", "System.map"])
def test_the_right_one(guest: Guest, name: str) -> None:
    path = debug_file(name)
    if guest.image.kernel_release not in path:
        pytest.skip(f"{path} is of another 6.1 than the guest")
    with open_target(str(guest.path), path) as target:
        own = {(symbol.name, symbol.address) for symbol in target.symbols.sources[0]}
        added = [symbol for symbol in target.symbols.sources[1] if symbol.type in "TtDd"]
        assert sum((symbol.name, symbol.address) in own for symbol in added) > 40_000


@pytest.mark.parametrize("guest", ["6.12"], indirect=True)
@pytest.mark.parametrize("name, words", [("vmlinux", "build id"), ("System.map", "in the image at")])
def test_the_wrong_one(guest: Guest, name: str, words: str) -> None:
    with pytest.raises(OpenError, match=words) as caught:
        open_target(str(guest.path), debug_file(name))
    assert caught.value.kind == "version" and guest.image.kernel_release in (caught.value.hint or "")


@pytest.fixture(scope="module")
def stripped_510(guest_510: GuestImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linux 5.10 without BTF in its memory: as Debian 11 built it."""
    return strip(guest_510.elf, tmp_path_factory.mktemp("stripped") / "dump", vmcoreinfo=True, btf=False)


def asked(target: Target, oracle: Oracle) -> None:
    """See that tasks, ::print, memory and user memory work."""
    pids = {task.pid for task in processes.iter_processes(target)}
    told = {line.pid for line in oracle.processes()}
    assert told <= pids and len(pids - told) < 5, "processes come and go between the two"
    victim = oracle.victim()
    task = processes.by_pid(target, victim["pid"])
    assert target.value("struct task_struct", task.address)["comm"].string() == task.comm == "victim"
    space = processes.user_memory(target, task)
    assert space.read(victim["list_head"], 8) == victim["first_node"].to_bytes(8, "little")
    assert [vma.start for vma in processes.vmas(target, task)][:2]


def test_510_without_btf_has_memory_and_symbols(stripped_510: Path, guest_510: GuestImage) -> None:
    with open_target(str(stripped_510)) as target:
        assert len(target.symbols) > 90_000
        banner = target.kernel.read(target.symbol("linux_banner").address, 32)
        assert banner.startswith(b"Linux version 5.10.0-32")
        with pytest.raises(TypeNotFoundError) as caught:
            list(processes.iter_processes(target))
        assert "kshell DUMP VMLINUX" in (caught.value.hint or "")


def test_510_with_a_btf_file(stripped_510: Path, guest_510: GuestImage) -> None:
    """Of the guest's own /sys/kernel/btf/vmlinux."""
    with open_target(str(stripped_510), str(guest_510.oracle.path("sys/kernel/btf/vmlinux"))) as target:
        asked(target, guest_510.oracle)


def test_510_with_a_btf_file_of_61(stripped_510: Path, guest_61: GuestImage) -> None:
    with pytest.raises(OpenError, match="not the BTF of this kernel"):
        open_target(str(stripped_510), str(guest_61.oracle.path("sys/kernel/btf/vmlinux")))


@pytest.mark.parametrize("types", ["BTF", "DWARF"])
def test_510_with_its_vmlinux(
    stripped_510: Path, guest_510: GuestImage, types: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = debug_file("vmlinux", "5.10")
    if types == "DWARF":  # as if it had been built without CONFIG_DEBUG_INFO_BTF
        real = ElfFile.section
        monkeypatch.setattr(ElfFile, "section", lambda self, name: None if name == ".BTF" else real(self, name))
    with open_target(str(stripped_510), path) as target:
        assert len(target.types) and target.findings["types"].startswith(f"{types} of")
        assert target.object("console_drivers").member("name").string() == "ttyS"
        asked(target, guest_510.oracle)


PEAK = r"""
import contextlib, re, sys
from kshell.errors import TypeNotFoundError
from kshell.target.open import open_target
with open_target(*sys.argv[1:]) as target:
    assert target.object("init_task").member("comm").string() == "swapper/0"
    with contextlib.suppress(TypeNotFoundError):
        target.types.find("struct there_is_none")
print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) >> 10, *target.findings.values())
"""


def test_the_first_look_at_a_kernel_that_tells_nothing_and_its_vmlinux_takes_little_memory(
    stripped_510: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kallsyms by its shape, the symbols of a vmlinux of 600 MB, its BTF and DWARF: below 150 MB (it was 232)."""
    path = debug_file("vmlinux", "5.10")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", PEAK, str(stripped_510), path], stdout=subprocess.PIPE, text=True,
                          check=True)
    peak, told = done.stdout.split(" ", 1)
    assert "by the shape of its tables" in told and any(tmp_path.rglob("dwarf-*"))
    assert int(peak) < 150, told


# -- what is kept ------------------------------------------------------------------------------------------------------


def never(*_: object) -> None:
    raise AssertionError("made again")


def test_symbols_are_kept_by_build_id_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(linkedsyms, "WORTH_KEEPING", 1)
    odd = {**RIGHT, "n\u00e4me": tiny.START + 0x200, "percpu": 0x40, "same": tiny.START + 0x123}
    path = put(tmp_path, vmlinux(odd, BUILD_ID))
    other = put(tmp_path, vmlinux({**odd, "_stext": 1 << 63}, BUILD_ID), "other")
    made = list(ElfSymbols(path).symbols(0x1000))
    assert {(one.name, one.address) for one in made} == {
        (name, at + 0x1000 if at >> 63 else at) for name, at in odd.items()}
    with monkeypatch.context() as patch:
        patch.setattr(elfsym, "_symbols", never)
        again = ElfSymbols(path)
        assert list(again.symbols(0x1000)) == made and again.linked_at("n\u00e4me") == odd["n\u00e4me"]
        with pytest.raises(AssertionError, match="made again"):
            ElfSymbols(other)
    kept = next((tmp_path / "cache").rglob("symtab-*"))
    whole = kept.read_bytes()
    for data in (whole[:-3], whole[:40], b"", whole[:30] + b"\xff" * 8 + whole[38:]):
        kept.write_bytes(data)
        assert list(ElfSymbols(path).symbols(0x1000)) == made


def test_the_symbols_of_a_real_one_are_its_own(
    index_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = debug_file("vmlinux", "5.10")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    elf = ElfFile(path)
    rows = {(one.address, one.name) for one in read_symbols(elf, dynamic=False) if one.address}
    elf.close()
    for _ in range(2):
        assert {(one.address, one.name) for one in ElfSymbols(path).symbols(0) if one.address} == rows
        monkeypatch.setattr(elfsym, "_symbols", never)


def test_where_kallsyms_is_is_kept(stripped_510: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(filekey, "SETTLED", -1)  # the dump was written a moment ago
    with open_target(str(stripped_510)) as target:
        made = list(target.symbols.sources[0])
    monkeypatch.setattr(places, "scan_kallsyms", never)
    with open_target(str(stripped_510)) as target:
        assert list(target.symbols.sources[0]) == made
    kept = next(tmp_path.rglob("kallsyms-places-*"))
    text = kept.read_bytes()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(filekey, "SETTLED", -1)
    key = kept.name.removeprefix("kallsyms-places-")
    for wrong in (b"kallsyms_names 10\n", b"\xff", b"kallsyms_names\n", text[64:].replace(b"ffffffff", b"ffff8888")):
        cache.store(places.KIND, key, places.VERSION, wrong)
        with open_target(str(stripped_510)) as target:
            assert list(target.symbols.sources[0]) == made


@pytest.mark.guest
def test_it_brings_what_kallsyms_lacks(guest_61: GuestImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a kernel whose kallsyms has functions only: types and modules are looked for when the file is there."""
    cut_down(monkeypatch, LABELS)
    with open_target(str(guest_61.elf)) as target:
        assert target.vmcoreinfo is not None
        offset = target.vmcoreinfo.kernel_offset
    lines = guest_61.oracle.kallsyms()
    symbols = {line.name: line.address - (offset if line.address >> 63 else 0) for line in lines
               if line.module is None and (line.kind not in "tTwW" or line.name == "_stext")}
    own = next(line for line in lines if line.module == "zram" and line.kind == "t")
    with open_target(str(guest_61.elf), put(tmp_path, vmlinux(symbols))) as target:
        assert target.type("struct task_struct").size
        assert target.symbol(own.name, "zram").address == own.address
        assert target.findings["modules"] == f"symbols of {len(guest_61.oracle.modules())} modules"
        assert "modules:" not in target.findings["deduced"]


@pytest.mark.guest
@pytest.mark.parametrize("name", ["6.1", "6.12", "5.10"])
def test_question_mark_on_a_real_vmlinux(name: str) -> None:
    """What ``?`` and ``::dump -f`` show of ``kshell DUMP VMLINUX`` is what objdump shows of the file."""
    image = have(named_spec(name))
    vmlinux = vmlinux_of(image)
    if vmlinux is None:
        pytest.skip("the -dbg package of this guest is not in the cache")
    with open_target(str(image.elf), str(vmlinux)) as target:
        moved = target.symbol("_stext").address - linked(vmlinux, "_stext")
        for symbol in ("linux_banner", "__schedule", "sys_call_table", "init_uts_ns", "start_kernel"):
            found = target.symbols.get(symbol)
            if found is None:
                continue
            wanted = section_bytes(vmlinux, found.address - moved, 16)
            shown = ask(target, f"{symbol},10::dump -f -q -t -r").splitlines()[1].partition(":")[2]
            assert len(wanted) >= 8 and bytes.fromhex(shown).startswith(wanted), symbol
            assert int(ask(target, f"{symbol}?J").split()[-1], 16) == int.from_bytes(wanted[:8], "little")
        assert ask(target, "linux_banner?s").split()[1:] == ask(target, "linux_banner/s").split()[1:]
        freed = ask(target, "start_kernel?i").splitlines()[1]
        assert "call" in freed or "endbr64" in freed, "init code is in the file still"
        told = ask(target, "panic_timeout?W 5")
        assert "target is not open for writing" in told and "a vmlinux beside a kernel is only read" in told


def linked(path: Path, name: str) -> int:
    """Return where *name* is linked, as nm says."""
    text = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
    return int(next(line for line in text.splitlines() if line.endswith(f" {name}")).split()[0], 16)


def section_bytes(path: Path, address: int, size: int) -> bytes:
    """Return the bytes of the file for *address*, as objdump shows them."""
    told = subprocess.run(["objdump", "-s", f"--start-address={address:#x}", f"--stop-address={address + size:#x}",
                           str(path)], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^ [0-9a-f]+ ((?:[0-9a-f]+ ){1,4})", told, re.MULTILINE)
    return b"".join(map(bytes.fromhex, rows))[:size]
