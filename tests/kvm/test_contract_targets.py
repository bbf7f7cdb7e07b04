"""The contract over all kinds of targets: each item's own test, run on what that item can be asked of.

``dump`` reads and writes a dump's private copy, ``cow`` the same with the read tests on it too, ``inplace`` a copy of
the dump itself; ``qmp``, ``ram`` and ``gdb`` are a running guest through its monitor, its memory file and its gdb
stub, whose writes are private. What must be read comes from elsewhere: for the guest from QEMU's own ``memsave``.
A live child process (fixture L) is in test_contract_live.py. The last tests write into the guest itself.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kshell import kvm
from kshell.kvm import Kvm
from kshell.kvm.strings import decode
from kshell.target.open import open_target
from tests.guest.image import GuestImage
from tests.guest.oracle import Oracle
from tests.guest.qemu import RunningGuest
from tests.kvm import fixture_m, test_contract_kernel, test_contract_processes, test_contract_rest
from tests.kvm.labs import Lab, lab_e

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest
P = 4096
MACHINES = ("qmp", "ram", "gdb")
TARGETS = ("dump", "cow", "inplace", *MACHINES)
#: what a guest that runs cannot promise: which processes there are from one pass to the next
MOVES = {"test_item_46_each_process_once", "test_item_46_a_fresh_handle_is_rewound", "test_item_47_rewind",
         "test_item_49_getproc_moves_no_cursor", "test_item_53_kernel_threads_and_zombies"}

#: thousands of single requests, each of which is several packets to a gdb stub
SLOW = {"test_item_81_no_function_raises", "test_item_82_eight_threads", "test_item_32_kvm_read_is_kvm_kread",
        "test_item_36_one_call_or_byte_by_byte"}


def items(modules: tuple[ModuleType, ...], wanted: set[str]) -> list[Any]:
    """Return the tests of the contract that take nothing but handles and a lab."""
    found = []
    for module in modules:
        for name, function in vars(module).items():
            if name.startswith("test_item_") and not hasattr(function, "pytestmark"):
                parameters = set(inspect.signature(function).parameters)
                if parameters and parameters <= {"kd", "lab", "writable"} and bool(parameters & wanted):
                    found.append(pytest.param(function, id=name.removeprefix("test_")))
    return found


ALL = (test_contract_kernel, test_contract_processes, test_contract_rest)
READING, WRITING = items(ALL, {"kd"}), items(ALL, {"writable"})


def lab_live(guest: RunningGuest, how: str, folder: Path) -> Lab:
    """The victim of a running guest. K is its kernel stack, which sleeps; QEMU itself tells what is in it."""
    path = {"qmp": f"qmp:{guest.qmp_socket}", "ram": f"ram:{guest.memory_file}", "gdb": f"gdb:{guest.gdb_socket}"}[how]
    assert guest.oracle_folder is not None
    oracle = Oracle(guest.oracle_folder)
    victim, threads = oracle.victim(), oracle.part("threads")
    with open_target(f"ram:{guest.memory_file}") as target, kvm.open(target) as handle:
        stack = target.value("struct task_struct", handle.proc(victim["pid"]).address)["stack"].integer()
    k, u = stack + P, victim["hole"] - 2 * P
    saved = folder / f"stack-{how}"
    guest.command("memsave", val=k - (1 << 64), size=3 * P, filename=str(saved), **{"cpu-index": 0})
    content = saved.read_bytes()
    start = victim["pattern_size"] - 2 * P
    lines = oracle.processes()
    return Lab(
        how, lambda mode: kvm.open(path, mode=mode), "c", k, lambda offset, size: content[offset : offset + size], u,
        lambda offset, size: fixture_m.pattern(start + offset, size), victim["pid"],
        (threads["pid"], victim["list_head"], victim["first_node"].to_bytes(8, "little"), bytes(8)),
        2, next(line.pid for line in lines if line.state == "Z"), 4_000_000, [0, *(line.pid for line in lines)],
        [decode(text) for text in oracle.cmdline(victim["pid"])],
        [decode(text) for text in oracle.environ(victim["pid"])],
    )


@pytest.fixture(scope="module", params=TARGETS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("targets")
    if request.param in MACHINES:
        return lab_live(request.getfixturevalue("live_guest"), request.param, folder)
    image: GuestImage = request.getfixturevalue("guest_61")
    plain = lab_e(image)
    if request.param == "dump":
        return plain
    if request.param == "cow":
        return plain._replace(name="cow", open=lambda mode: kvm.open(image.elf, mode="c" if mode == "r+" else mode))
    copy = folder / "elf"

    def opened(mode: str) -> Kvm:
        shutil.copyfile(image.elf, copy)  # what was written is forgotten
        return kvm.open(copy, mode=mode)

    return plain._replace(name="inplace", write_mode="r+", open=opened)


class Holder:
    """One read-only handle for all tests of a target: opening a machine takes a moment, and it takes one client."""

    def __init__(self) -> None:
        self.lab: Lab | None = None
        self.handle: Kvm | None = None

    def of(self, lab: Lab) -> Kvm:
        if self.handle is None or self.lab is not lab:
            self.release()
            self.lab, self.handle = lab, lab.open("r")
        self.handle.errno, self.handle.message = 0, ""
        self.handle._selected = self.handle.cursor = None
        return self.handle

    def release(self) -> None:
        if self.handle is not None:
            self.handle.close()
        self.handle = None


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    found = Holder()
    yield found
    found.release()


@pytest.mark.parametrize("item", READING)
def test_reading(item: Callable[..., None], lab: Lab, holder: Holder) -> None:
    name = getattr(item, "__name__", "")
    if lab.name == "gdb" and name in SLOW:
        pytest.skip("thousands of packets")
    if lab.name in MACHINES and name in MOVES:
        pytest.skip("the guest runs: processes come and go")
    arguments = {"kd": holder.of(lab), "lab": lab}
    item(**{key: arguments[key] for key in inspect.signature(item).parameters})


@pytest.mark.parametrize("item", WRITING)
def test_writing(item: Callable[..., None], lab: Lab, holder: Holder) -> None:
    if lab.name == "gdb" and "item_40" not in getattr(item, "__name__", ""):
        pytest.skip("private writes over the stub are the same memory as over QMP; opening it takes seconds")
    holder.release()
    with lab.open(lab.write_mode) as handle:
        arguments = {"writable": handle, "lab": lab}
        item(**{key: arguments[key] for key in inspect.signature(item).parameters})


# -- the guest itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", MACHINES)
def test_the_guest_sees_kvm_write(live_guest: RunningGuest, holder: Holder, how: str) -> None:
    holder.release()
    assert live_guest.oracle_folder is not None
    teller = Oracle(live_guest.oracle_folder).part("teller")
    path = {"qmp": f"qmp:{live_guest.qmp_socket}", "ram": f"ram:{live_guest.memory_file}",
            "gdb": f"gdb:{live_guest.gdb_socket}"}[how]
    with kvm.open(path, mode="r+") as kd:
        proc = kd.proc(teller["pid"])
        before = proc.read(teller["text"], 40)
        proc.write(teller["text"], f"kvm_uwrite by {how}".encode() + b"\0")
        # over the stub the guest may stand: it goes on when the handle is closed, and so it is closed here
    live_guest.wait_console((f"TELLER text kvm_uwrite by {how}".encode(),), 20)
    with kvm.open(path, mode="r+") as kd:
        kd.proc(teller["pid"]).write(teller["text"], before)


def test_a_process_that_ended(live_guest: RunningGuest) -> None:
    """The task_struct of a Proc is another one's, or nobody's, by now: ESRCH, never somebody else's memory."""
    import errno

    assert live_guest.oracle_folder is not None
    victim = Oracle(live_guest.oracle_folder).victim()
    with kvm.open(f"ram:{live_guest.memory_file}") as kd:
        proc = kd.proc(victim["pid"])
        other = kd.proc(1)
        stranger = proc.facts._replace(address=other.facts.address)  # what is there now is pid 1
        with pytest.raises(kvm.ProcessGoneError) as caught:
            kd.aread(type(proc)(kd, stranger), victim["greeting"], 8)
        assert caught.value.errno == errno.ESRCH
        renamed = proc.facts._replace(mm=0x1234000)  # as after execve(2): the mm_struct it has now is read
        assert kd.aread(type(proc)(kd, renamed), victim["greeting"], 6) == b"kshell"
