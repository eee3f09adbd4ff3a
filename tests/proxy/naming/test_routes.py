"""Which requests go to a model, and which model name a path begins with."""

from __future__ import annotations

import pytest

from proxy.naming.routes import NamedIn, methods_of, model_in_path, route_of


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/chat/completions", b"/v1/chat/completions"),
        ("/v/chat/completions", b"/chat/completions"),
        ("/v/messages/count_tokens", b"/messages/count_tokens"),
        ("/audioapi/v1/tasks/run", b"/v1/tasks/run"),
        ("/infill", b"/infill"),
        ("/v1/images/edits", b"/v1/images/edits"),
        ("/sdapi/v1/img2img", b"/sdapi/v1/img2img"),
    ],
)
def test_posted_requests_go_to_their_path(path: str, target: bytes) -> None:
    """Two families of routes lose a prefix."""
    route = route_of("POST", path)
    assert route
    assert (route.target, route.named_in) == (target, NamedIn.BODY)
    assert methods_of(path) >= {"POST"}


def test_some_are_asked_for_by_query() -> None:
    """Only the query names the model; HEAD works like GET without a body."""
    for path in ("/props", "/v1/audio/voices", "/sdapi/v1/loras"):
        for method in ("GET", "HEAD"):
            route = route_of(method, path)
            assert route
            assert route.named_in is NamedIn.QUERY


def test_everything_else_is_no_models_business() -> None:
    """A forwarded path with another method does not go to a model either."""
    assert route_of("GET", "/v1/chat/completions") is None
    assert route_of("POST", "/v1/models") is None
    assert methods_of("/nonsense") == set()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"a/x/y", ("a", b"/x/y")),
        (b"a", ("a", b"")),
        (b"org/b/x", ("org/b", b"/x")),
        (b"org%2Fb/x%2Fy", ("org/b", b"/x%2Fy")),
        (b"org/b%2fc/x", ("org/b/c", b"/x")),
        (b"org/bb/x", None),
        (b"ab", None),
        (b"%61/x", ("a", b"/x")),
        (b"", None),
    ],
)
def test_the_longest_name_that_a_path_begins_with_is_the_models(
    path: bytes, found: tuple[str, bytes] | None
) -> None:
    """Only whole segments match; the rest of the path keeps its escapes."""
    assert model_in_path(path, ["a", "org/b", "org/b/c"]) == found
