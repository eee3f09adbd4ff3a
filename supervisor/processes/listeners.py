"""Who listens on a port of this machine, as the kernel tells it.

Owns the lists of listening sockets, the addresses that lead to this machine, and which process
holds a socket. What a listener that is a stranger means is decided by the places.
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
LISTEN, TIME_WAIT = 1 << 10, 1 << 6  # of the states, TCP_LISTEN and TCP_TIME_WAIT
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
        address: where.
        port: where.
        inode: its number, which no other socket has while it is open.
        only_ipv6: whether one that listens on all of IPv6 takes nothing of IPv4.
    """

    address: IPAddress
    port: int
    inode: int
    only_ipv6: bool = False

    def takes(self, address: IPAddress) -> bool:
        """Whether it takes connections to an address."""
        if self.address.is_unspecified:
            return self.address.version == address.version or (
                self.address.version == 6 and not self.only_ipv6
            )
        return _plain(self.address) == _plain(address)


def listeners_on(port: int, addresses: Iterable[IPAddress]) -> list[Listener]:
    """Return the sockets that take connections to one of some addresses on a port."""
    wanted = list(addresses)
    return [
        one for one in _sockets_on(port, LISTEN) if any(one.takes(address) for address in wanted)
    ]


def holders_of(inodes: Iterable[int], pids: Iterable[int]) -> dict[int, int]:
    """Return which of some processes holds which socket, as far as they may be looked at."""
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
    """Return which process of this machine holds one of some sockets; nothing if none may be seen.

    It is named as an operator looks for it: ``'llama-server' (pid 123)``.
    """
    inodes = [one.inode for one in listeners]
    with contextlib.suppress(RuntimeError):  # there is no thread left to look in
        return await trio.to_thread.run_sync(_holder, inodes, abandon_on_cancel=True)
    return ""


def _holder(inodes: list[int]) -> str:
    for pid in holders_of(inodes, Table.now().entries).values():
        return f"'{name_of(pid)}' (pid {pid})"
    return ""


async def addresses_here(host: str) -> list[IPAddress]:
    """Return the addresses of a host that are this machine's own; nothing for another machine."""
    return [address for address in await _addresses_of(host) if is_here(address)]


def is_here(address: IPAddress) -> bool:
    """Whether an address is this machine's own: then a socket can be bound to it."""
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
    """Whether connections that a server has ended keep its port for a minute yet.

    Such a port can be listened on only by a server that sets SO_REUSEADDR (TIME-WAIT, RFC 9293,
    3.6.1). To look at all connections takes the kernel 6 ms and more.
    """
    return any(_sockets_on(port, TIME_WAIT))


def _sockets_on(port: int, state: int) -> Iterator[Listener]:
    """Ask the kernel for the sockets in a state on a port (sock_diag(7)).

    Its lists in /proc end with all connections, which may be many.
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
    """Return the first byte of an attribute of netlink; 0 if it is not there."""
    while len(attributes) > _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == wanted:
            return attributes[_ATTRIBUTE.size]
        attributes = attributes[max(length + 3 & ~3, _ATTRIBUTE.size) :]
    return 0


def _plain(address: IPAddress) -> IPAddress:
    """Return an address, as IPv4 if it is that in the form of IPv6."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _descriptors_of(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 -- a server has thousands
            with contextlib.suppress(OSError):
                yield os.readlink(f"{folder}/{name}")  # noqa: PTH115 -- as above
