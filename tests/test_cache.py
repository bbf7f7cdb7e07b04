"""The disk cache: whole or nothing, of its owner, one's own; never in the way when it cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kshell import cache

KEY = cache.key_of(b"content")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KSHELL_CACHE", raising=False)
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "last_problem", None)
    return tmp_path


def loaded(version: int = 1, kind: str = "kind", key: str = KEY) -> bytes | None:
    found = cache.load(kind, key, version)
    return None if found is None else bytes(found)


def files(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def test_what_was_stored_is_loaded(home: Path) -> None:
    assert cache.load("kind", KEY, 1) is None
    cache.store("kind", KEY, 1, b"abc", bytearray(b"def"), memoryview(b"gh"))
    assert loaded() == b"abcdefgh"
    assert cache.load("other", KEY, 1) is None and cache.load("kind", cache.key_of(b"other"), 1) is None
    (path,) = files(home)
    assert path.parent == home / "cache" / "kshell" / "index"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert cache.last_problem is None


def test_nothing_can_be_stored() -> None:
    cache.store("kind", KEY, 1)
    assert loaded() == b""


def test_another_version_is_not_loaded_and_is_overwritten(home: Path) -> None:
    cache.store("kind", KEY, 1, b"old")
    assert cache.load("kind", KEY, 2) is None
    cache.store("kind", KEY, 2, b"new")
    assert loaded(2) == b"new" and loaded() is None
    assert len(files(home)) == 1


def test_every_damaged_byte_is_seen(home: Path) -> None:
    cache.store("kind", KEY, 1, bytes(range(64)))
    (path,) = files(home)
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        found = cache.load("kind", KEY, 1)
        # some bytes of the header are not used
        assert found is None or (at < cache.HEADER.size and bytes(found) == bytes(range(64)))


def test_every_truncation_and_what_is_too_long(home: Path) -> None:
    cache.store("kind", KEY, 1, bytes(range(64)))
    (path,) = files(home)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert cache.load("kind", KEY, 1) is None
    path.write_bytes(whole + b"\0")
    assert cache.load("kind", KEY, 1) is None


def test_off(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store("kind", KEY, 1, b"abc")
    monkeypatch.setenv("KSHELL_CACHE", "off")
    assert cache.folder() is None and cache.load("kind", KEY, 1) is None
    cache.store("other", KEY, 1, b"abc")
    assert len(files(home)) == 1


def test_a_relative_folder_is_not_followed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file in the current directory could be taken for the cache."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache.folder() is None


def test_without_xdg_it_is_in_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(home))
    assert cache.folder() == str(home / ".cache" / "kshell" / "index")


@pytest.mark.parametrize("obstacle", ["file", "dangling link", "name is a folder"])
def test_what_is_in_the_way_is_told_and_costs_nothing(home: Path, obstacle: str) -> None:
    place = home / "cache" / "kshell" / "index"
    if obstacle == "name is a folder":
        (place / f"kind-{KEY}").mkdir(parents=True)
    else:
        place.parent.mkdir(parents=True)
        if obstacle == "file":
            place.write_text("not a folder")
        else:
            place.symlink_to(home / "nowhere" / "at" / "all")
    cache.store("kind", KEY, 1, b"abc")
    assert cache.last_problem is not None and str(place) in cache.last_problem
    assert cache.load("kind", KEY, 1) is None
    assert [path.name for path in files(home)] in ([], ["index"]), "no half-written file is left"


def test_a_read_only_folder(home: Path) -> None:
    """As the user that the folder belongs to, for root may write everywhere: in a process of its own."""
    place = home / "cache" / "kshell" / "index"
    place.mkdir(parents=True)
    script = f"""
import os
from kshell import cache
cache.store("kind", "first", 1, b"")  # imports what it imports while it can
os.unlink(cache.folder() + "/kind-first")
os.chmod({str(place)!r}, 0o500)
if os.geteuid() == 0:
    for path in ({str(home)!r}, {str(home / 'cache')!r}, {str(place.parent)!r}, {str(place)!r}):
        os.chown(path, 12345, 12345)
    os.setgid(12345)
    os.setuid(12345)
cache.store("kind", {KEY!r}, 1, b"abc")
assert cache.load("kind", {KEY!r}, 1) is None
assert "Permission denied" in cache.last_problem, cache.last_problem
print("fine")
"""
    for parent in home.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o111)  # so that the other user comes to the folder
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.stdout == "fine\n", done.stderr


def test_a_full_disk_leaves_nothing_behind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.store("kind", KEY, 1, b"abc")
    assert cache.last_problem is not None and "No space left" in cache.last_problem
    assert files(home) == [] and cache.load("kind", KEY, 1) is None
    monkeypatch.undo()


def test_a_disk_full_while_writing(home: Path) -> None:
    """A real one: the process may write files of so many bytes only (RLIMIT_FSIZE gives EFBIG where a disk ENOSPC)."""
    script = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from kshell import cache
cache.store("kind", {KEY!r}, 1, bytes(5000))
assert cache.last_problem, "no problem"
assert cache.load("kind", {KEY!r}, 1) is None
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert files(home) == []


def test_what_is_too_large_is_not_stored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_FILE", 1000)
    cache.store("kind", KEY, 1, bytes(1000))
    assert files(home) == []
    cache.store("kind", KEY, 1, bytes(1000 - cache.HEADER.size))
    assert cache.load("kind", KEY, 1) is not None


def test_the_oldest_files_go_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 3000)
    for number in range(5):
        cache.store("kind", cache.key_of(bytes([number])), 1, bytes(900))
        for path in files(home):  # each is a minute older than the next
            os.utime(path, (path.stat().st_mtime - 60, path.stat().st_mtime - 60))
    assert [cache.load("kind", cache.key_of(bytes([number])), 1) is not None for number in range(5)] == [
        False, False, True, True, True]


def test_writers_and_readers_at_once(home: Path) -> None:
    """Two processes store the same key with different content again and again: a reader sees one of them, whole."""
    script = """
import sys
from kshell import cache
for _ in range(150):
    cache.store("kind", sys.argv[1], 1, sys.argv[2].encode() * 20000)
assert cache.last_problem is None, cache.last_problem
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [subprocess.Popen([sys.executable, "-c", script, KEY, letter], env=environment) for letter in "ab"]
    seen: set[bytes] = set()
    while any(writer.poll() is None for writer in writers):
        found = cache.load("kind", KEY, 1)
        if found is not None:
            assert len(found) == 20000 and len(set(bytes(found))) == 1
            seen.add(bytes(found[:1]))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {b"a", b"b"}
    assert len(files(home)) == 1


# -- whose files -------------------------------------------------------------------------------------------------------


@ROOT
def test_a_file_of_somebody_else_is_not_read(home: Path) -> None:
    cache.store("kind", KEY, 1, b"abc")
    (path,) = files(home)
    os.chown(path, 12345, 12345)
    assert cache.load("kind", KEY, 1) is None


@ROOT
def test_a_folder_of_somebody_else_is_not_written(home: Path) -> None:
    cache.store("kind", KEY, 1, b"abc")
    (path,) = files(home)
    os.chown(path.parent, 12345, 12345)
    cache.store("other", KEY, 1, b"abc")
    assert len(files(home)) == 1 and cache.last_problem is not None


@ROOT
@pytest.mark.parametrize("sudo", [True, False], ids=["sudo", "su"])
@pytest.mark.parametrize("there", ["home", "cache", "cache/kshell"])
def test_root_writes_nothing_into_a_users_cache(
    home: Path, monkeypatch: pytest.MonkeyPatch, there: str, sudo: bool,
) -> None:
    """With HOME or XDG_CACHE_HOME of the caller, files of root would lock the caller out of the own cache."""
    user = home / "user"
    user.mkdir()
    os.chown(user, 12345, 12345)
    place = user
    for part in there.split("/") if there != "home" else []:
        place = place / part
        place.mkdir()
        os.chown(place, 12345, 12345)
    if sudo:
        monkeypatch.setenv("SUDO_UID", "12345")
    monkeypatch.setenv("XDG_CACHE_HOME", str(user / "cache"))
    cache.store("kind", KEY, 1, b"abc")
    assert files(home) == []
    assert not any(path.stat().st_uid == 0 for path in user.rglob("*"))
    # the usual case: sudo keeps HOME
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(user))
    cache.store("kind", KEY, 1, b"abc")
    assert files(home) == []


@ROOT
def test_root_has_a_cache_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "12345")
    cache.store("kind", KEY, 1, b"abc")
    assert loaded() == b"abc"
