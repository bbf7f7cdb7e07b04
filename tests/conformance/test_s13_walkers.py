"""mdb-language.md section 13: what walkers are to their callers, and the kernel's containers on built lists."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from kshell.api import Item, KshellError, Session, walker
from tests.conformance.run import KERNEL, Machine
from tests.shell_session import make_module

CLOSED: list[str] = []


@walker("three")
def three(session: Session) -> Iterator[int]:
    """Walk 1 2 3."""
    try:
        yield from (1, 2, 3)
    finally:
        CLOSED.append("three")


@walker("below", yields="int")
def below(session: Session, address: int | None) -> Iterator[Item]:
    """Walk what is below an address, or 2."""
    yield from (Item(number, "int") for number in range(2 if address is None else address))


@walker("needs")
def needs(session: Session, address: int) -> Iterator[int]:
    """Walk from an address."""
    yield address


@walker("breaks")
def breaks(session: Session) -> Iterator[int]:
    """Walk 1, then fail."""
    yield 1
    raise KshellError("the list is damaged")


@walker("layered")
def layered(session: Session) -> Iterator[int]:
    """Walk what three finds, ten times as much."""
    for item in session.walk("three"):
        assert isinstance(item, Item)
        yield 10 * item.value


def machine() -> Machine:
    return Machine(make_module(three, below, needs, breaks, layered, module="walks"), typed=True)


@pytest.mark.parametrize("line, out", [
    pytest.param("::walk three", "1 2 3", id="13-each-address-a-line"),
    pytest.param("::walk walks`three", "1 2 3", id="13-of-a-module"),
    pytest.param("::walk below", "0 1", id="13-global"), pytest.param("3::walk below", "0 1 2",
                 id="13-from-an-address"),
    pytest.param("5::walk needs", "5", id="13-required-address"),
    pytest.param("1f::walk needs", "0x1f", id="13-show-base"), pytest.param("0t10$d; 20::walk needs", "0t20",
                 id="13-radix"),
    pytest.param("::walk layered", "0xa 0x14 0x1e", id="13-layers"),
    pytest.param("::walk three | ::walk below", "0 0 1 0 1 2", id="13-once-for-each-value"),
    pytest.param("::walk three v | ::map <v*2", "2 4 6", id="8.3-a-variable"),
    pytest.param("2,3::walk needs", "2 2 2", id="13-a-count-repeats-it"),
])
def test_walk(line: str, out: str) -> None:
    said = machine().run(line)
    assert (said.words, said.errors) == (out, [])


@pytest.mark.parametrize("line, error", [
    pytest.param("::walk nosuch", "failed to perform walk: unknown walk name", id="15-unknown"),
    pytest.param("::walk needs", "walker needs needs an address: address::walk needs", id="13-needs-an-address"),
    pytest.param("5::walk three", "walker three takes no address", id="13-takes-no-address"),
    pytest.param("::walk three 4 5", "too many arguments: 5", id="13-words"),
    pytest.param("::walk", "walker is missing", id="13-name"),
])
def test_errors(line: str, error: str) -> None:
    said = machine().run(line)
    assert said.errors == [f"::walk: {error}"]
    assert not said.out


def test_13_a_step_that_fails_ends_the_walk_and_what_was_found_stays() -> None:
    said = machine().run("::walk breaks | ::map .+1")
    assert said.words == "2"
    assert said.errors == ["::walk: the list is damaged"]


def test_13_fini_runs_when_the_walk_is_left_early() -> None:
    CLOSED.clear()
    assert machine().run("::walk three | ::head -1").words == "1"
    assert CLOSED == ["three"]


def test_13_the_object_type_goes_with_the_address() -> None:
    made = machine()
    made.run("::typedef -c LP64")
    assert made.run(f"{KERNEL:x}::walk needs | ::array int 2 | ::print").words == "0x3020100 0x7060504"


HEAD = KERNEL + 0x10


def chain(*links: tuple[int, int, int]) -> Machine:
    """Return a machine with (address, next, prev) written, the rest zeroes."""
    data = bytearray(0x1000)
    for at, following, before in links:
        struct.pack_into("<QQ", data, at, following, before)
    return Machine(typed=bytes(data))


def test_13_list() -> None:
    a, b = KERNEL + 0x40, KERNEL + 0x80
    made = chain((0x10, a, b), (0x40, b, HEAD), (0x80, HEAD, a))
    assert made.run(f"{HEAD:x}::walk list").words == f"{a:#x} {b:#x}"
    assert chain((0x10, HEAD, HEAD)).run(f"{HEAD:x}::walk list").out == ""


def test_13_hlist_and_llist_end_with_null() -> None:
    a, b = KERNEL + 0x40, KERNEL + 0x80
    for name in ("hlist", "llist"):
        assert chain((0x10, a, 0), (0x40, b, 0), (0x80, 0, 0)).run(f"{HEAD:x}::walk {name}").words == f"{a:#x} {b:#x}"


def test_13_a_list_that_loops_elsewhere_ends_with_an_error() -> None:
    a, b = KERNEL + 0x40, KERNEL + 0x80
    said = chain((0x10, a, b), (0x40, b, HEAD), (0x80, a, a)).run(f"{HEAD:x}::walk list")
    assert said.words.split()[:2] == [f"{a:#x}", f"{b:#x}"]
    assert said.errors
    assert len(said.words.split()) < 10


def test_13_every_walker_of_the_reference_for_linux_is_there() -> None:
    names = {entry.name for entry in machine().session.registry.walkers()}
    assert {"proc", "thread", "cpu", "seg", "page", "kmem_cache", "kmem", "freemem", "kmem_slab", "modctl", "list",
            "hlist", "llist", "rbtree", "xarray", "maple_tree", "idr"} <= names
