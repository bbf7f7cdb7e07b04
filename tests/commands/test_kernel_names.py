"""mdb's dcmds and walkers over structures of the kernel, on real dumps, beside what the guests themselves said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kshell.target.open import open_target
from tests.commands.asking import ask, objects
from tests.guest.fixtures import have
from tests.guest.spec import named_spec
from tests.linux.conftest import Guest

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=["6.1", "6.12", "5.10"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    image = have(named_spec(request.param))
    with open_target(str(image.elf)) as target:
        yield Guest(request.param, image, target, image.oracle)


# -- mounts, paths ----------------------------------------------------------------------------------------------------


def test_12_1_fsinfo_has_the_rows_of_proc_mounts(guest: Guest) -> None:
    wanted = [line.split() for line in guest.oracle.text("proc/mounts").splitlines()]
    assert len(wanted) > 3
    rows = objects(guest.target, "::fsinfo -v")
    assert [(row["source"], row["mount"], row["type"]) for row in rows] == [tuple(line[:3]) for line in wanted]
    for row, (_source, _place, kind, options, *_rest) in zip(rows, wanted, strict=True):
        own = row["options"].split(",")  # a file system's own options stand behind these
        assert options.split(",")[: len(own)] == own, kind
        assert ("relatime" in own) == ("relatime" in options.split(","))
    assert objects(guest.target, "::walk vfs | ::fsinfo -v") == rows == objects(guest.target, "::fsinfo -v 1")
    assert ask(guest.target, "::walk vfs | ::vnode2path").split() == [line[1] for line in wanted]
    assert "is no struct mount" in ask(guest.target, "init_task::fsinfo")


def test_12_1_vnode2path_of_each_way_to_a_file(guest: Guest) -> None:
    rows = [row for task in ("victim", "init") for row in objects(guest.target, f"::pgrep -x {task} | ::pfiles")]
    assert any(row["path"].startswith("/run/") for row in rows)
    for row in rows:
        file, inode = int(row["file"], 16), int(row["inode"], 16)
        path = row["path"]
        for line in (f"0x{file:x}::vnode2path", f"0x{file:x}::print struct file f_path | ::vnode2path",
                     f"0x{file:x}::print struct file f_path.dentry | ::vnode2path"):
            assert ask(guest.target, line).splitlines() == [path], line
        for line in (f"0x{inode:x}::vnode2path", f"0x{inode:x}::print struct inode i_data | ::vnode2path"):
            assert path in ask(guest.target, line).splitlines(), line
    assert "is no file, path, dentry" in ask(guest.target, "init_task::vnode2path")


def test_13_allfile_has_each_file_once(guest: Guest) -> None:
    every = ask(guest.target, "::walk allfile").split()
    single = ask(guest.target, "::walk thread | ::walk file").split()
    assert len(every) == len(set(every)) and set(every) == set(single) and len(every) < len(single)
    assert set(every) <= set(ask(guest.target, "::walk filp").split())
