"""A session at a terminal with a running guest: a breakpoint where a process opens a file, and another file opened.

The guest's own console says which file it was (tests/guest/live.c).
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.guest.oracle import Oracle
from tests.guest.qemu import RunningGuest
from tests.shell.terminal import Terminal

pytest_plugins = ["tests.guest.fixtures"]


def test_a_process_is_made_to_open_another_file(tmp_path: Path, live_guest: RunningGuest) -> None:
    assert live_guest.oracle_folder is not None
    teller = Oracle(live_guest.oracle_folder).part("teller")
    before = live_guest.console.read_bytes().count(b"TELLER opened the other file")
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    terminal = Terminal(tmp_path, "-w", f"gdb:{live_guest.gdb_socket}", XDG_CACHE_HOME=cache)
    terminal.prompt("live!")
    assert live_guest.command("query-status")["status"] == "running"

    terminal.enter("::bp -p teller -n 1 do_sys_openat2")
    terminal.wait("breakpoint 1 at")
    terminal.enter("::cont")
    terminal.wait("breakpoint 1 at do_sys_openat2: CPU")
    terminal.wait(f"pid {teller['pid']} (teller)")
    terminal.wait(f"] pid {teller['pid']}!")  # it stands at a CPU, and the process there is the context
    terminal.enter("<rsi/s")
    terminal.wait("/run/first")
    terminal.enter("<thread::print struct task_struct comm tgid")
    terminal.wait('"teller"')
    terminal.enter("::step")
    terminal.wait("step at do_sys_openat2+")
    terminal.enter("<rsi::uwrite -z /run/other")
    terminal.wait("->")
    terminal.enter("::writes")
    terminal.wait("2f72756e2f6f74686572")
    terminal.enter("::delete all; ::cont")
    terminal.wait("running")
    live_guest.wait_console((b"TELLER opened the other file",), 20)
    assert live_guest.console.read_bytes().count(b"TELLER opened the other file") > before
    terminal.enter("::quit")
    assert terminal.status() == 0
    assert live_guest.command("query-status")["status"] == "running"
