"""The connections to all model servers and peers: one pool for each process, one for each peer.

Owns which pool belongs to which model or peer. A process's connections end with the process.
"""

from __future__ import annotations

from collections.abc import Container

import attrs

from configschema import Entrance, Peer, Timeouts
from proxy.http.origin import Origin
from proxy.http.upstream import Upstream
from supervisor.model.server import ModelServer


@attrs.define(eq=False)
class Pools:
    """Connections by model and by peer."""

    _models: dict[str, tuple[object, Upstream]] = attrs.field(factory=dict, init=False)
    _peers: dict[str, tuple[object, Upstream]] = attrs.field(factory=dict, init=False)

    def of_model(self, server: ModelServer) -> Upstream:
        """Return the connections to a model's current process, with its current settings."""
        model = server.model
        present = server.at.pid, model.proxy, model.timeouts, model.entrance
        where = model.proxy, model.entrance
        return _known(self._models, model.id, present, where, model.timeouts)

    def of_peer(self, name: str, peer: Peer) -> Upstream:
        """Return the connections to a peer, with its current settings."""
        return _known(self._peers, name, peer, (peer.proxy, None), peer.timeouts)

    def forget_peers(self, present: Container[str]) -> None:
        """Close the connections to all peers that are no longer present."""
        for name in [name for name in self._peers if name not in present]:
            self._peers.pop(name)[1].close()

    def let_go(self, model: str) -> None:
        """Close the connections to a process that has ended or sleeps."""
        if known := self._models.pop(model, None):
            known[1].close()

    def close(self) -> None:
        """Close all connections."""
        for _, upstream in (*self._models.values(), *self._peers.values()):
            upstream.close()


def _known(
    pools: dict[str, tuple[object, Upstream]],
    name: str,
    present: object,
    where: tuple[str, Entrance | None],
    timeouts: Timeouts,
) -> Upstream:
    """Return the connections of a name, or new ones if anything about it has changed."""
    known = pools.get(name)
    if known is not None and known[0] == present:
        return known[1]
    upstream = Upstream(Origin.of(*where), timeouts)
    pools[name] = present, upstream
    if known is not None:
        known[1].close()
    return upstream
