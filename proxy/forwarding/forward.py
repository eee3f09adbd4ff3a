"""One request to a model and its answer back, byte for byte.

Owns the order: read what names the model, find who answers, wait for it, exchange, stream. A client
that leaves cancels all of it, wherever it stands. Nothing that is opened here outlives the call.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

import attrs
import trio

from configschema import Filters
from proxy.forwarding.answer import Answer, Send
from proxy.forwarding.filters import edits_of
from proxy.forwarding.inflight import Call, InFlight
from proxy.forwarding.loading import Narrated, Narration
from proxy.forwarding.madeby import MadeBy
from proxy.forwarding.pools import Pools
from proxy.forwarding.questions import Question, read_question
from proxy.forwarding.tunnel import NOBODY_ELSE, Courtesy
from proxy.http.bodies import Budget, Incoming, Receive
from proxy.http.errors import EXPECTED, BadRequest, problem_of
from proxy.http.exchange import CANCELS, UPGRADES
from proxy.http.headers import VIA, Header, to_peer, to_upstream, value_of
from proxy.http.parsing import ModelDied, UpstreamError
from proxy.http.upstream import Request, Upstream
from proxy.naming.directory import Local
from proxy.naming.resolving import Resolver
from proxy.naming.routes import NamedIn, Route
from supervisor import State, Supervisor
from supervisor.model.server import ModelServer
from supervisor.scheduling.scheduler import Turn
from supervisor.states.table import ENDED

WEBSOCKET = ((b"connection", b"upgrade"), (b"upgrade", b"websocket"))
DEATH_IS_KNOWN = 0.5  # seconds from a broken connection until its process's end is seen

Scope = Any
"""An ASGI scope."""
Report = Callable[[Call, Answer], None]


@attrs.frozen
class Visit:
    """What was found out of a request before it is forwarded.

    Attributes:
        request_id: of its lines in the log.
        key: the name of the API key that it showed.
        cors: headers that say who may read the answer.
    """

    request_id: str
    key: str
    cors: Sequence[Header]


@attrs.define(eq=False)
class Forwarder:
    """Forward requests to models.

    Attributes:
        supervisor: our models.
        resolver: finds who answers to a name.
        pools: connections.
        in_flight: lists what is being forwarded.
        report: told of every request that has ended.
        bodies: what all that are held take.
        made_by: who has made what is asked for later by its id.
        us: how this daemon calls itself in ``Via``, by which it knows its own requests.
    """

    supervisor: Supervisor
    resolver: Resolver
    pools: Pools
    in_flight: InFlight
    report: Report
    bodies: Budget = attrs.field(factory=Budget, init=False)
    made_by: MadeBy = attrs.field(factory=MadeBy, init=False)
    us: bytes = attrs.field(factory=lambda: _pseudonym(), init=False)

    async def forward(
        self, scope: Scope, receive: Receive, send: Send, route: Route, visit: Visit
    ) -> None:
        """Serve one request from its ASGI scope to the end of its response."""
        client = scope["client"][0] if scope.get("client") else ""
        call = Call(
            visit.request_id, scope["method"], scope["path"], scope["headers"], client, visit.key
        )
        answer = Answer(send, call, route.dialect, visit.cors)
        errand = _Errand(self, scope, Incoming.of(scope["headers"], receive), answer, route)
        try:
            await errand.run()
            await answer.finish()
        finally:
            self.in_flight.remove(call)
            self.report(call, answer)


@attrs.define(eq=False)
class _Errand:
    """What is done for one request."""

    of: Forwarder
    scope: Scope
    incoming: Incoming
    answer: Answer
    route: Route
    _before: bytes = attrs.field(default=b"", init=False)

    async def run(self) -> None:
        """Answer it, with the model's words or with why there are none."""
        limits = self.of.resolver.now.limits
        try:
            self._refuse_loop()
            self.of.bodies.limit = limits.all_held
            with self.of.bodies.holding() as holding:
                question = await read_question(
                    self._way(), self.scope, self.incoming, limits, holding
                )
                self.answer.call.model = question.model
                try:
                    await self._ask(question)
                finally:
                    question.close()
        except EXPECTED as error:
            await self.answer.refuse(problem_of(error))

    def _way(self) -> Route:
        """Return the route, with the model that made what is asked for by its id."""
        if not self.route.made:
            return self.route
        return attrs.evolve(self.route, model=self.of.made_by.model_of(self.route.made))

    async def _ask(self, question: Question) -> None:
        with self.of.resolver.choose(question.model) as target:
            call = self.answer.call
            call.model, call.known = target.id, True
            call.cancel = self.scope["extensions"][CANCELS]["cancel"]
            self._refuse_beyond_limit()
            self.of.in_flight.add(call)
            if isinstance(target, Local):
                await self._ask_model(question, target)
            else:
                await self._rewrite(question, target.peer.filters, target.id, target.name)
                upstream = self.of.pools.of_peer(target.peer_id, target.peer)
                headers = to_peer(
                    self._headers(),
                    upstream.origin.authority,
                    target.peer.api_key,
                    call.request_id.encode(),
                    self._via(),
                )
                await self._exchange(upstream, headers, question)

    async def _ask_model(self, question: Question, target: Local) -> None:
        if self.route.made:
            self.of.resolver.now.refuse_control(target.model.id, self.route.target)
        server = self.of.supervisor.server(target.model.id)
        self._refuse_to_start(server)
        async with self._lease(question, server):
            call = self.answer.call
            call.waited = trio.current_time() - call.began
            self.answer.source = server.usage
            try:
                await self._ask_server(question, target.name, server)
            except UpstreamError as error:
                server.usage.suspect()  # it may live and not serve, as behind a wrapper
                raise await _cause(server, error) from error

    async def _ask_server(self, question: Question, asked: str, server: ModelServer) -> None:
        # A reload may have given it other settings meanwhile.
        model = server.model
        await self._rewrite(question, model.filters, asked, model.use_model_name or asked)
        upstream = self.of.pools.of_model(server)
        headers = self._headers_of_ours(server, upstream)
        courtesy = self._courtesy(server) if self._wants_websocket else NOBODY_ELSE
        await self._exchange(upstream, headers, question, courtesy)

    def _refuse_to_start(self, server: ModelServer) -> None:
        """Refuse what is not worth a start: files of pages, for the model's own page is closed.

        Raises:
            BadRequest: the model is not ready.
        """
        patience = self.route.patience
        if self._wants_websocket and server.model.compat.ignore_websockets:
            patience = False
        if not patience and server.snapshot().state is not State.READY:
            name = server.model.id
            text = f"model '{name}' is not ready, and {self.scope['path']} does not start it"
            raise BadRequest(text, status=409)

    def _lease(self, question: Question, server: ModelServer) -> Turn | Narrated:
        """Return the way to a lease; the client may read meanwhile how the model comes up."""
        turn = self.of.supervisor.lease(server.model.id)
        if question.stream and self._is_narrated(server):
            narration = Narration(self.of.supervisor, self.answer, server, question.model)
            return Narrated(turn, narration)
        return turn

    def _is_narrated(self, server: ModelServer) -> bool:
        wanted = server.model.send_loading_state
        if wanted is None:
            wanted = self.of.resolver.config.send_loading_state
        has_words = self.answer.dialect.note is not None
        return wanted and has_words and not server.is_serving

    async def _rewrite(self, question: Question, filters: Filters, asked: str, name: str) -> None:
        """Apply the filters, and let the body name the model as its server knows it."""
        if not self.route.filtered:
            return
        edits = edits_of(filters, asked)
        if edits or name != question.model:
            await question.rewrite(edits, name)

    @property
    def _wants_websocket(self) -> bool:
        return self.route.named_in is not NamedIn.BODY and UPGRADES in self.scope["extensions"]

    def _headers(self) -> list[Header]:
        return self.of.resolver.now.keys.without(self.scope["headers"])

    def _headers_of_ours(self, server: ModelServer, upstream: Upstream) -> list[Header]:
        call = self.answer.call
        request_id, via = call.request_id.encode(), self._via()
        headers = to_upstream(self._headers(), call.client, request_id, via)
        own = server.model.host_header
        if own or not value_of(headers, b"host"):  # HTTP/1.0; HTTP/1.1 must have one
            host = (own or upstream.origin.authority).encode()
            headers = [(b"host", host), *(pair for pair in headers if pair[0] != b"host")]
        if self.answer.status:  # what was said while the model loaded is not coded
            headers = [pair for pair in headers if pair[0] != b"accept-encoding"]
        return headers

    def _courtesy(self, server: ModelServer) -> Courtesy:
        others_wait = partial(self.of.supervisor.until_closed, server.model.id)
        return Courtesy(others_wait, self.of.resolver.config.max_wait or inf)

    def _via(self) -> bytes:
        """Return the way of the request so far, with us at its end."""
        return b"%b, %b" % (self._before, self.of.us) if self._before else self.of.us

    def _refuse_beyond_limit(self) -> None:
        """Refuse what is more than may be in service at once (``globalConcurrencyLimit``).

        Raises:
            BadRequest: as many are.
        """
        limit = self.of.resolver.config.global_concurrency_limit
        if 0 < limit <= len(self.of.in_flight):
            text = f"{limit} requests are in service, which is globalConcurrencyLimit"
            again = {"Retry-After": "1"}
            raise BadRequest(text, status=429, code="concurrency_limit", headers=again)

    def _refuse_loop(self) -> None:
        """Refuse a request that was here before: it would come again until nothing is left.

        Raises:
            BadRequest: a peer, or a model's ``proxy``, leads back here.
        """
        self._before = b", ".join([value for name, value in self.scope["headers"] if name == VIA])
        if self.of.us in self._before:
            text = "the request was here before: a peer, or a model's proxy, leads back here"
            raise BadRequest(text, status=508)

    async def _exchange(
        self,
        upstream: Upstream,
        headers: list[Header],
        question: Question,
        courtesy: Courtesy = NOBODY_ELSE,
    ) -> None:
        query, upgrades = self.scope["query_string"], self._wants_websocket
        request = Request(
            method=self.scope["method"].encode(),
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
    """Return why an answer broke off: the end of the model's process, if that was it."""
    with trio.move_on_after(DEATH_IS_KNOWN):
        snapshot = await server.reached(ENDED)
        what = f"failed: {snapshot.failure}" if snapshot.failure else "was stopped in mid-answer"
        return ModelDied(f"model '{snapshot.model}' {what}")
    return error
