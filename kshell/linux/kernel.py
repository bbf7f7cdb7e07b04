"""Whether a target's kernel memory can be read at all: asked before a question that nothing else can answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.target.target import Unavailable

if TYPE_CHECKING:
    from kshell.target.target import Target


def require_kernel(target: Target) -> None:
    """Do nothing, or say why there is no kernel memory to answer from.

    :raises KshellError: the running system, and its kernel memory cannot be read; or a target that is no kernel
    """
    if target.kind != "kernel":
        from kshell.target.user import NAMES

        raise KshellError(f"there is no kernel here: the target is {NAMES[target.kind]}",
                          hint="kshell DUMP and kshell alone look at kernels")
    if isinstance(target.kernel, Unavailable):
        raise KshellError(f"kernel memory cannot be read: {target.kernel.why}", hint=target.kernel.hint)


def build_id(target: Target) -> str | None:
    """Return the build id in the kernel's own notes, in hexadecimal; None when they cannot be found or read."""
    from kshell.target.vmlinux import image_build_id

    return image_build_id(target)
