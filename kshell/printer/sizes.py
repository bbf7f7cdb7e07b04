"""The lines of ``::sizeof`` and ``::offsetof`` (mdb-language.md 11.3)."""

from __future__ import annotations

from kshell.errors import KshellError
from kshell.lang.numbers import show_base, to_radix
from kshell.types.model import CType
from kshell.value.path import offsetof, route, sizeof


def sizeof_text(name: str, type: CType, path: str = "", radix: int = 16) -> str:
    """Return ``sizeof (struct list_head) = 0x10``.

    :param name: the type as it was written
    :raises ValueTypeError: the type has no size
    """
    shown = f"{name}, {path}" if path else name
    return f"sizeof ({shown}) = {show_base(sizeof(type, path), radix)}"


def offsetof_text(name: str, type: CType, path: str, radix: int = 16) -> str:
    """Return ``offsetof (struct page, lru) = 8, sizeof (...->lru) = 0x10``; of a bit-field only ``= 0x14.3``."""
    offset, bits = offsetof(type, path)
    found = route(type, path)
    text = f"offsetof ({name}, {path}) = {show_base(offset, radix)}"
    if bits:
        text += f".{to_radix(bits, radix)}"
    if found.width is None and found.type.size:
        text += f", sizeof (...->{path}) = {show_base(found.type.size, radix)}"
    return text


def offsetof_value(name: str, type: CType, path: str) -> int:
    """Return what a pipe gets from ``::offsetof``: bytes.

    :raises KshellError: the member does not begin at a byte
    """
    offset, bits = offsetof(type, path)
    if bits:
        raise KshellError(f"member {path} of type {name} is not byte-aligned")
    return offset
