"""A plugin, and how one is written: slab caches, ``::kmem_cache`` and the walker ``kmem_cache``.

Copy it into the folder of your plugins (docs/plugins.md tells which), rename it and go on from here. It shows all there
is: a dcmd with columns, typed options and words, help with examples, completion that comes from the types of the
words, and a walker that pipelines can start with. What looks at the kernel is in kshell.linux, where tests reach it
without a shell; a plugin of your own may hold both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    HEX,
    Column,
    Flag,
    Option,
    Output,
    Row,
    Session,
    Table,
    UsageError,
    Word,
    dcmd,
    walker,
)
from kshell.linux import slab

#: kshell refuses a plugin that needs a newer API than it has.
API_VERSION = 1

CACHE = "struct kmem_cache"

# A column has a header, a width, and a kind that says how a cell is written, as text and in JSON.
COLUMNS = (
    Column("ADDR", kind=ADDRESS), Column("NAME", 25), Column("FLAG", 8, HEX, "<", zeros=8), Column("BUFSIZE", 8, COUNT),
    Column("BUFTOTL", 8, COUNT),
)
LONG = (*COLUMNS, Column("OBJSIZE", 8, COUNT), Column("ALIGN", 6, COUNT), Column("SLABS", 8, COUNT))


# The parameters are the interface: "address: int | None" makes the address optional, Annotated with Flag or Option
# makes an option, anything else is a word. "::help kmem_cache" and completion are made from them and the docstring.
@dcmd("kmem_cache", columns=COLUMNS, yields=CACHE, group="Kernel")
def kmem_cache(
    session: Session, address: int | None,
    long: Annotated[bool, Flag("-l", "object size, alignment and slabs too")],
    name: Annotated[str | None, Option("-n", "name", "only the cache of this name")],
    pattern: Annotated[str | None, Word("pattern", "only caches whose name matches this regular expression")],
) -> Iterator[Output]:
    """List the slab caches.

    BUFSIZE is the bytes from one object to the next, BUFTOTL the objects in all slabs, free ones included. With an
    address, the cache whose struct kmem_cache is there. Into a pipe it passes addresses.

    Examples:
      ::kmem_cache -n dentry
      ::kmem_cache -l ^kmalloc
      ::kmem_cache | ::print struct kmem_cache name refcount
    """
    target = session.target
    try:
        matches = re.compile(pattern or "").search
    except re.error as error:
        raise UsageError(f"{pattern}: {error}") from None
    if address is not None:
        caches: Iterator[slab.Cache] = iter([slab.read_cache(target, target.value(CACHE, address))])
    elif name is not None:
        caches = iter([slab.find_cache(target, name)])
    else:
        caches = slab.iter_caches(target)
    if long:
        yield Table(LONG)
    # Rows are yielded as they are found: the first one is shown before the last one is read. An error in a cell (a
    # count that could not be read) is shown as "?" and in JSON as {"error": ...}.
    for cache in caches:
        if matches(cache.name):
            cells = (cache.address, cache.name, cache.flags, cache.size, cache.objects)
            more = (cache.object_size, cache.align, cache.slabs) if long else ()
            yield Row(cache.address, (*cells, *more))


@walker("kmem_cache", yields=CACHE)
def walk_kmem_cache(session: Session) -> Iterator[int]:
    """Walk the slab caches."""
    for cache in slab.iter_caches(session.target):
        yield cache.address
