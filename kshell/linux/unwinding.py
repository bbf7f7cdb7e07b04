"""What unwinding needs to know of one kernel: its ORC tables and its modules', what is code, replaced return addresses.

Kernel source: arch/x86/kernel/unwind_orc.c (``orc_find``, ``orc_module_find``, ``orc_ftrace_find``),
``struct mod_arch_specific`` in arch/x86/include/asm/module.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kshell.errors import FormatError, KshellError
from kshell.linux.kept import kept
from kshell.linux.modules import regions
from kshell.linux.traced_returns import TRAMPOLINES, real_return
from kshell.target.modules import iter_modules
from kshell.unwind import orc
from kshell.unwind.orc import Entry, OrcTable
from kshell.unwind.walk import Code

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.types.model import Symbol

#: nm's letters of code
TEXT_LETTERS = frozenset("tTwW")
#: functions of a kernel that unwinds by ORC, which are in every kallsyms; its tables' symbols are not
ORC_CODE = ("unwind_module_init", "__orc_find", "orc_find")
#: where a task that has never run begins (ret_from_fork_asm since 6.6, 3aec4ecb3d1f)
STARTS = ("ret_from_fork_asm", "ret_from_fork")
MAX_OPS = 1 << 12
#: addresses whose names are kept
MAX_NAMES = 1 << 18


class Unwinding:
    """The code of one kernel, with what was found out of it. See :func:`unwinding`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._entries: dict[int, Entry | None] = {}
        self._names: dict[int, tuple[Symbol, int] | None] = {}
        self._modules: list[tuple[int, int, OrcTable]] | None = None
        self._ftrace: list[tuple[int, int, int]] | None = None
        #: why there is no ORC, "" when there is
        self.problem = ""
        self.kernel: OrcTable | None = None
        try:
            self.kernel = self._kernel_table()
        except KshellError as error:
            self.problem = str(error)
        #: whether the kernel was built with ORC, also where its tables are not found
        self.has_orc = self.kernel is not None or any(target.symbols.get(name) is not None for name in ORC_CODE)
        self._trampolines = self._places(TRAMPOLINES)
        #: addresses at which a frame is not what it seems: return addresses of tracers, and where new tasks start
        self.odd = frozenset({*self._trampolines, *self._places(STARTS)})

    def _places(self, names: Sequence[str]) -> dict[int, str]:
        found = ((name, self.target.symbols.get(name)) for name in names)
        return {symbol.address: name for name, symbol in found if symbol is not None}

    def _kernel_table(self) -> OrcTable:
        """:raises SymbolNotFoundError: the kernel has no ORC, or its symbols do not tell where"""
        target = self.target
        ips, ips_end = (target.symbol(f"__{end}_orc_unwind_ip").address for end in ("start", "stop"))
        entries = target.symbol("__start_orc_unwind").address
        header, layout = target.symbols.get("__start_orc_header"), 0
        if header is not None:
            layout = orc.layout_of(target.kernel.read_upto(header.address, orc.HEADER_SIZE)[0])
        return OrcTable(target.kernel, ips, entries, (ips_end - ips) // 4, layout)

    @property
    def modules(self) -> list[tuple[int, int, OrcTable]]:
        """(start, end, table) of the code of each module that has one; modules that cannot be read are left out."""
        if self._modules is None:
            self._modules = []
            layout = 0
            try:
                layout = self.kernel.layout if self.kernel is not None else 0
                for module in iter_modules(self.target):
                    try:
                        self._modules += self._module(module, layout)
                    except KshellError:
                        continue  # the frames in it are told to have no entry
            except KshellError as error:
                self.target.findings["ORC of modules"] = f"incomplete: {error}"
        return self._modules

    def _module(self, module: Any, layout: int) -> list[tuple[int, int, OrcTable]]:
        if not module.has("arch") or not module["arch"].has("num_orcs"):
            return []
        told = module["arch"]
        count = told.integer("num_orcs")
        if not count:
            return []
        table = OrcTable(self.target.kernel, told.integer("orc_unwind_ip"), told.integer("orc_unwind"), count, layout)
        return [(region.base, region.base + region.size, table) for region in regions(self.target, module)
                if "text" in region.kind]

    def find(self, address: int) -> Entry | None:
        """Return the ORC entry of an address of code, None when there is none.

        :raises KshellError: the table that should tell is damaged or cannot be read
        """
        if address not in self._entries:
            if len(self._entries) >= MAX_NAMES:
                self._entries.clear()
            self._entries[address] = self._find(address)
        return self._entries[address]

    def _find(self, address: int) -> Entry | None:
        found = self.symbolize(address)
        if found is None:
            copied = self._ftrace_origin(address)
            return self.find(copied) if copied is not None else None
        table = self._table(found[0], address)
        if table is None and self.has_orc and self.kernel is None:
            raise FormatError(f"the kernel's ORC tables are not found: {self.problem}")
        return table.find(address) if table is not None else None

    def _table(self, symbol: Symbol, address: int) -> OrcTable | None:
        if symbol.module is None:
            return self.kernel
        return next((table for start, end, table in self.modules if start <= address < end), None)

    def function(self, address: int) -> int:
        """Return the start of the function that *address* is in, 0 when it is in none."""
        found = self.symbolize(address)
        return found[0].address if found is not None else 0

    def symbolize(self, address: int) -> tuple[Symbol, int] | None:
        """Return the symbol at *address* and the offset in it; as :meth:`Target.symbolize`, but asked once."""
        if address not in self._names:
            if len(self._names) >= MAX_NAMES:  # only noise has so many
                self._names.clear()
            self._names[address] = self.target.symbolize(address)
        return self._names[address]

    def is_text(self, address: int) -> bool:
        """Whether *address* is in code of the kernel, of a module, or in a trampoline that ftrace has made."""
        if address < self.target.arch.kernel_half:
            return False
        found = self.symbolize(address)
        if found is not None:
            return found[0].type in TEXT_LETTERS
        return self._ftrace_origin(address) is not None

    def _ftrace_origin(self, address: int) -> int | None:
        """Return the address in ``ftrace_caller`` of whose copy *address* is part, None when it is not in one."""
        if self._ftrace is None:
            self._ftrace = []
            with suppress(KshellError):  # without: frames in them have no entry
                self._ftrace = list(self._ftrace_trampolines())
        for start, size, origin in self._ftrace:
            if start <= address < start + size:
                return origin + address - start
        return None

    def _ftrace_trampolines(self) -> Any:
        from kshell.linux.lists import list_for_each_entry

        target = self.target
        # 5.8+ (fc0ea795f53c "ftrace: Add symbols for ftrace trampolines")
        head = target.symbols.get("ftrace_ops_trampoline_list")
        if head is None or not target.kernel.u64(head.address):
            return
        plain, saving = (target.symbol(f"ftrace{kind}_caller").address for kind in ("", "_regs"))
        for number, ops in enumerate(list_for_each_entry(target, "struct ftrace_ops", head.address, "list")):
            if number >= MAX_OPS:
                return
            # FTRACE_OPS_FL_SAVE_REGS is bit 2 since 5.0 or before (include/linux/ftrace.h)
            origin = saving if ops.integer("flags") & 1 << 2 else plain
            yield ops.integer("trampoline"), ops.integer("trampoline_size"), origin

    def code(self, task: int = 0) -> Code:
        """Return what :func:`kshell.unwind.walk.walk` must know.

        :param task: whose stack it is; its replaced return addresses are looked up
        """
        return Code(self.find, self.is_text, self.has_orc, self.function, self._real_return(task))

    def _real_return(self, task: int) -> Callable[[int, int], int]:
        def real(found: int, place: int) -> int:
            name = self._trampolines.get(found)
            return found if name is None else real_return(self.target, task, name, place)

        return real


def unwinding(target: Target) -> Unwinding:
    """Return what is known for unwinding in *target*; it is found again after its memory was written or has moved."""
    return kept(target, "unwinding", Unwinding)
