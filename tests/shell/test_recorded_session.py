"""A session at a terminal, as somebody with mdb in the fingers has it: each verb, walks, filters, sums, writes.

On a real dump, opened with ``--cow``; what is expected comes from the guest's own /proc.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.answers import vmlinux_of
from tests.guest.image import GuestImage
from tests.shell.terminal import Terminal

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest


class Recorded:
    """A terminal at which lines are typed and their answers read."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    def ask(self, line: str) -> list[str]:
        """Type *line*; return the lines that it printed."""
        self.terminal.type("\x0c")  # a clear screen, so that nothing of before is read
        self.terminal.enter(line)
        end = time.monotonic() + 20
        while True:
            lines = self.terminal.lines
            if lines[0].startswith("! " + line[:60]) and "!" in lines[1:]:
                return [text for text in lines[1 : lines.index("!", 1)] if text.strip()]
            assert time.monotonic() < end, self.terminal.text
            self.terminal.read()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, guest_61: GuestImage) -> Iterator[Recorded]:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    home = tmp_path_factory.mktemp("home")
    terminal = Terminal(home, "--cow", str(guest_61.elf), XDG_CACHE_HOME=cache)
    terminal.prompt("!")  # the prompt of who may write
    yield Recorded(terminal)
    terminal.enter("::quit")
    assert terminal.status() == 0


def test_every_verb_displays(session: Recorded, guest_61: GuestImage) -> None:
    banner = guest_61.oracle.symbol("linux_banner")
    assert session.ask("linux_banner,5/c")[-1].split()[-1] == "Linux"
    assert session.ask("linux_banner=J") == [f"                {banner:x}"]
    assert session.ask("2+3*4=X; 5%2=D")[0].split() == ["e"]
    physical = int(session.ask("linux_banner::vtop")[0].split()[-1], 16)
    for verb in ("\\", "@"):
        assert session.ask(f"{physical:x}{verb}4c")[-1].endswith("Linu")
    assert "4c 69 6e 75 78" in " ".join(session.ask("linux_banner,10::dump -g 1"))
    assert any("Linux version" in line for line in session.ask("linux_banner/0t32"))
    assert "schedule" in session.ask("schedule/i")[0]
    assert "operation not supported by target" in " ".join(session.ask("linux_banner?s"))  # there is no object file
    assert session.ask("linux_banner,2/XXn")[-1].split() == [
        f"{int.from_bytes(part, 'little'):x}" for part in (b"rsio", b"n 6.")]


def test_walks_prints_filters_and_sums(session: Recorded, guest_61: GuestImage) -> None:
    pids = guest_61.oracle.pids()
    assert session.ask("::walk proc | ::count") == [str(len(pids))]
    victim = guest_61.oracle.victim()
    rows = session.ask("""::walk proc | ::where 'comm == "victim"' | ::print pid comm""")
    assert rows == [f"pid = {victim['pid']:#x}", 'comm = [ "victim" ]']
    assert session.ask(r"""::walk proc | ::print pid | ::sum""") == [str(sum(pids))]
    table = session.ask("::ps | ::sort -r pid | ::head -2 | ::select -d pid comm")
    assert [int(row.split()[0]) for row in table[1:]] == sorted(pids)[-2:][::-1]
    shown = session.ask("::walk proc p | ::print mm | ::grep .==0 | ::head -1 | ::map <p | ::print task_struct pid")
    assert shown == ["pid = 2"]
    assert session.ask("::ps ! wc -l") == [str(len(pids) + 1)]


def test_every_way_to_write(session: Recorded) -> None:
    before = session.ask("jiffies/J")[-1].split()[-1]
    for letter, shown, size in (("v", "x", 1), ("w", "x", 2), ("W", "X", 4), ("Z", "J", 8)):
        assert session.ask(f"jiffies/{letter} 7")[-1].split()[-1] == "0x7"
        assert int(session.ask(f"jiffies/{shown}")[-1].split()[-1], 16) & ((1 << 8 * size) - 1) == 7
    physical = int(session.ask("jiffies::vtop")[0].split()[-1], 16)
    assert session.ask(f"{physical:x}\\W 9")[-1].split()[-1] == "0x9"
    assert session.ask("jiffies/X")[-1].split()[-1] == "9"
    session.ask("::undo all")
    assert session.ask("jiffies/J")[-1].split()[-1] == before


def test_tables_and_files(session: Recorded, tmp_path: Path) -> None:
    pids = session.ask("::walk proc | ::select -d pid ! tail -n +2 | sort -n | head -2")
    assert [line.strip() for line in pids] == ["1", "2"]
    counted = session.ask("::walk proc | ::print mm | ::uniq -c | ::head -1 | ::map .")
    assert counted == ["0"]  # most processes are kernel threads
    commands = tmp_path / "commands"
    commands.write_text("init_task>here\n<here::print pid comm\n")
    assert session.ask(f"$<<{commands}") == ["pid = 0", 'comm = [ "swapper/0" ]']
    assert session.ask("""::echo 5 ! 'cat; echo 6' | ::map .+1""") == ["6", "7"]
    assert session.ask('init_task::printf "%s %d\\n" task_struct comm pid') == ["swapper/0 0"]


def test_variables_dot_and_repeats(session: Recorded) -> None:
    session.ask("init_task>here; <here+8>there")
    assert session.ask("<there-<here=X") == ["                8"]
    first = session.ask("init_task/J")[-1].split()[-1]
    second = session.ask("+/J")[-1].split()[-1]
    assert session.ask("init_task,2/J")[-1].split()[-2:] == [first, second]


def test_writes_are_shown_and_undone(session: Recorded) -> None:
    before = session.ask("jiffies/X")[-1].split()[-1]
    written = session.ask("jiffies/W 1234")[-1]
    assert re.fullmatch(rf"jiffies:\s+0x{before}\s+=\s+0x1234", written)
    assert session.ask("jiffies/X")[-1].split()[-1] == "1234"
    session.ask("jiffies::write -l 2 55")
    assert session.ask("jiffies/x")[-1].split()[-1] == "55"
    assert len(session.ask("::writes")) >= 2
    session.ask("::undo all")
    assert session.ask("jiffies/X")[-1].split()[-1] == before


def test_searches_and_matches(session: Recorded, guest_61: GuestImage) -> None:
    banner = guest_61.oracle.symbol("linux_banner")
    word = int.from_bytes(b"rsio", "little")
    found = session.ask(f"{banner:x}/L {word:x}")
    assert found == ["linux_banner+8"]


def test_the_verb_for_the_object_file(tmp_path: Path, guest_61: GuestImage) -> None:
    """``?`` beside ``/``: the vmlinux has jiffies as it was built, the dump as it had become."""
    vmlinux = vmlinux_of(guest_61)
    if vmlinux is None:
        pytest.skip("the -dbg package of this guest is not in the cache")
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    terminal = Terminal(tmp_path, "--cow", str(guest_61.elf), str(vmlinux), XDG_CACHE_HOME=cache)
    terminal.prompt("!", seconds=120)
    session = Recorded(terminal)
    built = int.from_bytes((-300 * 250).to_bytes(4, "little", signed=True), "little")
    assert session.ask("jiffies?X")[-1].split()[-1] == f"{built:x}", "INITIAL_JIFFIES: five minutes before it wraps"
    assert int(session.ask("jiffies/X")[-1].split()[-1], 16) > built
    assert "Linux version" in " ".join(session.ask("linux_banner?s"))
    assert "is only read" in " ".join(session.ask("jiffies?W 5"))
    session.ask("jiffies/W 7")
    assert session.ask("jiffies/X")[-1].split()[-1] == "7"
    assert session.ask("jiffies?X")[-1].split()[-1] == f"{built:x}"
    terminal.enter("::quit")
    assert terminal.status() == 0
