"""The objects that code and data were loaded from: the kernel image, and the pieces of its modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.linux.kernel import require_kernel
from kshell.linux.memory_map import image_range
from kshell.linux.modules import iter_modules

if TYPE_CHECKING:
    from kshell.target.target import Target


class LoadObject(NamedTuple):
    """A range of addresses of one object.

    :ivar part: "image" for the kernel; of a module "text", "data", "rodata", ...
    :ivar version: the kernel's release; of a module its MODULE_VERSION, else its srcversion, else ""
    """

    name: str
    part: str
    base: int
    size: int
    version: str


def iter_objects(target: Target) -> Iterator[LoadObject]:
    """Yield the kernel (``_text`` to ``_end``), then the pieces of each module, the newest module first.

    :raises KshellError: as :func:`~kshell.linux.modules.iter_modules`
    """
    require_kernel(target)
    base, end = image_range(target)
    yield LoadObject("vmlinux", "image", base, end - base, target.release)
    for module in iter_modules(target):
        version = module.version or module.srcversion
        for region in module.regions:
            yield LoadObject(module.name, region.kind, region.base, region.size, version)
