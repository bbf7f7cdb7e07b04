"""The smallest Linux there is: an ELF core of a few pages with VMCOREINFO, page tables, kallsyms and BTF in it.

The image is mapped at 0xffffffff80000000 by one 2 MiB page, the symbols' tables by another.
"""

from __future__ import annotations

import struct

from tests.memory.cores import Load, core, note
from tests.types.encode_btf import Blob
from tests.types.encode_kallsyms import IMAGE, LAYOUTS, Encoded, encode

PAGE = 4096
START = 0xFFFF_FFFF_8000_0000
ROOT, UPPER, MIDDLE, DATA = 0x1000, 0x2000, 0x3000, 0x4000  # top table, PUD, PMD, data (physical)
SYMBOLS = 0x20_0000  # the tables of kallsyms (physical)
BTF = DATA + 0x800
INIT_TASK = DATA
TASKS = START + INIT_TASK + 16
GREETING = DATA + 0x100


def types() -> Blob:
    blob = Blob()
    number, char = blob.integer("int"), blob.integer("char", 1)
    pointer = blob.pointer(4)
    blob.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    blob.struct("task_struct", 48, [("pid", number, 0), ("tasks", 4, 128), ("comm", blob.array(char, 16), 256)])
    long_ = blob.integer("long unsigned int", 8, 0)
    blob.struct("mm_struct", 8, [("pgd", blob.pointer(long_), 0)])
    return blob


def symbols() -> Encoded:
    return encode([
        ("_stext", "T", START), ("swapper_pg_dir", "D", START + ROOT), ("init_task", "D", START + INIT_TASK),
        ("greeting", "d", START + GREETING), ("__start_BTF", "D", START + BTF),
        ("__stop_BTF", "D", START + BTF + len(types().bytes())), ("_end", "B", START + 8 * PAGE),
    ], LAYOUTS["6.4"])


def memory() -> list[Load]:
    """Return the two runs of physical memory."""
    low = bytearray(8 * PAGE)
    blob = types().bytes()
    for at, entry in (
        (ROOT + 8 * 511, UPPER | 3), (UPPER + 8 * 510, MIDDLE | 3),
        (MIDDLE, 0 | 0x83), (MIDDLE + 8 * 128, SYMBOLS | 0x83),  # slot 128: 0x90000000 - 0x80000000 over 2 MiB
        (ROOT + 8 * 1, UPPER | 7),
    ):
        struct.pack_into("<Q", low, at, entry)
    struct.pack_into("<iiQQQ16s", low, INIT_TASK, 0, 0, 0, TASKS, TASKS, b"swapper/0")
    low[GREETING : GREETING + 12] = b"hello, world"
    low[BTF : BTF + len(blob)] = blob
    return [Load(0, bytes(low), vaddr=START), Load(SYMBOLS, bytes(symbols().memory.data), vaddr=IMAGE)]


def vmcoreinfo(**changes: str) -> bytes:
    """Return its text; *changes* replace values by key, "" leaves the key out."""
    values = {
        "OSRELEASE": "6.4.0-tiny", "BUILD-ID": "00" * 19 + "2a", "PAGESIZE": "4096",
        "SYMBOL(swapper_pg_dir)": f"{START + ROOT:x}", "SYMBOL(_stext)": f"{START:x}", "NUMBER(phys_base)": "0",
        "NUMBER(pgtable_l5_enabled)": "0", "KERNELOFFSET": "0",
        **{f"SYMBOL({name})": f"{address:x}" for name, address in symbols().places.items()},
    }
    values.update(changes)
    return "".join(f"{key}={value}\n" for key, value in values.items() if value).encode()


def prstatus(pid: int) -> bytes:
    data = bytearray(336)
    struct.pack_into("<i", data, 32, pid)
    struct.pack_into("<Q", data, 112 + 8 * 16, START + 0x40)
    return bytes(data)


def image(**changes: str) -> bytes:
    """Return the dump; *changes* are those of :func:`vmcoreinfo`."""
    notes = note("CORE", 1, prstatus(1)) + note("VMCOREINFO", 0, vmcoreinfo(**changes))
    return core(memory(), notes)
