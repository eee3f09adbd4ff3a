"""Leases over HTTP: taken, shown, renewed and given back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from tests.peers.client import ask
from tests.proxy.daemon import daemon, stub
from tests.proxy.views.test_views import messages, reading, until

ROUTE = "/api/leases"


def wanted(**keys: object) -> dict[str, Any]:
    return {"model": "a", "seconds": 600, "holder": "ci", **keys}


async def test_a_lease_is_taken_shown_renewed_and_given_back() -> None:
    """A lease wakes its model and keeps its room; other requests get a Retry-After."""
    async with daemon({"a": stub(sleeps=True, aliases=["gpt"]), "b": stub()}) as running:
        port = running.port
        taken = await ask(port, "POST", ROUTE, wanted(model="gpt", reason="nightly"))
        lease = taken.json()
        assert (taken.status, running.state("a")) == (201, "ready")
        assert (lease["model"], lease["holder"], lease["reason"]) == ("a", "ci", "nightly")
        ends = datetime.fromisoformat(lease["expires"])
        assert 595 < lease["left"] <= 600
        assert 590 < (ends - datetime.now(UTC)).total_seconds() <= 600
        refused = await ask(port, "POST", "/v1/completions", {"model": "b"})
        assert (refused.status, refused.json()["error"]["code"]) == (503, "no_room")
        assert 590 < int(refused.headers["retry-after"]) <= 600
        assert "lease of ci: nightly" in refused.json()["error"]["message"]
        again = await ask(port, "POST", ROUTE, wanted(seconds=2000))
        assert (again.status, again.json()["id"]) == (200, lease["id"])
        assert again.json()["left"] > 1990
        rows = (await ask(port, "GET", ROUTE)).json()["leases"]
        assert [row["id"] for row in rows] == [lease["id"]]
        one = (await ask(port, "GET", f"{ROUTE}/{lease['id']}")).json()
        assert one["reason"] == "nightly"
        assert (await ask(port, "DELETE", f"{ROUTE}/{lease['id']}")).json() == {"msg": "ok"}
        for method in ("GET", "DELETE"):
            gone = await ask(port, method, f"{ROUTE}/{lease['id']}")
            assert gone.status == 404
        assert (await ask(port, "POST", "/v1/completions", {"model": "b"})).status == 200


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ([], 400, None),
        (wanted(model=None), 400, "model"),
        (wanted(model="nobody"), 404, "model"),
        (wanted(seconds=0.5), 400, "seconds"),
        (wanted(seconds=7 * 86400 + 1), 400, "seconds"),
        (wanted(seconds=True), 400, "seconds"),
        (wanted(seconds="600"), 400, "seconds"),
        (wanted(seconds=float("nan")), 400, "seconds"),
        (wanted(holder=None), 400, "holder"),
        (wanted(holder=" "), 400, "holder"),
        (wanted(holder="a\nb"), 400, "holder"),
        (wanted(holder="x" * 201), 400, "holder"),
        (wanted(reason=7), 400, "reason"),
    ],
)
async def test_what_cannot_be_leased(body: Any, status: int, param: str | None) -> None:
    """The error names the key, and no model starts."""
    async with daemon({"a": stub()}) as running:
        reply = await ask(running.port, "POST", ROUTE, body)
        assert (reply.status, reply.json()["error"]["param"]) == (status, param)
        assert running.state("a") == "stopped"


async def test_a_client_that_leaves_before_has_taken_nothing() -> None:
    """The model starts nevertheless, because the client requested it."""
    async with daemon({"a": stub("--ready-after", "1")}) as running:
        with trio.move_on_after(0.5):
            await ask(running.port, "POST", ROUTE, wanted())
        with trio.fail_after(5):
            while running.state("a") != "ready":
                await trio.sleep(0.02)
        assert (await ask(running.port, "GET", ROUTE)).json() == {"leases": []}


async def test_a_model_that_fails_is_not_leased() -> None:
    """The error is the same as that of a load."""
    async with daemon({"a": stub("--exit", "3")}) as running:
        reply = await ask(running.port, "POST", ROUTE, wanted())
        assert (reply.status, reply.json()["error"]["code"]) == (502, "model_failed")
        assert (await ask(running.port, "GET", ROUTE)).json() == {"leases": []}


async def test_events_tell_of_leases() -> None:
    """The first event lists all leases; later events report each grant, renewal and end."""
    async with daemon({"a": stub()}) as running:
        first = (await ask(running.port, "POST", ROUTE, wanted(holder="me"))).json()
        async with reading(running.port, "/api/events") as client:
            told = messages(await until(client, b"inflight"))
            [listed] = [data for kind, data in told if kind == "lease"]
            assert [row["holder"] for row in listed["leases"]] == ["me"]
            await ask(running.port, "POST", ROUTE, wanted(holder="me"))
            await ask(running.port, "POST", ROUTE, wanted(seconds=1))
            text = await until(client, b"ended")
            steps = [data for kind, data in messages(text) if kind == "lease"]
    assert [(one["operation"], one["lease"]["holder"]) for one in steps] == [
        *(("renewed", "me"), ("granted", "ci"), ("ended", "ci")),
    ]
    assert steps[0]["lease"]["id"] == first["id"]


async def test_a_key_that_may_only_read_takes_no_lease() -> None:
    """The key may list the leases."""
    keys = [{"key": "full"}, {"key": "look", "read": True}]
    async with daemon({"a": stub()}, apiKeys=keys) as running:
        headers = {"authorization": "Bearer look"}
        for method, path in (("POST", ROUTE), ("DELETE", f"{ROUTE}/1")):
            reply = await ask(running.port, method, path, wanted(), headers)
            assert (reply.status, reply.json()["error"]["code"]) == (403, "read_only_key")
        assert (await ask(running.port, "GET", ROUTE, b"", headers)).json() == {"leases": []}
        assert (await ask(running.port, "GET", ROUTE)).status == 401
