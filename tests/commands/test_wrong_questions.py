"""Questions about what is not there are told so, and what a panicked kernel's CPUs and registers are, on a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask, objects
from tests.guest.image import GuestImage


@pytest.fixture(scope="module")
def target(guest_null: GuestImage) -> Iterator[Target]:
    with open_target(str(guest_null.elf)) as opened:
        yield opened


@pytest.mark.parametrize(("line", "told"), [
    ("::runq -c 99", "no run queue of a CPU 99\n        there are those of 0, 1"),
    ("::ps -c 99", "there is no CPU 99\n        there are 0, 1"),
    ("::kmastat nosuch", 'no slab cache "nosuch"'),
    ("::findleaks nosuch", 'no slab cache "nosuch"'),
    ("::stacks -m nosuch", 'no module "nosuch"'),
    ("::stacks -M virtio_blq", 'no module "virtio_blq"; did you mean "virtio_blk"'),
    ("::stacks -s mutx", "nothing waits for mutx: the kinds are mutex, rwsem"),
    ("::stack init", "init is not a number of arguments\n        a task's stack: ::pgrep NAME | ::stack"),
    ("::msgbuf -n -3", "-n -3: a number of records is not negative"),
    ("init_task::kgrep -d -1", "-d -1: words from the value upwards"),
    ("::dis nosuch+4", "::dis: nosuch+4: failed to dereference symbol: unknown symbol name"),
    ("init_task::print struct task_strct", 'failed to look up type struct task_strct: no such type'),
    ("::ps \udcff", 'no process "\\xff"'),
    ("::help nosuchdcmd", "::dcmds lists them"), ("::walk nosuchwalker", "::walkers lists them"),
    ("0::kgrep", "more than 1000 places hold 0x0\n        -n NUM shows more of them"),
])  # fmt: skip
def test_what_is_not_there_is_told(target: Target, line: str, told: str) -> None:
    answer = ask(target, line)
    assert told in answer and "bug in kshell" not in answer


@pytest.mark.parametrize("line", [
    "::ps", "::getu", "::pfiles", "::task", "::locks", "::undo", "::delete", "::pid2proc", "::set -o array_mem_limit=",
])
def test_thousands_of_digits_are_no_number(target: Target, line: str) -> None:
    """Python refuses to convert more than 4300."""
    answer = ask(target, line + " " * (line[-1] != "=") + "9" * 5000)
    assert answer.startswith(f"kshell: {line.split()[0]}: ") and "bug in kshell" not in answer


def test_a_name_that_the_user_gave_is_no_per_cpu_variable(target: Target) -> None:
    """Every source of symbols is asked for the per-CPU variable at an offset."""
    assert "bug in kshell" not in ask(target, "init_task::nmadd -s 10 mine; init_task::kgrep -v")
    assert ask(target, "::nmdel mine") .startswith("deleted mine,")


def test_a_pid_may_say_that_it_is_decimal(target: Target) -> None:
    assert ask(target, "::ps 0t1") == ask(target, "::ps 1") != ""


def test_what_everything_holds_is_shown_in_part_and_counted_in_a_pipe(target: Target) -> None:
    assert len(ask(target, "0::kgrep -q").splitlines()) == 1002  # 1000 and the error
    assert ask(target, "0::kgrep -n 0t1500 -q ! wc -l").split() == ["1500"]
    assert ask(target, "0::kgrep -q ! head -1200 | wc -l").split() == ["1200"]


def test_cpus_that_panic_stopped_are_there(target: Target) -> None:
    """stop_this_cpu() has taken all but the one that panicked out of ``__cpu_online_mask``."""
    symbol = target.symbol("__cpu_online_mask")
    assert int.from_bytes(target.kernel.read(symbol.address, 8), "little").bit_count() == 1
    assert {row["cpu"] for row in objects(target, "::runq")} == {0, 1}
    assert [row["cpu"] for row in objects(target, "::cpuinfo")] == [0, 1]


def test_only_addresses_in_registers_are_explained(target: Target) -> None:
    (facts,) = objects(target, "::panic -v")
    registers = facts["registers"]
    assert registers["rdi"] == f"0x{42:016x}" and " " not in registers["rflags"]
    assert registers["rax"] == f"0x{0:016x}  NULL" and "in the stack of" in registers["rsp"]


def test_parts_of_a_module_in_one_piece(target: Target) -> None:
    """A kernel before 6.4 keeps a module's text, rodata and data in one piece of memory."""
    told = {name: ask(target, f"{name}::whatis -a") for name in ("disaster`price_of", "device_ready", "__this_module")}
    assert "in text of module disaster (section .text)" in told["disaster`price_of"]
    assert "in rodata of module disaster (section .rodata)" in told["device_ready"]
    assert "in data of module" in told["__this_module"]
