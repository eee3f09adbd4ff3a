"""The Quart-Trio application: the APIs around the models, and the way to the forwarded routes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from configschema import Model
from proxy.answer import Answer
from proxy.connection import Connection
from proxy.errors import BadRequest, Problem, problem_of
from proxy.forward import Forwarder
from proxy.inflight import Call, InFlight
from proxy.metrics import Metrics
from proxy.pools import Pools
from proxy.reloading import Reloader
from proxy.requestlog import report
from proxy.resolving import Resolver
from supervisor import Snapshot, State, Supervisor, SupervisorError

SLOWEST_BODY = 60  # seconds for a view's request body to arrive


class Application(QuartTrio):
    """Serve the models of a supervisor."""

    asgi_http_class = Connection

    def __init__(self, supervisor: Supervisor, reloader: Reloader, metrics: Metrics) -> None:
        super().__init__("llamadoze", static_folder=None)
        self.resolver = Resolver(supervisor)
        self.in_flight = InFlight()
        self.pools = Pools()
        self.forwarder = Forwarder(
            supervisor, self.resolver, self.pools, self.in_flight, partial(_account, metrics)
        )
        metrics.follow(supervisor, self.in_flight)
        # Quart cuts every response after 60 s by default, a stream or a slow wake in its middle.
        self.config.update(RESPONSE_TIMEOUT=None, BODY_TIMEOUT=SLOWEST_BODY)
        self.register_error_handler(SupervisorError, _say)
        self.register_error_handler(HTTPException, _say_http)
        self.register_error_handler(BadRequest, _say)
        self._add_views(supervisor)
        self._add_control(supervisor, reloader)

    def _add_views(self, supervisor: Supervisor) -> None:
        @self.get("/health")
        async def health() -> Response:
            return _plain_ok()

        @self.get("/v1/models")
        async def models() -> dict[str, Any]:
            listed = [m for m in supervisor.config.models.values() if not m.unlisted]
            return {"object": "list", "data": [_listing(m) for m in sorted(listed, key=_id)]}

        @self.get("/running")
        async def running() -> dict[str, Any]:
            return {"running": _standings(supervisor, supervisor.snapshots())}

        @self.post("/api/models/load/<path:name>")
        async def load(name: str) -> dict[str, Any]:
            return _standing(supervisor, await supervisor.load(name))

        @self.post("/api/models/wake/<path:name>")
        async def wake(name: str) -> dict[str, Any]:
            return _standing(supervisor, await supervisor.wake(name))

        @self.post("/api/models/sleep/<path:name>")
        async def sleep(name: str) -> dict[str, Any]:
            return _standing(supervisor, await supervisor.sleep(name))

        @self.post("/api/models/unload/<path:name>")
        async def unload(name: str) -> Response:
            await supervisor.unload(name)
            return _plain_ok()

    def _add_control(self, supervisor: Supervisor, reloader: Reloader) -> None:
        @self.post("/api/reload")
        async def reload() -> dict[str, Any]:
            return attrs.asdict(await reloader.reload())

        @self.get("/api/pause")
        async def paused() -> dict[str, Any]:
            return {"paused": supervisor.is_paused}

        @self.post("/api/pause")
        async def pause() -> dict[str, Any]:
            requests = request.args.get("requests", "hold")
            if requests not in ("hold", "refuse"):
                raise BadRequest(f"requests={requests}: expected hold or refuse", code="bad_value")
            stand = await supervisor.pause(refuse=requests == "refuse")
            return {"paused": supervisor.is_paused, "models": _standings(supervisor, stand)}

        @self.post("/api/resume")
        async def resume() -> dict[str, Any]:
            stand = await supervisor.resume()
            return {"paused": supervisor.is_paused, "models": _standings(supervisor, stand)}


@contextmanager
def open_application(
    supervisor: Supervisor, reloader: Reloader, metrics: Metrics
) -> Iterator[Application]:
    """Serve the models of a supervisor; leaving the block closes what was opened to them."""
    application = Application(supervisor, reloader, metrics)
    try:
        yield application
    finally:
        application.pools.close()


def _account(metrics: Metrics, call: Call, answer: Answer) -> None:
    """Log and count a request that has ended."""
    metrics.count(call, answer, trio.current_time())
    report(call, answer)


def _id(model: Model) -> str:
    return model.id


def _listing(model: Model) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "llamadoze",
    }
    if model.name:
        row["name"] = model.name
    if model.description:
        row["description"] = model.description
    return row


def _standings(supervisor: Supervisor, snapshots: list[Snapshot]) -> list[dict[str, Any]]:
    """Return the models that are not stopped."""
    shown = [one for one in snapshots if one.state is not State.STOPPED]
    return [_standing(supervisor, one) for one in shown if one.model in supervisor.servers]


def _standing(supervisor: Supervisor, snapshot: Snapshot) -> dict[str, Any]:
    """Return a model as ``/running`` shows it: llama-swap's keys, and what it has not."""
    server = supervisor.servers[snapshot.model]
    model, limits = server.model, server.limits
    return {
        "model": model.id,
        "state": snapshot.state.value,
        "cmd": model.cmd.text,
        "proxy": model.proxy,
        "ttl": limits.stop_ttl or limits.sleep_ttl,
        "sleepTtl": limits.sleep_ttl,
        "name": model.name,
        "description": model.description,
        "pid": snapshot.pid,
        "in_flight": snapshot.in_flight,
        "waiting": server.usage.waiting,
        "failure": snapshot.failure,
    }


def _plain_ok() -> Response:
    """Return what llama-swap answers."""
    return Response("OK", content_type="text/plain")


def _answer(problem: Problem) -> Response:
    fields, body = problem.said_to(request.headers.get("Accept", "").encode("latin-1", "replace"))
    headers = {name.decode(): value.decode("latin-1") for name, value in fields}
    return Response(body, problem.status, headers)


async def _say(error: SupervisorError | BadRequest) -> Response:
    return _answer(problem_of(error))


async def _say_http(error: HTTPException) -> Response:
    code = (error.name or "error").lower().replace(" ", "_")
    text = f"{request.method} {request.path}: {(error.name or 'error').lower()}"
    problem = Problem(error.code or 500, text, code)
    response = _answer(problem)
    if allowed := getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response
