"""Which sockets listen on a port, on which addresses of this machine, and whose they are."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from supervisor.processes.census import name_of
from supervisor.processes.listeners import (
    addresses_here,
    has_remains,
    holder_anywhere,
    holders_of,
    is_here,
    listeners_on,
)
from supervisor.processes.ports import is_free, kept_free, suits_any_server
from tests.supervisor.processes.families import running


@contextmanager
def listening(address: str, port: int = 0, *, only_v6: bool = False) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
        server.bind((address, port))
        server.listen()
        yield server


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def used_up(address: str, *, by_server: bool = True) -> int:
    """Return a port whose last connection was closed by the server itself, or by its client."""
    with listening(address) as server:
        client = socket.create_connection(server.getsockname()[:2])
        connection, _ = server.accept()
        for end in (connection, client) if by_server else (client, connection):
            end.close()
        return port_of(server)


@pytest.mark.parametrize(
    ("address", "asked", "takes"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "::1", False),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("::", "::1", True),
        ("::", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
    ],
)
def test_a_listener_is_found_by_the_addresses_that_lead_to_it(
    address: str, asked: str, takes: bool
) -> None:
    """A listener on all addresses counts, too; a real connection confirms the result."""
    with listening(address) as server:
        found = listeners_on(port_of(server), [ipaddress.ip_address(asked)])
        try:
            socket.create_connection((asked, port_of(server)), 1).close()
        except OSError:
            assert not takes
        else:
            assert takes
        assert [one.inode for one in found] == [os.fstat(server.fileno()).st_ino] * takes


def test_one_that_takes_no_ipv4_is_not_found_by_it() -> None:
    """The server listens on all of IPv6, and has declared that it wants no IPv4."""
    with listening("::", only_v6=True) as server:
        assert listeners_on(port_of(server), [ipaddress.ip_address("127.0.0.1")]) == []


def test_two_on_one_port_are_told_apart() -> None:
    """Each has its own address and its own inode."""
    with listening("127.0.0.1") as one, listening("127.0.0.2", port_of(one)) as other:
        both = [ipaddress.ip_address(f"127.0.0.{last}") for last in (1, 2)]
        inodes = {os.fstat(server.fileno()).st_ino for server in (one, other)}
        assert {found.inode for found in listeners_on(port_of(one), both)} == inodes
        (found,) = listeners_on(port_of(one), both[1:])
        assert found.inode == os.fstat(other.fileno()).st_ino
    assert listeners_on(port_of_closed(), both) == []


def port_of_closed() -> int:
    with listening("127.0.0.1") as server:
        return port_of(server)


def test_no_other_port_is_taken_for_it() -> None:
    """A connection's own port has no listener, and a port that is only bound has none either."""
    here = [ipaddress.ip_address("127.0.0.1")]
    with listening("127.0.0.1") as server, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with socket.create_connection(server.getsockname()) as client:
            assert listeners_on(port_of(client), here) == []
            assert listeners_on(port_of(bound), here) == []
            assert len(listeners_on(port_of(server), here)) == 1


async def test_the_process_that_holds_a_socket_is_named() -> None:
    """The text names the process as an operator would look for it."""
    with listening("127.0.0.1") as server, running("true") as (other, _):
        found = listeners_on(port_of(server), [ipaddress.ip_address("127.0.0.1")])
        inodes = [one.inode for one in found]
        me = os.getpid()
        assert await holder_anywhere(found) == f"'{name_of(me)}' (pid {me})"
        assert holders_of(inodes, [other.pid, me]) == {inodes[0]: me}
        assert holders_of(inodes, [other.pid]) == {}
    assert await holder_anywhere(found) == ""


async def test_addresses_of_another_machine_give_nothing() -> None:
    """Whatever the name is, only addresses that a socket can be bound to are here."""

    class Names(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: object, *_: object, **__: object) -> object:  # type: ignore[override]
            await trio.lowlevel.checkpoint()
            if host == b"nobody.test":
                raise socket.gaierror("no such name")
            addresses = ["192.0.2.1", "127.0.0.1", "2001:db8::1", "::1"]
            return [(0, 0, 0, "", (address, 0)) for address in addresses]

        async def getnameinfo(self, *_: object) -> object:  # type: ignore[override]
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Names())
    assert [str(one) for one in await addresses_here("both.test")] == ["127.0.0.1", "::1"]
    assert await addresses_here("nobody.test") == []
    assert await addresses_here("192.0.2.1") == []
    assert [str(one) for one in await addresses_here("127.0.0.9")] == ["127.0.0.9"]
    assert [str(one) for one in await addresses_here("0.0.0.0")] == ["0.0.0.0"]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_nothing_can_be_bound_to_is_not_here(address: str) -> None:
    """These addresses are for documentation only (RFC 5737, RFC 3849)."""
    assert not is_here(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_with_remains_suits_only_some_servers(address: str) -> None:
    """Only a server that sets SO_REUSEADDR can use it, although the port is free."""
    port = used_up(address)
    assert has_remains(port)
    assert (is_free(address, port), suits_any_server(address, port)) == (True, False)


def test_a_client_that_ends_first_leaves_the_servers_port_whole() -> None:
    """The remains then belong to the client's port."""
    port = used_up("127.0.0.1", by_server=False)
    assert not has_remains(port)
    assert suits_any_server("127.0.0.1", port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_port_that_is_listened_on_suits_nobody(address: str) -> None:
    """The port is free again afterwards."""
    with listening(address) as server:
        port = port_of(server)
        assert not is_free(address, port)
        assert not suits_any_server(address, port)
    assert suits_any_server(address, port)


@pytest.mark.parametrize(("taken", "asked"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_one_on_all_addresses_is_in_the_way_of_one_on_a_single_one(taken: str, asked: str) -> None:
    """The two are in each other's way, whichever of them listens first."""
    with listening(taken) as server:
        assert not is_free(asked, port_of(server))


def test_a_port_that_is_kept_for_a_server_suits_it() -> None:
    """The keeper of the port has bound it; what a server has left there is still in the way."""
    with kept_free(1) as port:
        assert suits_any_server("127.0.0.1", port)
        with listening("127.0.0.1", port):
            assert not suits_any_server("127.0.0.1", port)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_port_of_another_machine_is_not_ours_to_judge(address: str) -> None:
    """This machine can say nothing against it."""
    assert is_free(address, 80)
    assert suits_any_server(address, 80)
