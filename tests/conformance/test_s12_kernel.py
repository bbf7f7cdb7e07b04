"""mdb-language.md section 12: the shapes of kernel dcmds and what the language asks of them, on a real dump."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from kshell.builtin import make_registry
from kshell.session import Session
from kshell.target.open import open_target
from tests.conformance.run import Machine
from tests.guest.image import GuestImage

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def run(guest_61: GuestImage) -> Iterator[Callable[[str], str]]:
    machine = Machine(target=False)
    with open_target(str(guest_61.elf)) as target:
        machine.session.attach(target)

        def said(line: str) -> str:
            found = machine.run(line)
            return found.out + found.err

        yield said


@pytest.mark.parametrize("line, shape", [
    pytest.param("::ps 1", r"S PID    PPID   PGID   SID    UID    FLAGS      ADDR             NAME\n"
                 r"S 1      0      0      0      0      0x[0-9a-f]{8} [0-9a-f]{16} init\n", id="12.1a-ps"),
    pytest.param("::modinfo ! head -2", r"ADDR .* BASE .* SIZE .*NAME.*\n[0-9a-f]{16} [0-9a-f]{16} .*\n",
                 id="12.1-modinfo"),
    pytest.param("::msgbuf ! sed -n 1,2p", r"MESSAGE\n.*Linux version.*\n", id="12.1-msgbuf"),
    pytest.param("init_task::vtop", r"virtual [0-9a-f]{16} mapped to physical [0-9a-f]+\n", id="11.1-vtop"),
    pytest.param("init_task::vtop | ::map .", r"0x[0-9a-f]+\n", id="11.1-vtop-into-a-pipe"),
    pytest.param("::status", r"debugging crash dump \S+ \(64-bit\) from \S+\n"
                 r"operating system: 6\.1\S* #1 SMP .*\(x86_64\)\n(?s:.*)", id="12.3-status"),
    pytest.param("::regs", r"%rax = 0x[0-9a-f]{16} .*%r9  = 0x[0-9a-f]{16}\n(?s:.*)%rflags = 0x[0-9a-f]{8}\n"
                 r"  id=\d vip=\d vif=\d ac=\d vm=\d rf=\d nt=\d iopl=0x\d\n  status=<[a-zA-Z,]+>\n(?s:.*)",
                 id="12.2-regs"),
    pytest.param("::sizeof zram`struct zram; ::sizeof vmlinux`struct list_head",
                 r"sizeof \(zram`struct zram\) = 0x[0-9a-f]+\n"
                 r"sizeof \(vmlinux`struct list_head\) = 0x10\n", id="6-a-type-of-a-module"),
    pytest.param("::objects ! head -2", r"            BASE            LIMIT             SIZE NAME.*\n"
                 r"[ 0-9a-f]{16} [ 0-9a-f]{16} [ 0-9a-f]{16} vmlinux.*\n", id="11.7-objects"),
    pytest.param("::objects -v ! head -2", r"NAME {24} VERSION\nvmlinux {21} 6\.1.*\n", id="11.7-objects-v"),
    pytest.param("$m", r"            BASE            LIMIT             SIZE NAME\n"
                 r"(?:[ 0-9a-f]{16} [ 0-9a-f]{16} [ 0-9a-f]{16} \S.*\n)+", id="11.7-mappings"),
    pytest.param("$m ! awk 'NR > 1 {print $4, $5, $6}'", r"(?s:.*)direct map of(?s:.*)vmalloc and ioremap\n(?s:.*)"
                 r"kernel text(?s:.*)kernel data(?s:.*)", id="11.7-what-is-mapped"),
    pytest.param("$m !< awk 'NR > 1 {print \"0x\" $1 \"+0x\" $3 \"-0x\" $2 \"=J\"}'", r"(?: +0 *\n)+",
                 id="11.7-base-and-size-make-the-limit"),
    pytest.param("init_task::mappings", r".*\n[ 0-9a-f]{16} [ 0-9a-f]{16} [ 0-9a-f]{16} kernel data\n",
                 id="11.7-the-mapping-of-an-address"),
    pytest.param("init_task::whatis", r"[0-9a-f]{16} is init_task, in vmlinux's data \[[0-9a-f]+,[0-9a-f]+\)\n",
                 id="12.5-whatis"),
    pytest.param("init_task+8::whatis", r"[0-9a-f]{16} is [0-9a-f]{16}\+8, .*\n", id="12.5-whatis-inside"),
    pytest.param("init_task::whatis | ::map .", r"kshell: ::whatis: cannot be output into a pipe\n",
                 id="12.5-whatis-not-into-a-pipe"),
    pytest.param("0t1::pid2proc | ::print task_struct pid", r"pid = 1\n", id="12.1-pid2proc"),
    pytest.param("0t999999::pid2proc", r"(?s:.*)999999(?s:.*)", id="12.1-pid2proc-unknown"),
    pytest.param("::pgrep -x victim | ::print task_struct comm", r'comm = \[ "victim" \]\n',
                 id="12.1-pgrep-into-a-pipe"),
    pytest.param("::context", r"(?s:.*)an address is needed(?s:.*)", id="12.3-context-needs-an-address"),
    pytest.param("::pgrep -x kthreadd | ::context", r"(?s:.*)\n", id="12.3-context-of-a-kernel-thread-is-refused"),
    pytest.param("0::mappings", r"(?s:.*)no process context(?s:.*)", id="12.4-user-addresses-need-a-context"),
    pytest.param("1000/X", r"(?s:.*)no process context(?s:.*)", id="12.4-a-verb-too"),
    pytest.param("current_task/J", r"(?s:.*)0x[0-9a-f]+ is the offset of the per-CPU symbol (\w+): \1::walk percpu\n",
                 id="12.4-a-per-cpu-symbol"),
    pytest.param("init_task::print struct task_struct.pid,comm; ::ps | ::head -1 | ::print struct task_struct->pid",
                 r"(?s:.*)struct task_struct.pid,comm is no type\n"
                 r" +members stand behind a blank: struct task_struct pid comm\n"
                 r"(?s:.*)struct task_struct->pid is no type\n"
                 r" +members stand behind a blank: struct task_struct pid\n(?s:.*)",
                 id="11.2-members-as-crash-has-them"),
    pytest.param("::walk thread t | ::print pid | ::head -1 | ::map <t | ::print task_struct pid; ::unset t",
                 r"pid = 1\n", id="8.3-t-is-a-variable-like-others"),
    pytest.param("::pgrep -x victim | ::walk seg | ::count; ::pgrep -x victim | ::print mm | ::walk seg | ::count",
                 r"(\d+)\n\1\n", id="13-seg-of-a-task"),
    pytest.param("f000000000001000/X",
                 r"(?s:.*)failed to read data from target: no mapping for address \(.*\)\n(?s:.*)",
                 id="12.4-the-reason-stands-behind"),
])
def test_shapes(run: Callable[[str], str], line: str, shape: str) -> None:
    said = run(line)
    assert re.fullmatch(shape, said), said


def test_12_1a_tables_write_bare_addresses_into_pipes(run: Callable[[str], str]) -> None:
    rows = [line.split() for line in run("::ps").splitlines()[1:]]
    assert run("::ps | ::map .").split() == [f"0x{row[7]}" for row in rows]


def test_12_3_a_context_and_the_kernel_again(run: Callable[[str], str]) -> None:
    assert re.search("victim", run("::pgrep -x victim | ::context; ::getu"))
    assert "vsyscall" in run("::mappings") or "[stack]" in run("::mappings")
    run("0::context")
    assert "no process context" in run("::getu")


def test_12_4_symbols_of_a_boot_with_kaslr_are_where_they_are(run: Callable[[str], str], guest_61: GuestImage) -> None:
    assert run("init_task=J").split() == [f"{guest_61.oracle.symbol('init_task'):x}"]
    assert run("<t-(_etext-_stext)=X; <b-_sdata=X; <d-(_edata-_sdata)=X; <m=X").split() == ["0", "0", "0", "464c457f"]


def test_5_2_registers_and_thread_of_the_representative_cpu(run: Callable[[str], str]) -> None:
    assert run("<thread::print task_struct pid").startswith("pid = ")
    assert run("::walk running | ::count").strip().isdecimal()
    assert f"%rsp = 0x{int(run('<rsp=J'), 16):016x}" in run("::regs")


def test_a_registry_without_a_target_still_has_them_all() -> None:
    registry = make_registry(pytest.fail, plugins=False)
    session = Session(None, registry)
    assert {"ps", "modinfo", "msgbuf", "status", "regs", "vtop", "whatis", "context", "pid2proc", "pgrep", "ptree"} <= {
        entry.name for entry in session.registry.dcmds()}
