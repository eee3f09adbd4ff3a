"""Which requests go to a model, and where each of them names the model. Pure functions.

Owns the table of the forwarded routes, which is llama-swap's. `questions` reads the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

import attrs

from proxy.http.heads import as_text
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
        target: the path on the model server, without the query.
        named_in: where the request names its model.
        dialect: the form of messages and errors in streams of this API.
        filtered: whether the model's filters apply.
        model: the model's name, if the path has it.
        patience: whether the request starts the model, and waits until it is ready.
        makes: whether clients can later request the result by its id.
        made: that id; the request goes to the model that made the result, unless the query names
            another.
    """

    target: bytes
    named_in: NamedIn = NamedIn.BODY
    dialect: Dialect = dialects.PLAIN
    filtered: bool = True
    model: str = ""
    patience: bool = True
    makes: bool = False
    made: str = ""


LISTED = re.compile(r"(?:/v1)?/models(?:/.*)?", re.DOTALL)
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
    *("/rerank", "/reranking", "/infill", "/completion", "/v2/rerank"),
    *("/tokenize", "/detokenize", "/apply-template", "/pooling", "/classify", "/score"),
    *("/v1/score", "/v1/classify", "/v1/moderations", "/v1/responses/input_tokens"),
    *("/v1/audio/speech", "/v1/audio/voices", "/v1/audio/transcriptions"),
    *("/v1/audio/translations", "/v1/images/generations", "/v1/images/edits"),
    *("/v1/images/variations", "/v1/videos", "/sdapi/v1/txt2img", "/sdapi/v1/img2img"),
)
PROBES = ("/health", "/wol-health")
"""The routes that llamadoze answers as long as it answers any."""
QUERIED = ("/v1/audio/voices", "/sdapi/v1/loras", "/props", "/v1/realtime", "/v1/videos")
MAKING = ("/v1/responses", "/v1/videos")
# An id, or a path below it; no "." or "..", no characters that a server may read differently.
SEGMENT = r"(?!\.+(?:/|$))[A-Za-z0-9._~:-]+"
MADE = re.compile(rf"/v1/(?:responses|videos)/({SEGMENT})(?:/{SEGMENT})*")
SHORT = ("chat/completions", "completions", "embeddings", "messages", "responses")
LONGEST_ESCAPE = 3  # bytes that one byte of a name may take in a path
COMFY = "/comfyui"
COMFY_MODEL = "comfyui_auto"


def _posted() -> dict[str, Route]:
    routes = {path: Route(path.encode(), makes=path in MAKING) for path in OTHERS}
    for name, dialect in INFERENCE.items():
        routes[f"/v1/{name}"] = Route(
            b"/v1/" + name.encode(), dialect=dialect, makes=f"/v1/{name}" in MAKING
        )
        routes[f"/v/{name}"] = Route(b"/" + name.encode(), dialect=dialect)
    for name in SHORT:  # for clients whose base URL lacks /v1, which llama-server allows
        routes[f"/{name}"] = routes[f"/v1/{name}"]
    routes["/audioapi/v1/tasks/run"] = Route(b"/v1/tasks/run")
    return routes


POSTED = _posted()
ASKED = {path: Route(path.encode(), NamedIn.QUERY, filtered=False) for path in QUERIED}


def route_of(method: str, path: str) -> Route | None:
    """Return how a request is forwarded. None if it is not for a model."""
    if method == "POST" and (route := POSTED.get(path)):
        return route
    if method in ("GET", "HEAD") and (route := ASKED.get(path)):
        return route
    if found := MADE.fullmatch(path):
        return Route(path.encode(), NamedIn.QUERY, filtered=False, made=found[1])
    return None


def is_shared(method: str, path: str) -> bool:
    """Whether a request that llamadoze itself answers belongs to the model APIs."""
    return method in ("GET", "HEAD") and bool(LISTED.fullmatch(path))


def methods_of(path: str) -> set[str]:
    """Return the methods with which a path is forwarded, or none if it never is."""
    asked = {"GET", "HEAD"} if path in ASKED or path in PROBES else set()
    return asked | ({"POST"} if path in POSTED else set())


def model_in_path(path: bytes, names: Iterable[str]) -> tuple[str, bytes] | None:
    """Return the longest name at the beginning of a path, and the rest as it was sent.

    Names may have slashes, escaped or not. They end where a segment of the path ends.

    Args:
        path: below ``/upstream/``, as it was sent.
        names: of models, aliases and peers' models.
    """
    known = set(names)
    longest = LONGEST_ESCAPE * max((len(name.encode()) for name in known), default=0)
    found: tuple[str, bytes] | None = None
    for end in _ends_of_segments(path[: longest + LONGEST_ESCAPE], len(path)):
        name = as_text(path[:end])
        if name in known:
            found = name, path[end:]
    return found


def _ends_of_segments(path: bytes, whole: int) -> list[int]:
    """Return where segments end in the beginning of a path, with the end of the whole path."""
    ends = [place for place, letter in enumerate(path) if letter == ord("/")]
    escaped = path.lower()
    start = escaped.find(b"%2f")
    while start >= 0:
        ends.append(start)
        start = escaped.find(b"%2f", start + 3)
    return sorted({*ends, *([whole] if whole <= len(path) else [])})
