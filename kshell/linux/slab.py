"""Slab caches: the ``slab_caches`` list and what each cache says of itself.

Kernel source: ``struct kmem_cache`` in include/linux/slub_def.h (mm/slab.h since 6.8), ``struct kmem_cache_node`` in
mm/slab.h, mm/slub.c. Counts of objects are there when the kernel was built with CONFIG_SLUB_DEBUG.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import list_for_each_entry, visited_before

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value


class Cache(NamedTuple):
    """A slab cache.

    :ivar object_size: bytes the user asked for; ``size``: bytes from one object to the next
    :ivar flags: SLAB_* bits
    :ivar slabs, objects: of all nodes, free ones included; an error where they cannot be read or are not counted
    """

    address: int
    name: str
    object_size: int
    size: int
    align: int
    flags: int
    slabs: int | KshellError
    objects: int | KshellError


def iter_caches(target: Target) -> Iterator[Cache]:
    """Yield every slab cache, in the order of the ``slab_caches`` list.

    :raises SymbolNotFoundError: the kernel's symbols do not tell where the list is
    :raises Fault, FormatError: the list is damaged; what was yielded before stands
    """
    require_kernel(target)
    head = target.symbol("slab_caches").address
    try:
        caches = list_for_each_entry(target, "struct kmem_cache", head, "list")
    except KshellError as error:
        ctype = target.type("struct kmem_cache")
        from kshell.linux.lists import member_offset

        offset = member_offset(ctype, "list")
        for node in visited_before(error):
            yield read_cache(target, target.value(ctype, node - offset))
        raise
    for cache in caches:
        yield read_cache(target, cache)


def read_cache(target: Target, cache: Value) -> Cache:
    """Return what the ``struct kmem_cache`` *cache* says.

    :raises Fault: it cannot be read
    """
    seen = cache.snapshot()
    # 4.17+ (3b0efdfa1e71, 4.x renamed the user's size): object_size; the flags' type changed, their place by name not.
    object_size = seen.integer("object_size")
    slabs, objects = _totals(target, seen)
    return Cache(cache.address, _name(seen), object_size, seen.integer("size"), seen.integer("align"),
                 seen.integer("flags") & 0xFFFF_FFFF, slabs, objects)


def _name(cache: Value) -> str:
    """Return the name; where makedumpfile has left out the page it is on, the address stands for it."""
    try:
        return cache["name"].string()
    except Fault:
        return f"(name lost, 0x{cache.address:x})"


def find_cache(target: Target, name: str) -> Cache:
    """Return the cache *name*.

    :raises KshellError: there is none; names near ones
    """
    from kshell.errors import NotFoundError
    from kshell.types.model import near_names

    names: list[str] = []
    for cache in iter_caches(target):
        if cache.name == name:
            return cache
        names.append(cache.name)
    raise NotFoundError("slab cache", name, near_names(name, names))


#: caches whose objects are not the structure of the same name
_TYPES = {
    "filp": "file", "cred_jar": "cred", "files_cache": "files_struct", "inode_cache": "inode",
    "proc_inode_cache": "proc_inode", "shmem_inode_cache": "shmem_inode_info", "sock_inode_cache": "socket_alloc",
    "ext4_inode_cache": "ext4_inode_info", "xfs_inode": "xfs_inode", "btrfs_inode": "btrfs_inode",
    "signal_cache": "signal_struct", "sighand_cache": "sighand_struct", "fs_cache": "fs_struct",
    "radix_tree_node": "xa_node", "skbuff_head_cache": "sk_buff", "kmem_cache": "kmem_cache", "names_cache": "",
    "sigqueue": "sigqueue", "mnt_cache": "mount", "kernfs_node_cache": "kernfs_node", "bdev_cache": "bdev_inode",
    "mm_struct": "mm_struct", "pde_opener": "pde_opener", "TCP": "tcp_sock", "UDP": "udp_sock", "UNIX": "unix_sock",
    "anon_vma_chain": "anon_vma_chain", "maple_node": "maple_node", "nsproxy": "nsproxy",
}


def object_type(target: Target, cache: Cache) -> str | None:
    """Return the type of the objects of *cache*, None where its name and object size do not tell.

    A cache that several kinds of object share (SLUB merges those of one size) is named after the first of them only.
    """
    if target.value("struct kmem_cache", cache.address).integer("refcount") > 1:
        return None
    name = _TYPES.get(cache.name, cache.name)
    found = target.types.get(f"struct {name}") if name.isidentifier() else None
    # a task's last member, the FPU state, is as large as this machine needs it: the object may be the smaller one
    if found is None or not found.size or (found.size > cache.object_size and name != cache.name):
        return None
    return f"struct {name}"


def _totals(target: Target, cache: Value) -> tuple[int | KshellError, int | KshellError]:
    """Return the numbers of slabs and objects over all nodes, or why they are not known."""
    slabs = objects = 0
    try:
        # 7.1 moves the nodes' pointers into per_node[] (SLUB sheaves); before, node[] points to each.
        for pointer in _nodes(target, cache):
            node = pointer.deref()
            if not node.has("total_objects"):
                error = KshellError("not counted: the kernel has no CONFIG_SLUB_DEBUG")
                return error, error
            slabs += node.integer("nr_slabs.counter")
            objects += node.integer("total_objects.counter")
    except KshellError as error:
        return error, error
    return slabs, objects


def _nodes(target: Target, cache: Value) -> Iterator[Value]:
    """Yield the pointers to the nodes; of the array only nr_node_ids elements are there, the type has more."""
    array = cache["node"] if cache.has("node") else cache["per_node"]
    for number in range(min(node_count(target), max(len(array), 1))):
        pointer = array[number] if cache.has("node") else array[number]["node"]
        if pointer.integer():
            yield pointer


def partial_heads(target: Target, cache: Value) -> list[int]:
    """Return the heads of the nodes' lists of partial slabs of the ``struct kmem_cache`` *cache*."""
    return [pointer.deref()["partial"].address or 0 for pointer in _nodes(target, cache)]


def node_count(target: Target) -> int:
    """Return nr_node_ids."""
    symbol = target.symbols.get("nr_node_ids")  # a constant in kernels without NUMA
    return 1 if symbol is None else int.from_bytes(target.kernel.read(symbol.address, 4), "little")


def cache_nodes(target: Target, cache: Value, member: str) -> list[int]:
    """Return the pointers *member* ("barn") of the nodes of the ``struct kmem_cache`` *cache*; NULL ones are left out.

    6.18 has them in struct kmem_cache_node, 7.1 beside the nodes in per_node[].
    """
    found: list[int] = []
    if cache.has("node"):
        found = [pointer.deref().integer(member) for pointer in _nodes(target, cache) if pointer.deref().has(member)]
    else:
        array = cache["per_node"]
        found = [array[number].integer(member) for number in range(min(node_count(target), len(array)))]
    return [pointer for pointer in found if pointer]
