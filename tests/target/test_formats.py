"""docs/formats.md, cell by cell: one paused guest's memory in every format, beside QEMU's ELF dump of it."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from kshell.errors import Fault, KshellError, Reason
from kshell.linux.convert import convert
from kshell.linux.tasks import iter_processes
from kshell.memory.image import Image
from kshell.memory.notes import pack_notes
from kshell.target.formats import Options, open_image
from kshell.target.open import open_target
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.libraries import host_command
from tests.guest.packages import bundle
from tests.guest.spec import named_spec
from tests.memory import containers, test_kdump_forms
from tests.memory.cores import Load, core

PAGE = 4096
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "formats.md"
QUESTIONS = ("::ps", "::msgbuf", "::modinfo", "init_task::print", "::getu victim; ::mappings")
SMALL = [(0x1000, bytes(range(256)) * 16 * 40), (0x20_0000, b"kshell!!" * 512 * 40)]
LEFT_OUT = 0x10_0000  # an address between the two runs


def table() -> list[dict[str, str]]:
    """Return the rows of the page's table, by the words of its head."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


class Row(NamedTuple):
    """How the tests make a format: of the guest's memory in a folder, and of SMALL; with what it is opened."""

    real: Callable[[Path], Path]
    small: Callable[[Path], Path]
    options: Callable[[Path], Options] = lambda folder: Options()


# -- the guest's memory ------------------------------------------------------------------------------------------------


def guest() -> GuestImage:
    return have(named_spec("6.1"))


@cache
def runs() -> tuple[list[containers.Run], bytes]:
    """Return the guest's memory and its notes."""
    with open_target(str(guest().elf)) as target:
        physical = target.physical
        assert isinstance(physical, Image)
        memory = [(run.start, physical.read(run.start, run.end - run.start)) for run in physical.ranges() if run.held]
        # a page that begins in the middle is completed, as convert does, for formats of pages
        return memory, pack_notes(physical.notes)[0]


def pages() -> list[containers.Run]:
    """Return the memory in whole pages."""
    return [(start & -PAGE, (bytes(start % PAGE) + data).ljust(-(-(start % PAGE + len(data)) // PAGE) * PAGE, b"\0"))
            for start, data in runs()[0]]


def converted(*, to: str = "kdump", codec: str = "zlib") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "image"
        with open_target(str(guest().elf)) as target:
            convert(target, str(path), to=to, codec=codec)
        return path

    return make


def makedumpfile(*words: str, outputs: tuple[str, ...] = ("image",)) -> Callable[[Path], Path]:
    """Return the maker that has makedumpfile itself write the format; flattened ones come from its standard output."""
    def make(folder: Path) -> Path:
        source = converted(to="elf")(folder).rename(folder / "source")
        program = host_command("makedumpfile", bundle("makedumpfile"))
        paths = [folder / name for name in outputs]
        with paths[0].open("wb") if "-F" in words else (folder / "log").open("wb") as stream:
            subprocess.run([*program, "-d", "0", *words, str(source), *(map(str, paths) if "-F" not in words else ())],
                           stdout=stream, stderr=subprocess.DEVNULL, check=True)
        source.unlink()
        return paths[-1]

    return make


def written(make: Callable[[], bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "image"
        path.write_bytes(make())
        return path

    return write


def registers() -> list[dict[str, int]]:
    with open_target(str(guest().elf)) as target:
        return [{name: value for name, value in cpu.registers.items()
                 if re.fullmatch(r"r([a-d]x|[sd]i|[sb]p|ip|\d+|flags)|cr[0-4]", name)} for cpu in target.cpus]


def small_kdump(folder: Path) -> Path:
    frames = {start // PAGE + number for start, data in SMALL for number in range(len(data) // PAGE)}
    path = folder / "image"
    path.write_bytes(test_kdump_forms.built(frames, existing=frames | {LEFT_OUT // PAGE}))
    return path


def small_split(folder: Path) -> Path:
    frames = {start // PAGE + number for start, data in SMALL for number in range(len(data) // PAGE)}
    for name, part in (("other", (0, 20)), ("image", (20, 4096))):
        (folder / name).write_bytes(test_kdump_forms.built(frames, existing=frames | {LEFT_OUT // PAGE}, split=part))
    return folder / "image"


def small_elf() -> bytes:
    return core([Load(at, data, memsz=None if at > LEFT_OUT else LEFT_OUT + PAGE - at) for at, data in SMALL])


def elf_32(memory: list[containers.Run], notes: bytes) -> bytes:
    return containers.elf32(memory, notes, beyond=PAGE)


def raw_of(memory: list[containers.Run]) -> bytes:
    out = bytearray(memory[-1][0] + len(memory[-1][1]))
    for start, data in memory:
        out[start : start + len(data)] = data
    return bytes(out)


def by_map(memory: Callable[[], list[containers.Run]], *, offsets: bool = False) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        lines, place = [], 0
        for at, data in memory():
            lines.append(f"{at:08x}-{at + len(data) - 1:08x} {f'{place:x} ' if offsets else ''}: System RAM\n")
            place += len(data)
        (folder / "map").write_text("".join(lines))
        (folder / "image").write_bytes(b"".join(data for _, data in memory()))
        return folder / "image"

    return make


def vmem(folder: Path) -> Path:
    return containers.vmss(pages(), folder / "image.vmsn", registers()).with_suffix(".vmem")


def small_raw(folder: Path) -> Path:
    return written(lambda: raw_of(SMALL))(folder)


RAW = Options(raw=True)
ELF32 = Row(written(lambda: containers.elf32(*runs())), written(lambda: elf_32(SMALL, b"")))
#: in the order of the table
ROWS = [
    Row(lambda folder: guest().elf, written(small_elf)),
    Row(lambda folder: guest().elf_paging, written(small_elf)),
    Row(makedumpfile("-E"), written(small_elf)),
    ELF32,
    Row(makedumpfile("-F", "-E"), written(lambda: containers.flattened(small_elf()))),
    *(Row(converted(codec=codec), small_kdump) for codec in ("zlib", "lzo", "snappy", "zstd", "none")),
    Row(lambda folder: guest().kdump_flat, lambda folder: flatten(small_kdump(folder))),
    Row(makedumpfile("-l", "--splitblock-size", "64", "--split", outputs=("a", "b", "c")), small_split),
    Row(converted(to="lime"), written(lambda: containers.lime(SMALL))),
    Row(written(lambda: containers.avml(runs()[0])), written(lambda: containers.avml(SMALL))),
    Row(lambda folder: guest().raw, small_raw, lambda folder: RAW),
    Row(by_map(pages), by_map(lambda: SMALL, offsets=True), lambda folder: Options(map=str(folder / "map"))),
    Row(vmem, lambda folder: containers.vmss(SMALL, folder / "image.vmss").with_suffix(".vmem")),
    Row(lambda folder: containers.vmss(pages(), folder / "image.vmss", registers(), inside=True, blocks=True),
        lambda folder: containers.vmss(SMALL, folder / "image.vmss", inside=True)),
]


def flatten(path: Path) -> Path:
    path.write_bytes(containers.flattened(path.read_bytes()))
    return path


# -- what is asked -----------------------------------------------------------------------------------------------------


def answers(path: Path, options: Options) -> str:
    """Return what the questions are answered, and digests of the kernel's text, its BTF and the victim's memory."""
    words = [word for question in QUESTIONS for word in ("-e", question)]
    words += ["--map", options.map] if options.map else []
    done = subprocess.run([sys.executable, "-m", "kshell", *words, str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and "error" not in done.stderr and "cannot" not in done.stderr, done.stderr
    assert len(done.stdout) > 20_000
    return done.stdout + done.stderr + digests(path, options)


def digests(path: Path, options: Options) -> str:
    text = ""
    with open_target(str(path), options=options) as target:
        for first, last in (("_stext", "_etext"), ("__start_BTF", "__stop_BTF")):
            start, end = target.symbol(first).address, target.symbol(last).address
            data = target.kernel.read(start, end - start)
            text += hashlib.sha256(data).hexdigest()
        assert data == guest().oracle.content("/sys/kernel/btf/vmlinux")
        victim = next(task for task in iter_processes(target) if task.comm == "victim")
        assert victim.pid == guest().oracle.victim()["pid"]
        space = target.user_space(target.value("struct task_struct", victim.address)["mm"].integer())
        known = 0
        for mapping in space.mappings(0, 1 << 47):
            data, _ = space.read_upto(mapping.start, min(mapping.end - mapping.start, 4 << 20))
            known += len(data) >> 12
            text += hashlib.sha256(data).hexdigest()
        assert known > 256
    return text


@cache
def expected() -> str:
    return answers(guest().elf, Options())


class Made(NamedTuple):
    """A row of the table, and its images."""

    cells: dict[str, str]
    path: Path
    options: Options
    row: Row


@pytest.fixture(scope="module", params=range(len(ROWS)), ids=lambda number: table()[number]["format"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("format")
    row = ROWS[request.param]
    yield Made(table()[request.param], row.real(folder), row.options(folder), row)
    shutil.rmtree(folder)


def test_every_row_is_tested() -> None:
    assert len(table()) == len(ROWS)
    head = {"format", "answers", "VMCOREINFO", "registers", "left out", "cut", "-w", "convert"}
    assert all(set(row) == head for row in table())


def test_answers(made: Made) -> None:
    assert made.cells["answers"] == ("same" if answers(made.path, made.options) == expected() else "others")


def test_vmcoreinfo(made: Made) -> None:
    with open_target(str(made.path), options=made.options) as target:
        told = target.findings.get("VMCOREINFO", "note")
    assert made.cells["VMCOREINFO"] == ("in memory" if "found in its memory" in told else told)


def test_registers(made: Made) -> None:
    with open_target(str(made.path), options=made.options) as target:
        have = [cpu for cpu in target.cpus if cpu.registers.get("rip")]
        assert made.cells["registers"] == ("yes" if len(have) == 2 else "no")


def test_a_page_left_out(made: Made, tmp_path: Path) -> None:
    small = made.row.small(tmp_path)
    options = made.row.options(tmp_path)
    image, _ = open_image(str(small), "r", options)
    address = next((r.start for r in image.ranges() if r.reason is Reason.EXCLUDED), 1 << 34)
    with image, pytest.raises(Fault) as caught:
        image.read(address, 1)
    words = {Reason.EXCLUDED: "excluded", Reason.OUTSIDE: "outside RAM"}
    assert made.cells["left out"] == words[caught.value.reason]


def test_a_file_that_is_cut(made: Made, tmp_path: Path) -> None:
    small = made.row.small(tmp_path)
    options = made.row.options(tmp_path)
    image, _ = open_image(str(small), "r", options)
    with image:
        assert image.complete is None
        whole = image.read_upto(SMALL[1][0], len(SMALL[1][1]))[0]
    with small.open("r+b") as file:
        size = small.stat().st_size
        file.truncate(size - len(SMALL[1][1]) // 2 if options.raw else size * 3 // 4)
    image, _ = open_image(str(small), "r", options)
    with image:
        got, fault = image.read_upto(SMALL[1][0], len(SMALL[1][1]))
        assert whole.startswith(got) and 0 < len(got) < len(whole)
        assert fault is not None
        told = image.complete is not None and fault.reason is Reason.TRUNCATED
    assert made.cells["cut"] == ("told" if told else "no")


def test_writing_in_place(made: Made, tmp_path: Path) -> None:
    small = made.row.small(tmp_path)
    options = made.row.options(tmp_path)
    try:
        image, _ = open_image(str(small), "r+", options)
        with image:
            image.write(SMALL[1][0], b"written")
        image, _ = open_image(str(small), "r", options)
        with image:
            assert image.read(SMALL[1][0], 7) == b"written"
        found = "yes"
    except KshellError:
        found = "no"
    assert made.cells["-w"] == found


def test_how_convert_writes_it(made: Made) -> None:
    from kshell.shell.convert import CODECS, FORMATS

    word = made.cells["convert"].strip("`")
    if word == "no":
        return
    option, value = word.split()
    assert value in {"--to": FORMATS, "-c": CODECS}[option]
    if made.path.name == "image" and "elf" not in word:  # made by convert itself
        image, format = open_image(str(made.path), "r", made.options)
        with image:
            assert value in (image.describe() + format.name).lower().replace("uncompressed", "none")
