"""The daemon without its command line, in the test's own process, with stub model servers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any

import attrs
import trio
import yaml
from hypercorn.config import Config as HypercornConfig

from configschema import Limits, parse
from proxy.daemon.application import open_application
from proxy.forwarding.modelcalls import CONTACT
from proxy.history.keeping import History
from proxy.http.addresses import Address, open_listeners
from proxy.http.listening import serve_http
from proxy.lifecycle.reloading import Reloader
from proxy.observing.counters import Metrics
from proxy.observing.logbook import LogBook
from supervisor import Supervisor, open_supervisor
from supervisor.states.journal import Journals
from tests.conftest import stub_command
from tests.ports import free_port

CURL = "curl -fsS -X POST http://127.0.0.1:${PORT}"


@attrs.define(eq=False)
class Daemon:
    port: int
    supervisor: Supervisor
    stop: trio.Event
    book: LogBook
    history: History

    def pid(self, model: str) -> int | None:
        return self.supervisor.servers[model].snapshot().pid

    def in_use(self, model: str) -> bool:
        """Whether a request is in flight to the model or waits for the model."""
        usage = self.supervisor.servers[model].usage
        return usage.in_flight > 0 or usage.waiting > 0

    def state(self, model: str) -> str:
        return self.supervisor.servers[model].snapshot().state.value


def stub(*options: str, sleeps: bool = False, **keys: object) -> dict[str, object]:
    """Return a model served by the stub."""
    body: dict[str, object] = {
        "cmd": stub_command("--port", "${PORT}", *options),
        "proxy": "http://127.0.0.1:${PORT}",
        **keys,
    }
    if sleeps:
        body |= {"cmdSleep": f"{CURL}/sleep?level=1", "cmdWake": f"{CURL}/wake_up"}
    return body


@asynccontextmanager
async def daemon(
    models: dict[str, Any],
    *,
    grace: float = 1,
    keep_alive: float = 75,
    limits: dict[str, Limits] | None = None,
    tls: ssl.SSLContext | None = None,
    **settings_of_all: Any,
) -> AsyncIterator[Daemon]:
    """Serve these models until the block ends."""
    whole = {"startPort": free_port(), "models": models, **settings_of_all}
    config = parse(yaml.safe_dump(whole)).config
    listeners = await open_listeners(Address("127.0.0.1", 0))
    settings = HypercornConfig()
    settings.keep_alive_timeout = keep_alive
    stop = trio.Event()
    metrics, book, journals = Metrics(), LogBook(), Journals()
    async with (
        open_supervisor(config, CONTACT, limits, journal=journals) as supervisor,
        trio.open_nursery() as nursery,
    ):
        with open_application(supervisor, Reloader(None, supervisor), metrics, book, stop) as app:
            journals.all = (metrics, book, app.history.recorder, app)
            nursery.start_soon(app.run, stop)
            nursery.start_soon(
                partial(
                    serve_http,
                    app.handle,
                    listeners,
                    stop=stop,
                    grace=grace,
                    config=settings,
                    tls=tls,
                    patience=lambda: config.client_timeout or inf,
                )
            )
            port = listeners[0].socket.getsockname()[1]
            yield Daemon(port, supervisor, stop, book, app.history)
        nursery.cancel_scope.cancel()
