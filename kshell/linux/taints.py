"""What taints a kernel or a module: the letters of an oops and of /proc/modules, and what they stand for.

Kernel source: ``taint_flags`` in kernel/panic.c, include/linux/panic.h, Documentation/admin-guide/tainted-kernels.rst.
Bit numbers never change their meaning; new ones come at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.linux.kernel import require_kernel

if TYPE_CHECKING:
    from kshell.target.target import Target


class Taint(NamedTuple):
    """One reason for which a kernel is not as it came. ``bit``: in ``tainted_mask``."""

    bit: int
    letter: str
    meaning: str


TAINTS = tuple(Taint(bit, letter, meaning) for bit, (letter, meaning) in enumerate((
    ("P", "proprietary module was loaded"), ("F", "module was force-loaded"),
    ("S", "CPU or system out of specification"),
    ("R", "module was force-unloaded"), ("M", "machine check exception"), ("B", "bad page or unexpected page flags"),
    ("U", "tainted at the user's request"), ("D", "kernel died before: OOPS or BUG"), ("A", "ACPI table overridden"),
    ("W", "kernel issued a warning"), ("C", "staging driver was loaded"), ("I", "workaround for a firmware bug"),
    ("O", "out-of-tree module was loaded"), ("E", "unsigned module was loaded"), ("L", "soft lockup happened"),
    ("K", "kernel was live-patched"), ("X", "auxiliary, defined by the distribution"),
    ("T", "kernel was built with the struct randomization plugin"), ("N", "in-kernel test has run"),
    ("J", "mutating debug operation of fwctl"),
)))


def named(bits: int) -> Iterator[Taint]:
    """Yield the taints that are set in *bits*; bits without a meaning have the letter "?"."""
    for bit in range(bits.bit_length()):
        if bits >> bit & 1:
            yield TAINTS[bit] if bit < len(TAINTS) else Taint(bit, "?", f"bit {bit}, which has no known meaning")


def letters(bits: int) -> str:
    """Return the letters of what is set in *bits*, as /proc/modules shows them."""
    return "".join(taint.letter for taint in named(bits))


def kernel_taints(target: Target) -> list[Taint]:
    """Return what taints the kernel, in the order of the bits; empty for none.

    :raises KshellError: ``tainted_mask`` cannot be found or read
    """
    require_kernel(target)
    data = target.kernel.read(target.address_of("tainted_mask"), 8)
    return list(named(int.from_bytes(data, "little")))
