"""Paths of built dentries and mounts."""

from __future__ import annotations

import pytest

from kshell.errors import FormatError
from kshell.linux.paths import Paths
from kshell.types.model import IntType, Kind, Member, PointerType, StructType
from tests.linux.built import BASE, POINTER, Built

CHARS = PointerType(IntType("char", 1, True, Kind.CHAR))
TYPES = {
    "struct dentry": StructType("dentry", 64, [
        Member("d_parent", POINTER, 0), Member("d_name", StructType("qstr", 16, [Member("name", CHARS, 64)]), 64),
        Member("d_hash", StructType("h", 16, [Member("next", POINTER, 0), Member("pprev", POINTER, 64)]), 192),
        Member("d_op", POINTER, 320),
    ]),
    "struct mount": StructType("mount", 64, [
        Member("mnt_parent", POINTER, 0), Member("mnt_mountpoint", POINTER, 64),
        Member("mnt", StructType("vfsmount", 16, [Member("mnt_root", POINTER, 0)]), 128),
    ]),
}
ROOT_MOUNT, TMP_MOUNT = 0x1000, 0x1100  # struct mount; the vfsmount in it is 16 bytes further
ROOT, TMP, TMP_ROOT, FILE = 0x2000, 0x2100, 0x2200, 0x2300


@pytest.fixture
def built() -> Built:
    built = Built(TYPES)
    memory = built.kernel
    texts = b"/\0", b"tmp\0", b"/\0", b"file\0"
    names = [memory.put(0x3000 + 16 * number, text) for number, text in enumerate(texts)]
    for at, parent, name in ((ROOT, ROOT, 0), (TMP, ROOT, 1), (TMP_ROOT, TMP_ROOT, 2), (FILE, TMP_ROOT, 3)):
        memory.words(at, BASE + parent, 0, names[name], 0, 1, 0)
    memory.words(ROOT_MOUNT, BASE + ROOT_MOUNT, 0, BASE + ROOT)
    memory.words(TMP_MOUNT, BASE + ROOT_MOUNT, BASE + TMP, BASE + TMP_ROOT)
    return built


def path(built: Built, mount: int, dentry: int) -> str:
    return Paths(built.target).of_path(BASE + mount + 16, BASE + dentry)


def test_paths_go_through_mounts(built: Built) -> None:
    assert path(built, TMP_MOUNT, FILE) == "/tmp/file"
    assert path(built, TMP_MOUNT, TMP_ROOT) == "/tmp"
    assert path(built, ROOT_MOUNT, TMP) == "/tmp"
    assert path(built, ROOT_MOUNT, ROOT) == "/"


def test_a_file_without_a_name_any_more_is_deleted(built: Built) -> None:
    built.kernel.words(FILE + 32, 0)  # d_hash.pprev
    assert path(built, TMP_MOUNT, FILE) == "/tmp/file (deleted)"


def test_dentries_that_loop_are_damage(built: Built) -> None:
    built.kernel.words(TMP, BASE + FILE)
    built.kernel.words(FILE, BASE + TMP)
    with pytest.raises(FormatError, match="does not end"):
        path(built, ROOT_MOUNT, FILE)


def test_mounts_that_loop_are_damage(built: Built) -> None:
    built.kernel.words(TMP_MOUNT, BASE + ROOT_MOUNT, BASE + TMP, BASE + TMP_ROOT)
    built.kernel.words(ROOT_MOUNT, BASE + TMP_MOUNT, BASE + FILE, BASE + ROOT)
    with pytest.raises(FormatError, match="does not end"):
        path(built, TMP_MOUNT, FILE)
