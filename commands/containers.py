"""Walkers of the kernel's containers, and of CPUs, per-CPU variables and mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kshell.api import Abort, Item, KshellError, Session, walker
from kshell.linux import lists, maple, mm, percpu, rbtree, stack, tasks, xarray
from kshell.linux.kernel import require_kernel


def _followed(follow: Callable[[], list[int]]) -> Iterator[int]:
    """Yield the nodes that *follow* finds, those before the damage too when there is some."""
    try:
        nodes = follow()
    except KshellError as error:
        yield from lists.visited_before(error)
        raise
    yield from nodes


@walker("list", yields="struct list_head")
def list_(session: Session, address: int) -> Iterator[int]:
    """Walk the list_head nodes of a list, from its head."""
    return _followed(lambda: lists.list_for_each(session.target, address))


@walker("hlist", yields="struct hlist_node")
def hlist(session: Session, address: int) -> Iterator[int]:
    """Walk the hlist_node nodes of a hash chain, from its hlist_head."""
    return _followed(lambda: lists.hlist_for_each(session.target, address))


@walker("llist", yields="struct llist_node")
def llist(session: Session, address: int) -> Iterator[int]:
    """Walk the llist_node nodes of a lock-less list, from its llist_head."""
    return _followed(lambda: lists.hlist_for_each(session.target, address))


@walker("rbtree", yields="struct rb_node")
def rbtree_(session: Session, address: int) -> Iterator[int]:
    """Walk the rb_node nodes of a red-black tree in order, from its rb_root."""
    return rbtree.rbtree_for_each(session.target, address)


@walker("maple_tree")
def maple_tree(session: Session, address: int) -> Iterator[int]:
    """Walk the entries of a maple tree, ascending."""
    for entry in maple.maple_for_each(session.target, address):
        yield entry.entry


@walker("xarray")
def xarray_(session: Session, address: int) -> Iterator[int]:
    """Walk the entries of an xarray (radix tree), ascending."""
    for entry in xarray.xa_for_each(session.target, address):
        yield entry.entry


@walker("idr")
def idr(session: Session, address: int) -> Iterator[int]:
    """Walk the pointers of an idr, by id."""
    for entry in xarray.idr_for_each(session.target, address):
        yield entry.entry


@walker("cpu", yields="struct rq")
def cpu(session: Session) -> Iterator[int]:
    """Walk the run queues (struct rq) of the online CPUs."""
    require_kernel(session.target)
    symbol = session.target.symbol("runqueues").address
    for number in session.target.cpu_numbers("online"):
        yield percpu.per_cpu_ptr(session.target, symbol, number)


@walker("percpu")
def percpu_(session: Session, address: int) -> Iterator[int]:
    """Walk the copies of a per-CPU variable or pointer, one for each possible CPU."""
    for number in session.target.cpu_numbers("possible"):
        yield percpu.per_cpu_ptr(session.target, address, number)


@walker("seg", yields="struct vm_area_struct")
def seg(session: Session, address: int) -> Iterator[int]:
    """Walk the mappings (vm_area_struct) of an mm_struct, or of the task_struct of a process."""
    if stack.is_task(session.target, address):
        address = tasks.read_task(session.target, address).mm
        if not address:
            raise Abort("it has no user memory")
    return iter(mm.vma_addresses(session.target, address))


@walker("vma", yields="struct vm_area_struct")
def vma(session: Session, address: int | None) -> Iterator[Item]:
    """Walk the mappings (vm_area_struct) of a task_struct, or of the process context."""
    if address is None:
        session.user  # noqa: B018 - raises when there is no context
        assert session.context is not None
        found = session.context.mm
    else:
        found = tasks.read_task(session.target, address).mm
    if not found:
        raise Abort("it has no user memory")
    for mapping in mm.vma_addresses(session.target, found):
        yield Item(mapping, "struct vm_area_struct")
