"""Which requests are forwarded, and which model a request's body names. Pure functions."""

from __future__ import annotations

import json
from typing import Any

from proxy.errors import BadRequest

FORWARDED = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/responses",
    }
)


def is_forwarded(method: str, path: str) -> bool:
    """Whether a request goes to a model server."""
    return method == "POST" and path in FORWARDED


def model_named(body: bytes) -> str:
    """Return what the body's ``model`` says.

    Raises:
        BadRequest: the body is no JSON object, or names no model.
    """
    model = _object(body).get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest('the request names no model: give "model" as a text', code="missing_model")
    return model


def with_model(body: bytes, model: str) -> bytes:
    """Return the body with another ``model``, for ``useModelName``; the rest keeps its meaning."""
    return json.dumps({**_object(body), "model": model}).encode()


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise BadRequest("the body is not a JSON object", code="invalid_json")
    return data
