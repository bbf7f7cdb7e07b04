"""``::pagelookup``: the page that holds a place of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    HEX,
    Column,
    Expr,
    KshellError,
    Option,
    Output,
    Row,
    Session,
    UsageError,
    dcmd,
)
from kshell.linux import page_lookup

PAGE = 4096


@dcmd("pagelookup", columns=(
    Column("PAGE", kind=ADDRESS), Column("PFN", 9, HEX, ">"), Column("OFFSET", 12, HEX, ">"), Column("NOTE")),
    yields="struct page", group="Memory")  # fmt: skip
def pagelookup(
    session: Session, address: int,
    offset: Annotated[Expr | None, Option("-o", "offset", "only the page that holds this byte of the file")],
) -> Iterator[Output]:
    """List the pages of a file that are in memory, or find the one that holds a byte of it.

    The address is that of an inode, an address_space, a file, a dentry or a path. A large folio is listed once, by its
    first page; -o finds the page in it. What was reclaimed or swapped out has a row without a page. Into a pipe go the
    struct pages.

    Examples:
      ::pgrep -x init | ::print mm->exe_file | ::pagelookup -o 0
      ::pgrep -x init | ::print mm->exe_file | ::pagelookup | ::page ! head -3
    """
    target = session.target
    mapping = page_lookup.address_space(target, address)
    if offset is not None:
        if offset < 0:
            raise UsageError(f"-o {offset}: offsets begin with 0")
        found = page_lookup.lookup(target, mapping, offset // PAGE)
        if found is None:
            raise KshellError(f"byte 0x{offset:x} of the file is not in the page cache")
        if not found.page:
            raise KshellError(f"byte 0x{offset:x} of the file is not in memory: {found.note}")
        yield _row(found)
        return
    for one in page_lookup.cached_pages(target, mapping):
        yield _row(one)


def _row(found: page_lookup.Cached) -> Row:
    return Row(found.page or None, (
        found.page or None, found.frame if found.page else None, found.number * PAGE, found.note))
