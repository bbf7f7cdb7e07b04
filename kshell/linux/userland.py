"""Processes, user cores and ELF files as targets of their own: what the dcmds that also know kernels ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux.objects import LoadObject

if TYPE_CHECKING:
    from kshell.linux.whatis import Answer
    from kshell.target.target import Target
    from kshell.target.user import Facts, Mapping

#: include/uapi/linux/auxvec.h, arch/x86/include/uapi/asm/auxvec.h
AUXV = {
    0: "AT_NULL", 1: "AT_IGNORE", 2: "AT_EXECFD", 3: "AT_PHDR", 4: "AT_PHENT", 5: "AT_PHNUM", 6: "AT_PAGESZ",
    7: "AT_BASE", 8: "AT_FLAGS", 9: "AT_ENTRY", 10: "AT_NOTELF", 11: "AT_UID", 12: "AT_EUID", 13: "AT_GID",
    14: "AT_EGID", 15: "AT_PLATFORM", 16: "AT_HWCAP", 17: "AT_CLKTCK", 23: "AT_SECURE", 24: "AT_BASE_PLATFORM",
    25: "AT_RANDOM", 26: "AT_HWCAP2", 27: "AT_RSEQ_FEATURE_SIZE", 28: "AT_RSEQ_ALIGN", 29: "AT_HWCAP3",
    30: "AT_HWCAP4", 31: "AT_EXECFN", 32: "AT_SYSINFO", 33: "AT_SYSINFO_EHDR", 51: "AT_MINSIGSTKSZ",
}
#: those whose value is a string in memory
AUXV_TEXT = ("AT_PLATFORM", "AT_BASE_PLATFORM", "AT_EXECFN")


def user_facts(target: Target) -> Facts | None:
    """Return what is known of a process, core or file; None of a kernel."""
    if target.kind == "kernel":
        return None
    from kshell.target.user import UserTarget

    assert isinstance(target, UserTarget)
    return target.facts


def require_user(target: Target) -> Facts:
    """Return what is known of a process, core or file.

    :raises KshellError: the target is a kernel
    """
    found = user_facts(target)
    if found is None:
        raise KshellError("the target is a kernel: this is asked of a process or a core",
                          hint="kshell -p PID and kshell CORE look at processes; ::ps -T lists threads here")
    return found


def iter_user_objects(target: Target) -> Iterator[LoadObject]:
    """Yield the program and its libraries, the program first; as a version the build id, or why there is no file."""
    from kshell.target.user import UserTarget

    assert isinstance(target, UserTarget)
    for found in target.objects:
        version = found.problem or found.build_id or ""
        yield LoadObject(found.shown, found.path, found.start, found.end - found.start, version)


def module_named(target: Target, name: str) -> str | None:
    """Return what ``Symbol.module`` is for symbols of the object that *name* means (``libc``, ``a.out``, a path).

    :raises KshellError: there is none
    """
    from kshell.target.loaded import module_of
    from kshell.target.user import UserTarget

    assert isinstance(target, UserTarget)
    found = module_of(target.objects, name)
    if isinstance(found, bool):
        raise KshellError(f"no object {name}", hint="::objects lists them")
    return found


def whatis_user(target: Target, address: int) -> Iterator[Answer]:
    """Yield what *address* is: a symbol, then the mapping that it is in.

    :raises KshellError: the mappings cannot be read
    """
    from kshell.linux.whatis import Answer  # and with it all that is known of a kernel's addresses

    found = target.symbolize(address)
    if found is not None:
        symbol, offset = found
        name = symbol.shown
        where = f"+0x{offset:x}" if offset else ""
        yield Answer("symbol", symbol.address, offset, f"in {name}{where}" if offset else f"{name}")
    mapping = mapping_at(target, address)
    if mapping is not None:
        text = f"in {mapping.name or '[anon]'} [{mapping.start:x},{mapping.end:x}) {mapping.permissions}"
        yield Answer("mapping", mapping.start, address - mapping.start, text)


def mapping_at(target: Target, address: int) -> Mapping | None:
    """Return the mapping that holds *address*, or None."""
    facts = user_facts(target)
    assert facts is not None
    return next((one for one in facts.mappings() if one.start <= address < one.end), None)


def auxv_name(number: int) -> str:
    """Return the name of a type of the auxiliary vector, or its number."""
    return AUXV.get(number, str(number))
