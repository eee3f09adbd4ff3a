"""What the daemon itself asks of a model server: whether it is ready, and to sleep or to wake.

Owns the form of these requests and which answers are good. How often and for how long they are made
is decided by the supervisor.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from urllib.parse import quote, urlsplit

import attrs
import trio

from configschema import Call, Model
from proxy.headers import Header
from proxy.parsing import UpstreamError
from proxy.upstream import Origin, Response, Upstream

OK = 200  # llama-swap takes no other status for ready
MOST_SAID = 200  # characters of an answer that are shown
LONGEST_WAIT = 1  # seconds for the body of an answer whose status says enough


async def ask_if_ready(model: Model) -> str | None:
    """Return None if the model server answers its check with 200, else what it did instead."""
    target = "/" + model.check_endpoint.lstrip("/")
    try:
        async with _exchange("GET", Origin.of(model.proxy), target) as response:
            if response.status == OK:
                return None
            return f"{model.check_endpoint} answered {response.status}"
    except UpstreamError as error:
        return str(error)


async def make_call(step: Call) -> str | None:
    """Make one step into sleep or out of it; return None for a 2xx answer, else what it was."""
    url = urlsplit(step.url)
    origin = attrs.evolve(Origin.of(step.url), base_path="")
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        async with _exchange(step.method, origin, target, step.body) as response:
            if not 200 <= response.status < 300:
                said = await _beginning(response)
                return f"answered {response.status}" + (f" ({said})" if said else "")
            while await response.read():
                pass
            return None
    except UpstreamError as error:
        return f"failed: {error}"


async def _beginning(response: Response) -> str:
    """Return how a body begins, as one line that a terminal can show; it may never come."""
    text = b""
    with trio.move_on_after(LONGEST_WAIT):
        text = await response.read()
    printable = (sign if sign.isprintable() else " " for sign in text.decode(errors="replace"))
    return " ".join("".join(printable).split())[:MOST_SAID]


def _exchange(
    method: str, origin: Origin, target: str, body: str = ""
) -> AbstractAsyncContextManager[Response]:
    headers: list[Header] = [(b"host", origin.authority.encode()), (b"connection", b"close")]
    if body:
        headers.append((b"content-type", b"application/json"))
    path = quote(target, safe="/?&=%:;,+@!$'()*~[]#").encode()
    return Upstream(origin, most_kept=0).exchange(method.encode(), path, headers, body.encode())
