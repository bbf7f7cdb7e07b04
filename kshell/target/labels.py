"""Tables of the kernel image by their shape, for a kernel whose kallsyms has no labels but those of code.

Without CONFIG_KALLSYMS_ALL scripts/kallsyms.c keeps what lies between ``_stext`` and ``_etext``, ``_sinittext`` and
``_einittext``: it has no label of a table. The tables are told by what is in them: BTF by its header and
``task_struct``; the export tables by their entry of ``init_task``, which leads to that name; ORC by the one long run of
ascending addresses of code; the notes by the build id that belongs to no vDSO. Kernel source:
include/asm-generic/vmlinux.lds.h, include/linux/export.h, include/linux/btf.h, tools/objtool/orc_gen.c.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError
from kshell.target.image import find_image, image_bytes
from kshell.target.space import AddressSpace
from kshell.types.kallsyms_scan import Run
from kshell.unwind.orc import HEADERS

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target
    from kshell.types.model import Symbol

    Offsets = numpy.typing.NDArray[numpy.int32]

PAGE = 4096
BTF = re.compile(rb"\x9f\xeb\x01\x00\x18\x00\x00\x00")
BTF_HEADER = struct.Struct("<HBBIIIII")
BTF_NAME = b"\0task_struct\0"
ANCHOR = b"init_task\0"  # EXPORT_SYMBOL(init_task), init/init_task.c; the linker may let it be the end of another name
NAME = re.compile(rb"[A-Za-z_][\w.$]{0,510}\0")
ENTRIES = (12, 8)  # bytes of struct kernel_symbol: with a namespace since 5.4, without it since 4.19
MIN_EXPORTS = 100
MIN_ORC = 1000
ORC_ENTRY = 6
#: the header of a note with a build id of SHA-1: "GNU", NT_GNU_BUILD_ID
BUILD_ID = struct.pack("<III4s", 4, 20, 3, b"GNU\0")
VDSO_PAGES = 4


Own = Callable[[str], "Symbol | None"]


class Found(NamedTuple):
    """Labels of one table.

    :ivar labels: name -> address; :ivar how: it was found, in words
    """

    labels: dict[str, int]
    how: str


def find_labels(target: Target, name: str, own: Own) -> Found:
    """Return the labels of the table that the label *name* is of.

    :param own: gives the kernel's symbols of code
    :raises FormatError: no place has its shape, or several have
    :raises KshellError: the image cannot be read
    """
    find = next(find for names, (_, find) in TABLES.items() if name in names)
    return find(own, _data_runs(target, own))


def _data_runs(target: Target, own: Own) -> list[Run]:
    """Return the bytes of the image behind its code."""
    space, end = target.kernel, own("_etext")
    if not isinstance(space, AddressSpace):
        raise FormatError("the kernel image can be looked through by page tables only")
    image = find_image(space)
    low = image.start if end is None else end.address & -PAGE
    return list(image_bytes(space, image._replace(runs=[(max(first, low), last) for first, last in image.runs])))


def _one(places: list[int], what: str) -> int:
    if len(places) != 1:
        shown = ", ".join(f"0x{at:x}" for at in places[:4])
        raise FormatError(f"{len(places)} places in the kernel image look like {what}: {shown}" if places
                          else f"no place in the kernel image has the shape of {what}")
    return places[0]


def _btf(own: Own, runs: list[Run]) -> Found:
    sizes = {at: size for run in runs for at, size in _btf_in(run)}
    start = _one(list(sizes), "BTF")
    where = {"__start_BTF": start, "__stop_BTF": start + sizes[start]}
    return Found(where, "the one with task_struct in the image")


def _btf_in(run: Run) -> Iterator[tuple[int, int]]:
    for hit in BTF.finditer(run.data):
        if len(run.data) - hit.start() < BTF_HEADER.size:
            continue
        _, _, _, head, types, size, strings, length = BTF_HEADER.unpack_from(run.data, hit.start())
        begin = hit.start() + head + strings
        text = run.data[begin : begin + length]
        if types == 0 and size == strings and len(text) == length and BTF_NAME in text and not text[-1]:
            yield run.start + hit.start(), head + strings + length


def _exports(own: Own, runs: list[Run]) -> Found:
    found = [rows for run in runs for rows in _exports_in(run)]
    _one([rows[0] for rows, _ in found], "the export tables")
    (places, names), = found
    size = places[1] - places[0]
    falls = [number for number in range(1, len(names)) if names[number] < names[number - 1]]
    if len(falls) != 1:
        raise FormatError(f"the export tables are not two in alphabetical order, but {len(falls) + 1}")
    middle, end = places[falls[0]], places[-1] + size
    labels = {"__start___ksymtab": places[0], "__stop___ksymtab": middle,
              "__start___ksymtab_gpl": middle, "__stop___ksymtab_gpl": end}
    return Found(labels, f"the one table with an entry of init_task, {len(places)} entries")


def _exports_in(run: Run) -> Iterator[tuple[list[int], list[bytes]]]:
    """Yield (places of entries, their names) of each run of entries with init_task among them."""
    data = run.data
    targets = _targets(run)

    def name(place: int) -> bytes | None:
        """Return the name of the entry at the offset *place*."""
        at = int(targets[place // 4 + 1]) if 0 <= place < len(data) - 8 else -1
        hit = NAME.match(data, at) if 0 <= at < len(data) else None
        return None if hit is None else hit[0][:-1]

    for hit in re.finditer(ANCHOR, data):
        for index in (targets == hit.start()).nonzero()[0].tolist():
            for size in ENTRIES:
                anchor = 4 * index - 4
                before = list(itertools.takewhile(lambda row: row[1], (
                    (at, name(at)) for at in range(anchor - size, -1, -size))))
                behind = list(itertools.takewhile(lambda row: row[1], (
                    (at, name(at)) for at in range(anchor, len(data), size))))
                rows = [*reversed(before), *behind]
                if len(rows) >= MIN_EXPORTS:
                    yield [run.start + at for at, _ in rows], [word for _, word in rows if word]


def _targets(run: Run) -> Offsets:
    """Return where the 32-bit number at each fourth byte leads to, counted from its own place: as offsets in *run*."""
    import numpy as np

    count = len(run.data) // 4
    return np.frombuffer(run.data, "<i4", count) + np.arange(0, 4 * count, 4, dtype=np.int32)


def _orc(own: Own, runs: list[Run]) -> Found:
    text, end = own("_stext"), own("_etext")
    if text is None or end is None:
        raise FormatError("no symbols _stext and _etext tell where code is")
    found = [place for run in runs for place in _ascending(run, text.address, end.address)]
    start = _one([at for at, _ in found], "ORC")
    count = found[0][1]
    stop = start + 4 * count
    labels = {"__start_orc_unwind_ip": start, "__stop_orc_unwind_ip": stop, "__start_orc_unwind": stop,
              "__stop_orc_unwind": stop + ORC_ENTRY * count}
    heads = [run.start + at for run in runs for word in HEADERS if (at := run.data.find(bytes.fromhex(word))) >= 0]
    if heads:
        labels["__start_orc_header"] = _one(heads, "the header of ORC")
    return Found(labels, f"the one run of {count} ascending addresses of code in the image")


def _ascending(run: Run, low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield (address, count) of each long run of 32-bit offsets to ascending addresses.

    The first ones lie between *low* and *high*; what is behind, of code for the boot above all, is in the same run.
    """
    import numpy as np

    addresses = _targets(run)
    count = len(addresses)
    good = (addresses >= low - run.start) & (addresses < high - run.start)
    joined = good[1:] & good[:-1] & (addresses[1:] >= addresses[:-1])
    edges = np.flatnonzero(np.diff(np.concatenate(([0], joined.view(np.int8), [0]))))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if last - first >= MIN_ORC:
            while last + 1 < count and addresses[last] <= addresses[last + 1] < len(run.data):
                last += 1
            yield run.start + 4 * first, last + 1 - first


def find_build_id(target: Target) -> str | None:
    """Return the build id of the kernel in hexadecimal: that of VMCOREINFO if a note in the image has it, else of the
    only note that is no vDSO's; None when that is not certain.

    :raises KshellError: the image cannot be read
    """
    runs = _data_runs(target, target.symbols.own)
    found = {run.data[hit.end() : hit.end() + 20].hex(): _in_elf(run, hit.start())
             for run in runs for hit in re.finditer(re.escape(BUILD_ID), run.data)}
    told = target.vmcoreinfo.get("BUILD-ID") if target.vmcoreinfo is not None else None
    if told in found:
        return told
    own = [built for built, is_vdso in found.items() if not is_vdso]
    return own[0] if len(own) == 1 else None


def _in_elf(run: Run, at: int) -> bool:
    """Whether an ELF file, as the vDSO is, begins at one of the pages before the offset *at*."""
    page = at - (run.start + at) % PAGE
    return any(run.data.startswith(b"\x7fELF", page - PAGE * number) for number in range(VDSO_PAGES)
               if page >= PAGE * number)


#: the labels of each table: what it is called, and what finds it
TABLES: dict[tuple[str, ...], tuple[str, Callable[[Own, list[Run]], Found]]] = {
    ("__start_BTF", "__stop_BTF"): ("BTF", _btf),
    ("__start___ksymtab", "__stop___ksymtab", "__start___ksymtab_gpl", "__stop___ksymtab_gpl"): (
        "export tables", _exports),
    ("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind", "__stop_orc_unwind",
     "__start_orc_header"): ("ORC", _orc),
}
