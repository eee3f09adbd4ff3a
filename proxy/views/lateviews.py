"""Loads the views with the first request for one, in a thread, so that streams go on meanwhile.

Owns when Quart is imported. A daemon that only forwards never needs it. Without it, the daemon
starts in a third less time and uses a quarter less memory. `composition` has the views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from configschema import ApiKey
from proxy.http.errors import INTERNAL, Problem
from proxy.http.exchange import Exchange
from proxy.http.headers import Header
from proxy.views.subjects import Subjects
from proxy.views.throughasgi import serve

if TYPE_CHECKING:  # it is loaded late
    from quart_trio import QuartTrio

FAULT = Problem(500, INTERNAL)

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.define(eq=False)
class Views:
    """The daemon's own routes."""

    _subjects: Subjects
    _application: QuartTrio | None = attrs.field(default=None, init=False)
    _asked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _tried: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def load_when_asked(self) -> None:
        """Wait for the first request, and load the views. If that fails, retry with the next."""
        while self._application is None:
            await self._asked.wait()
            try:
                self._application = await self._loaded()
            except Exception:  # models must go on in any case
                log.exception(
                    "The daemon's own routes cannot be loaded and answer 500. Models are served. "
                    "If llamadoze or Python was reinstalled meanwhile, restart llamadoze"
                )
            self._asked, tried, self._tried = trio.Event(), self._tried, trio.Event()
            tried.set()

    async def _loaded(self) -> QuartTrio:
        try:
            return await trio.to_thread.run_sync(self._load)
        except RuntimeError:  # there is no thread left
            return self._load()

    def _load(self) -> QuartTrio:
        from proxy.views.composition import quart_application

        return quart_application(self._subjects)

    async def serve(
        self, exchange: Exchange, path: str, marks: Sequence[Header], key: ApiKey
    ) -> None:
        """Let a view answer.

        Args:
            exchange: the request and its answer.
            path: of the view, in its plain spelling.
            marks: headers that are added to the answer.
            key: the API key of the request.
        """
        if self._application is None:
            self._asked.set()
            await self._tried.wait()
        if self._application is not None:
            await serve(self._application, exchange, path, marks, key)
        else:
            await exchange.say(500, [*FAULT.fields(), *marks], FAULT.body())
