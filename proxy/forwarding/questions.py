"""What a request asks for: which model, whether as a stream, and the body to pass on.

Owns reading a request's body, as much of it as is needed and no more: JSON is held and parsed, a
form is read up to its model, everything else goes on as it arrives.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import attrs

from proxy.forwarding.forms import FormUpload, boundary_of, read_form
from proxy.http.bodies import Incoming, Limits, hold
from proxy.http.errors import BadRequest
from proxy.http.exchange import UPGRADES
from proxy.http.headers import value_of
from proxy.http.upstream import Upload
from proxy.naming.routes import NamedIn, Route

MOST_FIELDS = 1000
BOM = b"\xef\xbb\xbf"

Scope = Any
"""An ASGI scope."""


@attrs.define(kw_only=True)
class Question:
    """A request, as far as it must be known to forward it.

    Attributes:
        model: the name it asks for.
        body: what is passed on.
        stream: whether the answer is wanted as a stream of events.
        data: the body's JSON, if that is what it is.
    """

    model: str
    body: bytes | Upload
    stream: bool = False
    data: dict[str, Any] | None = None

    def close(self) -> None:
        """Let go of what was kept of the body."""
        if isinstance(self.body, FormUpload):
            self.body.close()

    def rewrite(self, model: str) -> None:
        """Let the body name another model, and say what `data` has become."""
        if self.data is not None:
            self.data["model"] = model
            self.body = _written(self.data)
        elif isinstance(self.body, FormUpload):
            self.body.rename(model)


async def read_question(route: Route, scope: Scope, incoming: Incoming, limits: Limits) -> Question:
    """Read what is needed of a request.

    Raises:
        BadRequest: no model can be found in it, or it is too long.
    """
    if route.named_in is NamedIn.PATH:
        return Question(model=route.model, body=await _pass_on(scope, incoming, limits))
    if route.named_in is NamedIn.QUERY:
        asked = _first(scope["query_string"])
        question = Question(
            model=asked.get("model", ""),
            body=await _pass_on(scope, incoming, limits),
            stream=asked.get("stream") == "true",
        )
    else:
        question = await _read_body(scope, incoming, limits)
    if not question.model:
        question.close()
        raise no_model("give its name as 'model'")
    return question


def _written(data: dict[str, Any]) -> bytes:
    try:
        return json.dumps(data, allow_nan=False).encode()
    except (ValueError, RecursionError):
        text = "the body has a number too large, or is nested too deep, to be written again"
        raise BadRequest(text) from None


def no_model(remedy: str) -> BadRequest:
    """Return what is said to a request that names no model; llama-swap's status for it is 404."""
    return BadRequest(f"no model id could be identified: {remedy}", status=404, param="model")


async def _pass_on(scope: Scope, incoming: Incoming, limits: Limits) -> bytes | Upload:
    """Return the body as it arrives; a request without one has none to wait for."""
    names = {name for name, _ in scope["headers"]}
    if names & {b"content-length", b"transfer-encoding"}:
        return incoming.as_upload(limits.upload)
    # After the head of a websocket's request nothing ends: its bytes come later.
    return b"" if UPGRADES in scope["extensions"] else await incoming.read()


async def _read_body(scope: Scope, incoming: Incoming, limits: Limits) -> Question:
    kind = value_of(scope["headers"], b"content-type")
    lowered = kind.lower()
    if b"multipart/form-data" in lowered:
        form = await read_form(incoming, boundary_of(kind), limits.upload)
        return Question(
            model=form.model or _first(scope["query_string"]).get("model", ""), body=form
        )
    body = await hold(incoming, limits.held)
    # What curl -d sends says that it is a form, whatever it is.
    if b"json" in lowered or body.lstrip().startswith((b"{", BOM)):
        data = _object(body)
        if (model := _as_text(data.get("model"))) or b"json" in lowered:
            return Question(model=model, body=body, stream=data.get("stream") is True, data=data)
    fields = _first(scope["query_string"]) | _first(body)
    return Question(model=fields.get("model", ""), body=body)


def _as_text(model: object) -> str:
    """Return a model's name; a number is one, as in llama-swap."""
    if isinstance(model, str):
        return model
    return str(model) if type(model) in (int, float) else ""


def _first(encoded: bytes) -> dict[str, str]:
    """Return the fields of a query, or of a URL-encoded form; of several values the first."""
    try:
        return dict(reversed(parse_qsl(encoded.decode("latin-1"), max_num_fields=MOST_FIELDS)))
    except ValueError:  # to read millions of them would hold up everybody
        return {}


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body.removeprefix(BOM).decode())  # UTF-8, by RFC 8259
    except (ValueError, RecursionError) as error:
        raise no_model(f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise no_model("the body is not a JSON object")
    return data
