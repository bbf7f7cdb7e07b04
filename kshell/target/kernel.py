"""A Linux kernel in physical memory: from VMCOREINFO to page tables, symbols and types.

The order is that of docs/architecture.md: VMCOREINFO, page tables, kallsyms, BTF, modules. Each step needs only the
ones before it. Kernel source: arch/x86/kernel/vmcore_info_64.c, arch/x86/mm/kaslr.c, arch/x86/include/asm/page_64.h.
"""

from __future__ import annotations

from kshell import cache
from kshell.arch.model import Arch
from kshell.errors import Fault, FormatError, KshellError, OpenError, Reason
from kshell.memory.image import Image
from kshell.memory.model import Memory
from kshell.target import modules
from kshell.target.space import AddressSpace, Linear
from kshell.target.target import Target
from kshell.target.vmcoreinfo import Vmcoreinfo
from kshell.types.btf import Btf
from kshell.types.kallsyms import Kallsyms, load_kallsyms
from kshell.types.names import SymbolIndex, TypeIndex

START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
MAX_BTF = 256 << 20
WITNESS = "init_task"  # a variable that every kernel has

#: where code is, that of the boot too: text_ranges of scripts/kallsyms.c
CODE = (("_stext", "_etext"), ("_sinittext", "_einittext"))
#: Runs of the kernel image that stay mapped after boot; between them memory is given back and used for other things.
IMAGE_RUNS = (
    ("_stext", "_etext"),
    ("__start_rodata", "__end_rodata"),
    ("_sdata", "_edata"),
    ("__bss_start", "__bss_stop"),
)


def attach_kernel(target: Target, physical: Memory, info: Vmcoreinfo, space: AddressSpace | None = None) -> None:
    """Find the kernel that *info* describes in *physical* memory and give *target* its spaces, symbols and types.

    :param space: the kernel's address space, where it was found without *info*
    :raises OpenError: VMCOREINFO lacks what is needed, or its page tables are not in this memory
    """
    target.physical, target.vmcoreinfo, target.release = physical, info, info.release
    try:
        space = space or _kernel_space(target, physical, info)
    except FormatError as error:  # a value of VMCOREINFO that is none
        raise OpenError(target.path, str(error), kind="symbols", hint=error.hint) from error
    target.kernel = space
    target.findings["kernel"] = f"{info.release}, VMCOREINFO, {space.format.levels}-level page tables"
    if isinstance(physical, Image) and physical.packed:
        _keep_constants(target, physical, space)
    target.make_symbols = _make_symbols
    target.make_types = _make_types
    target.make_space = lambda pgd: _user_space(target, pgd)


def _keep_constants(target: Target, image: Image, space: AddressSpace) -> None:
    """Have large tables of this kernel decompressed once. They are kept for this file, not for all of its build id:
    another one could hold a lie.
    """
    content = image.content_key()
    if content is not None:
        from kshell.memory.constants import Constants

        target.constants = Constants(space, f"{content}-{space.root:x}", START_KERNEL_MAP)


def _kernel_space(target: Target, physical: Memory, info: Vmcoreinfo) -> AddressSpace:
    arch = target.arch
    root_symbol, phys_base = info.symbol("swapper_pg_dir"), info.number("phys_base")
    if root_symbol is None or phys_base is None:
        missing = "SYMBOL(swapper_pg_dir)" if root_symbol is None else "NUMBER(phys_base)"
        raise OpenError(target.path, f"its VMCOREINFO has no {missing}; kernels before 4.10 are not supported yet",
                        kind="symbols")
    root = root_symbol - START_KERNEL_MAP + phys_base
    page_size = info.get("PAGESIZE")
    if page_size is not None and page_size != str(arch.page_size):
        raise OpenError(target.path, f"a kernel with pages of {page_size} bytes on {arch.name}", kind="format")
    levels = 5 if info.number("pgtable_l5_enabled") else 4
    paging = arch.paging(levels, info.number("sme_mask") or 0)
    half = (arch.kernel_half, 1 << 64)
    space = AddressSpace(physical, paging, root, space="kernel", half=half)
    try:
        found = space.translate(root_symbol)
    except Fault as fault:
        if fault.reason is Reason.TRUNCATED:
            raise OpenError(target.path, f"the page tables are in the part of the file that is missing: {fault}",
                            kind="header", hint="copy the dump again; what is here has no readable kernel") from fault
        hint = "--part FILE names the other parts of the dump" if fault.reason is Reason.ELSEWHERE else None
        raise OpenError(target.path, f"the page tables that VMCOREINFO names are not in it: {fault}",
                        hint=hint) from fault
    if found != root:
        raise OpenError(target.path, f"the page tables at 0x{root:x} do not lead back to themselves (0x{found:x})",
                        hint="the VMCOREINFO and the memory are of two different kernels")
    return space


def _add_windows(target: Target, symbols: SymbolIndex) -> None:
    """Give the kernel's space its arithmetic windows: the direct map and the parts of the image that stay mapped."""
    space = target.kernel
    if not isinstance(space, AddressSpace):
        return
    windows: list[Linear] = []
    base, last = symbols.own("page_offset_base"), symbols.own("max_pfn")
    if base is not None and last is not None:
        try:
            start, frames = space.u64(base.address), space.u64(last.address)
            if start >= target.arch.kernel_half and 0 < frames < 1 << 40:
                windows.append(Linear(start, start + frames * target.arch.page_size, 0))
        except Fault:
            target.findings["direct map"] = "its base cannot be read; page tables are walked instead"
    for first, end in IMAGE_RUNS:
        low, high = symbols.own(first), symbols.own(end)
        if low is not None and high is not None and START_KERNEL_MAP <= low.address < high.address:
            try:
                windows.append(Linear(low.address, high.address, space.translate(low.address)))
            except Fault:
                continue
    space.add_windows(windows)


def _make_symbols(target: Target) -> SymbolIndex:
    """Read kallsyms; a damaged table costs the symbols, not the target."""
    index = SymbolIndex([], more=modules.symbol_sources(target))
    assert target.vmcoreinfo is not None
    how = "kallsyms in the image"
    try:
        if target.vmcoreinfo.symbol("kallsyms_names") is None:
            from kshell.target.places import scanned_kallsyms

            table, how = scanned_kallsyms(target), "kallsyms in the image, found by the shape of its tables"
        else:
            table = load_kallsyms(target.constants or target.kernel, target.vmcoreinfo.symbol)
    except KshellError as error:
        target.findings["symbols"] = f"none: {error}"
        return index
    index.add(table)
    target.findings["symbols"] = f"{len(table)} ({how})"
    _tell_cache(target)
    if table.find(WITNESS):
        _add_windows(target, index)
    else:
        table.code = _code_of(table)
        target.findings["symbols"] += _add_exported(target, index)
    return index


def _code_of(table: Kallsyms) -> list[tuple[int, int]]:
    """Return where code lies, which is all that kallsyms has without CONFIG_KALLSYMS_ALL."""
    found = [[symbol.address for name in names for symbol in table.find(name)] for names in CODE]
    return [(place[0], place[1]) for place in found if len(place) == 2]


def _add_exported(target: Target, index: SymbolIndex) -> str:
    """Add what the kernel exports: its kallsyms has no variables (no CONFIG_KALLSYMS_ALL). Return that in words."""
    from kshell.target.deduced import DeducedSymbols
    from kshell.types.ksymtab import load_exported
    from kshell.types.percpusyms import PercpuSymbols

    def place(name: str) -> int | None:
        found = index.own(name)
        return None if found is None else found.address

    why = "without variables: no CONFIG_KALLSYMS_ALL"
    index.missing = (f"this kernel's kallsyms has no variables (no CONFIG_KALLSYMS_ALL): a vmlinux or System.map of "
                     f"{target.release} brings them: kshell DUMP VMLINUX")
    deduced = DeducedSymbols(target, index)
    index.add(deduced)  # for the labels of the export tables; for all else it comes last
    try:
        exported = load_exported(target.kernel, place)
    except KshellError as error:
        index.sources.remove(deduced)
        _add_windows(target, index)
        index.add(deduced)
        return f"; {why}; exported ones cannot be had: {error}; a vmlinux or System.map brings them"
    index.sources.remove(deduced)
    index.add(exported, first=True)
    _add_windows(target, index)  # before names are looked for in the types, which need the symbols to be there
    index.add(PercpuSymbols(lambda: base if isinstance(base := target.types.base, Btf) else None, exported))
    index.add(deduced)
    return (f"; {why}; {len(exported)} exported ones by the export table, per-CPU ones by BTF if there is one; "
            "a vmlinux or System.map brings the others")


def _tell_cache(target: Target) -> None:
    """Let ``::status`` tell why the indexes could not be kept: all works without, only slower."""
    if cache.last_problem is not None:
        target.findings["cache"] = f"not used: {cache.last_problem}"


def _make_types(target: Target) -> TypeIndex:
    """Read the kernel's BTF; a damaged one costs the types, not the target."""
    index = TypeIndex([], more=modules.type_sources(target))
    try:
        index.add(read_btf(target))
        target.findings["types"] = "BTF in the image"
        _tell_cache(target)
    except KshellError as error:
        brings = f"a vmlinux or BTF file of {target.release} brings them: kshell DUMP VMLINUX"
        target.findings["types"] = f"none: {error}" if target.live else f"none: {error}; {brings}"
    return index


def read_btf(target: Target) -> Btf:
    """Return the BTF between ``__start_BTF`` and ``__stop_BTF``.

    :raises KshellError: it is not there or damaged
    """
    start, stop = target.symbols.own("__start_BTF"), target.symbols.own("__stop_BTF")
    if start is None or stop is None:
        raise FormatError("the kernel has no BTF (built without CONFIG_DEBUG_INFO_BTF), or no symbols tell where it is")
    size = stop.address - start.address
    if not 0 < size <= MAX_BTF:
        raise FormatError(f"the kernel's BTF has an impossible size of {size} bytes")
    if target.constants is None:
        return Btf(target.kernel.view(start.address, size))
    data, digest = target.constants.content(start.address, size)
    return Btf(data, digest=digest)


def _user_space(target: Target, pgd: int) -> AddressSpace:
    """Return the user half behind the page table at the kernel virtual address *pgd*."""
    kernel = target.kernel
    assert isinstance(kernel, AddressSpace)
    root = kernel.translate(pgd)
    return AddressSpace(target.physical, kernel.format, root, space="user", half=(0, user_half(target.arch, kernel)))


def user_half(arch: Arch, kernel: AddressSpace) -> int:
    """Return the end of user addresses: half of what the page tables translate."""
    return 1 << (arch.page_shift + 9 * kernel.format.levels - 1)
