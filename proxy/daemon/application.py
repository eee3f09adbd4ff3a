"""The Quart-Trio application: what its parts are, and how they know of each other.

Owns the composition. The views are in the wing `views`; requests for models do not come this far,
see `entry`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from proxy.daemon.entry import Entry
from proxy.forwarding.answer import Answer
from proxy.forwarding.forward import Forwarder
from proxy.forwarding.inflight import Call, InFlight
from proxy.forwarding.pools import Pools
from proxy.http.errors import EXPECTED, Problem, problem_of
from proxy.lifecycle.reloading import Reloader
from proxy.naming.resolving import Resolver
from proxy.naming.routes import methods_of
from proxy.observing.counters import Metrics
from proxy.observing.events import Events
from proxy.observing.logbook import LogBook
from proxy.observing.requestlog import report
from proxy.views.control import daemon_views
from proxy.views.logs import log_views
from proxy.views.models import model_views
from supervisor import Supervisor
from supervisor.states.journal import Journal
from supervisor.states.table import Event, State

SLOWEST_BODY = 60  # seconds for a view's request body to arrive
LONGEST_BODY = 64 * 1024  # bytes; the views are asked in few words


class Application(QuartTrio, Journal):
    """Serve the models of a supervisor.

    It is the supervisor's journal, too, from when it is there.
    """

    asgi_http_class = Entry

    def __init__(
        self,
        supervisor: Supervisor,
        reloader: Reloader,
        metrics: Metrics,
        book: LogBook,
        stop: trio.Event,
    ) -> None:
        super().__init__("llamadoze", static_folder=None)
        self.metrics, self.book = metrics, book
        self.resolver = Resolver(supervisor)
        self.in_flight = InFlight()
        self.pools = Pools()
        self.events = Events(self.resolver, self.in_flight, book)
        self.in_flight.on_change = self.events.call_changed
        self.resolver.on_profile = self.events.profile_changed
        self.forwarder = Forwarder(
            supervisor, self.resolver, self.pools, self.in_flight, self._account
        )
        reloader.on_reload = self._reloaded
        # Quart cuts every response after 60 s by default, a stream or a slow wake in its middle.
        self.config.update(
            RESPONSE_TIMEOUT=None, BODY_TIMEOUT=SLOWEST_BODY, MAX_CONTENT_LENGTH=LONGEST_BODY
        )
        self.register_error_handler(HTTPException, _say_http)
        for error in EXPECTED:
            self.register_error_handler(error, _say)
        self.register_blueprint(model_views(self.resolver))
        self.register_blueprint(
            daemon_views(reloader, self.resolver, metrics, self.in_flight, self.events, stop)
        )
        self.register_blueprint(log_views(self.resolver, book))

    async def end_streams_after(self, stop: trio.Event) -> None:
        """End what would go on for ever, so that it does not take the grace of others."""
        await stop.wait()
        self.events.close()
        self.book.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- ASGI
        """Serve one ASGI call; only requests come here, there is no lifespan."""
        await Entry(self, scope)(receive, send)

    def _reloaded(self) -> None:
        """Take note of another configuration."""
        self.pools.forget_peers(self.resolver.config.peers)

    def _account(self, call: Call, answer: Answer) -> None:
        """Log and count a request that has ended."""
        now = trio.current_time()
        self.metrics.count(call, answer, now)
        report(call, answer, now)

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Tell of a step; connections to what is to end, or to sleep, are closed by us.

        The side that closes first keeps the port for a minute, and a server may need its own again.
        """
        if event in (Event.STOP, Event.ENDED, Event.GAVE_UP, Event.SLEEP):
            self.pools.let_go(model)
        self.events.stepped(model, event, state, took)


@contextmanager
def open_application(
    supervisor: Supervisor,
    reloader: Reloader,
    metrics: Metrics,
    book: LogBook,
    stop: trio.Event,
) -> Iterator[Application]:
    """Serve the models of a supervisor; leaving the block closes what was opened to them.

    Args:
        supervisor: whose models.
        reloader: of its configuration.
        metrics: counts.
        book: the log.
        stop: set when the daemon is to end.
    """
    application = Application(supervisor, reloader, metrics, book, stop)
    try:
        yield application
    finally:
        application.pools.close()


def _answer(problem: Problem) -> Response:
    accept = request.headers.get("Accept", "").encode("latin-1", "replace")
    fields, body = problem.said_to(accept)
    headers = {name.decode(): value.decode("latin-1") for name, value in fields}
    return Response(body, problem.status, headers)


async def _say(error: Exception) -> Response:
    return _answer(problem_of(error))


async def _say_http(error: HTTPException) -> Response:
    status, name = error.code or 500, (error.name or "error").lower()
    allowed = set(getattr(error, "valid_methods", None) or ())
    if status == 404 and (allowed := methods_of(request.path)):
        status, name = 405, "method not allowed"
    more = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
    return _answer(Problem(status, f"{request.method} {request.path}: {name}", headers=more))
