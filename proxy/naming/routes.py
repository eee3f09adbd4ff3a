"""Which requests go to a model, and where each of them names it. Pure functions.

Owns the table of the forwarded routes, which is llama-swap's. What is read from where is in
`questions`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from urllib.parse import unquote_to_bytes

import attrs

from proxy.naming import dialects
from proxy.naming.dialects import Dialect


class NamedIn(Enum):
    """Where a request names its model."""

    BODY = "the body"
    QUERY = "the query"
    PATH = "the path"


@attrs.frozen
class Route:
    """How a request is forwarded.

    Attributes:
        target: where it goes on the model server, without the query.
        named_in: where its model is named.
        dialect: how its API says things in a stream.
        filtered: whether the model's filters apply.
        model: the model's name, if the path has it.
        patience: whether it waits until the model is ready, and lets it start for that.
    """

    target: bytes
    named_in: NamedIn = NamedIn.BODY
    dialect: Dialect = dialects.PLAIN
    filtered: bool = True
    model: str = ""
    patience: bool = True


INFERENCE: dict[str, Dialect] = {
    "chat/completions": dialects.CHAT,
    "completions": dialects.COMPLETIONS,
    "messages": dialects.MESSAGES,
    "messages/count_tokens": dialects.PLAIN,
    "responses": dialects.RESPONSES,
    "embeddings": dialects.PLAIN,
    "rerank": dialects.PLAIN,
    "reranking": dialects.PLAIN,
}
OTHERS = (
    *("/rerank", "/reranking", "/infill", "/completion"),
    *("/v1/audio/speech", "/v1/audio/voices", "/v1/audio/transcriptions"),
    *("/v1/images/generations", "/v1/images/edits", "/sdapi/v1/txt2img", "/sdapi/v1/img2img"),
)
QUERIED = ("/v1/audio/voices", "/sdapi/v1/loras", "/props")
COMFY = "/comfyui"
COMFY_MODEL = "comfyui_auto"


def _posted() -> dict[str, Route]:
    routes = {path: Route(path.encode()) for path in OTHERS}
    for name, dialect in INFERENCE.items():
        routes[f"/v1/{name}"] = Route(b"/v1/" + name.encode(), dialect=dialect)
        routes[f"/v/{name}"] = Route(b"/" + name.encode(), dialect=dialect)
    routes["/audioapi/v1/tasks/run"] = Route(b"/v1/tasks/run")
    return routes


POSTED = _posted()
ASKED = {path: Route(path.encode(), NamedIn.QUERY, filtered=False) for path in QUERIED}


def route_of(method: str, path: str) -> Route | None:
    """Return how a request is forwarded; None if it is not for a model."""
    if method == "POST":
        return POSTED.get(path)
    if method in ("GET", "HEAD"):
        return ASKED.get(path)
    return None


def methods_of(path: str) -> set[str]:
    """Return the methods with which a path is forwarded; none if it never is."""
    asked = {"GET", "HEAD"} if path in ASKED else set()
    return asked | ({"POST"} if path in POSTED else set())


def model_in_path(path: bytes, names: Iterable[str]) -> tuple[str, bytes] | None:
    """Return the longest name that a path begins with, and what follows it, as it was sent.

    Names may have slashes, escaped or not; they end where a segment of the path does.

    Args:
        path: below ``/upstream/``, as it was sent.
        names: of models, aliases and peers' models.
    """
    known = set(names)
    found: tuple[str, bytes] | None = None
    for end in _ends_of_segments(path):
        name = unquote_to_bytes(path[:end]).decode("utf-8", "replace")
        if name in known:
            found = name, path[end:]
    return found


def _ends_of_segments(path: bytes) -> list[int]:
    ends = [place for place, letter in enumerate(path) if letter == ord("/")]
    escaped = path.lower()
    start = escaped.find(b"%2f")
    while start >= 0:
        ends.append(start)
        start = escaped.find(b"%2f", start + 3)
    return sorted({*ends, len(path)})
