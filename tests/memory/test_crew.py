"""Pages decompressed by other processes: the same pages and the same failures, and processes that end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.errors import Reason
from kshell.memory import crew, pages
from kshell.memory.codecs import CODECS
from kshell.memory.pages import Pages
from kshell.memory.source import FileSource, FlattenedSource, Source
from tests.memory.test_kdump import flattened
from tests.memory.test_pages import COUNT, PAGE, page, table

READY = 20.0  # seconds until a process must have started, on a busy machine


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "NEEDED", 1)
    monkeypatch.setattr(crew, "cores", lambda: 3)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Pages]:
    (tmp_path / "pages").write_bytes(table(1))
    found = Pages(source(tmp_path / "pages"), 0, PAGE)
    yield found
    found.close()
    found.source.close()


def source(path: Path) -> FileSource:
    return FileSource(str(path), os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def fill(found: Pages, number: int, count: int) -> list[bytes]:
    buffer = bytearray(b"\xa5" * (count * PAGE))
    assert found.fill(number, memoryview(buffer)) == (count, None)
    return [bytes(buffer[at : at + PAGE]) for at in range(0, len(buffer), PAGE)]


def wait_for(found: Pages) -> list[int]:
    """Have the processes started; return their pids."""
    end = time.monotonic() + READY
    while found._crew is None or not all(man.ready for man in found._crew._men):
        fill(found, 0, 1)
        assert time.monotonic() < end
        time.sleep(0.01)
    return [man.pid for man in found._crew._men]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] in "ZX"
    except OSError:
        return True


def all_gone(pids: list[int]) -> bool:
    end = time.monotonic() + READY
    while not all(map(gone, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return all(map(gone, pids))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_the_pages_are_the_same_in_any_order(tmp_path: Path, codec: int, flat: bool) -> None:
    data = table(codec)
    (tmp_path / "pages").write_bytes(flattened(data, 5000, order=3) if flat else data)
    file = source(tmp_path / "pages")
    below: Source = FlattenedSource(file) if flat else file
    found = Pages(below, 0, PAGE)
    expected = list(map(page, range(COUNT)))
    pids = wait_for(found)
    for step in (700, 256, 100, 64, 7):
        for at in range(0, COUNT, step):
            assert fill(found, at, min(step, COUNT - at)) == expected[at : at + step]
    chance = random.Random(codec)
    for _ in range(60):
        at = chance.randrange(COUNT)
        count = chance.randrange(1, COUNT - at + 1)
        for following in (at, min(at + count, COUNT - 1)):  # one that nobody expected, and one that follows
            some = min(count, COUNT - following)
            found._in_order = 1
            assert fill(found, following, some) == expected[following : following + some]
    assert found._crew is not None and [man.pid for man in found._crew._men] == pids
    found.close()
    assert all_gone(pids)
    below.close()


@pytest.mark.parametrize("bad, reason", [((1 << 40, 100, 1), Reason.TRUNCATED), ((64, 100, 1), Reason.IO)])
def test_a_failure_is_where_it_is_and_the_first(tmp_path: Path, bad: tuple[int, int, int], reason: Reason) -> None:
    (tmp_path / "pages").write_bytes(table(1, {333: bad, 500: bad, 501: bad}))
    found = Pages(source(tmp_path / "pages"), 0, PAGE)
    wait_for(found)
    buffer = bytearray(COUNT * PAGE)
    for _ in range(3):
        for start, first in ((0, 333), (310, 333), (334, 500), (450, 500), (501, 501)):
            done, error = found.fill(start, memoryview(buffer)[: (COUNT - start) * PAGE])
            assert start + done == first and error is not None and error.reason is reason
            assert buffer[: done * PAGE] == b"".join(map(page, range(start, first)))
            alone, same = found.fill_here(start, memoryview(buffer)[: (COUNT - start) * PAGE])
            assert alone == done and str(same) == str(error)
    assert fill(found, 502, COUNT - 502) == list(map(page, range(502, COUNT)))
    done, error = found.fill(600, memoryview(bytearray(200 * PAGE)))  # past the end of the table
    assert error is not None and done >= COUNT - 600
    found.close()
    found.source.close()


def test_a_short_reader_has_none(opened: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "NEEDED", 2 * COUNT)
    for number in range(COUNT):
        opened.load(number)
    fill(opened, 0, COUNT)
    for start in random.Random(1).sample(range(COUNT - 10), 200):
        fill(opened, start, 10)
    assert opened._crew is None
    monkeypatch.setattr(pages, "NEEDED", COUNT)
    fill(opened, 0, COUNT - 10)
    assert opened._crew is None
    fill(opened, COUNT - 10, 10)
    assert opened._crew is not None


def test_pages_that_are_not_compressed_need_nobody(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(table(0))
    found = Pages(source(tmp_path / "pages"), 0, PAGE)
    for _ in range(3):
        assert fill(found, 0, COUNT) == list(map(page, range(COUNT)))
    assert found._crew is None
    found.source.close()


@pytest.mark.parametrize("why", ["one core", "no memory", "no process", "no python"])
def test_without_processes_it_is_only_slower(opened: Pages, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def refused(*arguments: object, **more: object) -> int:
        raise OSError(11, "refused")

    if why == "one core":
        monkeypatch.setattr(crew, "cores", lambda: 1)
    elif why == "no python":
        monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    else:
        monkeypatch.setattr(os, "memfd_create" if why == "no memory" else "posix_spawn", refused)
    for _ in range(3):
        assert fill(opened, 0, COUNT) == list(map(page, range(COUNT)))
    assert opened._crew is None


def test_one_that_is_killed_costs_nothing_but_time(opened: Pages) -> None:
    for _ in range(3):
        pids = wait_for(opened)
        fill(opened, 0, 300)
        os.kill(pids[0], signal.SIGKILL)
        assert fill(opened, 300, 400) == list(map(page, range(300, COUNT)))
        assert fill(opened, 0, COUNT) == list(map(page, range(COUNT)))
        assert opened._crew is None or pids[0] not in [man.pid for man in opened._crew._men]
        assert all_gone(pids)


def test_ctrl_c_ends_them(opened: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = wait_for(opened)

    def interrupted(number: int, out: memoryview) -> tuple[int, None]:
        raise KeyboardInterrupt

    assert opened._crew is not None
    opened._crew._here = interrupted
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            fill(opened, 3, 400)
    assert opened._crew is None and all_gone(pids)
    assert fill(opened, 0, COUNT) == list(map(page, range(COUNT)))


def test_they_do_not_hear_ctrl_c_and_end_when_nobody_asks(opened: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "IDLE", 300)
    pids = wait_for(opened)
    assert all(os.getsid(pid) == pid for pid in pids)
    assert all_gone(pids)
    assert fill(opened, 0, COUNT) == list(map(page, range(COUNT)))


def test_only_the_last_reader_has_them(opened: Pages) -> None:
    pids = wait_for(opened)
    other = Pages(opened.source, 0, PAGE)
    wait_for(other)
    assert all_gone(pids)
    assert fill(opened, 0, COUNT) == fill(other, 0, COUNT) == list(map(page, range(COUNT)))
    other.close()


def test_a_fork_leaves_them_alone(opened: Pages) -> None:
    pids = wait_for(opened)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = int(fill(opened, 0, COUNT) != list(map(page, range(COUNT))))
            opened.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert fill(opened, 0, COUNT) == list(map(page, range(COUNT)))
    assert opened._crew is not None and [man.pid for man in opened._crew._men] == pids


KILLED = """
import sys, time
from kshell.memory import crew, pages
from tests.memory import test_crew
from pathlib import Path
pages.NEEDED, crew.cores = 1, lambda: 3
found = pages.Pages(test_crew.source(Path(sys.argv[1])), 0, 4096)
print(*test_crew.wait_for(found), flush=True)
test_crew.fill(found, 0, 300)
time.sleep(60)
"""


def test_they_end_with_a_reader_that_is_killed(opened: Pages, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "pages")], stdout=subprocess.PIPE,
                          cwd=Path(__file__).parents[2]) as reader:
        assert reader.stdout is not None
        pids = list(map(int, reader.stdout.readline().split()))
        assert len(pids) == 2 and not any(map(gone, pids))
        reader.kill()
    began = time.monotonic()
    assert all_gone(pids)
    assert time.monotonic() - began < crew.IDLE / 1000


def test_their_memory_is_small(opened: Pages) -> None:
    pids = wait_for(opened)
    fill(opened, 0, COUNT)
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        own = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
        assert own < 16 << 10, own  # KiB
