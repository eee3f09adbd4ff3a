"""The application: the parts of the daemon, and how they are connected.

Owns the composition. `entry` decides what happens to an exchange. The views are Quart's, see
`proxy.views`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from proxy.daemon.entry import Entry
from proxy.forwarding.answer import Answer
from proxy.forwarding.forward import Forwarder
from proxy.forwarding.inflight import Call, InFlight
from proxy.forwarding.pools import Pools
from proxy.history.keeping import History
from proxy.http.exchange import Handler
from proxy.lifecycle.reloading import Reloader
from proxy.lifecycle.telemetry import collector_in
from proxy.naming.resolving import Resolver
from proxy.observing.counters import Metrics
from proxy.observing.events import Events
from proxy.observing.logbook import LogBook
from proxy.observing.pagefeed import PageFeed
from proxy.observing.requestlog import report
from proxy.observing.running import facts_of
from proxy.views.lateviews import Views
from proxy.views.subjects import Subjects
from supervisor import Supervisor
from supervisor.states.journal import Journal
from supervisor.states.racing import kept_up
from supervisor.states.table import Event, State

if TYPE_CHECKING:  # it may not be installed
    from proxy.observing.tracing import Tracing

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.define(eq=False, kw_only=True)
class Application(Journal):
    """Serves the models of a supervisor, and is one of its journals.

    Attributes:
        handle: serves an exchange.
        metrics: the counters.
        resolver: finds the model or peer of a name.
        pools: connections to model servers and peers.
        history: what is kept of events; it is a journal, too.
        tracing: makes spans of requests; None without a collector.
    """

    handle: Handler
    metrics: Metrics
    resolver: Resolver
    pools: Pools
    _book: LogBook
    _events: Events
    history: History
    tracing: Tracing | None
    _views: Views

    @classmethod
    def of(
        cls,
        supervisor: Supervisor,
        reloader: Reloader,
        metrics: Metrics,
        book: LogBook,
        stop: trio.Event,
    ) -> Application:
        """Put the parts together. `open_application` explains the arguments."""
        resolver, pools, in_flight = Resolver(supervisor), Pools(), InFlight()
        history = History(supervisor, in_flight)
        feed = PageFeed(resolver, history, partial(facts_of, resolver, stop))
        events = Events(resolver, in_flight, book, feed)
        _connect(history, feed, events)
        resolver.on_profile = events.profile_changed
        supervisor.leases.on_step = events.lease_stepped

        def reloaded() -> None:
            pools.forget_peers(resolver.config.peers)
            history.apply()
            events.reloaded()

        reloader.on_reload = reloaded

        views = Views(
            Subjects(
                reloader=reloader,
                resolver=resolver,
                metrics=metrics,
                in_flight=in_flight,
                events=events,
                book=book,
                history=history,
                stop=stop,
            )
        )
        tracing = _tracing(history)
        forwarder = Forwarder(
            *(supervisor, resolver, pools, in_flight),
            report=partial(_account, metrics, history, tracing),
            trace=tracing.upstream if tracing else None,
        )
        return cls(
            handle=Entry(forwarder, views.serve, resolver, metrics).handle,
            metrics=metrics,
            resolver=resolver,
            pools=pools,
            book=book,
            events=events,
            history=history,
            tracing=tracing,
            views=views,
        )

    async def run(self, stop: trio.Event) -> None:
        """Run the background tasks until the daemon ends."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._views.load_when_asked)
                nursery.start_soon(kept_up, self.history.run)
                nursery.start_soon(kept_up, self._events.feed.run)
                nursery.start_soon(self._end_streams_after, stop)
        finally:
            await self.history.end()

    async def send_last_spans(self, hurry: trio.Event) -> None:
        """Send what the collector has not got yet, until there is no time for it."""
        if self.tracing:
            await self.tracing.end(hurry)

    async def _end_streams_after(self, stop: trio.Event) -> None:
        """End streams that never end by themselves, so that they do not use up the grace."""
        await stop.wait()
        self._events.close()
        self._book.close()

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Publish a step. Close the connections to a model server that ends or goes to sleep.

        The side that closes first keeps the port for a minute, and the server may need its port
        again.
        """
        if event in (Event.STOP, Event.ENDED, Event.GAVE_UP, Event.SLEEP):
            self.pools.let_go(model)
        self._events.stepped(model, event, state, took)
        self.history.moved()


def _connect(history: History, feed: PageFeed, events: Events) -> None:
    """Connect the history with the pages, which see it change and decide what is sampled."""
    history.on_memory = partial(feed.tell, "memory")
    history.watches = partial(events.is_wanted, "memory")

    def listeners_changed() -> None:
        history.timeline.on_change = feed.happened if events.is_wanted("timeline") else None
        history.stir()

    events.on_listeners = listeners_changed


def _tracing(history: History) -> Tracing | None:
    """Return what makes spans of requests, if the environment names a collector."""
    endpoint = collector_in(os.environ)
    if not endpoint:
        return None
    try:
        from proxy.observing.tracing import open_tracing  # the SDK takes 0.2 s to load

        tracing = open_tracing(history.timeline)
    except Exception as error:  # models are served without traces, too
        text = f"OpenTelemetry cannot start: {error}. Check the daemon's OTEL_ variables"
        log.warning(f"Requests are not traced: {text}", reason=str(error))
        return None
    log.info(f"Requests are traced; spans go to {endpoint}", endpoint=endpoint)
    return tracing


def _account(
    metrics: Metrics, history: History, tracing: Tracing | None, call: Call, answer: Answer
) -> None:
    """Log, count, trace and store a request that has ended."""
    now, tokens = time.monotonic(), answer.tokens()
    metrics.count(call, answer, tokens, now)
    report(call, answer, tokens, now)
    try:
        history.finished(call, answer, tokens, now)
    except Exception:  # a bug in the history must not fail a request
        log.exception("Internal error; a request is missing in the history")
    if tracing:
        tracing.finished(call, answer, tokens, now)


@contextmanager
def open_application(
    supervisor: Supervisor,
    reloader: Reloader,
    metrics: Metrics,
    book: LogBook,
    stop: trio.Event,
) -> Iterator[Application]:
    """Serve the models of a supervisor. Leaving the block closes all connections to them.

    Args:
        supervisor: the models' supervisor.
        reloader: reloads its configuration.
        metrics: the counters.
        book: the log.
        stop: set when the daemon has to end.
    """
    application = Application.of(supervisor, reloader, metrics, book, stop)
    try:
        yield application
    finally:
        application.pools.close()
