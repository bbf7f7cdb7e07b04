"""The names of the system: uname(2). Found through VMCOREINFO, so that no types are needed.

Kernel source: ``struct uts_namespace`` in include/linux/uts_namespace.h, ``struct new_utsname`` in
include/uapi/linux/utsname.h (six arrays of 65 characters, since 2.6.0), ``init_uts_ns`` in init/version.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.linux.lists import member_offset

if TYPE_CHECKING:
    from kshell.target.target import Target

#: __NEW_UTS_LEN + 1
FIELD = 65


class Uname(NamedTuple):
    sysname: str
    nodename: str
    release: str
    version: str
    machine: str
    domainname: str


def uname(target: Target) -> Uname:
    """Return the names of the initial UTS namespace.

    :raises KshellError: it cannot be found or read
    """
    if target.host and not hasattr(target.kernel, "translate"):
        import os

        return Uname(*os.uname(), "")
    info = target.vmcoreinfo
    offset = info.offset("uts_namespace.name") if info else None
    if offset is None:
        offset = member_offset(target.type("struct uts_namespace"), "name")
    raw = target.kernel.read(target.address_of("init_uts_ns") + offset, FIELD * 6)
    texts = (raw[at : at + FIELD].split(b"\0", 1)[0] for at in range(0, FIELD * 6, FIELD))
    return Uname(*(text.decode("utf-8", "surrogateescape") for text in texts))
