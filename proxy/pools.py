"""The connections to all model servers and peers: one pool for each process, one for each peer.

Owns which pool belongs to whom, and that a process's connections end with it.
"""

from __future__ import annotations

import attrs

from configschema import Peer
from proxy.origin import Origin
from proxy.upstream import Upstream
from supervisor.server import ModelServer


@attrs.define(eq=False)
class Pools:
    """Connections by model and by peer."""

    _models: dict[str, tuple[int | None, Upstream]] = attrs.field(factory=dict, init=False)
    _peers: dict[str, tuple[Peer, Upstream]] = attrs.field(factory=dict, init=False)

    def of_model(self, server: ModelServer) -> Upstream:
        """Return the connections to a model's present process."""
        model, pid = server.model, server.at.pid
        known = self._models.get(model.id)
        if known is not None and known[0] == pid:
            return known[1]
        upstream = Upstream(Origin.of(model.proxy), model.timeouts)
        self._models[model.id] = pid, upstream
        if known is not None:
            known[1].close()
        return upstream

    def of_peer(self, name: str, peer: Peer) -> Upstream:
        """Return the connections to a peer, as it is configured now."""
        known = self._peers.get(name)
        if known is not None and known[0] is peer:
            return known[1]
        upstream = Upstream(Origin.of(peer.proxy), peer.timeouts)
        self._peers[name] = peer, upstream
        if known is not None:
            known[1].close()
        return upstream

    def ended(self, model: str) -> None:
        """Close what was kept to a process that has ended."""
        if known := self._models.pop(model, None):
            known[1].close()

    def close(self) -> None:
        """Close all that is kept."""
        for _, upstream in (*self._models.values(), *self._peers.values()):
            upstream.close()
