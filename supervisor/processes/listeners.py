"""Which processes listen on a port of this machine, as the kernel tells it.

Owns the lists of listening sockets, the addresses of this machine, and which process holds a
socket. The places decide what a stranger's listener means.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator

import attrs
import trio

from supervisor.processes.brood import if_there
from supervisor.processes.census import Table, name_of

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
ALL_THERE_ARE = 0x301  # NLM_F_REQUEST and NLM_F_DUMP
LISTEN, TIME_WAIT = 1 << 10, 1 << 6  # the states TCP_LISTEN and TCP_TIME_WAIT
LONGEST_ANSWER = 1.0  # seconds; the kernel answers at once
V6_ONLY = 11  # INET_DIAG_SKV6ONLY
_ATTRIBUTE = struct.Struct("=HH")  # nlattr
_HEAD = struct.Struct("=IHHII")  # nlmsghdr
_REQUEST = struct.Struct("=BBxxI2s46x")  # inet_diag_req_v2
_ANSWER = struct.Struct("=B7x16s44xI")  # of inet_diag_msg: family, source and inode
LONGEST_LOOKUP = 2.0  # seconds that the system may take for a name's addresses


@attrs.frozen
class Listener:
    """A socket that listens.

    Attributes:
        address: the address that it listens on.
        port: the port that it listens on.
        inode: its number, which is unique while the socket is open.
        only_ipv6: whether a socket that listens on all of IPv6 accepts no IPv4 connections.
    """

    address: IPAddress
    port: int
    inode: int
    only_ipv6: bool = False

    def takes(self, address: IPAddress) -> bool:
        """Whether it accepts connections to an address."""
        if self.address.is_unspecified:
            return self.address.version == address.version or (
                self.address.version == 6 and not self.only_ipv6
            )
        return _plain(self.address) == _plain(address)


def listeners_on(port: int, addresses: Iterable[IPAddress]) -> list[Listener]:
    """Return the sockets that accept connections to one of these addresses on a port."""
    wanted = list(addresses)
    return [
        one for one in _sockets_on(port, LISTEN) if any(one.takes(address) for address in wanted)
    ]


def holders_of(inodes: Iterable[int], pids: Iterable[int]) -> dict[int, int]:
    """Return which of these processes holds which socket, as far as they can be read."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, int] = {}
    for pid in pids:
        for target in _descriptors_of(pid):
            if target in wanted:
                found.setdefault(wanted[target], pid)
        if len(found) == len(wanted):
            break
    return found


async def holder_anywhere(listeners: Iterable[Listener]) -> str:
    """Return which process of this machine holds one of these sockets; empty if that is hidden.

    The process is named the way an operator searches for it: ``'llama-server' (pid 123)``.
    """
    inodes = [one.inode for one in listeners]
    with contextlib.suppress(RuntimeError):  # no thread is left to look in
        return await trio.to_thread.run_sync(_holder, inodes, abandon_on_cancel=True)
    return ""


def _holder(inodes: list[int]) -> str:
    for pid in holders_of(inodes, Table.now().entries).values():
        return f"'{name_of(pid)}' (pid {pid})"
    return ""


async def addresses_here(host: str) -> list[IPAddress]:
    """Return a host's addresses that belong to this machine; empty for another machine."""
    return [address for address in await _addresses_of(host) if is_here(address)]


def is_here(address: IPAddress) -> bool:
    """Whether an address belongs to this machine, that is, a socket can be bound to it."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.bind((str(address), 0))
    except OSError:
        return False
    return True


async def _addresses_of(host: str) -> list[IPAddress]:
    with contextlib.suppress(ValueError):
        return [ipaddress.ip_address(host)]
    with contextlib.suppress(OSError, UnicodeError, RuntimeError):
        with trio.move_on_after(LONGEST_LOOKUP):
            found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return []


def has_remains(port: int) -> bool:
    """Whether closed connections of an earlier server still occupy the port, for up to a minute.

    Only a server that sets SO_REUSEADDR can listen on such a port (TIME-WAIT, RFC 9293, 3.6.1). To
    look at all connections takes the kernel 6 ms and more.
    """
    return any(_sockets_on(port, TIME_WAIT))


def _sockets_on(port: int, state: int) -> Iterator[Listener]:
    """Ask the kernel for the sockets in a state on a port (sock_diag(7)).

    The lists in /proc also contain all connections, which may be many.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, state, port.to_bytes(2, "big"))
        head = _HEAD.pack(_HEAD.size + len(request), SOCK_DIAG_BY_FAMILY, ALL_THERE_ARE, 0, 0)
        with if_there(), _diagnosis() as asked:
            asked.send(head + request)
            yield from _answers_of(asked, port)


def _diagnosis() -> socket.socket:
    asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    asked.settimeout(LONGEST_ANSWER)
    return asked


def _answers_of(asked: socket.socket, port: int) -> Iterator[Listener]:
    while True:
        rest = asked.recv(65536)
        while rest:
            length, kind, *_ = _HEAD.unpack_from(rest)
            if kind != SOCK_DIAG_BY_FAMILY or length < _HEAD.size:  # the end, or an error
                return
            family, source, inode = _ANSWER.unpack_from(rest, _HEAD.size)
            packed = source[:4] if family == socket.AF_INET else source
            attributes = rest[_HEAD.size + _ANSWER.size : length]
            only_ipv6 = bool(_attribute(attributes, V6_ONLY))
            yield Listener(ipaddress.ip_address(packed), port, inode, only_ipv6)
            rest = rest[(length + 3) & ~3 :]


def _attribute(attributes: bytes, wanted: int) -> int:
    """Return the first byte of a netlink attribute; 0 if the attribute is missing."""
    while len(attributes) > _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == wanted:
            return attributes[_ATTRIBUTE.size]
        attributes = attributes[max(length + 3 & ~3, _ATTRIBUTE.size) :]
    return 0


def _plain(address: IPAddress) -> IPAddress:
    """Return an address as IPv4 if it is an IPv4 address in IPv6 form."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _descriptors_of(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 -- a server has thousands
            with contextlib.suppress(OSError):
                yield os.readlink(f"{folder}/{name}")  # noqa: PTH115 -- as above
