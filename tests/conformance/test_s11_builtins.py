"""mdb-language.md 11.1, 11.7 and 11.8: the built-in dcmds that are about the session, symbols and options."""

from __future__ import annotations

from pathlib import Path

import pytest

from kshell.linux import uts
from tests.conformance.run import KERNEL, Case, Machine, cases, check, together

TASK, JIFFIES = KERNEL + 0x100, KERNEL + 0x200
HEADER = "Value              Size               Type  Bind  Other Shndx    Name\n"


def row(name: str, value: int, size: int, kind: str, bind: str, section: str) -> str:
    return f"0x{value:016x}|0x{size:016x}|{kind:<5}|{bind:<5}|0x0  |{section:<8}|{name}\n"


@cases(
    ("11.1-echo-each-word-and-a-blank", "::echo a b ! tr ' ' .", "a.b.\n"),
    ("11.1-echo-immediates-without-prefix", "::echo $[1f]", "1f"),
    Case("11.1-echo-takes-no-address", "5::echo a", error="::echo: takes no address"),
    ("11.1-head-10-without-a-number", "::nm | ::head | ::count", "9"),
    ("11.1-head-a-number", "::nm -v | ::head -2", f"0x{TASK:x} 0x{TASK + 0x40:x}"),
    ("11.1-head-n", "::nm -v | ::head -n 1", f"0x{TASK:x}"),
    ("11.1-head-is-decimal", "::nm | ::head -10 | ::count", "9"),
    ("11.1-head-with-a-prefix", "::nm -v | ::head -0x1", f"0x{TASK:x}"),
    Case("11.1-head-only-in-a-pipe", "::head -2", error="::head: works in a pipe only"),
    ("11.1-tail", "::nm -v | ::tail -1", f"0x{KERNEL + 0x320:x}"),
    ("11.1-which", "::which ps", "ps is a dcmd from module processes\n"),
    ("11.1-which-a-verb", "::which =", "= is a built-in dcmd\n"),
    ("11.1-which-v", "::which -v ps", "ps is a dcmd from module processes\n  [1] processes`ps\n"),
    ("11.1-whence", "::whence ps", "ps is a dcmd from module processes\n"),
    Case("11.1-which-not-found", "::which nosuch", error="::which: nosuch not found"),
    ("11.1-dcmds-are-sorted-with-their-descriptions", "::dcmds -n ^nm", together([
        f"{'nm':<24} - List symbols, or with an address the one that covers it",
        f"{'nmadd':<24} - Add a symbol of your own at the address, or at dot",
        f"{'nmdel':<24} - Remove a symbol that ::nmadd added"])),
    ("11.1-walkers", "::walkers -n '^list$'", f"{'list':<24} - Walk the list_head nodes of a list, from its head\n"),
    ("11.1-dmods-l", "::dmods -l nm",
     "nm\n  dcmd nm                   - List symbols, or with an address the one that covers it\n"),
    ("11.1-version", "::version ! cut -d' ' -f1", "kshell\n"),
    ("11.1-help-of-a-dcmd", "::help nm ! sed -n '1,5p'",
     "NAME\n  nm - List symbols, or with an address the one that covers it\n\nSYNOPSIS\n"
     "  [address]::nm [-doxguPDnvhp] [-f fmt] [-t types] [-m module] [object|pattern]\n"),
    ("11.1-help-takes-colons", "::help ::nm ! sed -n 2p",
     "  nm - List symbols, or with an address the one that covers it\n"),
    ("11.1-help-of-a-verb", "::help / ! sed -n 2p", "  / - Show virtual memory in a format, write or search it\n"),
    ("11.1-symbol-distance", "$s", "symbol matching distance = 0 (smart mode)\n"),
    ("11.1-log-none", "::log", "no log is active\n"),
    ("11.1-no-adb", "$a", "No adb here.\n"),
    ("11.1-vars-in-the-default-radix", "20>mine; ::vars ! grep mine", "mine = 0x20\n"),
    ("11.1-vars-n", "0>none; 5>some; ::vars -n ! grep -E 'none|some'", "some = 5\n"),
    ("11.1-vars-p", "20>mine; ::vars -p ! grep mine", "0x20>mine\n"),
    ("11.1-vars-t", "::typeset -t mine; ::vars -t", "mine = 0\n"),
    ("11.1-dollar-v-those-that-are-not-0", "5>some; 0>none; $v ! grep -E 'none|some'", "some = 5\n"),
    ("11.1-typeset-sets-to-an-address-only", "7::eval .; ::typeset a; <a=X; 5::typeset a; <a=X; ::typeset a; <a=X",
     "0 5 5"),
    ("11.1-unset", "5>a; ::unset a; ::vars ! grep -c '^a '", "0\n"),
    Case("11.1-unset-unknown", "::unset nosuch", error="::unset: variable 'nosuch' not defined"),
    Case("5.2-read-only", "5>thread", error=">: cannot modify read-only variable 'thread'"),
)
def test_session_dcmds(case: Case) -> None:
    check(case._replace(typed=True))


def test_11_1_cat_feeds_pipes(tmp_path: Path) -> None:
    file = tmp_path / "values"
    file.write_text("10\ninit_task+8\n0t20\n")
    machine = Machine(typed=True)
    assert machine.run(f"::cat {file}").out == "10\ninit_task+8\n0t20\n"
    assert machine.run(f"::cat {file} | ::map .+1").words == f"0x11 0x{TASK + 9:x} 0x15"


def test_11_1_a_log_has_what_was_typed_and_what_was_printed(tmp_path: Path) -> None:
    file = tmp_path / "log"
    machine = Machine()
    assert machine.run(f"::log {file}").out == f'logging to "{file}"\n'
    machine.run("5a5a5=X")
    assert machine.run("::log").out == f'logging to "{file}" is currently enabled\n'
    machine.run("$>")
    machine.run("6b6b6=X")
    assert file.read_text().count("5a5a5") == 1  # what was typed is the prompt's to log
    assert "6b6b6" not in file.read_text()


@cases(
    ("11.7-nm-of-an-address", "init_task+8::nm", HEADER + row("init_task", TASK, 0x40, "OBJT", "GLOB", "data")),
    ("11.7-nm-a-name", "::nm ^main$", HEADER + row("main", KERNEL + 0x280, 0x20, "FUNC", "GLOB", "text")),
    ("11.7-nm-h", "::nm -h ^main$", row("main", KERNEL + 0x280, 0x20, "FUNC", "GLOB", "text")),
    ("11.7-nm-of-a-module", "::nm -h mod",
     row("mod`helper", KERNEL + 0x300, 0x10, "FUNC", "LOCL", "text")
     + row("mod`jiffies", KERNEL + 0x310, 0x10, "FUNC", "LOCL", "text")
     + row("mod`__this_module", KERNEL + 0x320, 0, "OBJT", "LOCL", "data")),
    ("11.7-nm-n", "::nm -n -h -f name -m vmlinux", "_end\nbehind_it\nbeyond\ninit_task\njiffies\nmain\n"),
    ("11.7-nm-v", "::nm -v -h -f name -m vmlinux", "init_task\nbehind_it\njiffies\nbeyond\nmain\n_end\n"),
    ("11.7-nm-g", "::nm -g -h -f name -m vmlinux", "init_task\njiffies\nmain\n_end\n"),
    ("11.7-nm-t", "::nm -t func -h -f name -m vmlinux", "main\n_end\n"),
    ("11.7-nm-d", "::nm -d -h -f sz,name ^main$", f"{'32':<24}|main\n"),
    ("11.7-nm-x", "::nm -x -h -f sz,name ^main$", "0x0000000000000020|main\n"),
    ("11.7-nm-f", "::nm -f name,sz ^main$", "Name Size\nmain|0x0000000000000020\n"),
    ("11.7-nm-p", "::nm -p ^main$", f"0x{KERNEL + 0x280:x}::nmadd -f -s 0x20 main\n"),
    Case("11.7-nm-u", "::nm -u", error="::nm: no symbol matches"),
    Case("11.7-nm-D", "::nm -D", error="::nm: operation not supported by target"),
    Case("11.7-nm-of-nothing", "10::nm", error="::nm: no symbol corresponds to address 0x10"),
    ("11.7-nm-into-a-pipe", "::nm ^main$ | ::map .+1", f"0x{KERNEL + 0x281:x}"),
    ("11.7-nmadd", "1000::nmadd -s 10 mine; mine+8=p", "added mine, value=1000 size=10 mine+8"),
    ("11.7-nmadd-e", "1000::nmadd -e 1010 mine", "added mine, value=1000 size=10"),
    ("11.7-nmdel", "1000::nmadd mine; ::nmdel mine",
     "added mine, value=1000 size=0 deleted mine, value=1000 size=0"),
    Case("11.7-nmdel-unknown", "::nmdel mine", error="::nmdel: symbol 'mine' not found in private symbol table"),
    ("11.7-nm-P", "1000::nmadd -f -s 4 mine; ::nm -P -h -f type,name", "added mine, value=1000 size=4 FUNC |mine"),
)
def test_symbols(case: Case) -> None:
    check(case._replace(typed=True, line=case.line.replace("^main$", "'^main$'").replace("^list$", "'^list$'")))


def test_11_7_commands_of_nm_p_bring_the_private_table_back() -> None:
    machine = Machine(typed=True)
    machine.run(f"{KERNEL + 0x500:x}::nmadd -f -s 20 mine")
    command = machine.run("::nm -Pp").out
    machine.run("::nmdel mine")
    machine.run(command)
    assert machine.run("::nm -Pp").out == command


@cases(
    ("11.8-o-switches-on", "::set -o repeatlast; ::set ! grep repeatlast", f"{'repeatlast':<25}: on\n"),
    ("11.8-plus-o-off", "::set +o pager; ::set ! grep pager", f"{'pager':<25}: off\n"),
    ("11.8-several", "::set -o repeatlast,ignoreeof; ::set ! grep -c ': on'", "4\n"),
    ("11.8-a-limit", "::set -o array_mem_limit=4; ::set ! grep mem_limit", f"{'array_mem_limit':<25}: 4\n"),
    ("11.8-no-limit", "::set -o array_str_limit=none; ::set ! grep str_limit", f"{'array_str_limit':<25}: none\n"),
    ("11.8-s", "::set -s 100; ::set ! grep distance", f"{'symbol matching distance':<25}: 256\n"),
    ("11.8-I", "::set -I /a:/b; ::set -I /c:%o; ::set ! grep macro", f"{'macro path':<25}: /c:/a:/b\n"),
    ("11.8-L", "::set -L /a; ::set -L %o:/b; ::set ! grep module", f"{'module path':<25}: /a:/b\n"),
    ("11.8-glued", "::set -I/a -o repeatlast +o pager,repeatlast -L /m -s 20; ::set ! grep -c ': /\\|: on\\|: 32$'",
     "5\n"),
    ("11.8-adb", "::set -o adb; ::set ! egrep 'prompt|pager|repeat'",
     f"{'prompt':<25}: ''\n{'pager':<25}: off\n{'repeatlast':<25}: on\n"),
    ("11.8-no-adb", "::set -o adb +o adb; ::set ! egrep 'prompt|pager|repeat'",
     f"{'prompt':<25}: '> '\n{'pager':<25}: on\n{'repeatlast':<25}: off\n"),
    Case("11.8-unknown-token", "::set -I /a/%z", error="::set: %z: no token of a path"),
    Case("11.8-unknown-plus", "::set +x", error="::set: +x: no option of ::set"),
    Case("11.8-W", "::set -W", error="::set: command is not supported by current target"),
    ("11.8-plus-W", "::set +W"),
    Case("11.8-F", "::set -F", error="::set: command is not supported by current target"),
    Case("11.8-w-and-plus-w", "::set -w +w", error="::set: -w and +w: one of them"),
    ("11.8-P", "::set -P 'q '; ::set ! grep prompt", f"{'prompt':<25}: 'q '\n"),
    Case("11.8-unknown", "::set -o nosuch", error="::set: invalid debugger option -- nosuch"),
    Case("11.8-needs-an-argument", "::set -o array_mem_limit", error="::set: option requires an argument -- "
         "array_mem_limit"),
    Case("11.8-takes-none", "::set -o pager=1", error="::set: option does not accept an argument -- pager"),
    Case("11.8-bad-argument", "::set -o array_mem_limit=x",
         error="::set: invalid argument for option array_mem_limit -- x"),
)
def test_options(case: Case) -> None:
    check(case._replace(typed=True))


def test_11_1_w_needs_a_target_that_was_opened_for_writing() -> None:
    for line in ("$W", "::set -w"):
        assert "failed to re-open target for writing" in Machine(typed=True).run(line).err
        assert not Machine(typed=True, writable=True).run(line).err


@pytest.mark.parametrize("line, status", [("::echo", "OK"), ("::nm nosuchname", "ERR"), ("::head", "USAGE")])
def test_7_2_statuses_of_builtins(line: str, status: str) -> None:
    found = Machine(typed=True).run(line).status
    assert found is not None
    assert found.name == status


@pytest.mark.parametrize(("line", "shown"), [
    pytest.param("jiffies::write 5", "706050403020100 -> 5", id="11.1-write-a-number-of-the-symbols-size"),
    pytest.param("jiffies::write $[3+4]", "706050403020100 -> 7", id="11.1-write-a-computed-one"),
    pytest.param("jiffies::write init_task", f"706050403020100 -> 0x{TASK:x}", id="11.1-write-an-expression"),
    pytest.param("jiffies::write -l 2 5", "0x100 -> 5", id="11.1-write-l"),
    pytest.param("200::write -p -l 1 ff", "0 -> 0xff", id="11.1-write-p"),
    pytest.param("jiffies+1::write ab", "01 -> ab", id="11.1-write-a-byte-elsewhere"),
])
def test_11_1_write(line: str, shown: str) -> None:
    said = Machine(typed=True, writable=True).run(line)
    assert said.errors == [] and shown.removeprefix("0x") in said.words.replace("0x706", "706")


@pytest.mark.parametrize(("line", "error"), [
    ("::write 5", "Usage: address::write"), ("jiffies+1::write 5", "5 is not bytes"),
    ("jiffies::write -l 1 1ff", "value too big for the length of the write: supplied 2 bytes but maximum is 1 bytes"),
    ("jiffies::write -o 5", "operation not supported by target"), ("200::write -po 5", "-p and -o: one of them"),
])
def test_11_1_write_errors(line: str, error: str) -> None:
    assert error in Machine(typed=True, writable=True).run(line).err


def test_11_8_plus_w_stops_writes_and_w_allows_them_again() -> None:
    machine = Machine(typed=True, writable=True)
    assert machine.run("::set +w; ::set ! grep target").out == f"{'target':<25}: read-only\n"
    said = machine.run("jiffies/W 5")
    assert said.errors == [f"/W: failed to write 5 at address 0x{KERNEL + 0x200:x}: target is not open for writing"]
    assert "::set -w allows them again" in said.err
    assert "::set +w has stopped all writes" in machine.run("$W").err
    assert machine.run("::set -w; jiffies/W 5; ::set +w").errors == []
    assert machine.run("::undo").errors == ["::undo: target is not open for writing"]
    assert machine.run("::set -w; ::undo; jiffies/W 7").errors == []


def test_11_8_a_dump_cannot_lead_a_path_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(typed=True)
    names = uts.Uname(*("x",) * 2, "../../etc", "..:/evil/\0", *("x",) * 2)
    monkeypatch.setattr(uts, "uname", lambda _target: names)
    machine.run("::set -I /a/%R/%i:/b/%V")
    assert machine.session.options.macro_path == ("/a/__.._etc/x86_64", "/b/___evil__")


def test_11_8_files_are_looked_for_in_the_macro_path(tmp_path: Path) -> None:
    for name, word in {"a/mine": "first; $<beside", "b/mine": "second", "b/other": "other", "a/beside": "beside",
                       "b/modules": "no macro"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"::echo {word}\n")
    machine = Machine(typed=True)
    machine.run(f"::set -I {tmp_path}/nosuch:{tmp_path}/a:{tmp_path}/b")
    assert machine.run("$<<mine; $<other").words == "first beside other"
    assert machine.run("$<modules").words == "no macro", "a file comes before adb's macro of the name"
    assert machine.run(f"$<{tmp_path}/b/mine").words == "second"
    assert machine.run("$<./mine").errors == ['$<: failed to open "./mine": No such file or directory']


HELLO = '''
from kshell.api import dcmd
@dcmd("hello")
def hello(session):
    """Greet."""
    yield "hi"
'''


def test_11_8_plugins_are_looked_for_in_the_module_path(tmp_path: Path) -> None:
    plugin = tmp_path / "greeting.py"
    plugin.write_text(HELLO)
    machine = Machine()
    assert machine.run("::load greeting").errors == ['::load: no module "greeting"']
    assert machine.run(f"::set -L /nosuch:{tmp_path}; ::load greeting; ::hello").words.endswith("hi")
    machine.run("::unload greeting")
    plugin.chmod(0o666)
    assert machine.run("::load greeting").errors == [
        f"::load: plugin {plugin} is not loaded: it may be written by everybody"]
    assert machine.run(f"::set -L {tmp_path}/nosuch; ::load greeting").err.count(f"looked in {tmp_path}/nosuch") == 1
