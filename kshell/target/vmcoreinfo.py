"""VMCOREINFO: the text in which a kernel tells a dump reader where its tables are.

Lines of ``KEY=VALUE``. Kernel source: kernel/vmcore_info.c (kernel/crash_core.c before 6.9) and
arch/*/kernel/vmcore_info_*.c; Documentation/admin-guide/kdump/vmcoreinfo.rst. ``KERNELOFFSET`` and ``SYMBOL(x)`` are
hexadecimal without 0x; ``NUMBER(x)`` is decimal, or hexadecimal with 0x on some architectures.
"""

from __future__ import annotations

from kshell.errors import FormatError

MAX_SIZE = 1 << 20
TOP = 1 << 64


class Vmcoreinfo:
    """The keys and values of one VMCOREINFO, values kept as text until asked for."""

    def __init__(self, data: bytes) -> None:
        """:raises FormatError: *data* has no OSRELEASE line: it is something else"""
        self.raw = data[:MAX_SIZE].split(b"\0", 1)[0]
        self._values: dict[str, str] = {}
        for line in self.raw.decode("utf-8", "surrogateescape").splitlines():
            key, equals, value = line.partition("=")
            if equals:
                self._values[key.strip()] = value.strip()
        if "OSRELEASE" not in self._values:
            raise FormatError("VMCOREINFO has no OSRELEASE line")

    def get(self, key: str) -> str | None:
        """Return the text of *key*, or None."""
        return self._values.get(key)

    def names(self) -> list[str]:
        """Return all keys."""
        return list(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def _number(self, key: str, base: int) -> int | None:
        text = self._values.get(key)
        if text is None:
            return None
        try:
            return int(text, 16 if text.lower().startswith(("0x", "-0x")) else base)
        except ValueError as error:
            raise FormatError(f"VMCOREINFO: {key}={text} is not a number") from error

    def symbol(self, name: str) -> int | None:
        """Return the virtual address of a kernel symbol in this boot, or None."""
        value = self._number(f"SYMBOL({name})", 16)
        return None if value is None else value % TOP

    def symbols(self) -> dict[str, int]:
        """Return the virtual addresses of all symbols it tells, by name."""
        names = (key[7:-1] for key in self._values if key.startswith("SYMBOL(") and key.endswith(")"))
        return {name: address for name in names if (address := self.symbol(name)) is not None}

    def offset(self, member: str) -> int | None:
        """Return the byte offset of ``type.member``, or None."""
        return self._number(f"OFFSET({member})", 10)

    def size(self, name: str) -> int | None:
        """Return the size of a type in bytes, or None."""
        return self._number(f"SIZE({name})", 10)

    def length(self, name: str) -> int | None:
        """Return the number of elements of an array, or None."""
        return self._number(f"LENGTH({name})", 10)

    def number(self, name: str) -> int | None:
        """Return a signed number the kernel exports, or None."""
        return self._number(f"NUMBER({name})", 10)

    @property
    def release(self) -> str:
        """uname -r of the kernel."""
        return self._values["OSRELEASE"]

    @property
    def kernel_offset(self) -> int:
        """What KASLR added to the linked addresses, in bytes; 0 when it is off or not told."""
        return (self._number("KERNELOFFSET", 16) or 0) % TOP

    @property
    def build_id(self) -> str | None:
        """The kernel's build id in hexadecimal; None when absent or known to be garbage (see 4.1 of the notes)."""
        text = self._values.get("BUILD-ID", "")
        return text if len(text) == 40 and text.strip("0") and set(text) <= set("0123456789abcdef") else None

    @property
    def crash_time(self) -> int | None:
        """When the kernel panicked, seconds since 1970; None when it did not."""
        return self._number("CRASHTIME", 10)
