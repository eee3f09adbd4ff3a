"""One request to a model and its answer back, byte for byte.

Owns the order: read what names the model, find who answers, wait for it, exchange, stream. A client
that leaves cancels all of it, wherever it stands. Nothing that is opened here outlives the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import trio

from configschema import Filters
from proxy.forwarding.answer import Answer, Send
from proxy.forwarding.filters import apply_filters
from proxy.forwarding.inflight import Call, InFlight
from proxy.forwarding.loading import Narrated, Narration
from proxy.forwarding.pools import Pools
from proxy.forwarding.questions import Question, read_question
from proxy.http.bodies import Incoming, Receive
from proxy.http.errors import EXPECTED, BadRequest, problem_of
from proxy.http.exchange import CANCELS, UPGRADES
from proxy.http.headers import Header, to_peer, to_upstream, value_of
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


@attrs.define(eq=False)
class Forwarder:
    """Forward requests to models.

    Attributes:
        supervisor: our models.
        resolver: finds who answers to a name.
        pools: connections.
        in_flight: lists what is being forwarded.
        report: told of every request that has ended.
    """

    supervisor: Supervisor
    resolver: Resolver
    pools: Pools
    in_flight: InFlight
    report: Report

    async def forward(
        self, scope: Scope, receive: Receive, send: Send, route: Route, request_id: str
    ) -> None:
        """Serve one request from its ASGI scope to the end of its response."""
        client = scope["client"][0] if scope.get("client") else ""
        call = Call(request_id, scope["method"], scope["path"], scope["headers"], client)
        answer = Answer(send, call, route.dialect)
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

    async def run(self) -> None:
        """Answer it, with the model's words or with why there are none."""
        try:
            limits = self.of.resolver.limits
            question = await read_question(self.route, self.scope, self.incoming, limits)
            self.answer.call.model = question.model
            try:
                await self._ask(question)
            finally:
                question.close()
        except EXPECTED as error:
            await self.answer.refuse(problem_of(error))

    async def _ask(self, question: Question) -> None:
        with self.of.resolver.choose(question.model) as target:
            call = self.answer.call
            call.model, call.known = target.id, True
            call.cancel = self.scope["extensions"][CANCELS]["cancel"]
            self.of.in_flight.add(call)
            if isinstance(target, Local):
                await self._ask_model(question, target)
            else:
                self._rewrite(question, target.peer.filters, target.id, target.name)
                upstream = self.of.pools.of_peer(target.peer_id, target.peer)
                headers = to_peer(
                    self._headers(),
                    upstream.origin.authority,
                    target.peer.api_key,
                    call.request_id.encode(),
                )
                await self._exchange(upstream, headers, question)

    async def _ask_model(self, question: Question, target: Local) -> None:
        server = self.of.supervisor.server(target.model.id)
        self._refuse_to_start(server)
        try:
            async with self._lease(question, server):
                call = self.answer.call
                call.waited = trio.current_time() - call.began
                # A reload may have given it other settings meanwhile.
                self._rewrite(
                    question,
                    server.model.filters,
                    target.name,
                    server.model.use_model_name or target.name,
                )
                upstream = self.of.pools.of_model(server)
                await self._exchange(upstream, self._headers_of_ours(upstream), question)
        except UpstreamError as error:
            raise await _cause(server, error) from error

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

    def _rewrite(self, question: Question, filters: Filters, asked: str, name: str) -> None:
        """Apply the filters, and let the body name the model as its server knows it."""
        if not self.route.filtered:
            return
        changed = question.data is not None and apply_filters(question.data, filters, asked)
        if changed or name != question.model:
            question.rewrite(name)

    @property
    def _wants_websocket(self) -> bool:
        return self.route.named_in is NamedIn.PATH and UPGRADES in self.scope["extensions"]

    def _headers(self) -> list[Header]:
        return self.of.resolver.keys.without(self.scope["headers"])

    def _headers_of_ours(self, upstream: Upstream) -> list[Header]:
        call = self.answer.call
        headers = to_upstream(self._headers(), call.client, call.request_id.encode())
        if not value_of(headers, b"host"):  # HTTP/1.0; HTTP/1.1 must have one
            headers.append((b"host", upstream.origin.authority.encode()))
        return headers

    async def _exchange(
        self, upstream: Upstream, headers: list[Header], question: Question
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
            await self.answer.relay(response, self.incoming)


async def _cause(server: ModelServer, error: UpstreamError) -> UpstreamError:
    """Return why an answer broke off: the end of the model's process, if that was it."""
    with trio.move_on_after(DEATH_IS_KNOWN):
        snapshot = await server.reached(ENDED)
        what = f"failed: {snapshot.failure}" if snapshot.failure else "was stopped in mid-answer"
        return ModelDied(f"model '{snapshot.model}' {what}")
    return error
