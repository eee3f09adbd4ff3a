"""What the daemon itself asks of a model server: whether it is ready, and to sleep or to wake.

Owns the form of these requests and which answers are good. How often and for how long they are made
is decided by the supervisor.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

import attrs
import trio

from configschema import Call, Model
from proxy.headers import Header
from proxy.origin import Origin
from proxy.parsing import UpstreamError
from proxy.upstream import Request, Response, Upstream

OK = 200  # llama-swap takes no other status for ready
MOST_SAID = 200  # characters of an answer that are shown
SLOWEST_TOKEN = 60  # seconds; compiling its kernels takes a model longer than it ever will again
ONE_TOKEN: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
}
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


async def answer_one_token(model: Model) -> str | None:
    """Let a model answer one token, so that its first user need not wait for what it does then.

    Returns why it did not, or None. A model of another kind than chat or text has nothing to say.
    """
    failure: str | None = None
    with trio.move_on_after(SLOWEST_TOKEN) as scope:
        for target, question in ONE_TOKEN.items():
            failure = await _ask_for_a_token(model, target, question)
            if failure is None:
                return None
    return f"no token within {SLOWEST_TOKEN}s" if scope.cancelled_caught else failure


async def _ask_for_a_token(model: Model, target: str, question: Mapping[str, object]) -> str | None:
    body = {"model": model.use_model_name or model.id, "max_tokens": 1, **question}
    try:
        async with _exchange("POST", Origin.of(model.proxy), target, json.dumps(body)) as response:
            if not 200 <= response.status < 300:
                return f"{target} answered {response.status}"
            while await response.read():
                pass
            return None
    except UpstreamError as error:
        return f"{target} failed: {error}"


async def _beginning(response: Response) -> str:
    """Return how a body begins, as one line that a terminal can show; it may never come."""
    text = b""
    with trio.move_on_after(LONGEST_WAIT):
        text = await response.read()
    printable = (sign if sign.isprintable() else " " for sign in text.decode(errors="replace"))
    return " ".join("".join(printable).split())[:MOST_SAID]


@asynccontextmanager
async def _exchange(
    method: str, origin: Origin, target: str, body: str = ""
) -> AsyncIterator[Response]:
    headers: list[Header] = [(b"host", origin.authority.encode()), (b"connection", b"close")]
    if body:
        headers.append((b"content-type", b"application/json"))
    path = quote(target, safe="/?&=%:;,+@!$'()*~[]#").encode()
    request = Request(method=method.encode(), target=path, headers=headers, body=body.encode())
    with await Upstream(origin, most_kept=0).exchange(request) as response:
        yield response
