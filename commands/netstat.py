"""Sockets: ``::netstat``, ``::sonode``; the walkers ``sonode`` and ``netstack``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Column,
    KshellError,
    Note,
    Option,
    Output,
    Row,
    Session,
    UsageError,
    Warn,
    dcmd,
    walker,
)
from kshell.linux import sockets
from kshell.linux.sockets import Sockets

SMALL = {"TIME_WAIT": "struct inet_timewait_sock", "NEW_SYN_RECV": "struct request_sock"}
KINDS = ("tcp", "tcp6", "udp", "udp6", "unix")


def _missing(known: Sockets) -> Iterator[Output]:
    if known.unread:
        first = known.unread[0]
        first.hint = f"so {len(known.unread)} sockets, connections or chains cannot be read; what can be is shown"
        yield Warn(first)


def _told(known: Sockets) -> Iterator[Note]:
    if known.lost:
        yield Note(f"the freelists of {known.lost} slabs of sock_inode_cache cannot be followed: "
                   "sockets that were closed may be among these")


@dcmd("netstat", columns=(
    Column("ADDR", kind=ADDRESS), Column("KIND", 4), Column("STATE", 12), Column("INODE", 8, DECIMAL, "<"),
    Column("LOCAL", 24), Column("REMOTE")), yields="struct sock", group="Kernel")  # fmt: skip
def netstat(
    session: Session,
    kind: Annotated[str | None, Option("-P", "kind", "only these: tcp, tcp6, udp, udp6 or unix")],
) -> Iterator[Output]:
    """List TCP, UDP and unix sockets of all network namespaces with their addresses, as netstat -an does.

    TCP connections that were not accepted yet, and those in TIME_WAIT, belong to no socket: their INODE is 0. UDP
    sockets are listed when they have a port. The local address of a unix socket is its path, an abstract one with @
    before it; those that wait to be accepted are not listed. ::pfiles shows which process has socket:[INODE] open.

    Examples:
      ::netstat
      ::netstat -P tcp
      ::netstat -P unix | ::print struct unix_sock peer
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"-P {kind}: one of {', '.join(KINDS)}")
    known = Sockets(session.target)
    yield from _told(known)
    for one in sorted(known.endpoints(), key=lambda one: (KINDS.index(one.kind), one.state != "LISTEN", one.local)):
        if kind in (None, one.kind):
            yield Row(one.address, (one.address, one.kind, one.state, one.inode, one.local, one.remote),
                      SMALL.get(one.state))
    yield from _missing(known)


@dcmd("sonode", columns=(
    Column("ADDR", kind=ADDRESS), Column("FAMILY", 7), Column("TYPE", 9), Column("PROTO", 11),
    Column("STATE", 13), Column("SOCK", kind=ADDRESS), Column("FILE", kind=ADDRESS), Column("INODE", 8, DECIMAL, "<")),
    yields="struct socket", group="Kernel")  # fmt: skip
def sonode(session: Session, address: int | None) -> Iterator[Output]:
    """List all sockets, or the one whose struct socket or struct sock is at the address: family, type, state.

    Those without a FILE are the kernel's own.

    Examples:
      ::sonode
      ::sonode | ::print struct socket ops
    """
    known = Sockets(session.target)
    yield from _told(known)
    some = False
    for one in known.found:
        if address not in (None, one.address, one.sock):
            continue
        some = True
        state = sockets.STATES[one.state] if one.state < len(sockets.STATES) else str(one.state)
        yield Row(one.address, (
            one.address, sockets.FAMILIES.get(one.family, str(one.family)), sockets.TYPES.get(one.type, str(one.type)),
            one.protocol, state, one.sock or None, one.file or None, one.inode))
    if address is None:
        yield from _missing(known)
    elif not some:
        raise KshellError(f"no socket at 0x{address:x}", hint="::sonode lists those there are")


@walker("sonode", yields="struct socket")
def walk_sonode(session: Session) -> Iterator[int]:
    """Walk the sockets, the kernel's own too."""
    known = Sockets(session.target)
    for one in known.found:
        yield one.address
    if known.unread:
        raise known.unread[0]


@walker("netstack", yields="struct net")
def netstack(session: Session) -> Iterator[int]:
    """Walk the network namespaces."""
    return sockets.namespaces(session.target)
