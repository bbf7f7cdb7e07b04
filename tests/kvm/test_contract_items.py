"""What each item of libkvm.md section 8 stands on, openly, and that none is missing.

M is fixture_m.py. E is a real dump of Linux 6.1 and 6.12 made by tests/guest (its victim process, its kernel). L is a
child process of the test. Fixture D, an illumos dump, cannot be opened by this version: its items stand on what is
named here instead, and will stand on D as well when illumos dumps are read.

item     stands on   instead of D, or remark
1-3      paths       any backend: nothing is opened
4-6      files       text files, cut and changed ELF headers; every cut of a real dump's header
7        E           ELF versions 1 and not 1; the illumos versions 9 and 10 wait for D
8        files       a 32-bit ELF core: refused with both sizes
9-11     E           VMCOREINFO and kallsyms of the dump; namelists built from bytes, without init_mm or init_task
12-15    E, paths
16-18    M E
19       E
20       M E
21-27    M E         E: the victim's kernel stack, three pages and the guard page behind it, as elf.paging has them
28       M           every address; needs the page behind the hole, which E does not promise
29       M E         M with the first and last page of the space mapped
30       M           arguments, no target condition
31-34    M E
35       M E         D's zero pages beyond the end exist in no ELF vmcore: M has a page its format calls zero; a real
                     dump cut short answers "the file ends early", never zeroes
36-41    M E         E: copy-on-write
42       E           a copy of the dump, written in place; headers byte-identical afterwards
43       M E
44       E, paths    QEMU's kdump-zlib dump; /proc/kcore
45-50    M E
51-52    M E         E: tasks.next of a real list bent in a copy-on-write handle
53-62    M E         62 also L
63-65    L           64 chooses the pid where the system allows it, else a changed start time
66       L           needs root, to become nobody
67-68    M E
69-71    M E         69 also against the guest's own /proc/PID/pagemap
72-73    M E         73 on E against the guest's own /proc/kallsyms
74-75    M E
76-78    M E         76 also L
79       M
80-82    M E         81: 10,000 requests on M, 3,000 on each E
83       M E         hash chains as illumos has them on M; page tables bent in a copy-on-write handle on E
84       M E
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ITEMS = range(1, 85)
HERE = Path(__file__).parent


def numbered_tests() -> dict[int, list[str]]:
    """Return the names of the tests of each item."""
    found: dict[int, list[str]] = {}
    for path in sorted(HERE.glob("test_contract_*.py")):
        for node in ast.parse(path.read_text()).body:
            match = re.match(r"test_item_(\d+)_", node.name) if isinstance(node, ast.FunctionDef) else None
            if match and isinstance(node, ast.FunctionDef):
                found.setdefault(int(match[1]), []).append(node.name)
    return found


def test_every_item_has_its_test() -> None:
    assert sorted(numbered_tests()) == list(ITEMS)


def test_no_two_tests_share_a_name() -> None:
    names = [name for group in numbered_tests().values() for name in group]
    assert len(names) == len(set(names))


def test_the_table_covers_every_item() -> None:
    covered: list[int] = []
    for match in re.finditer(r"^(\d+)(?:-(\d+))? ", __doc__ or "", re.MULTILINE):
        covered += range(int(match[1]), int(match[2] or match[1]) + 1)
    assert covered == list(ITEMS)
