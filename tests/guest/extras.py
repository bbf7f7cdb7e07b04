"""What only some guests have on top of the common initramfs: a second cpio archive, unpacked over the first.

Nothing here counts for the guests that have none of it: their images stay as they are in everybody's cache.
"""

from __future__ import annotations

from pathlib import Path

from .contents import HERE, compile_program
from .initramfs import Archive
from .python import add_python, identities
from .spec import GuestSpec

SOURCES = ("live.c",)
INSIDE = ("inside.py", "python.py")
COLLECTING = "[ -b /dev/vda ] || fail"  # the line of init before which kshell runs in the guest
MORE_PARTS = "play stopped\n"  # the line of init before which others are started


def extra_sources(spec: GuestSpec) -> tuple[str, ...]:
    """Return the files of the rig that decide what is added to this guest."""
    return (SOURCES if spec.teller else ()) + (INSIDE if spec.inside else ())


def extra_identities(spec: GuestSpec) -> list[str]:
    """Return what else decides it: for the guest with kshell in it, kshell."""
    return identities() if spec.inside else []


def extra_archive(spec: GuestSpec) -> bytes:
    """Return the archive that is put behind the initramfs; empty for most guests."""
    if not spec.teller:
        return b""
    archive = Archive()
    init = (HERE / "init").read_text()
    assert MORE_PARTS in init
    init = init.replace(MORE_PARTS, f"play teller\n{MORE_PARTS}")
    if spec.inside:
        assert COLLECTING in init
        init = init.replace(COLLECTING, f"python3 /inside/inside.py || fail 'inside.py'\n{COLLECTING}")
        archive.file("inside/inside.py", (HERE / "inside.py").read_bytes())
        add_python(archive)
    archive.file("init", init.encode(), 0o755)
    archive.file("parts/teller", compile_program(HERE / "live.c"), 0o755)
    return archive.to_bytes()


def extra_words(spec: GuestSpec, folder: Path) -> list[str]:
    """Return what is added to QEMU's command line; *folder* is the guest's own."""
    if not spec.memory_file:
        return []
    backend = f"memory-backend-file,id=ram,size={spec.memory}M,mem-path={folder / 'ram'},share=on,prealloc=off"
    return ["-object", backend, "-machine", "memory-backend=ram"]
