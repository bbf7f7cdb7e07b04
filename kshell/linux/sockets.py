"""Sockets: those that programs and the kernel have open, and connections that belong to none.

Kernel source: net/socket.c, include/net/sock.h, include/net/inet_hashtables.h, include/net/net_namespace.h. The inode
of a socket is on no list; all are objects of the slab cache ``sock_inode_cache``. TCP connections that no one has
accepted, requested ones and those in TIME_WAIT have no socket: they are in the table of ``struct inet_hashinfo``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.linux import slub_objects
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import list_for_each_entry, member_offset

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

UNIX, INET, INET6 = 1, 2, 10
FAMILIES = {0: "", UNIX: "unix", INET: "inet", INET6: "inet6", 16: "netlink", 17: "packet", 31: "bluetooth", 38: "alg",
            40: "vsock", 44: "xdp"}  # fmt: skip
TYPES = {0: "", 1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 10: "packet"}
#: socket_state
STATES = ("free", "unconnected", "connecting", "connected", "disconnecting")
#: include/net/tcp_states.h; sockets of other protocols use ESTABLISHED, CLOSE and LISTEN
TCP_STATES = ("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
              "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE")  # fmt: skip
TIME_WAIT, LISTEN, NEW_SYN_RECV = 6, 10, 12
TCP, UDP = 6, 17
#: buckets of the table of connections; more is damage
MAX_BUCKETS = 1 << 24
MAX_CHAIN = 1 << 20


class Socket(NamedTuple):
    """A ``struct socket``.

    :ivar sock: its ``struct sock``, 0 for none; ``file``: 0 for those of the kernel's own
    :ivar protocol: as the kernel calls it, "TCP", "NETLINK"; "" without a sock
    """

    address: int
    inode: int
    type: int
    state: int
    file: int
    sock: int
    family: int
    protocol: str


class Endpoint(NamedTuple):
    """What ``/proc/net/{tcp,udp,unix}`` has a line for.

    :ivar address: of a ``struct sock``; of TIME_WAIT and NEW_SYN_RECV a smaller structure that begins alike
    :ivar kind: "tcp", "udp", "unix", with a 6 behind the first two for IPv6
    :ivar inode: of its socket, 0 for connections without
    """

    address: int
    kind: str
    state: str
    local: str
    remote: str
    inode: int


def namespaces(target: Target) -> Iterator[int]:
    """Yield the network namespaces (``struct net``)."""
    require_kernel(target)
    for value in list_for_each_entry(target, "struct net", target.address_of("net_namespace_list"), "list"):
        yield value.address


class Sockets:
    """The sockets of one target.

    :ivar found: by address
    :ivar lost: slabs whose free objects are not all told, so that freed sockets may be among those found
    :ivar unread: why sockets, connections or chains of them could not be read; the others are told all the same
    """

    def __init__(self, target: Target) -> None:
        require_kernel(target)
        self.target = target
        cache = target.value("unsigned long", target.address_of("sock_inode_cachep")).integer()
        objects = slub_objects.cache_objects(target, target.value("struct kmem_cache", cache))
        self.lost = len(objects.damaged) + len(objects.lost)
        self.unread: list[KshellError] = []
        kind = target.type("struct socket_alloc")
        self.found: list[Socket] = []
        for address in sorted(objects.address[objects.allocated].tolist()):
            try:
                self.found.append(self._socket(target.value(kind, address)))
            except KshellError as error:
                self.unread.append(error)

    def _socket(self, value: Value) -> Socket:
        own, sock, family, protocol = value["socket"], value.integer("socket.sk"), 0, ""
        if sock:
            common = self.target.value("struct sock", sock)["__sk_common"]
            family, protocol = common.integer("skc_family"), common["skc_prot"].deref()["name"].string()
        return Socket(own.address, value.integer("vfs_inode.i_ino"), own.integer("type"), own.integer("state"),
                      own.integer("file"), sock, family, protocol)

    def endpoints(self) -> Iterator[Endpoint]:
        """Yield TCP, UDP and unix sockets as the files of /proc/net have them: those with a socket, then connections.

        A listening socket is in no table that all kernels have; it always has a ``struct socket``.
        """
        common = self.target.type("struct sock_common")
        inodes = {one.sock: one.inode for one in self.found if one.sock}
        for one in self.found:
            with self._noting():
                yield from self._with_socket(one)
        with self._noting():
            for address in self._connections():
                with self._noting():
                    yield self._internet(self.target.value(common, address), "tcp", inodes.get(address, 0))

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep an error of the block in ``unread`` and go on behind it."""
        try:
            yield
        except KshellError as error:
            self.unread.append(error)

    def _with_socket(self, one: Socket) -> Iterator[Endpoint]:
        if one.family == UNIX:
            yield self._unix(one)
        if not one.sock or one.family not in (INET, INET6) or one.type not in (1, 2):
            return
        protocol = self.target.value("struct sock", one.sock).integer("sk_protocol")
        head = self.target.value("struct sock_common", one.sock)
        if (protocol == TCP and head.integer("skc_state") == LISTEN) or (protocol == UDP and head.integer("skc_num")):
            yield self._internet(head, "tcp" if protocol == TCP else "udp", one.inode)

    def _unix(self, one: Socket) -> Endpoint:
        value = self.target.value("struct unix_sock", one.sock)
        address, path = value.integer("addr"), ""
        if address:
            found = self.target.value("struct unix_address", address)
            size = found.integer("len") - 2
            if not 0 <= size <= 108:
                raise FormatError(f"the unix_address at 0x{address:x} is damaged: {size} bytes of path")
            kind = self.target.type("struct unix_address")
            data = self.target.kernel.read(address + member_offset(kind, "name") + 2, size)
            # an abstract name begins with a NUL; a path ends in one
            path = (b"@" + data[1:] if data[:1] == b"\0" else data.rstrip(b"\0")).decode(errors="surrogateescape")
        state = value.integer("sk.__sk_common.skc_state")
        return Endpoint(one.sock, "unix", "LISTEN" if state == LISTEN else STATES[one.state].upper()
                        if one.state < len(STATES) else str(one.state), path, "", one.inode)

    def _internet(self, head: Value, kind: str, inode: int) -> Endpoint:
        state, family = head.integer("skc_state"), head.integer("skc_family")
        if family not in (INET, INET6):
            raise FormatError(f"the sock at 0x{head.address:x} is damaged: a connection of family {family}")
        six = family == INET6
        names = ("skc_v6_rcv_saddr", "skc_v6_daddr") if six else ("skc_rcv_saddr", "skc_daddr")
        local, remote = (socket.inet_ntop(family, head[name].bytes()) for name in names)
        ports = head.integer("skc_num"), socket.ntohs(head.integer("skc_dport"))
        ends = [f"[{one}]:{port}" if six else f"{one}:{port}" for one, port in zip((local, remote), ports, strict=True)]
        word = TCP_STATES[state] if state < len(TCP_STATES) else str(state)
        return Endpoint(head.address, kind + "6" * six, word, ends[0], ends[1], inode)

    def _connections(self) -> Iterator[int]:
        """Yield the ``sock_common`` of each TCP connection of all namespaces. Imports numpy."""
        import numpy as np

        target = self.target
        offset = member_offset(target.type("struct sock_common"), "skc_nulls_node")
        tables = [target.address_of("tcp_hashinfo")]
        for address in namespaces(target):
            net = target.value("struct net", address)
            # Since 6.1 (d1e5e6408b30 "tcp: Introduce optional per-netns ehash.")
            if net.has("ipv4.tcp_death_row.hashinfo"):
                tables.append(net.integer("ipv4.tcp_death_row.hashinfo"))
        for table in dict.fromkeys(tables):
            info = target.value("struct inet_hashinfo", table)
            count = info.integer("ehash_mask") + 1
            if count > MAX_BUCKETS:
                raise FormatError(f"the inet_hashinfo at 0x{table:x} is damaged: {count} buckets")
            heads = np.frombuffer(target.kernel.read(info.integer("ehash"), count * 8), "<u8")
            for node in heads[(heads != 0) & (heads & 1 == 0)].tolist():  # an odd one ends a chain
                with self._noting():
                    yield from (one - offset for one in self._chain(node))

    def _chain(self, node: int) -> Iterator[int]:
        """Yield the nodes of an hlist_nulls: its end is no NULL, but an odd number."""
        seen: set[int] = set()
        while node and not node & 1:
            if node in seen or len(seen) > MAX_CHAIN:
                raise FormatError(f"a chain of TCP connections does not end: 0x{node:x} comes again")
            seen.add(node)
            yield node
            node = int.from_bytes(self.target.kernel.read(node, 8), "little")
