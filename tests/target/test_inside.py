"""kshell on the kernel that it runs on, in a guest: what it said (tests/guest/inside.py) against the guest's /proc.

As root with /proc/kcore; as a user; with /proc/kcore hidden, addresses restricted, and the kernel locked down.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

import pytest

from tests.guest.image import GuestImage
from tests.test_documents import TOP, matches

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.timeout(900)  # the guest has this very kshell in it, so it is built anew for every change


class Said(NamedTuple):
    """What one scenario printed, and its exit status."""

    out: str
    err: str
    status: int


class Inside:
    def __init__(self, image: GuestImage) -> None:
        self.image, self.oracle = image, image.oracle
        self.ends: dict[str, dict[str, Any]] = json.loads(self.oracle.text("run/inside.json"))

    def __getitem__(self, name: str) -> Said:
        out, err = (self.oracle.text(f"run/inside.{name}.{kind}") for kind in ("out", "err"))
        return Said(out, err, self.ends[name]["status"])


@pytest.fixture(scope="module")
def inside(guest_inside: GuestImage) -> Inside:
    return Inside(guest_inside)


def test_no_traceback_anywhere(inside: Inside) -> None:
    for name, end in inside.ends.items():
        assert end["status"] in (0, 1), (name, end)
        assert "Traceback" not in inside[name].err, inside[name].err


# -- root -------------------------------------------------------------------------------------------------------------


def test_root_sees_the_kernel(inside: Inside) -> None:
    said = inside["status"]
    assert said.status == 0
    assert said.out.startswith("debugging live kernel (64-bit) on kshell-guest\n")
    assert f"kernel: {inside.oracle.release}, VMCOREINFO, 4-level page tables\n" in said.out
    assert "memory: /proc/kcore, and /proc/PID/mem of processes\n" in said.out
    assert "kallsyms in the image" in said.out
    assert "types: BTF in the image" in said.out


def test_the_user_stack_of_python(inside: Inside) -> None:
    """A dynamically linked program, by the unwind tables and names in its memory, down to where it began."""
    said = inside["user-stack"]
    frames = [json.loads(line) for line in said.out.splitlines()]
    assert said.status == 0 and all(frame["reliable"] for frame in frames)
    users = [frame["symbol"] for frame in frames if frame["stack"] == "user"]
    assert any(name.startswith("wait") for name in users[:2]) and "_PyEval_EvalFrameDefault" in users
    assert users[-1] == "_start" and users[-2] == "__libc_start_main" and "Py_BytesMain" in users
    assert frames[0]["symbol"] == "__schedule" and "do_wait" in [frame["symbol"] for frame in frames]


@pytest.fixture(scope="module")
def facts(inside: Inside) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inside["facts"].out)
    return found


def test_every_symbol_is_that_of_proc(inside: Inside, facts: dict[str, Any]) -> None:
    lines = sorted(f"{line.address:x} {line.name}" for line in inside.oracle.kallsyms() if line.module is None)
    assert facts["symbols"] == [len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()]


def test_user_memory_by_two_roads(inside: Inside, facts: dict[str, Any]) -> None:
    assert facts["memories"] == ["ProcessMemory", "AddressSpace"]
    assert facts["equal"] == [True, True, True]
    assert facts["greeting"] == "kshell victim: the quick brown fox"
    victim = inside.oracle.victim()
    assert facts["vtop"] == inside.oracle.vtop(victim["pid"], victim["greeting"])


def test_it_moves(inside: Inside, facts: dict[str, Any]) -> None:
    first, second = facts["jiffies"]
    assert 0 < second - first < 10_000
    assert inside.oracle.text("proc/version").startswith(facts["banner"])


def test_rows(inside: Inside) -> None:
    rows = [json.loads(line) for line in inside["rows"].out.splitlines()]
    tasks = {row["pid"]: row for row in rows if "pid" in row}
    compared = 0
    for line in inside.oracle.processes():
        if line.comm.startswith(("kworker", "python", "collect")) or line.pid not in tasks:
            continue
        row = tasks[line.pid]
        assert (row["comm"], row["ppid"], row["uid"]) == (line.comm[:15], line.ppid, line.uid)
        compared += 1
    assert compared > 40
    modules = {row["name"]: row for row in rows if "ref" in row}
    assert set(modules) == {line.name for line in inside.oracle.modules()}
    for module in inside.oracle.modules():
        assert int(modules[module.name]["base"], 16) == module.address, module.name


# -- writing ----------------------------------------------------------------------------------------------------------


def test_linux_refuses_and_kshell_says_what_works(inside: Inside) -> None:
    said = inside["write-kernel"]
    assert said.status == 1
    assert said.err.count("Linux lets nobody write its own memory") == 2
    assert "--cow" in said.err
    assert "::uwrite" in said.err


def test_the_process_sees_what_was_written(inside: Inside) -> None:
    console = (inside.image.folder / "console.log").read_text(errors="replace")
    assert "TELLER text from-inside" in console
    assert inside["write-user"].out.splitlines()[-1].endswith(b"teller: noth".hex(" "))  # taken back
    assert "private" not in console


def test_a_private_copy(inside: Inside) -> None:
    said = inside["cow"]
    assert "panic_timeout:  1234" in said.out
    assert said.out.splitlines()[-1].split() == [said.out.splitlines()[-1].split()[0], "private"]


# -- hindrances -------------------------------------------------------------------------------------------------------


def test_a_user_is_told_why(inside: Inside) -> None:
    said = inside["user-status"]
    assert "its memory cannot be read: /proc/kcore may be read by root only" in said.out
    assert "symbols: none: /proc/kallsyms shows no addresses to this user" in said.out
    assert "types: BTF (/sys/kernel/btf/vmlinux)" in said.out
    assert "without it: processes from /proc" in said.out
    assert said.out.splitlines()[-1].split()[-1] == "victim"
    assert inside["user-kernel"].status == 1
    assert "/proc/kcore may be read by root only\n        sudo kshell\n" in inside["user-kernel"].err


def test_a_user_has_the_own_processes(inside: Inside) -> None:
    said = inside["user-own"]
    assert said.out.splitlines()[0].split()[1:3] == ["457f", "464c"]
    assert said.out.splitlines()[-1].split() == ["1", "own"]
    assert "may not be traced by this user" in inside["user-other"].err
    refused = inside["user-read-kernel"].err
    assert "/proc/kcore may be read by root only" in refused
    assert "unknown symbol name; symbols: none: /proc/kallsyms shows no addresses" in refused


def test_kcore_hidden(inside: Inside) -> None:
    said = inside["no-kcore"]
    init_task = inside.oracle.symbol("init_task")
    assert said.out.splitlines()[0].strip() in (f"{init_task:x}", "init_task")
    assert said.out.splitlines()[-1] == "sizeof (struct task_struct) = 0x2600" or "sizeof" in said.out
    assert "process context:" in said.err
    assert "hidden by something mounted over it" in inside["hidden"].out
    assert "symbols: none: /proc/kallsyms shows no addresses" in inside["hidden"].out


def test_restricted_addresses_do_not_matter_with_kcore(inside: Inside) -> None:
    assert "kallsyms in the image" in inside["restricted"].out
    assert 'comm = [ "swapper/0" ]' in inside["restricted"].out


def test_locked_down(inside: Inside) -> None:
    said = inside["lockdown"]
    assert "/proc/kcore is closed by kernel lockdown (confidentiality)" in said.out
    assert "process context:" in said.err


def test_the_transcripts_in_the_documentation(inside: Inside) -> None:
    if not inside.oracle.release.startswith("6.1."):
        pytest.skip("they are of 6.1")
    blocks = re.findall(r"^```text\n[#$] kshell -e '::status'\n(.*?)^```", (TOP / "docs/live.md").read_text(),
                        re.MULTILINE | re.DOTALL)
    for block, name in zip(blocks, ("status", "user-status"), strict=True):
        shown = inside[name].out.split("S PID")[0]
        assert matches(block.splitlines(), shown.splitlines()), shown
