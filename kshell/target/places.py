"""Where kallsyms is in an image that does not tell: found by its shape once, and kept on disk.

Kept is it by the content of the image and the page tables that it was found through, and believed only where the tables
still are what they are taken for: their names end where their markers say, ``_stext`` is where it was.
"""

from __future__ import annotations

from typing import NamedTuple

from kshell import cache
from kshell.errors import FormatError, KshellError
from kshell.memory.image import Image
from kshell.memory.model import Memory
from kshell.target.image import Image as KernelImage
from kshell.target.image import banner, find_image, looks
from kshell.target.space import AddressSpace
from kshell.target.target import Target
from kshell.types.kallsyms import Kallsyms, load_kallsyms
from kshell.types.kallsyms_scan import Found, Run, scan_kallsyms

KIND, VERSION = "kallsyms-places", 2
MAX_BANNER = 1024
BANNER = "linux_banner"  # where its text is: a place among the others
#: what else is remembered, to be found again before the places of the tables are believed
NAMES = ("_stext", "init_uts_ns", "swapper_pg_dir")


class Shape(NamedTuple):
    """What an image has told by its shape alone.

    :ivar text: ``linux_banner``
    :ivar places: addresses of the labels of kallsyms and of :data:`NAMES`, as far as they were found
    :ivar problem: why kallsyms was not found
    """

    text: str
    places: dict[str, int]
    problem: str = ""


def key_in(physical: Memory, space: AddressSpace) -> str | None:
    """Return the key of what is found through the tables of *space*; None when nothing may be kept."""
    content = physical.content_key() if isinstance(physical, Image) else None
    return None if content is None else f"{content}-{space.root:x}"


def shape_of(physical: Memory, space: AddressSpace, image: KernelImage) -> Shape | None:
    """Return what the kernel at *image* is, from the cache or by a look at its bytes; None when it is no kernel."""
    key = key_in(physical, space)
    kept = _kept(key)
    text = _banner_at(space, kept.pop(BANNER, 0))
    if text is not None and _table_at(space, kept, image) is not None:
        return Shape(text, kept)
    found: Found | None = None
    problem, text = "", None
    for runs in looks(space, image):
        text = text or banner(runs)
        if text is None:
            continue
        try:
            found = scan_kallsyms(runs, (image.start, image.end))
            break
        except FormatError as error:
            problem = str(error)
    if text is None:
        return None
    if found is None:
        return Shape(text, {}, problem)
    places = found.places | _named(found.table)
    _keep(key, places | _banner_place(runs, text))
    return Shape(text, places)


def scanned_kallsyms(target: Target) -> Kallsyms:
    """Return the symbols of a kernel that does not tell where its kallsyms is (before Linux 6.0).

    :raises FormatError: it is not found, or damaged
    """
    space = target.kernel
    if not isinstance(space, AddressSpace):
        raise FormatError("VMCOREINFO does not tell where kallsyms is (Linux before 6.0)")
    image = find_image(space)
    told = target.vmcoreinfo.symbol("_stext") if target.vmcoreinfo is not None else None
    key = key_in(target.physical, space)
    kept = _kept(key)
    table = _table_at(space, kept, image) if told in (None, kept.get("_stext")) else None
    if table is not None:
        return table
    problem: FormatError | None = None
    for runs in looks(space, image):
        try:
            found = scan_kallsyms(runs, (image.start, image.end))
        except FormatError as error:
            problem = error
            continue
        _keep(key, found.places | _named(found.table))
        return found.table
    raise FormatError(f"nothing tells where kallsyms_names is, and {problem or 'none of the image can be read'}")


def _banner_at(space: AddressSpace, address: int) -> str | None:
    return banner([Run(address, space.read_upto(address, MAX_BANNER)[0])], at_start=True) if address else None


def _banner_place(runs: list[Run], text: str) -> dict[str, int]:
    """Return where *text* is in *runs*."""
    for run in runs:
        at = run.data.find(text.encode("utf-8", "surrogateescape"))
        if at >= 0:
            return {BANNER: run.start + at}
    return {}


def _table_at(space: AddressSpace, places: dict[str, int], image: KernelImage) -> Kallsyms | None:
    """Return the symbols at *places*; None where no table is there, or one with other symbols."""
    if not image.start <= places.get("_stext", 0) < image.end:
        return None
    try:
        table = load_kallsyms(space, places.get)
    except KshellError:
        return None
    return table if _named(table) == {name: places[name] for name in NAMES if name in places} else None


def _named(table: Kallsyms) -> dict[str, int]:
    """Return where those of :data:`NAMES` are that *table* has."""
    return {name: symbols[0].address for name in NAMES if (symbols := table.find(name))}


def _kept(key: str | None) -> dict[str, int]:
    """Return the places that are kept under *key*; none where nothing is, or it is damaged."""
    data = cache.load(KIND, key, VERSION) if key is not None else None
    if data is None:
        return {}
    try:
        return {name: int(at, 16) for name, at in map(str.split, bytes(data).decode("ascii").splitlines())}
    except ValueError:
        return {}


def _keep(key: str | None, places: dict[str, int]) -> None:
    if key is not None:
        cache.store(KIND, key, VERSION, "".join(f"{name} {at:x}\n" for name, at in places.items()).encode())
