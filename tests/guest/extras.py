"""What only some guests have on top of the common initramfs: a second cpio archive, unpacked over the first.

Nothing here counts for the guests that have none of it: their images stay as they are in everybody's cache.
"""

from __future__ import annotations

from pathlib import Path

from .contents import HERE, compile_program
from .initramfs import Archive
from .spec import GuestSpec

SOURCES = ("live.c", "extras.py")
MORE_PARTS = "play stopped\n"  # the line of init before which others are started


def extra_sources(spec: GuestSpec) -> tuple[str, ...]:
    """Return the files of the rig that decide what is added to this guest."""
    return SOURCES if spec.teller else ()


def extra_archive(spec: GuestSpec) -> bytes:
    """Return the archive that is put behind the initramfs; empty for most guests."""
    if not spec.teller:
        return b""
    archive = Archive()
    init = (HERE / "init").read_text()
    assert MORE_PARTS in init
    archive.file("init", init.replace(MORE_PARTS, f"play teller\n{MORE_PARTS}").encode(), 0o755)
    archive.file("parts/teller", compile_program(HERE / "live.c"), 0o755)
    return archive.to_bytes()


def extra_words(spec: GuestSpec, folder: Path) -> list[str]:
    """Return what is added to QEMU's command line; *folder* is the guest's own."""
    if not spec.memory_file:
        return []
    backend = f"memory-backend-file,id=ram,size={spec.memory}M,mem-path={folder / 'ram'},share=on,prealloc=off"
    return ["-object", backend, "-machine", "memory-backend=ram"]
