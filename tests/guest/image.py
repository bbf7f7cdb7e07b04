"""A finished guest: where its dumps are, and its oracle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .oracle import Oracle
from .spec import GuestSpec


@dataclass(frozen=True)
class GuestImage:
    """The artifacts of one guest, all of the same instant. Paths are given whether or not the spec makes the file."""

    spec: GuestSpec
    folder: Path

    @property
    def elf(self) -> Path:
        """QEMU's ELF dump, physical addresses (``paging=false``)."""
        return self.folder / "elf"

    @property
    def elf_paging(self) -> Path:
        """QEMU's ELF dump with virtual addresses of the boot CPU (``paging=true``)."""
        return self.folder / "elf.paging"

    @property
    def kdump_flat(self) -> Path:
        """QEMU's kdump-zlib dump, flattened."""
        return self.folder / "kdump.zlib"

    @property
    def raw(self) -> Path:
        """Physical memory from address 0, without any header."""
        return self.folder / "raw"

    @property
    def vmcore(self) -> Path:
        """The crash kernel's /proc/vmcore (specs with ``crash``)."""
        return self.folder / "vmcore"

    @property
    def makedumpfile_flat(self) -> Path:
        """makedumpfile's flattened output, as sent over ssh by kdump-tools."""
        return self.folder / "makedumpfile.flat"

    @property
    def registers(self) -> str:
        """QEMU's ``info registers -a`` at the dump's instant."""
        return (self.folder / "registers.txt").read_text()

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def victim(self) -> Path:
        """The victim's ELF file, with a symbol table."""
        return self.folder / "victim"

    @property
    def kernel_release(self) -> str:
        return str(self._facts["release"])

    @property
    def seconds(self) -> float:
        """How long the build took."""
        return float(self._facts["seconds"])

    @cached_property
    def oracle(self) -> Oracle:
        return Oracle(self.folder / "oracle")

    def kdumps(self) -> list[Path]:
        """Return every dump in a kdump format, QEMU's and makedumpfile's."""
        return sorted(
            path
            for path in self.folder.iterdir()
            if path.name.startswith(("kdump.", "makedumpfile.")) and path.name != "makedumpfile.elf"
        )

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "guest.json").read_text())
        return facts
