"""Sockets beside /proc/net, and beside themselves.

The guests have the kernel's own sockets, and none that a program has opened; so one test makes them up in a private
copy of the memory, as they are in a kernel that has some.
"""

from __future__ import annotations

import socket
import struct

import pytest

from kshell.linux import files, sockets, tasks
from kshell.linux.lists import member_offset
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask
from tests.guest.fixtures import have
from tests.guest.image import GuestImage
from tests.guest.spec import named_spec

pytestmark = pytest.mark.guest
GUESTS = ["6.1", "6.12", "5.10"]


def told(image: GuestImage, kind: str) -> set[tuple[str, str, str, int]]:
    """Return (state, local, remote, inode) of each line of /proc/net/tcp, tcp6, udp or udp6."""
    found = set()
    for line in image.oracle.text(f"proc/net/{kind}").splitlines()[1:]:
        words = line.split()
        ends = []
        for word in words[1:3]:
            address, port = word.split(":")
            data = b"".join(bytes.fromhex(address[at:at + 8])[::-1] for at in range(0, len(address), 8))
            text = socket.inet_ntop(socket.AF_INET6 if len(data) == 16 else socket.AF_INET, data)
            ends.append(f"[{text}]:{int(port, 16)}" if len(data) == 16 else f"{text}:{int(port, 16)}")
        state = sockets.TCP_STATES[int(words[3], 16)]
        found.add((state, ends[0], ends[1], int(words[9])))
    return found


def compare(image: GuestImage, target: Target) -> None:
    """Compare with all files of /proc/net that the oracle has."""
    every = list(sockets.Sockets(target).endpoints())
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        if image.oracle.path(f"proc/net/{kind}").exists():
            assert {(one.state, one.local, one.remote, one.inode) for one in every if one.kind == kind} == told(
                image, kind), kind
    lines = [line.split() for line in image.oracle.text("proc/net/unix").splitlines()[1:]]
    assert {(one.inode, one.local) for one in every if one.kind == "unix"} == {
        (int(words[6]), words[7] if len(words) > 7 else "") for words in lines}


@pytest.mark.parametrize("name", GUESTS)
def test_sockets_are_those_of_proc_net(name: str) -> None:
    image = have(named_spec(name))
    with open_target(str(image.elf)) as target:
        compare(image, target)


@pytest.mark.parametrize("name", GUESTS)
def test_each_socket_and_its_sock_know_each_other(name: str) -> None:
    image = have(named_spec(name))
    with open_target(str(image.elf)) as target:
        known = sockets.Sockets(target)
        assert not known.lost
        with_sock = [one for one in known.found if one.sock]
        assert {"NETLINK", "RAW"} <= {one.protocol for one in with_sock}
        for one in with_sock:
            sock = target.value("struct sock", one.sock)
            assert sock.integer("sk_socket") == one.address and sock.integer("sk_type") == one.type
            assert sock["__sk_common"]["skc_net"].integer("net") in set(sockets.namespaces(target))
        held = {file.file for task in tasks.iter_processes(target) for file in files.open_files(target, task.address)
                if file.type == "SOCK"}
        assert held <= {one.file for one in known.found}
        assert target.address_of("init_net") in set(sockets.namespaces(target))


@pytest.mark.parametrize("name", GUESTS)
def test_connections_and_listeners_made_up(name: str) -> None:
    with open_target(str(have(named_spec(name)).elf), mode="c") as target:
        common = target.type("struct sock_common")
        raw = [one for one in sockets.Sockets(target).found if one.protocol == "RAW"]
        of_tcp = {one for one in raw if target.value("struct sock", one.sock).integer("sk_protocol") == sockets.TCP}
        listener, connection = sorted(of_tcp)[:2]  # tcp_sk of two CPUs

        def put(sock: int, member: str, data: bytes) -> None:
            target.kernel.write(sock + member_offset(common, member), data)

        # a listening one: TCP, by its socket alone
        kind = target.type("struct socket")
        target.kernel.write(listener.address + member_offset(kind, "type"), struct.pack("<H", 1))
        for sock, state, near, far in ((listener.sock, 10, "10.0.0.1", "0.0.0.0"),
                                       (connection.sock, 1, "10.0.0.1", "192.168.1.2")):
            put(sock, "skc_state", bytes([state]))
            put(sock, "skc_rcv_saddr", socket.inet_aton(near))
            put(sock, "skc_daddr", socket.inet_aton(far))
            put(sock, "skc_num", struct.pack("<H", 8080))
            put(sock, "skc_dport", struct.pack(">H", 40000 if state == 1 else 0))
        # the connection is in the table
        info = target.value("struct inet_hashinfo", target.address_of("tcp_hashinfo"))
        bucket = info.integer("ehash") + 8 * info.integer("ehash_mask")  # the last one
        node = connection.sock + member_offset(common, "skc_nulls_node")
        target.kernel.write(node, target.kernel.read(bucket, 8))
        target.kernel.write(bucket, node.to_bytes(8, "little"))
        found = {(one.kind, one.state, one.local, one.remote, one.inode) for one in sockets.Sockets(target).endpoints()}
        assert found == {
            ("tcp", "LISTEN", "10.0.0.1:8080", "0.0.0.0:0", listener.inode),
            ("tcp", "ESTABLISHED", "10.0.0.1:8080", "192.168.1.2:40000", connection.inode)}
        assert "ESTABLISHED" in ask(target, "::netstat -P tcp") and ask(target, "::netstat -P tcp6") == ""
        family = target.kernel.read(connection.sock + member_offset(common, "skc_family"), 2)
        put(connection.sock, "skc_family", bytes(2))
        assert "is damaged: a connection of family 0" in ask(target, "::netstat")
        put(connection.sock, "skc_family", family)
        target.kernel.write(node, node.to_bytes(8, "little"))  # it leads to itself
        assert "does not end" in ask(target, "::netstat")
