"""Serves views through ASGI: translates an exchange to the scope and messages of ASGI for Quart.

Owns the translation (ASGI 3.0, HTTP 2.3). Requests that are forwarded to models do not use it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from configschema import ApiKey
from proxy.http.errors import NOT_FOR_CACHES
from proxy.http.exchange import Exchange
from proxy.http.headers import Header, value_of

NO_KEY = ApiKey()
NO_CONTENT = 204
NO_HOST: Header = (b"host", b"localhost")

Message = dict[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]


async def serve(
    application: Application,
    exchange: Exchange,
    path: str,
    marks: Sequence[Header],
    key: ApiKey = NO_KEY,
) -> None:
    """Let an ASGI application answer an exchange.

    Args:
        application: has the views.
        exchange: the request and its answer.
        path: of the view.
        marks: headers that are added to the answer.
        key: the API key of the request.
    """

    async def receive() -> Message:
        if exchange.all_read:
            await trio.sleep_forever()  # if the client disconnects, the call is cancelled
        body = await exchange.read()
        return {"type": "http.request", "body": body, "more_body": not exchange.all_read}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.begin(message["status"], _marked(message, marks))
            await exchange.flush()
        else:
            last = not message.get("more_body", False)
            await exchange.write(message.get("body", b""), last=last)

    await application(_scope(exchange, path, key), receive, send)


def _scope(exchange: Exchange, path: str, key: ApiKey) -> Message:
    # Quart makes addresses from the Host header, which we never need. Some values make it fail.
    headers = [NO_HOST, *(pair for pair in exchange.headers if pair[0] != b"host")]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": exchange.version,
        "method": exchange.method,
        "scheme": exchange.connection.scheme,
        "path": path,
        "raw_path": exchange.path.encode("utf-8", "surrogateescape"),
        "query_string": exchange.query,
        "root_path": "",
        "headers": headers,
        "client": exchange.connection.client,
        "server": exchange.connection.server,
        "state": {"key": key.name, "reads_only": key.read},
        "extensions": {},
    }


def _marked(message: Message, marks: Sequence[Header]) -> list[Header]:
    given = [*message["headers"]]
    if message["status"] == NO_CONTENT:  # such an answer has no length either (RFC 9110, 8.6)
        given = [pair for pair in given if pair[0] != b"content-length"]
    kept = [] if value_of(given, b"cache-control") else [NOT_FOR_CACHES]
    return [*given, *kept, *marks]
