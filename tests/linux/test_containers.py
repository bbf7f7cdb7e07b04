"""Lists and trees of built bytes: whole, and damaged in every way that must not hang or make things up."""

from __future__ import annotations

import pytest

from kshell.errors import Fault, FormatError, Reason
from kshell.linux import lists, maple, rbtree, xarray
from kshell.linux.maple import MapleEntry
from kshell.memory.model import Memory
from tests.linux.built import BASE, Built

LEAF, RANGE, ARANGE = 1, 2, 3
MAX = (1 << 64) - 1


@pytest.fixture
def built() -> Built:
    return Built()


# -- lists ----------------------------------------------------------------------------------------------------------


def test_a_list_comes_back_to_its_head(built: Built) -> None:
    for offset, after in ((0x0, 0x100), (0x100, 0x200), (0x200, 0x0)):
        built.kernel.words(offset, BASE + after)
    assert lists.list_for_each(built.target, BASE) == [BASE + 0x100, BASE + 0x200]


def test_an_hlist_ends_in_null(built: Built) -> None:
    built.kernel.words(0, BASE + 0x100)
    built.kernel.words(0x100, 0)
    assert lists.hlist_for_each(built.target, BASE) == [BASE + 0x100]


def test_a_list_that_loops_elsewhere_is_damage(built: Built) -> None:
    built.kernel.words(0, BASE + 0x100)
    built.kernel.words(0x100, BASE + 0x200)
    built.kernel.words(0x200, BASE + 0x100)
    with pytest.raises(FormatError, match="comes again") as raised:
        lists.list_for_each(built.target, BASE)
    assert lists.visited_before(raised.value) == [BASE + 0x100, BASE + 0x200]


def test_a_list_that_leads_away_tells_what_came_before(built: Built) -> None:
    built.kernel.words(0, BASE + 0x100)
    built.kernel.words(0x100, 0xDEAD_0000_0000_0100)
    with pytest.raises(Fault) as raised:
        lists.list_for_each(built.target, BASE)
    assert lists.visited_before(raised.value) == [BASE + 0x100, 0xDEAD_0000_0000_0100]


def test_entries_begin_before_their_nodes(built: Built) -> None:
    built.kernel.words(0, BASE + 0x108)
    built.kernel.words(0x100, 42, BASE)
    vector = lists.list_for_each_entry(built.target, "struct item", BASE, "node")
    assert list(vector.addresses) == [BASE + 0x100]
    assert vector.column("value") == [42]


def test_a_list_has_a_limit(built: Built) -> None:
    for number in range(100):
        built.kernel.words(number * 8, BASE + number * 8 + 8)
    with pytest.raises(FormatError):
        lists.chase(built.kernel, BASE, limit=50)


# -- red-black trees --------------------------------------------------------------------------------------------------


def test_a_red_black_tree_is_walked_in_order(built: Built) -> None:
    built.kernel.words(0, BASE + 0x200)
    built.kernel.words(0x200, 1, BASE + 0x300, BASE + 0x100)  # {parent and colour, right, left}
    assert list(rbtree.rbtree_for_each(built.target, BASE)) == [BASE + 0x100, BASE + 0x200, BASE + 0x300]
    assert list(rbtree.rbtree_for_each(built.target, BASE + 0x8000)) == []


@pytest.mark.parametrize("right, left", [(0x200, 0x100), (0x300, 0x200)])
def test_a_red_black_tree_that_loops_is_damage(built: Built, right: int, left: int) -> None:
    built.kernel.words(0, BASE + 0x200)
    built.kernel.words(0x200, 1, BASE + right, BASE + left)
    with pytest.raises(FormatError, match="damaged"):
        list(rbtree.rbtree_for_each(built.target, BASE))


def test_a_red_black_tree_too_deep_is_damage(built: Built) -> None:
    for number in range(200):
        built.kernel.words(0x100 + number * 24, 0, 0, BASE + 0x100 + number * 24 + 24)
    built.kernel.words(0, BASE + 0x100)
    with pytest.raises(FormatError, match="too deep"):
        list(rbtree.rbtree_for_each(built.target, BASE))


# -- maple trees ------------------------------------------------------------------------------------------------------


def node(address: int, kind: int) -> int:
    """Return the pointer to a root node: the type in bits 3 to 6, marked as an internal entry."""
    return address | kind << 3 | 4 | 2


def leaf(built: Built, offset: int, pivots: list[int], slots: list[int]) -> int:
    built.kernel.words(offset, 0, *pivots)
    built.kernel.words(offset + 128, *slots)
    return node(BASE + offset, LEAF)


def test_an_empty_maple_tree(built: Built) -> None:
    assert list(maple.maple_for_each(built.target, BASE)) == []


def test_a_maple_tree_of_one_entry_for_index_0(built: Built) -> None:
    built.kernel.words(0, 0, BASE + 0x5000)
    assert list(maple.maple_for_each(built.target, BASE)) == [MapleEntry(0, 0, BASE + 0x5000)]


def test_a_maple_leaf(built: Built) -> None:
    root = leaf(built, 0x1000, [0xFFF, 0x1FFF, 0x2FFF, 0], [0, BASE + 0x10, 0, BASE + 0x20])
    built.kernel.words(0, 0, root)
    found = list(maple.maple_for_each(built.target, BASE))
    assert found == [MapleEntry(0x1000, 0x1FFF, BASE + 0x10), MapleEntry(0x3000, MAX, BASE + 0x20)]


def test_a_full_maple_leaf_uses_its_last_slot(built: Built) -> None:
    pivots = [(number + 1) * 16 - 1 for number in range(15)]
    root = leaf(built, 0x1000, pivots, [BASE + 8 * number for number in range(1, 17)])
    built.kernel.words(0, 0, root)
    found = list(maple.maple_for_each(built.target, BASE))
    assert len(found) == 16
    assert found[15] == MapleEntry(15 * 16, MAX, BASE + 128)


def test_maple_nodes_of_both_kinds_lead_to_leaves(built: Built) -> None:
    low = leaf(built, 0x1000, [0xF, 0xFF], [BASE + 0x10, 0]) & ~2
    high = leaf(built, 0x1100, [0x10F, 0], [BASE + 0x20, 0]) & ~2
    for kind, slots in ((RANGE, 128), (ARANGE, 80)):
        built.kernel.words(0x1200, 0, 0xFF, MAX)
        built.kernel.words(0x1200 + slots, low, high)
        built.kernel.words(0, 0, node(BASE + 0x1200, kind))
        found = list(maple.maple_for_each(built.target, BASE))
        assert found == [MapleEntry(0, 0xF, BASE + 0x10), MapleEntry(0x100, 0x10F, BASE + 0x20)]
        built.kernel.words(0x1200, *[0] * 32)


def test_maple_damage(built: Built) -> None:
    itself = node(BASE + 0x1000, RANGE) & ~2
    damaged = {
        "loops": (RANGE, [0xFF, MAX], [itself, itself]),
        "falling pivots": (LEAF, [0xFF, 0x7F, MAX], [BASE, BASE, BASE]),
        "no node": (RANGE, [0xFF, MAX], [BASE + 9, BASE + 17]),
        "type": (9, [0xFF, MAX], [BASE + 8, BASE + 16]),
    }
    for name, (kind, pivots, slots) in damaged.items():
        built.kernel.words(0x1000, *[0] * 32)
        built.kernel.words(0x1000, 0, *pivots)
        built.kernel.words(0x1080, *slots)
        built.kernel.words(0, 0, node(BASE + 0x1000, kind))
        with pytest.raises(FormatError, match="damaged"):
            list(maple.maple_for_each(built.target, BASE))
            pytest.fail(name)
    built.kernel.words(0, 0, node(0xFFFF_9000_0000_0000, RANGE))
    with pytest.raises(Fault):
        list(maple.maple_for_each(built.target, BASE))


# -- XArrays ----------------------------------------------------------------------------------------------------------


def xa_node(built: Built, offset: int, shift: int, slots: dict[int, int]) -> int:
    built.kernel.put(offset, bytes([shift]))
    for number, entry in slots.items():
        built.kernel.words(offset + 40 + number * 8, entry)
    return BASE + offset | 2


def test_an_xarray(built: Built) -> None:
    low = xa_node(built, 0x1000, 0, {3: BASE + 0x30, 4: 1030})  # 1030 is XA_ZERO_ENTRY
    top = xa_node(built, 0x2000, 6, {0: low, 2: BASE + 0x40, 3: 2 << 2 | 2})  # slot 3 is a sibling of slot 2
    built.kernel.words(0, 0, top)
    assert list(xarray.xa_for_each(built.target, BASE)) == [(3, BASE + 0x30), (128, BASE + 0x40)]
    assert xarray.xa_load(built.target, BASE, 3) == BASE + 0x30
    assert xarray.xa_load(built.target, BASE, 4) == 0
    assert xarray.xa_load(built.target, BASE, 200) == BASE + 0x40  # by the sibling
    assert xarray.xa_load(built.target, BASE, 1 << 20) == 0


def test_an_xarray_of_one_entry(built: Built) -> None:
    built.kernel.words(0, 0, BASE + 0x30)
    assert list(xarray.xa_for_each(built.target, BASE)) == [(0, BASE + 0x30)]
    assert xarray.xa_load(built.target, BASE, 0) == BASE + 0x30
    assert xarray.xa_load(built.target, BASE, 1) == 0


def test_an_idr_has_a_base(built: Built) -> None:
    built.known["struct idr"] = built.known["struct idr"]
    built.kernel.words(0, 0, xa_node(built, 0x1000, 0, {3: BASE + 0x30}), 1)
    assert list(xarray.idr_for_each(built.target, BASE)) == [(4, BASE + 0x30)]
    assert xarray.idr_find(built.target, BASE, 4) == BASE + 0x30
    assert xarray.idr_find(built.target, BASE, 0) == 0


@pytest.mark.parametrize("shift", [7, 6, 250])
def test_xarray_damage(built: Built, shift: int) -> None:
    inner = xa_node(built, 0x1000, shift, {0: BASE + 0x1000 | 2})
    built.kernel.words(0, 0, xa_node(built, 0x2000, 6, {0: inner}))
    with pytest.raises(FormatError, match="damaged"):
        list(xarray.xa_for_each(built.target, BASE))
    with pytest.raises(FormatError, match="damaged"):
        xarray.xa_load(built.target, BASE, 0)


def test_a_ring_is_followed_from_both_ends() -> None:
    """Nodes at 0x1000, 0x2000, ...: a pointer forwards, one back; what is written over leads nowhere."""
    def ring_of(damage: dict[int, int]) -> tuple[list[int], list[int], bool]:
        places = [0x1000 * number for number in range(1, 8)]
        words = {}
        for before, here, behind in zip(places[-1:] + places, places, places[1:] + places[:1], strict=False):
            words[here], words[here + 8] = behind, before
        memory = Words(words | damage)
        forwards, backwards, error = lists.from_both_ends(memory, 0x1000)
        return forwards, backwards, error is None

    every = [0x1000 * number for number in range(2, 8)]
    assert ring_of({}) == (every, [], True)
    assert ring_of({0x3000: 0xDEAD0}) == ([], every, False)
    assert ring_of({0x3000: 0}) == ([], every, False), "a ring has no end"
    assert ring_of({0x3008: 0xDEAD0}) == (every, [], True), "nobody asked"
    assert ring_of({0x3000: 0xDEAD0, 0x6008: 0xDEAD8}) == (
        [0x2000, 0x3000, 0xDEAD0], [0xDEAD8, 0x6000, 0x7000], False)
    assert ring_of({0x1000: 0}) == ([], [], True), "a head of zeroes is none yet"


class Words(Memory):
    """A memory of 8-byte words."""

    space = "kernel"

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        if address not in self.words or size != 8:
            return b"", Fault(address, size, Reason.NOT_MAPPED, space=self.space)
        return self.words[address].to_bytes(8, "little"), None
