"""One request to a model server and its answer back, byte for byte.

Owns the order: read the body, wait for the model, exchange, stream. A client that leaves cancels
all of it, wherever it stands. Nothing that is opened here outlives the call.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import structlog
import trio

from proxy.answer import Answer, ClientGone, Receive, Send, read_body, while_client_waits
from proxy.errors import EXPECTED, problem_of
from proxy.parsing import UpstreamError
from proxy.routing import model_named, with_model
from proxy.upstream import Origin, Upstream, exchange_for
from supervisor import ModelFailed, Supervisor
from supervisor.durations import seconds
from supervisor.server import ModelServer
from supervisor.states import ENDED

DEATH_IS_KNOWN = 0.5  # seconds from a broken connection until its process's end is seen

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.define
class Request:
    """What the log says of a request.

    Attributes:
        what: method and path.
        began: on Trio's clock.
        model: the model's id, or the unknown name that was asked for.
    """

    what: str
    began: float
    model: str = ""

    def report(self, answer: Answer) -> None:
        """Write the request's line: served, refused with a reason, or ended early."""
        took = round(trio.current_time() - self.began, 3)
        facts = {"model": self.model, "status": answer.status, "duration_s": took}
        after = f"after {seconds(took)}"
        prefix = f"<{self.model}> " if self.model else ""
        if answer.problem:
            reason = answer.problem.message
            told = f"{prefix}{self.what} {answer.problem.status} {after}: {reason}"
            log.warning(told, **facts, reason=reason)
        elif answer.complete:
            log.info(f"{prefix}{self.what} {answer.status} {after}", **facts)
        else:
            why = "the client left, or was cut off"
            log.info(f"{prefix}{self.what} ended early {after}: {why}", **facts)


@attrs.define(eq=False)
class Forwarder:
    """Forward requests to the models of a supervisor."""

    supervisor: Supervisor
    _upstreams: dict[str, tuple[int | None, Upstream]] = attrs.field(factory=dict, init=False)

    def close(self) -> None:
        """Close the connections that are kept to model servers."""
        for _, upstream in self._upstreams.values():
            upstream.close()

    async def forward(self, scope: Any, receive: Receive, send: Send) -> None:  # noqa: ANN401 -- ASGI
        """Serve one request from its ASGI scope to the end of its response."""
        answer = Answer(send)
        request = Request(f"{scope['method']} {scope['path']}", trio.current_time())
        try:
            await self._serve(scope, receive, answer, request)
        finally:
            request.report(answer)

    async def _serve(
        self,
        scope: Any,  # noqa: ANN401 -- ASGI
        receive: Receive,
        answer: Answer,
        request: Request,
    ) -> None:
        try:
            body = await read_body(receive)
            request.model = model_named(body)
            request.model = self.supervisor.find(request.model).id
        except ClientGone:
            return
        except EXPECTED as error:
            await answer.refuse(problem_of(error))
        else:
            work = partial(self._answer, scope, request.model, body, answer)
            await while_client_waits(receive, work)
        await answer.finish()

    async def _answer(self, scope: Any, model: str, body: bytes, answer: Answer) -> None:  # noqa: ANN401 -- ASGI
        try:
            server = self.supervisor.server(model)
            async with self.supervisor.lease(model):
                if name := server.model.use_model_name:
                    body = with_model(body, name)
                upstream = self._upstream(server)
                async with exchange_for(scope, upstream, body) as response:
                    await answer.relay(response)
        except UpstreamError as error:
            await answer.refuse(problem_of(await self._cause(server, error)))
        except EXPECTED as error:
            await answer.refuse(problem_of(error))

    async def _cause(self, server: ModelServer, error: UpstreamError) -> Exception:
        """Return why an answer broke off: the end of the model's process, if that was it."""
        with trio.move_on_after(DEATH_IS_KNOWN):
            snapshot = await server.reached(ENDED)
            return ModelFailed(snapshot.model, snapshot.failure or "it was stopped in mid-answer")
        return error

    def _forget_removed(self) -> None:
        for name in self._upstreams.keys() - self.supervisor.servers.keys():
            _, upstream = self._upstreams.pop(name)
            upstream.close()

    def _upstream(self, server: ModelServer) -> Upstream:
        """Return the connections to the model's present process."""
        pid = server.snapshot().pid
        known, upstream = self._upstreams.get(server.model.id, (None, None))
        if upstream is None or known != pid:
            self._forget_removed()
            fresh = Upstream(Origin.of(server.model.proxy))
            self._upstreams[server.model.id] = (pid, fresh)
            if upstream is not None:
                upstream.close()
            return fresh
        return upstream
