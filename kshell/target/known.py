"""The kernel of a machine that stands, by the registers of its CPUs; where its tables are is remembered by build id.

The first time the image's constants are looked through for kallsyms (:mod:`kshell.types.kallsyms_scan`); what is found
is kept as offsets in the image, beside the build id that the image's own notes have. Another boot of the same kernel,
wherever KASLR put it, is then known by some 40 bytes. The kernel's own VMCOREINFO is read where it has one
(``vmcoreinfo_data``).
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from kshell import cache
from kshell.errors import FormatError, KshellError
from kshell.memory.constants import Constants
from kshell.memory.model import Memory
from kshell.memory.notes import iter_notes
from kshell.target.image import START, Image, banner, find_image, looks
from kshell.target.kernel import attach_kernel
from kshell.target.roads import spaces_of_cpus
from kshell.target.scan import MARK
from kshell.target.space import AddressSpace
from kshell.target.target import Cpu, Target
from kshell.target.vmcoreinfo import Vmcoreinfo

if TYPE_CHECKING:
    from kshell.types.kallsyms_scan import Run

VERSION = 1
MAX_KNOWN = 64
MAX_NOTES = 4096
MAX_TEXT = 4096
NT_GNU_BUILD_ID = 3
KALLSYMS = ("names", "num_syms", "token_table", "token_index", "offsets", "relative_base", "addresses")
#: what else is remembered, and the symbol it is (arch/x86/include/asm/pgtable_64.h: swapper_pg_dir is a macro)
MORE_PLACES = {"swapper_pg_dir": "init_top_pgt"} | {
    name: name for name in ("_stext", "init_uts_ns", "vmcoreinfo_data", "__start_notes", "__stop_notes")}


def attach_machine(target: Target, physical: Memory, cpus: list[Cpu]) -> bool:
    """Find the kernel that runs on *cpus* and attach it to *target*; False when there is none.

    One that has just been started maps all from the beginning of the map up to its end (arch/x86/kernel/head64.c,
    cleanup_highmap in arch/x86/mm/init_64.c): where it is cannot be seen yet.

    :raises KshellError: one that was found cannot be attached
    """
    for space, image, how in spaces_of_cpus(physical, target.arch, cpus):
        if image.start == START:  # hundreds of MiB to look through
            continue
        if _attach_known(target, physical, space, image, how):
            return True
        for data in looks(space, image):
            found = _look_through(image, data)
            if found is not None:
                places, release = found
                attach_kernel(target, physical, _info(space, image, places, release))
                _keep_constants(target, image, _build_id_at(space, image, places))
                target.findings["kernel"] = f"{release}, {how}, its tables by their shape"
                _remember(target, image, places)
                return True
    return False


def attach_known(target: Target, physical: Memory, cpus: list[Cpu]) -> bool:
    """As :func:`attach_machine`, but only a kernel that was found before; no memory is looked through."""
    return any(image.start != START and _attach_known(target, physical, space, image, how)
               for space, image, how in spaces_of_cpus(physical, target.arch, cpus))


def _attach_known(target: Target, physical: Memory, space: AddressSpace, image: Image, how: str) -> bool:
    for row in _known():
        info = _recall(row, space, image)
        if info is not None:
            attach_kernel(target, physical, info)
            _keep_constants(target, image, str(row.get("build id")))
            target.findings["kernel"] = f"{info.release}, {how}, known by its build id"
            return True
    return False


def remember(target: Target) -> None:
    """Have the kernel of *target*, a machine, known the next time; its VMCOREINFO tells of kallsyms since Linux 6.0."""
    info = target.vmcoreinfo
    tables = [f"kallsyms_{name}" for name in KALLSYMS]
    if info is None or info.symbol(tables[0]) is None or not isinstance(target.kernel, AddressSpace):
        return
    places = {name: at for name in tables if (at := info.symbol(name)) is not None}
    for name, symbol in MORE_PLACES.items():
        found = target.symbols.own(symbol)
        if found is not None:
            places[name] = found.address
    with suppress(KshellError):
        _remember(target, find_image(target.kernel), places)


def _look_through(image: Image, data: list[Run]) -> tuple[dict[str, int], str] | None:
    """Return (addresses of what is needed, release) of the kernel whose bytes are in *data*; None: it is not there."""
    from kshell.types.kallsyms_scan import scan_kallsyms

    text = banner(data)
    if text is None:
        return None
    try:
        found = scan_kallsyms(data, (image.start, image.end))
    except FormatError:
        return None
    places = dict(found.places)
    for name, symbol in MORE_PLACES.items():
        known = found.table.find(symbol)
        if known:
            places[name] = known[0].address
    return (places, text.split()[2]) if "swapper_pg_dir" in places else None


def _known() -> list[dict[str, object]]:
    """Return what is remembered, the newest first; nothing of what is damaged."""
    kept = cache.load("kernels", "known", VERSION)
    if kept is None:
        return []
    try:
        rows = json.loads(bytes(kept))
    except ValueError:
        return []
    return [row for row in rows if isinstance(row, dict)][:MAX_KNOWN] if isinstance(rows, list) else []


def _recall(row: dict[str, object], space: AddressSpace, image: Image) -> Vmcoreinfo | None:
    """Return the VMCOREINFO of the kernel at *image* if it is the one that *row* remembers."""
    places = row.get("places")
    if not isinstance(places, dict) or not all(isinstance(at, int) for at in places.values()):
        return None
    here = {str(name): image.start + at for name, at in places.items()}
    try:
        built = _build_id_at(space, image, here)
        if built is None or built != row.get("build id"):
            return None
        return _info(space, image, here, str(row.get("release")))
    except (KshellError, ValueError):
        return None


def _build_id_at(space: AddressSpace, image: Image, places: dict[str, int]) -> str | None:
    """Return the build id in the notes of the kernel at *image*, None when they are not where *places* tell.

    :raises Fault: they cannot be read
    """
    first, last = places.get("__start_notes", 0), places.get("__stop_notes", 0)
    if not image.start <= first < last <= image.end or last - first > MAX_NOTES:
        return None
    notes = iter_notes(space.read(first, last - first))
    return next((note.desc.hex() for note in notes if note.name == "GNU" and note.type == NT_GNU_BUILD_ID), None)


def _keep_constants(target: Target, image: Image, build_id: str | None) -> None:
    """Have large tables of this kernel read once, and not each time."""
    if build_id is not None:
        target.constants = Constants(target.kernel, build_id, image.start)


def _info(space: AddressSpace, image: Image, places: dict[str, int], release: str) -> Vmcoreinfo:
    """Return what the kernel's own VMCOREINFO says, and what it leaves out.

    :raises KshellError: it is not the text of this kernel
    """
    lines: list[str] = []
    told = Vmcoreinfo(f"OSRELEASE={release}\n".encode())
    if "vmcoreinfo_data" in places:
        page = space.u64(places["vmcoreinfo_data"])
        text = space.read_upto(page, MAX_TEXT)[0]
        if text.startswith(MARK):  # a kernel that is still booting has not written it yet
            told = Vmcoreinfo(text)
            if told.symbol("swapper_pg_dir") != places.get("swapper_pg_dir"):
                raise FormatError("its VMCOREINFO is of another kernel")
            lines = told.raw.decode("utf-8", "surrogateescape").splitlines()
    more = {"OSRELEASE": release, "NUMBER(phys_base)": str(image.phys_base),
            "NUMBER(pgtable_l5_enabled)": str(int(space.format.levels == 5))}
    more |= {f"SYMBOL({name})": f"{address:x}" for name, address in places.items()}
    lines += [f"{key}={value}" for key, value in more.items() if key not in told or not lines]
    return Vmcoreinfo("\n".join(lines).encode("utf-8", "surrogateescape"))


def _remember(target: Target, image: Image, places: dict[str, int]) -> None:
    """Keep where the tables of *target*'s kernel are; failing that costs nothing."""
    from kshell.target.vmlinux import image_build_id

    built = image_build_id(target)
    if built is not None:
        offsets = {name: address - image.start for name, address in places.items()}
        row = {"build id": built, "release": target.release, "places": offsets}
        rows = [row, *(old for old in _known() if old.get("build id") != built)][:MAX_KNOWN]
        cache.store("kernels", "known", VERSION, json.dumps(rows).encode())


__all__ = ["attach_known", "attach_machine", "remember"]
