"""Where on this machine a model's server listens, and which program answers there.

Owns the way from a model's `proxy` to sockets and their holders. The place decides what a stranger
means.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import attrs
import trio

from configschema import Model, is_reachable
from configschema.keys.elsewhere import is_placeholder, leaves_the_tree, names_an_outsider
from supervisor.processes.census import BETWEEN_ATTEMPTS, argv_of
from supervisor.processes.listeners import (
    IPAddress,
    Listener,
    addresses_here,
    holders_of,
    listeners_on,
)


@attrs.frozen
class Answering:
    """Which programs listen at the address of a model's server.

    Attributes:
        sockets: all listening sockets.
        foreign: the sockets that no process of the model holds.
        is_outside: whether the server is no process of the model that could be weighed.
        is_ours: whether it belongs to the model anyway, and has to end with it.
    """

    sockets: frozenset[int] = frozenset()
    foreign: tuple[Listener, ...] = ()
    is_outside: bool = False
    is_ours: bool = False


async def who_answers(model: Model, members: Sequence[int]) -> Answering:
    """Find out which programs listen at a model's address.

    Args:
        model: the model.
        members: the processes of its life.
    """
    found = await listening_for(model) or []
    held = holders_of((one.inode for one in found), members)
    foreign = tuple(one for one in found if one.inode not in held)
    sockets = frozenset(one.inode for one in found)
    is_outside = bool(foreign) or not found
    if is_placeholder(model.cmd.argv):  # the server is somebody else's, and stays
        return Answering(is_outside=is_outside)
    if leaves_the_tree(model.cmd.argv) or any(names_an_outsider(argv_of(pid)) for pid in members):
        return Answering(sockets, is_outside=is_outside, is_ours=True)
    return Answering(sockets, foreign, is_outside=is_outside)


async def listening_for(model: Model) -> list[Listener] | None:
    """Return the listeners where a model's proxy leads to; None if that is another machine."""
    addresses = await addresses_of(model)
    while True:
        try:
            return listeners_on(port_of(model), addresses) if addresses else None
        except OSError:  # no file descriptor is left to look with
            await trio.sleep(BETWEEN_ATTEMPTS)


async def addresses_of(model: Model) -> list[IPAddress]:
    """Return the addresses of this machine that a model's proxy leads to; empty for another one."""
    return await addresses_here(host_of(model)) if is_reachable(model.proxy) else []


def shown_address(model: Model) -> str:
    """Return a model's proxy without a password, so that anybody may read it."""
    return model.shown.get("proxy", "its address")


def host_of(model: Model) -> str:
    """Return the host that a model's server listens on."""
    return urlsplit(model.proxy).hostname or ""


def port_of(model: Model) -> int:
    """Return the port that a model's server listens on."""
    parts = urlsplit(model.proxy)
    return parts.port or (443 if parts.scheme == "https" else 80)
