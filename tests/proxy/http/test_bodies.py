"""How much memory bodies may take, and how slowly a body may arrive."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from proxy.http.bodies import LEAST_FLOW, PATIENCE, Budget, Incoming, Limits, Passed, hold
from proxy.http.errors import BadRequest
from tests.peers.client import Client, ask, chat
from tests.proxy.arriving import Arriving
from tests.proxy.daemon import daemon, stub


def dripping(size: int, pause: float, pieces: int = 10_000) -> Arriving:
    """Return a body that arrives in pieces of this size, with a pause before each piece."""
    return Arriving.of([b"x" * size] * pieces, pause)


def at_once(body: bytes) -> Incoming:
    return Incoming(Arriving.of([body]), len(body))


async def whole(passed: Passed) -> int:
    size = 0
    while piece := await passed.read():
        size += len(piece)
    return size


async def test_bodies_share_one_budget() -> None:
    """The second body gets a 503 with Retry-After; the first body returns its share at the end."""
    budget = Budget(limit=100)
    with budget.holding() as first:
        assert len(await hold(at_once(b"x" * 60), 1000, first)) == 60
        with budget.holding() as second, pytest.raises(BadRequest, match="maxBodies") as caught:
            await hold(at_once(b"x" * 60), 1000, second)
        assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
        assert budget.held == 60
    assert budget.held == 0


async def test_a_body_that_is_refused_half_way_gives_its_part_back(
    autojump_clock: MockClock,
) -> None:
    """The body may be too long, find no room, or lose its client."""
    budget = Budget(limit=100)
    for limit in (50, 1000):
        with pytest.raises(BadRequest), budget.holding() as holding:
            await hold(Incoming(dripping(30, 0), None), limit, holding)
    with trio.move_on_after(5), budget.holding() as holding:
        await hold(Incoming(dripping(1, 1), None), 1000, holding)
    assert budget.held == 0


async def test_a_body_that_drips_is_cut(autojump_clock: MockClock) -> None:
    """One byte a second is too slow while a model is kept for the body."""
    passed = Passed(Incoming(dripping(1, 1), None), 1000)
    began = trio.current_time()
    with pytest.raises(BadRequest, match="too slowly") as caught:
        await whole(passed)
    assert caught.value.status == 408
    assert trio.current_time() - began == pytest.approx(PATIENCE, abs=1)


async def test_a_body_that_flows_may_take_its_time(autojump_clock: MockClock) -> None:
    """A body may take hours at the lowest rate; bytes beyond that rate allow for later pauses."""
    incoming = Incoming(dripping(LEAST_FLOW, 1, 5000), None)
    assert await whole(Passed(incoming, 10**9)) == 5000 * LEAST_FLOW


async def test_the_time_in_which_a_model_server_takes_nothing_does_not_count(
    autojump_clock: MockClock,
) -> None:
    """In this time, the model server is slow and not the client."""
    passed = Passed(Incoming(dripping(100, 0.01), None), 10**6)
    for _ in range(50):
        assert await passed.read()
        await trio.sleep(60)


async def test_what_holds_too_much_is_told_to_come_again() -> None:
    """The daemon serves other requests meanwhile, and accepts the body later."""
    body = b'{"model": "a", "x": "' + b"x" * (2 << 20) + b'"}'
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999999\r\n\r\n"
    async with daemon({"a": stub()}, maxBodies=3) as running:
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as other:
            await other.send_all(head + body)
            await trio.sleep(0.2)
            reply = await ask(running.port, "POST", "/v1/completions", body)
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert "maxBodies" in reply.json()["error"]["message"]
            assert (await chat(running.port, "a")).status == 200
        await trio.sleep(0.2)
        assert (await ask(running.port, "POST", "/v1/completions", body)).status == 200


async def test_a_body_for_which_there_is_never_room_is_not_told_to_come_again() -> None:
    """maxBody cannot allow a body that is larger than maxBodies."""
    body = b'{"model": "a", "x": "' + b"x" * (2 << 20) + b'"}'
    async with daemon({"a": stub()}, maxBodies=1, maxBody=0) as running:
        reply = await ask(running.port, "POST", "/v1/completions", body)
        assert (reply.status, "retry-after" in reply.headers) == (413, False)


async def test_uploads_that_stream_do_not_count() -> None:
    """The daemon passes such uploads on as they arrive and keeps none of their bytes."""
    async with daemon({"a": stub()}, maxBodies=1) as running:
        path, body = "/upstream/a/upload?count", b"x" * (3 << 20)
        assert (await ask(running.port, "PUT", path, body)).json()["size"] == len(body)


async def test_a_connection_goes_on_or_ends_cleanly_behind_a_refused_body() -> None:
    """The rest of the body is never read as a request."""
    hidden = b"GET /running HTTP/1.1\r\nhost: localhost\r\n\r\n"
    body = b'{"model": "a", "x": "' + b"x" * (2 << 20) + b'"}' + hidden
    async with daemon({"a": stub()}, maxBodies=1) as running:
        client = await Client.connect(running.port)
        async with client.stream:
            assert (await client.ask("POST", "/v1/completions", body)).status == 413
            with trio.move_on_after(0.3):
                assert await client.stream.receive_some() == b""


def test_no_limit_is_none() -> None:
    """In the file, zero means no limit."""
    assert Limits.of(0, 0, 0) == Limits()
    assert Limits.of(1, 2, 3) == Limits(1 << 20, 2 << 20, 3 << 20)
