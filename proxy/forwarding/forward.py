"""One request to a model and its answer back, byte for byte.

Owns the order of steps: read the model's name, find the model, wait for it, exchange, stream. If
the client disconnects, all is cancelled at any step. Nothing that is opened here outlives the call.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import attrs
import trio

from configschema import Filters
from proxy.forwarding.answer import Answer
from proxy.forwarding.filters import Edit, edits_of
from proxy.forwarding.inflight import Call, InFlight
from proxy.forwarding.loading import Narrated, Narration
from proxy.forwarding.madeby import MadeBy
from proxy.forwarding.pools import Pools
from proxy.forwarding.questions import Question, read_question
from proxy.forwarding.tunnel import NOBODY_ELSE, Courtesy
from proxy.http.bodies import Budget, Incoming
from proxy.http.errors import EXPECTED, BadRequest, problem_of
from proxy.http.exchange import Exchange
from proxy.http.headers import VIA, Header, to_peer, to_upstream
from proxy.http.heads import Request
from proxy.http.origin import Origin
from proxy.http.parsing import ModelDied, UpstreamError
from proxy.http.upstream import Upstream
from proxy.naming.directory import Local
from proxy.naming.quotas import refuse_beyond_all
from proxy.naming.resolving import InEffect, Resolver
from proxy.naming.routes import Route
from supervisor import State, Supervisor
from supervisor.model.server import ModelServer
from supervisor.scheduling.queueing import Turn
from supervisor.states.table import ENDED

WEBSOCKET = ((b"connection", b"upgrade"), (b"upgrade", b"websocket"))
DEATH_IS_KNOWN = 0.5  # seconds from a broken connection until the end of the process is noticed

Report = Callable[[Call, Answer], None]
Trace = Callable[[Call, Origin, list[Header]], list[Header]]


@attrs.frozen
class Visit:
    """What is known of a request before it is forwarded.

    Attributes:
        request_id: its id, also in its lines in the log.
        key: the name of the API key in the request.
        cors: headers that say which sites may read the answer.
        now: the configuration in effect when the request came.
    """

    request_id: str
    key: str
    cors: Sequence[Header]
    now: InEffect


@attrs.define(eq=False)
class Forwarder:
    """Forward requests to models.

    Attributes:
        supervisor: manages the local models.
        resolver: finds the model for a name.
        pools: the connections to model servers and peers.
        in_flight: lists the requests that are being forwarded.
        report: called for every request that has ended.
        trace: called for every upstream request that begins, and returns its headers; None without
            tracing.
        bodies: the memory that all held bodies take.
        made_by: which model has made the objects that clients ask for later by id.
        us: this daemon's name in ``Via``, by which it recognises its own requests.
    """

    supervisor: Supervisor
    resolver: Resolver
    pools: Pools
    in_flight: InFlight
    report: Report
    trace: Trace | None = None
    bodies: Budget = attrs.field(factory=Budget, init=False)
    made_by: MadeBy = attrs.field(factory=MadeBy, init=False)
    us: bytes = attrs.field(factory=lambda: _pseudonym(), init=False)

    async def forward(self, exchange: Exchange, route: Route, visit: Visit) -> None:
        """Serve one exchange to the end of its response: the model's answer, or the reason why
        there is none."""
        client = exchange.connection.client
        call = Call(
            *(visit.request_id, exchange.method, exchange.path, exchange.headers),
            *(client[0] if client else "", visit.key),
        )
        answer = Answer(exchange, call, route.dialect, visit.cors)
        incoming = Incoming.of(exchange.fields, exchange)
        try:
            try:
                await _Errand(self, visit.now, exchange, incoming, answer, route).run()
            except EXPECTED as error:
                await answer.refuse(problem_of(error, self.supervisor.ready_in))
            if not exchange.answered:
                await answer.finish()
        finally:
            self.in_flight.remove(call)
            self.report(call, answer)


@attrs.define(eq=False)
class _Errand:
    """The steps for one request."""

    of: Forwarder
    now: InEffect
    exchange: Exchange
    incoming: Incoming
    answer: Answer
    route: Route
    _before: bytes = attrs.field(default=b"", init=False)

    async def run(self) -> None:
        """Read the request, and let the model or the peer that it names answer it.

        Raises:
            BadRequest, SupervisorError, UpstreamError: there is no answer.
        """
        if VIA in self.exchange.fields:
            self._refuse_loop()
        limits, bodies = self.now.limits, self.of.bodies
        bodies.limit = limits.all_held
        with bodies.holding() as holding:
            route = self._way() if self.route.made else self.route
            question = await read_question(route, self.exchange, self.incoming, limits, holding)
            self.answer.call.model = question.model
            try:
                await self._ask(question)
            finally:
                if question.form is not None:
                    question.form.close()

    def _way(self) -> Route:
        """Return the route, with the model that made the object whose id is requested."""
        return attrs.evolve(self.route, model=self.of.made_by.model_of(self.route.made))

    async def _ask(self, question: Question) -> None:
        with self.of.resolver.choose(question.model) as target:
            call = self.answer.call
            call.model, call.known = target.id, True
            call.cancel = self.exchange.cancel
            if 0 < self.now.config.global_concurrency_limit <= len(self.of.in_flight):
                refuse_beyond_all(call.key, self.of.in_flight, self.now.config)
            self.of.in_flight.add(call)
            if isinstance(question.body, bytes | bytearray) and len(question.body) <= call.room:
                call.body = question.body
            if isinstance(target, Local):
                await self._ask_model(question, target)
            else:
                edits = self._edits(question, target.peer.filters, target.id, target.name)
                if edits is not None:
                    await question.rewrite(edits, target.name)
                upstream = self.of.pools.of_peer(target.peer_id, target.peer)
                headers = to_peer(
                    self.now.keys.without(self.exchange.headers, self.exchange.fields),
                    upstream.origin.authority,
                    target.peer.api_key,
                    call.request_id.encode(),
                    self._via(),
                )
                await self._exchange(upstream, headers, question)

    async def _ask_model(self, question: Question, target: Local) -> None:
        if self.route.made:
            self.now.refuse_control(target.model.id, self.route.target)
        call = self.answer.call
        turn = self.of.supervisor.lease(target.model.id, call)
        server = turn.server
        if self.exchange.is_raw or not self.route.patience:
            self._refuse_to_start(server)
        async with self._with_words(turn, question) if question.stream else turn:
            call.waited = time.monotonic() - call.began
            self.answer.source = server.usage
            # A reload may have changed the model's settings meanwhile.
            model = server.model
            name = model.use_model_name or target.name
            edits = self._edits(question, model.filters, target.name, name)
            if edits is not None:
                await question.rewrite(edits, name)
            upstream = self.of.pools.of_model(server)
            headers = self._headers_of_ours(server, upstream)
            courtesy = self._courtesy(server) if self.exchange.is_raw else NOBODY_ELSE
            try:
                if self.answer.status:
                    ask = partial(self._exchange, upstream, headers, question, courtesy)
                    await self.answer.go_on_with(ask)
                else:
                    await self._exchange(upstream, headers, question, courtesy)
            except UpstreamError as error:
                server.usage.suspect()  # the process may live and not serve, as with a wrapper
                raise await _cause(server, error) from error

    def _refuse_to_start(self, server: ModelServer) -> None:
        """Refuse a request that must not start a model, such as for the files of its page.

        Raises:
            BadRequest: the model is not ready.
        """
        patience = self.route.patience
        if self.exchange.is_raw and server.model.compat.ignore_websockets:
            patience = False
        if not patience and server.at.state is not State.READY:
            name = server.model.id
            text = f"model '{name}' is not ready, and {self.exchange.path} does not start it"
            raise BadRequest(text, status=409)

    def _with_words(self, turn: Turn, question: Question) -> Turn | Narrated:
        """Return the way to a lease, with messages to the client about the loading if possible."""
        server = turn.server
        if self._is_narrated(server):
            narration = Narration(self.of.supervisor, self.answer, server, question.model)
            return Narrated(turn, narration)
        return turn

    def _is_narrated(self, server: ModelServer) -> bool:
        wanted = server.model.send_loading_state
        if wanted is None:
            wanted = self.of.resolver.config.send_loading_state
        has_words = self.answer.dialect.note is not None
        return wanted and has_words and not server.is_serving

    def _edits(
        self, question: Question, filters: Filters, asked: str, name: str
    ) -> list[Edit] | None:
        """Return the changes that filters make to a body. None leaves the body as it is."""
        if not self.route.filtered:
            return None
        edits = edits_of(filters, asked)
        return edits if edits or name != question.model else None

    def _headers_of_ours(self, server: ModelServer, upstream: Upstream) -> list[Header]:
        call = self.answer.call
        kept = self.now.keys.without(self.exchange.headers, self.exchange.fields)
        headers = to_upstream(kept, call.client, call.request_id.encode(), self._via())
        own = server.model.host_header
        if own or not dict(headers).get(b"host"):  # HTTP/1.0; HTTP/1.1 must have one
            host = (own or upstream.origin.authority).encode()
            headers = [(b"host", host), *(pair for pair in headers if pair[0] != b"host")]
        if self.answer.status:  # the stream has begun without a content encoding
            headers = [pair for pair in headers if pair[0] != b"accept-encoding"]
        return headers

    def _courtesy(self, server: ModelServer) -> Courtesy:
        others_wait = partial(self.of.supervisor.until_closed, server.model.id)
        return Courtesy(others_wait, self.of.resolver.config.max_wait or inf)

    def _via(self) -> bytes:
        """Return the request's ``Via`` with this daemon at its end."""
        return b"%b, %b" % (self._before, self.of.us) if self._before else self.of.us

    def _refuse_loop(self) -> None:
        """Refuse a request that this daemon has forwarded before, since the loop would not end.

        Raises:
            BadRequest: a peer, or a model's ``proxy``, leads back to this daemon.
        """
        self._before = b", ".join([value for name, value in self.exchange.headers if name == VIA])
        if self.of.us in self._before:
            text = "the request is in a loop: a peer, or a model's proxy, leads back to llamadoze"
            raise BadRequest(text, status=508)

    async def _exchange(
        self,
        upstream: Upstream,
        headers: list[Header],
        question: Question,
        courtesy: Courtesy = NOBODY_ELSE,
    ) -> None:
        query, upgrades = self.exchange.query, self.exchange.is_raw
        if self.of.trace is not None:
            headers = self.of.trace(self.answer.call, upstream.origin, headers)
        request = Request(
            method=self.exchange.method.encode(),
            target=self.route.target + (b"?" + query if query else b""),
            headers=[*headers, *WEBSOCKET] if upgrades else headers,
            body=question.body,
            may_upgrade=upgrades,
        )
        with await upstream.exchange(request) as response:
            try:
                await self.answer.relay(response, self.incoming, courtesy)
            finally:
                if self.route.makes:
                    self.of.made_by.note(self.answer.first, self.answer.call.model)


def _pseudonym() -> bytes:
    """Return a name that no other daemon has (RFC 9110, 7.6.3)."""
    return f"1.1 llamadoze-{random.getrandbits(48):012x}".encode()


async def _cause(server: ModelServer, error: UpstreamError) -> UpstreamError:
    """Return why an answer broke off. The reason may be the end of the model's process."""
    with trio.move_on_after(DEATH_IS_KNOWN):
        snapshot = await server.reached(ENDED)
        what = f"failed: {snapshot.failure}" if snapshot.failure else "was stopped in mid-answer"
        return ModelDied(f"model '{snapshot.model}' {what}")
    return error
