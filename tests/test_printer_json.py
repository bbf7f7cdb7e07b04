"""Values as JSON: the schema in :mod:`kshell.printer.tojson`."""

from __future__ import annotations

import json

import pytest

from kshell.printer import Selection, to_json
from kshell.types.model import ArrayType, FloatType, Member, StructType
from kshell.value import Value
from tests.value.universe import BASE, CHAR, INIT_TASK, TASK, UINT, ULONG, FakeTarget, build_tasks
from tests.value.universe import TASK_AT as A


@pytest.fixture
def target() -> FakeTarget:
    return build_tasks()


def test_json(target: FakeTarget) -> None:
    made = to_json(Value(target, TASK, A))
    assert json.loads(json.dumps(made)) == made
    assert list(made)[:3] == ["_type", "_addr", "thread_info"]
    assert (made["_type"], made["_addr"]) == ("struct task_struct", f"0x{A:x}")
    assert made["pid"] == -2 and made["kind"] == {"value": 2, "name": "PIDTYPE_PGID"}
    assert made["comm"] == "kworker/0:1" and made["parent"] == f"0x{INIT_TASK:x}"
    assert made["rcu_users"] == 3 and made["rcu"] == 3 and "<anon>" not in made
    assert made["table"] == [[16, -2], [3, 4]] and made["ready"] is True and made["load"] == 1.5
    assert made["wide"] == 0x5A5 and made["lists"][1] == {"next": "0x0", "prev": "0x1f"} and made["rest"] == []


def test_json_limits_and_errors(target: FakeTarget) -> None:
    value = Value(target, TASK, A)
    assert to_json(value, depth=1)["tasks"] == {"_type": "struct list_head", "_addr": f"0x{A + 56:x}"}
    assert to_json(value, limit=1)["table"] == [[16, {"more": 1}], {"more": 1}]
    assert to_json(Value.immediate(target, ULONG, 1 << 60)) == str(1 << 60)
    at = BASE + 0x1000 - 20
    made = to_json(Value(target, TASK, at))
    assert made["pid"] == 0 and made["kind"] == {"error": "no mapping for address", "address": f"0x{BASE + 0x1000:x}"}
    assert made["comm"]["error"] and made["tasks"]["address"] == f"0x{at + 56:x}"
    assert to_json(Value(target, TASK, 0x10)) == {
        "_type": "struct task_struct", "_addr": "0x10", "error": "no mapping for address", "address": "0x10"}
    target.memory.put(BASE + 0x800, b"\x1b[31m\xff\xe2\x80\xae\0")
    assert to_json(Value(target, ArrayType(CHAR, 16), BASE + 0x800)) == r"\x1b[31m\xff\u202e"
    target.memory.put(BASE + 0x800, b"\x02")
    assert to_json(Value(target, TASK.member("ready").type, BASE + 0x800)) == 2
    nan = Value.immediate(target, UINT, 0x7FC00000).cast(StructType("f", 4, [Member("f", FloatType("float", 4), 0)]))
    assert to_json(nan)["f"] == "nan"


def test_json_of_members(target: FakeTarget) -> None:
    made = Selection(TASK, ["pid", "mm->pgd", "tasks"]).json(Value(target, TASK, INIT_TASK))
    assert made["pid"] == 0 and made["mm->pgd"]["error"] == "no mapping for address"
    assert made["tasks"]["_type"] == "struct list_head"
