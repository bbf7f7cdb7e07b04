"""From a spec to its cached image: boot the guest, wait for the oracle, pause, take every dump of that instant."""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .cache import (
    UNUSED_SECONDS,
    appearing,
    cache_root,
    held,
    locked,
    make_sparse,
    remove_unheld,
    remove_unused,
    used,
)
from .contents import HERE, command_line, compile_program, initramfs
from .crash import FAILED_BY_ITSELF, convert_vmcore, save_vmcore, wait_crash
from .disasters import (
    DISASTERS,
    PANICKED,
    disaster_arguments,
    disaster_identities,
    disaster_initramfs,
    disaster_sources,
)
from .extras import extra_archive, extra_identities, extra_sources, extra_words
from .image import GuestImage
from .initramfs import iter_entries
from .packages import bundle, kernel
from .progress import GuestFailed, progress, step
from .qemu import FAILED, READY, RunningGuest, started
from .spec import GuestSpec

RIG_SOURCES = ("victim.c", "collect.c", "runtime.h", "init", "initramfs.py", "contents.py", "machine.py", "crash.py")
BUILD_VERSION = 1  # raise when build.py changes what an image holds
ORACLE_DRIVE = 1 << 30
ANSWERS_SECONDS = 7200.0  # what kshell said inside a guest is of one state of its sources: a day has many
SAVING = b"KSHELL-SAVING"  # init in the crash kernel, before it reads /proc/vmcore
PANIC, PATIENCE = b"Kernel panic - not syncing", 10.0  # seconds for the rest of a panic's words
DUMP_FORMATS = {"kdump-zlib": "kdump.zlib", "kdump-lzo": "kdump.lzo", "kdump-snappy": "kdump.snappy"}


def key(spec: GuestSpec, packages: list[str]) -> str:
    """Return the name of a spec's content: the spec, the packages' exact versions, the rig's sources."""
    facts = [json.dumps(spec.facts(), sort_keys=True), str(BUILD_VERSION), *sorted(packages)]
    digest = hashlib.sha256("\0".join(facts).encode())
    for name in (*RIG_SOURCES, *extra_sources(spec), *disaster_sources(spec)):
        digest.update(b"\0" + name.encode() + b"\0" + (HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def image_folder(spec: GuestSpec) -> Path:
    """Return where a spec's image is or will be."""
    identities = [kernel(spec.kernel).package.identity]
    for name in ("busybox-static", "tcc", *(("kexec-tools", "makedumpfile") if spec.crash else ())):
        identities += [package.identity for package in bundle(name)]
    identities += extra_identities(spec)
    if spec.disaster:
        identities += disaster_identities(kernel(spec.kernel))
    return cache_root() / "images" / f"{spec.name}-{key(spec, identities)}"


def prepare(spec: GuestSpec) -> GuestImage:
    """Return a spec's image, building it unless it is in the cache.

    :raises RigUnavailable: this host lacks what a build needs
    :raises GuestFailed: the guest did not boot or did not do its work; its console is kept
    """
    folder = image_folder(spec)
    if not (folder / "guest.json").exists():
        with locked(folder.name):
            if not (folder / "guest.json").exists():
                remove_unused(spec.name, folder, ANSWERS_SECONDS if spec.inside else UNUSED_SECONDS)
                _build(spec, folder)
    used(folder)
    return GuestImage(spec, folder)


@contextmanager
def boot(spec: GuestSpec) -> Iterator[RunningGuest]:
    """Give a running guest, ready (its processes sleep); it ends with the block.

    ``guest.command`` asks QMP, ``guest.gdb_socket`` is a gdb stub, ``guest.qmp_socket`` a second QMP. A spec with
    ``crash`` is refused: it would panic at once.
    """
    if spec.crash:
        raise ValueError(f"guest {spec.name} crashes by itself; boot one without crash")
    folder = cache_root() / "live"
    folder.mkdir(exist_ok=True)
    remove_unheld(folder.iterdir())
    with tempfile.TemporaryDirectory(prefix=f"{spec.name}-", dir=folder) as name, held(work := Path(name)):
        drive = _empty(work / "drive", ORACLE_DRIVE)
        with _powered(spec, work, [drive]) as guest:
            with step(f"{spec.name}: booting {kernel(spec.kernel).release}"):
                guest.wait_console((READY,), spec.timeout)
            unpack_oracle(drive, work / "oracle")
            guest.oracle_folder = work / "oracle"
            yield guest


def _build(spec: GuestSpec, final: Path) -> None:
    start = time.monotonic()
    with appearing(final) as work:
        try:
            if spec.second:
                _take_second(spec, work)
            elif spec.crash:
                _take_crash(spec, work)
            elif spec.disaster:
                _take_disaster(spec, work)
            elif spec.inside:
                _take_answers(spec, work)
            else:
                _take_dumps(spec, work)
        except GuestFailed as error:
            kept = cache_root() / "failed" / f"{final.name}.console.log"
            kept.parent.mkdir(exist_ok=True)
            if (work / "console.log").exists():
                shutil.copy(work / "console.log", kept)
            raise GuestFailed(f"{error}\n(whole console: {kept})", kept) from error
        (work / "victim").write_bytes(compile_program(HERE / "victim.c"))
        seconds = time.monotonic() - start
        release = kernel(spec.kernel).release
        facts = {"spec": {"name": spec.name, **spec.facts()}, "release": release, "seconds": round(seconds, 1)}
        (work / "guest.json").write_text(json.dumps(facts, indent=1) + "\n")
    progress(f"{spec.name} is ready after {seconds:.0f} s: {final}")


def _take_answers(spec: GuestSpec, work: Path) -> None:
    """Let kshell run in the guest and keep what it said beside the oracle: an image for each state of kshell."""
    drive = _empty(work / "drive", ORACLE_DRIVE)
    with _powered(spec, work, [drive]) as guest, step(f"{spec.name}: kshell runs in {kernel(spec.kernel).release}"):
        guest.wait_console((READY,), spec.timeout)
    unpack_oracle(drive, work / "oracle")
    drive.unlink()


def _take_dumps(spec: GuestSpec, work: Path) -> None:
    drive = _empty(work / "drive", ORACLE_DRIVE)
    with _powered(spec, work, [drive]) as guest:
        with step(f"{spec.name}: booting {kernel(spec.kernel).release}"):
            guest.wait_console((READY,), spec.timeout)
        guest.command("stop")
        with step(f"{spec.name}: dumping"):
            (work / "registers.txt").write_text(guest.monitor("info registers -a"))
            guest.command("dump-guest-memory", paging=False, protocol=f"file:{work / 'elf'}")
            guest.command("dump-guest-memory", paging=True, protocol=f"file:{work / 'elf.paging'}")
            capability = guest.command("query-dump-guest-memory-capability")["formats"]
            for name, path in DUMP_FORMATS.items():
                if name in capability:
                    guest.command("dump-guest-memory", paging=False, protocol=f"file:{work / path}", format=name)
            guest.command("pmemsave", val=0, size=spec.memory << 20, filename=str(work / "raw"))
        for path in ("elf", "elf.paging", "raw"):
            make_sparse(work / path)
        for path in DUMP_FORMATS.values():
            if (work / path).exists():
                (work / path).chmod(0o644)  # QEMU makes them readable for their owner only
    unpack_oracle(drive, work / "oracle")
    drive.unlink()


def _take_disaster(spec: GuestSpec, work: Path) -> None:
    panics = DISASTERS[spec.disaster].panics
    drive = _empty(work / "drive", ORACLE_DRIVE)
    with _powered(spec, work, [drive]) as guest:
        with step(f"{spec.name}: booting {kernel(spec.kernel).release}, and its end"):
            failing = (FAILED_BY_ITSELF,) if panics else FAILED
            guest.wait_console((PANIC if panics else READY,), spec.timeout, failing=failing)
            if panics:  # a console that is stuck on its way (seen on 5.10) does not matter: the kernel is dead
                with suppress(GuestFailed):
                    guest.wait_console((PANICKED,), PATIENCE, failing=())
        guest.command("stop")
        with step(f"{spec.name}: dumping"):
            (work / "registers.txt").write_text(guest.monitor("info registers -a"))
            guest.command("dump-guest-memory", paging=False, protocol=f"file:{work / 'elf'}")
        make_sparse(work / "elf")
    unpack_oracle(drive, work / "oracle")
    drive.unlink()


def _take_second(spec: GuestSpec, work: Path) -> None:
    """Dump a guest as its crash kernel begins to save the memory of the dead one."""
    oracle_drive = _empty(work / "drive", ORACLE_DRIVE)
    dump_drive = _empty(work / "dump-drive", (spec.memory + 64) << 20)
    with _powered(spec, work, [oracle_drive, dump_drive]) as guest:
        with step(f"{spec.name}: booting {kernel(spec.kernel).release} and its crash kernel"):
            wait_crash(guest, spec.timeout)
            guest.wait_console((SAVING,), spec.timeout, failing=(FAILED_BY_ITSELF,))
        guest.command("stop")
        with step(f"{spec.name}: dumping"):
            (work / "registers.txt").write_text(guest.monitor("info registers -a"))
            guest.command("dump-guest-memory", paging=False, protocol=f"file:{work / 'elf'}")
            guest.command("pmemsave", val=0, size=spec.memory << 20, filename=str(work / "raw"))
        for path in ("elf", "raw"):
            make_sparse(work / path)
    unpack_oracle(oracle_drive, work / "oracle")
    oracle_drive.unlink()
    dump_drive.unlink()


def _take_crash(spec: GuestSpec, work: Path) -> None:
    oracle_drive = _empty(work / "drive", ORACLE_DRIVE)
    dump_drive = _empty(work / "dump-drive", (spec.memory + 64) << 20)
    with _powered(spec, work, [oracle_drive, dump_drive]) as guest:
        with step(f"{spec.name}: booting {kernel(spec.kernel).release}"):
            wait_crash(guest, spec.timeout)
        with step(f"{spec.name}: crashing and saving /proc/vmcore"):
            save_vmcore(guest, spec.timeout)
    unpack_oracle(oracle_drive, work / "oracle")
    oracle_drive.unlink()
    convert_vmcore(dump_drive, work)
    dump_drive.unlink()


@contextmanager
def _powered(spec: GuestSpec, work: Path, drives: list[Path]) -> Iterator[RunningGuest]:
    image = kernel(spec.kernel)
    initrd = work / "initrd"
    archive = disaster_initramfs(spec, image) if spec.disaster else initramfs(spec, image)
    initrd.write_bytes(archive + extra_archive(spec))
    arguments = f"{command_line(spec)} {disaster_arguments(spec)}" if spec.disaster else command_line(spec)
    more = extra_words(spec, work)
    with started(spec, image.vmlinuz, initrd, arguments, drives, work / "console.log", more) as guest:
        guest.memory_file = work / "ram" if spec.memory_file else None
        yield guest
    initrd.unlink()


def unpack_oracle(drive: Path, folder: Path) -> None:
    """Unpack the archive the guest wrote on its first drive; names are checked, whatever a guest writes."""
    with drive.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for name, content in iter_entries(data):
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ValueError(f"the guest's archive names a file outside its folder: {name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _empty(path: Path, size: int) -> Path:
    with path.open("wb") as handle:
        handle.truncate(size)
    return path


__all__ = ["boot", "image_folder", "key", "prepare"]
