"""Which place a model's server runs in: on this machine, or wherever its address leads to.

Owns the choice. A new place is one more name here.
"""

from __future__ import annotations

import attrs

from configschema import Model
from supervisor.clusters.keeper import Keeper
from supervisor.places.addresses import shown_address
from supervisor.places.elsewhere import Elsewhere, ServerElsewhere
from supervisor.places.handles import Handle, HereHandle
from supervisor.places.here import Here
from supervisor.places.incluster import InCluster
from supervisor.places.localserver import ANSWERS, STUCK, LocalServer
from supervisor.places.running import Left, Order, Place, Probe, RunningServer, Weigh
from supervisor.processes.adopted import GONE
from supervisor.processes.child import Child
from supervisor.processes.output import NO_OUTPUT


@attrs.frozen
class Places:
    """All places of one daemon.

    Attributes:
        owner: the beginning of its processes' tokens.
        probe: asks a server whether it is ready.
        scales: weighs a process with its kin.
        keeper: the keeper of allocations in clusters; None without clusters.
    """

    owner: str
    probe: Probe
    scales: Weigh
    keeper: Keeper | None = None

    def of(self, model: Model) -> Place:
        """Return the place of a model."""
        if model.holding and self.keeper:
            return InCluster(self.keeper)
        if model.is_elsewhere:
            return Elsewhere(self.probe, self.scales)
        return Here(self.owner, self.probe, self.scales)

    def left_over(self, order: Order, handle: Handle) -> RunningServer:
        """Return a server that could not be ended: it still answers, or a process of it lives."""
        server: RunningServer
        if isinstance(handle, HereHandle):
            child = Child(GONE, NO_OUTPUT, 0, handle.kin)
            server = LocalServer(child, order, self.probe, self.scales)
            server.left = Left(tuple(pid for pid, _ in handle.members), "", STUCK)
        else:
            server = ServerElsewhere(order, self.probe, self.scales, was_there=True)
            server.left = Left((), shown_address(order.model), ANSWERS)
        return server
