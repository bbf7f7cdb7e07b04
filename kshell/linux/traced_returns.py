"""Return addresses that tracers have replaced by their own, and the real ones: kretprobes and the function graph.

Kernel source: ``rethook_find_ret_addr`` in kernel/trace/rethook.c, ``kretprobe_find_ret_addr`` in kernel/kprobes.c,
``ftrace_graph_ret_addr`` in kernel/trace/fgraph.c. Each keeps, task by task, the real address beside the place on the
stack where it was (on x86-64), by which it is found here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kshell.errors import FormatError, KshellError
from kshell.linux.lists import chase, member_offset
from kshell.linux.tasks import task_type

if TYPE_CHECKING:
    from kshell.target.target import Target

GRAPH = "return_to_handler"
#: what a return address may have been replaced by: the graph tracer's, and what kretprobes have used over time
TRAMPOLINES = (GRAPH, "arch_rethook_trampoline", "__kretprobe_trampoline", "kretprobe_trampoline")
#: heads of ``kretprobe_inst_table`` (KPROBE_TABLE_SIZE)
TABLE_HEADS = 64
MAX_INSTANCES = 4096
#: SHADOW_STACK_SIZE, and more than FTRACE_RETFUNC_DEPTH records before it
GRAPH_BYTES = 4096


def real_return(target: Target, task: int, trampoline: str, place: int) -> int:
    """Return the address that the one of *trampoline* at *place* on the stack of *task* stands for.

    :raises FormatError: it is not among those that the tracer keeps
    """
    try:
        kept = _graph(target, task) if trampoline == GRAPH else _probes(target, task)
        for where, address in kept:
            if where == place:
                return address
    except KshellError as error:
        raise FormatError(f"a tracer has replaced a return address ({trampoline}): {error}") from error
    raise FormatError(f"a tracer has replaced a return address ({trampoline}), and the real one is not found")


def _probes(target: Target, task: int) -> Iterator[tuple[int, int]]:
    """Yield (place, real address) of the functions of *task* that kretprobes wait to return from."""
    kind = task_type(target)
    for member, name, frame in (
        # 5.18+ (54ecbe6f1ed5 "rethook: Add a generic return hook")
        ("rethooks", "struct rethook_node", "frame"),
        # 5.11+ (d741bf41d7c7 "kprobes: Remove kretprobe hash")
        ("kretprobe_instances", "struct kretprobe_instance", "fp"),
    ):
        if not kind.has(member) or target.types.get(name) is None:
            continue
        node = target.type(name)
        offset = member_offset(node, "llist")
        for address in chase(target.kernel, task + member_offset(kind, member), limit=MAX_INSTANCES):
            value = target.value(node, address - offset)
            if value.has(frame):
                yield value.integer(frame), value.integer("ret_addr")
    table = target.symbols.get("kretprobe_inst_table")
    if table is None:
        return
    node = target.type("struct kretprobe_instance")
    offset = member_offset(node, "hlist")
    for number in range(TABLE_HEADS):
        for address in chase(target.kernel, table.address + 8 * number, limit=MAX_INSTANCES):
            value = target.value(node, address - offset)
            if value.integer("task") == task:
                yield value.integer("fp"), value.integer("ret_addr")


def _graph(target: Target, task: int) -> Iterator[tuple[int, int]]:
    """Yield (place, real address) of what the graph tracer has put away for *task*.

    Records lie one behind the other, since the graph tracer can have several users (6.11) with words of another kind
    between them: every word is tried as the place in a record.
    """
    kind = task_type(target)
    base = target.value(kind, task).integer("ret_stack") if kind.has("ret_stack") else 0
    if not base:
        return
    record = target.type("struct ftrace_ret_stack")
    distance = member_offset(record, "ret") - member_offset(record, "retp")
    data, _ = target.kernel.read_upto(base, GRAPH_BYTES)
    words = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
    for number, word in enumerate(words):
        where = number + distance // 8
        if word and 0 <= where < len(words):
            yield word, words[where]
