"""What a ``struct page`` says of its page: flags, page types, compound pages; for one page or many at once.

Kernel source: include/linux/page-flags.h, include/linux/mm_types.h. Page types share a word with the map count; they
are bits that are cleared (4.18 to 6.11) or a number in the top byte (6.12+, 4ffca5a96678 "mm: support only one
page_type per page").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux.lists import member_offset
from kshell.linux.pages import PageArray, page_array
from kshell.types.model import EnumType, StructType

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target

    Bytes = numpy.typing.NDArray[numpy.uint8]
    Words = numpy.typing.NDArray[numpy.uint64]
    Halves = numpy.typing.NDArray[numpy.uint32]
    Bools = numpy.typing.NDArray[numpy.bool_]

#: low bits of page->mapping: PAGE_MAPPING_ANON, _MOVABLE; both: KSM
ANON, MOVABLE, KSM = 1, 2, 3
#: what a page type is called
TYPES = ("buddy", "offline", "table", "guard", "hugetlb", "slab", "zsmalloc", "unaccepted", "large_kmalloc")
BASE = 0xF000_0000


class PageTypes:
    """How this kernel's ``struct page`` is read.

    :ivar array: where the page array is; ``flags``: number of the bit by name (``"PG_slab"``)
    """

    def __init__(self, target: Target) -> None:
        """:raises KshellError: the types do not tell"""
        self.array: PageArray = page_array(target)
        kind = target.type("struct page")
        names = ("flags", "mapping", "index", "private", "_mapcount", "_refcount", "compound_head", "lru")
        # 6.16+ (acc53a0b4c15 "mm: rename page->index to page->__folio_index")
        bare = kind.strip()
        assert isinstance(bare, StructType)
        self.at = {name: member_offset(kind, "__folio_index" if name == "index" and not bare.has("index") else name)
                   for name in names}
        self.flags = enumerators(target, "enum pageflags")
        self._types = enumerators(target, "enum pagetype")
        # 5.11 (18b2db3b0385 "mm: Convert page kmemcg type to a page memcg flag") gave the bit of kmemcg to table
        old = bare.has("mem_cgroup")
        table, guard = (0x400, 0x800) if old else (0x200, 0x400)
        self._bits = {"buddy": 0x80, "offline": 0x100, "table": table, "guard": guard}
        if "PG_slab" not in self.flags:  # 6.10 (46df8e73a4a3 "mm: free up PG_slab")
            self._bits["slab"] = 0x1000

    def words(self, pages: Bytes, name: str) -> Words:
        """Return the 64-bit member *name* of each page."""
        import numpy as np

        at = self.at[name]
        found: Words = np.ascontiguousarray(pages[:, at : at + 8]).view("<u8").reshape(-1)
        return found

    def halves(self, pages: Bytes, name: str) -> Halves:
        """Return the 32-bit member *name* of each page, as an unsigned number."""
        import numpy as np

        at = self.at[name]
        found: Halves = np.ascontiguousarray(pages[:, at : at + 4]).view("<u4").reshape(-1)
        return found

    def has_flag(self, flags: Words, name: str) -> Bools:
        """Return which of the *flags* have the flag *name*; none where the kernel has no such flag."""
        import numpy as np

        bit = self.flags.get(name)
        if bit is None:
            return np.zeros(len(flags), np.bool_)
        found: Bools = (flags >> np.uint64(bit) & np.uint64(1)).astype(np.bool_)
        return found

    def is_type(self, types: Halves, name: str) -> Bools:
        """Return which of the words ``_mapcount`` are the page type *name* of TYPES."""
        import numpy as np

        test = self._test(name)
        if test is None:
            return np.zeros(len(types), np.bool_)
        mask, value = test
        found: Bools = types & np.uint32(mask) == np.uint32(value)
        return found

    def _test(self, name: str) -> tuple[int, int] | None:
        """Return (mask, value) that a word of this page type has, None where the kernel has no such type."""
        number = self._types.get(f"PGTY_{name}")
        if number is not None:
            return 0xFF00_0000, number << 24
        # 6.11 (ff202303c398 "mm: convert page type macros to enum")
        base, bit = self._types.get("PAGE_TYPE_BASE", BASE), self._types.get(f"PG_{name}")
        if bit is None and "PAGE_TYPE_BASE" not in self._types and not self._types:
            bit = self._bits.get(name)
        return None if bit is None else (base & 0xFFFF_FFFF | bit, base & 0xFFFF_FFFF)

    def type_name(self, word: int) -> str:
        """Return the name of the page type that the word ``_mapcount`` holds, "" for a map count."""
        for name in TYPES:
            test = self._test(name)
            if test is not None and word & test[0] == test[1]:
                return name
        return ""

    def flag_names(self, flags: int) -> list[str]:
        """Return the names of the flags that are set, in the order of their bits, without ``PG_``.

        Of names that share a bit the first one of the enum stands for it.
        """
        count = self.flags.get("__NR_PAGEFLAGS", 64)
        first: dict[int, str] = {}
        for name, bit in self.flags.items():
            first.setdefault(bit, name.removeprefix("PG_"))
        return [first[bit] for bit in range(min(count, 64)) if flags >> bit & 1 and bit in first]


def enumerators(target: Target, enum: str) -> dict[str, int]:
    """Return the numbers of the enum by name; {} where the kernel's types do not have it."""
    try:
        found = target.type(enum).strip()
    except KshellError:
        return {}
    return {one[0]: one[1] for one in found.enumerators} if isinstance(found, EnumType) else {}


def slab_of(types: PageTypes, flags: Words, words: Halves) -> Bools:
    """Return which pages begin a slab, by their ``flags`` and ``_mapcount``: the flag until 6.9, then the page type."""
    if "PG_slab" in types.flags:
        return types.has_flag(flags, "PG_slab")
    return types.is_type(words, "slab")
