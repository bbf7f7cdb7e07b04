"""Which module has which dcmd and walker. Made by ``python -m kshell.index``; do not edit.

name -> (module, summary, address: required, optional or refused, whether the name is an alias)
"""

# ruff: noqa: E501

DCMDS: dict[str, tuple[str, str, str, bool]] = {
    "kmem_cache": ("slab", "List the slab caches", "optional", False),
}


WALKERS: dict[str, tuple[str, str, str, bool]] = {
    "kmem_cache": ("slab", "Walk the slab caches", "refused", False),
}

#: walkers that serve names of the target's own
FAMILIES: tuple[str, ...] = ()
