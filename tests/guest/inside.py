"""Runs in the guest "inside": kshell on the kernel it runs on, as root and as a user, once with each hindrance.

Every scenario is a child of this process (which has imported kshell, so that it starts quickly under emulation); what
it prints goes to /run/inside.NAME.out and .err, how it ended to /run/inside.json. The oracle is collected afterwards.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = ["/inside"]
LIMIT = 300  # seconds for one scenario
USER = 1000
results: dict[str, dict[str, object]] = {}


def scenario(name: str, work: Callable[[], object], uid: int = 0, setup: Callable[[], object] | None = None) -> None:
    """Run *work* in a child, as the user *uid*, after *setup* as root."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            if setup is not None:
                setup()
            signal.alarm(LIMIT)
            for number, kind in ((1, "out"), (2, "err")):
                file = os.open(f"/run/inside.{name}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                os.dup2(file, number)
            home = f"/tmp/home-{uid}"
            os.makedirs(home, exist_ok=True)
            os.chown(home, uid, uid)
            os.environ["HOME"] = home
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            work()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    results[name] = {"status": os.waitstatus_to_exitcode(status), "seconds": round(time.monotonic() - start, 1)}


def shell(*words: str) -> Callable[[], None]:
    def work() -> None:
        from kshell.__main__ import main

        sys.argv = ["kshell", *words]
        main()

    return work


def facts() -> None:
    """What the API tells, as JSON: the test compares it with the guest's /proc."""
    from kshell import kvm
    from kshell.linux import processes, tasks
    from kshell.target.open import open_target

    told: dict[str, object] = {}
    victim = json.loads(Path("/run/victim.json").read_text())
    with open_target(None) as target:
        lines = sorted(f"{symbol.address:x} {symbol.name}" for symbol in target.symbols.sources[0])
        told["symbols"] = [len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()]
        task = tasks.task_by_pid(target, victim["pid"])
        by_proc, by_pages = processes.user_memory(target, task), target.user_space(task.mm)
        told["memories"] = [type(by_proc).__name__, type(by_pages).__name__]
        spans = [(victim["pattern"], victim["pattern_size"]), (victim["greeting"], 34), (victim["heap"], 4096)]
        told["equal"] = [by_proc.read(*span) == by_pages.read(*span) for span in spans]
        told["greeting"] = by_proc.read(victim["greeting"], 34).decode()
        told["jiffies"] = [target.kernel.u64(target.symbol("jiffies").address)]
        time.sleep(0.1)
        with target.question():
            told["jiffies"].append(target.kernel.u64(target.symbol("jiffies").address))  # type: ignore[attr-defined]
    with kvm.open("/proc/kcore") as handle:
        told["banner"] = handle.kread(handle.symbol("linux_banner").address, 40).decode()
        told["vtop"] = handle.vtop(victim["greeting"], handle.proc(victim["pid"]))
    print(json.dumps(told))


def mounted(what: str, where: str) -> Callable[[], None]:
    """Return what mounts *what* over *where* for this child alone."""

    def work() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x20000) != 0 or libc.mount(b"none", b"/", None, 0x44000, None) != 0:  # NEWNS; REC | PRIVATE
            raise OSError(ctypes.get_errno(), "unshare")
        if libc.mount(what.encode(), where.encode(), None, 4096, None) != 0:  # MS_BIND
            raise OSError(ctypes.get_errno(), "mount")

    return work


def setting(path: str, value: str) -> None:
    Path(path).write_text(value)


def own_process() -> int:
    """Start a process of the user, that the user may trace; return its pid."""
    return subprocess.Popen(["/parts/sleeper", "own"], user=USER, group=USER, extra_groups=[]).pid


def main() -> None:
    import kshell.__main__  # the children have it then
    import kshell.commands.processes
    import kshell.linux.processes
    import kshell.shell.start
    import kshell.target.kernel
    import kshell.target.open  # noqa: F401

    teller = json.loads(Path("/run/teller.json").read_text())
    text = f"{teller['text']:x}"
    scenario("status", shell("-k", "-e", "::status"))
    scenario("facts", facts)
    scenario("rows", shell("--json", "-e", "::ps", "-e", "::lsmod"))
    scenario("write-kernel", shell("-w", "-e", "jiffies/W 1", "-e", "1000000::write -p 90"))
    scenario("write-user", shell("-w", "-e", "::getu teller", "-e", f"{text}::uwrite -z from-inside",
                                 "-e", "! sleep 0.3", "-e", "::writes", "-e", "::undo"))
    scenario("cow", shell("--cow", "-e", "panic_timeout/W 1234", "-e", "panic_timeout/X", "-e", "::getu teller", "-e",
                          f"{text}::uwrite -z private", "-e", f"{text}/s"))
    # this very process waits for its child then: a dynamically linked program, built by others
    scenario("user-stack", shell("-k", "--json", "-e", f"0t{os.getpid()}::pid2proc | ::stack -u"))
    own = own_process()
    time.sleep(0.2)
    scenario("user-status", shell("-e", "::status", "-e", "::ps victim"), uid=USER)
    scenario("user-kernel", shell("-k", "-e", "::status"), uid=USER)
    scenario("user-own", shell("-w", "-e", f"::getu {own}", "-e", "400000/4x", "-e", "::args"), uid=USER)
    scenario("user-other", shell("-e", "::getu victim"), uid=USER)
    scenario("user-read-kernel", shell("-e", "ffffffff81000000/X", "-e", "jiffies/X"), uid=USER)
    scenario("no-kcore", shell("-e", "init_task=p", "-e", "::ps victim", "-e", "::getu victim", "-e",
                               "::sizeof struct task_struct"), setup=mounted("/dev/null", "/proc/kcore"))
    setting("/proc/sys/kernel/kptr_restrict", "2")
    scenario("hidden", shell("-e", "::status", "-e", "::ps victim"), setup=mounted("/dev/null", "/proc/kcore"))
    scenario("restricted", shell("-k", "-e", "::status", "-e", "init_task::print comm"))
    setting("/proc/sys/kernel/kptr_restrict", "0")
    subprocess.run(["mount", "-t", "securityfs", "none", "/sys/kernel/security"], check=False)
    if Path("/sys/kernel/security/lockdown").exists():
        setting("/sys/kernel/security/lockdown", "confidentiality")
        scenario("lockdown", shell("-e", "::status", "-e", "::ps victim", "-e", "::getu victim"))
    os.kill(own, signal.SIGKILL)
    Path("/run/inside.json").write_text(json.dumps(results, indent=1))


main()
