"""One request to a model server and its answer back, byte for byte.

Owns the order: read the body, wait for the model, exchange, stream. A client that leaves cancels
all of it, wherever it stands. Nothing that is opened here outlives the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import structlog
import trio

from proxy.errors import EXPECTED, BadRequest, Problem, problem_of
from proxy.headers import is_event_stream, to_client, to_upstream
from proxy.routing import model_named, with_model
from proxy.upstream import Header, Origin, Response, Upstream
from supervisor import Supervisor
from supervisor.server import ModelServer

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

LARGEST_BODY = 64 * 1024 * 1024  # bytes held in memory for one request
MOST_DRAINED = 256 * 1024 * 1024  # bytes read and dropped, so that a refusal reaches the client

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


class ClientGone(Exception):
    """The client left before its request was complete."""


@attrs.define(eq=False)
class Answer:
    """The response on its way to a client.

    Attributes:
        send: the connection's ASGI send.
        status: of the response; 0 before it has begun.
        complete: whether all of the body but its end was sent.
    """

    send: Send
    status: int = 0
    complete: bool = False
    _events: bool = False

    async def relay(self, response: Response) -> None:
        """Pass a model server's answer on, as it arrives."""
        headers = to_client(response.headers)
        self._events = is_event_stream(headers)
        await self._begin(response.status, headers)
        async for chunk in response.chunks():
            await self._write(chunk)
        self.complete = True

    async def refuse(self, problem: Problem) -> None:
        """Tell the client of a problem, in whatever form is still possible."""
        if not self.status:
            body = problem.body()
            extra = [(k.lower().encode(), v.encode()) for k, v in problem.headers.items()]
            length = (b"content-length", b"%d" % len(body))
            await self._begin(
                problem.status, [(b"content-type", b"application/json"), length, *extra]
            )
            await self._write(body)
            self.complete = True
        elif self._events:
            await self._write(problem.event())
            self.complete = True
        # Otherwise the body stays without its end, which is how a client sees that it was cut.

    async def finish(self) -> None:
        """Send the end of the body.

        Call it where nothing cancels: hypercorn reports the end of a connection's use as a
        disconnect, before it has put the connection back into order.
        """
        if self.complete:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, status: int, headers: list[Header]) -> None:
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})


@attrs.define(eq=False)
class Forwarder:
    """Forward requests to the models of a supervisor."""

    supervisor: Supervisor
    _upstreams: dict[str, tuple[int | None, Upstream]] = attrs.field(factory=dict, init=False)

    async def forward(self, scope: Any, receive: Receive, send: Send) -> None:  # noqa: ANN401 -- ASGI
        """Serve one request from its ASGI scope to the end of its response."""
        answer = Answer(send)
        began = trio.current_time()
        model = ""
        try:
            body = await read_body(receive)
            model = self.supervisor.find(name := model_named(body)).id
        except ClientGone:
            return
        except EXPECTED as error:
            await answer.refuse(problem_of(error))
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                await self._answer(scope, name, body, answer)
                nursery.cancel_scope.cancel()
        await answer.finish()
        _report(scope, model, answer, trio.current_time() - began)

    async def _answer(self, scope: Any, name: str, body: bytes, answer: Answer) -> None:  # noqa: ANN401 -- ASGI
        try:
            async with self.supervisor.lease(name) as server:
                await self._exchange(scope, server, body, answer)
        except EXPECTED as error:
            await answer.refuse(problem_of(error))

    async def _exchange(
        self,
        scope: Any,  # noqa: ANN401 -- ASGI
        server: ModelServer,
        body: bytes,
        answer: Answer,
    ) -> None:
        if server.model.use_model_name:
            body = with_model(body, server.model.use_model_name)
        client = scope["client"][0] if scope.get("client") else None
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        target = scope["raw_path"] + query
        headers = to_upstream(scope["headers"], client)
        upstream = await self._upstream(server)
        async with upstream.exchange(b"POST", target, headers, body) as response:
            await answer.relay(response)

    async def _upstream(self, server: ModelServer) -> Upstream:
        """Return the connections to the model's present process."""
        pid = server.snapshot().pid
        known, upstream = self._upstreams.get(server.model.id, (None, None))
        if upstream is None or known != pid:
            fresh = Upstream(Origin.of(server.model.proxy))
            self._upstreams[server.model.id] = (pid, fresh)
            if upstream is not None:
                await upstream.close()
            return fresh
        return upstream


async def read_body(receive: Receive, limit: int = LARGEST_BODY) -> bytes:
    """Read a request's body.

    Raises:
        ClientGone: the client left before its end.
        BadRequest: it is longer than `limit` bytes.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        size += len(message["body"])
        if size <= limit:
            parts.append(message["body"])
        else:
            parts.clear()
        if not message.get("more_body") or size > MOST_DRAINED:
            break
    if size > limit:
        text = f"the body has more than {limit} bytes, the most that is accepted"
        raise BadRequest(text, status=413, code="body_too_large")
    return b"".join(parts)


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _report(scope: Any, model: str, answer: Answer, took: float) -> None:  # noqa: ANN401 -- ASGI
    what = f"{scope['method']} {scope['path']}"
    facts = {"model": model, "status": answer.status, "duration_s": round(took, 3)}
    prefix = f"<{model}> " if model else ""
    if answer.complete:
        log.info(f"{prefix}{what} {answer.status}", **facts)
    else:
        log.info(f"{prefix}{what} ended early: the client left or the answer broke off", **facts)
