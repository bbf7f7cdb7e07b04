"""Linker sets and ``$e`` on real kernels: each object of a set is where the symbol of its own is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.errors import KshellError, NotFoundError
from kshell.linux.linkersets import find_set, linker_sets, objects
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask
from tests.guest.fixtures import have
from tests.guest.spec import named_spec


@pytest.fixture(scope="module", params=["6.1", "6.12", "5.10"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with open_target(str(have(named_spec(request.param)).elf)) as opened:
        yield opened


@pytest.mark.parametrize(("name", "prefix"), [
    ("__param", "__param_"), ("__tracepoints_ptrs", "__tracepoint_"), ("_bpf_raw_tp", "__bpf_trace_tp_map_"),
])
def test_objects_are_where_their_symbols_are(target: Target, name: str, prefix: str) -> None:
    found = find_set(target, name)
    places = list(objects(target, found))
    assert len(places) == found.length and len(places) > 100
    named = {symbol.address for symbol in target.symbols if symbol.name.startswith(prefix)}
    assert set(places) <= named


def test_places_of_offsets_are_code(target: Target) -> None:
    places = list(objects(target, find_set(target, "orc_unwind_ip")))
    assert places == sorted(places), "ORC's table is sorted by address"
    assert target.symbol("_stext").address <= places[0] < places[-1]


def test_every_set_ends_behind_its_start_and_holds_whole_items(target: Target) -> None:
    sets = list(linker_sets(target))
    names = [(one.module, one.name) for one in sets]
    assert len(set(names)) == len(names) > 20
    assert (None, "tty") not in names, "__start_tty and __stop_tty are functions"
    for one in sets:
        assert one.end >= one.start and (not one.size or (one.end - one.start) % one.size == 0)


def test_what_cannot_be_listed_says_why(target: Target) -> None:
    with pytest.raises(KshellError, match="was in memory that was given back"):
        list(objects(target, find_set(target, "ftrace_events")))
    with pytest.raises(KshellError, match="what the items of once are is not known"):
        list(objects(target, find_set(target, "once")))
    with pytest.raises(NotFoundError, match='no linker set "__parm"; did you mean "__param"'):
        find_set(target, "__parm")


def test_externs_have_what_is_there(target: Target) -> None:
    lines = dict(line.split(":\t") for line in ask(target, "$e").splitlines())
    address = target.symbol("jiffies").address
    assert lines[f"jiffies(0x{address:x})"] == f"0x{int.from_bytes(target.kernel.read(address, 8), 'little'):x}"
    assert len(lines) > 10_000
    assert all("(" in name for name in lines)
    assert not any(name.startswith("__schedule(") for name in lines), "a local function"


def test_stackregs_of_a_sleeping_task_are_those_it_goes_on_with(target: Target) -> None:
    first = ask(target, "::pid2proc 1 | ::stackregs ! head -4")
    registers = ask(target, "::pid2proc 1 | ::regs")
    for name in ("rbx", "r12", "r13", "r14", "r15", "rip", "rsp", "rbp"):
        value = registers.split(f"%{name} = 0x")[1][:16]
        assert f"%{name:<8} = {value}" in first
    stack = [line for line in ask(target, "::pid2proc 1 | ::stackregs").splitlines() if not line.startswith(" ")]
    assert stack == ask(target, "::pid2proc 1 | $C").splitlines()
