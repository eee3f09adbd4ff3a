"""The parts of the daemon that the views read and act on."""

from __future__ import annotations

import attrs
import trio

from proxy.forwarding.inflight import InFlight
from proxy.history.keeping import History
from proxy.lifecycle.reloading import Reloader
from proxy.naming.resolving import Resolver
from proxy.observing.counters import Metrics
from proxy.observing.events import Events
from proxy.observing.logbook import LogBook


@attrs.frozen(kw_only=True)
class Subjects:
    """The parts of the daemon that the views read and act on."""

    reloader: Reloader
    resolver: Resolver
    metrics: Metrics
    in_flight: InFlight
    events: Events
    book: LogBook
    history: History
    stop: trio.Event
