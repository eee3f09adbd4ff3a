"""Limits of API keys: refusals, the time to retry, and the counts in the metrics."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from configschema import ApiKey
from configschema.keys.fields import Count, Secret
from proxy.http.errors import BadRequest
from proxy.naming.quotas import Quotas
from tests.peers.client import Reply, ask
from tests.proxy.daemon import Daemon, daemon, stub

CHAT = "/v1/chat/completions"
BATCH = {"name": "batch", "key": "sk-batch", "inFlight": 2}
MATE = {"name": "mate", "key": "sk-mate"}
SLOW = {"model": "a", "delay": 0.5}


def key(name: str = "x", minute: int = 0, at_once: int = 0) -> ApiKey:
    return ApiKey(
        value=Secret("sk"),
        name=name,
        requests_per_minute=Count(minute),
        in_flight=Count(at_once),
    )


def refused(quotas: Quotas, one: ApiKey) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        quotas.begin(one)
    return caught.value


async def test_no_minute_has_more_requests_than_allowed(autojump_clock: MockClock) -> None:
    """The limit applies to any 60 seconds; refused requests do not count."""
    quotas, one = Quotas(), key(minute=3)
    for _ in range(3):
        quotas.begin(one)
        quotas.end(one)
        await trio.sleep(10)
    error = refused(quotas, one)
    assert (error.status, error.code, error.headers) == (
        *(429, "rate_limit_exceeded"),
        {"Retry-After": "30"},
    )
    assert str(error) == (
        "the API key 'x' sent 3 requests within a minute, the limit set by requestsPerMinute: "
        "retry in 30s"
    )
    await trio.sleep(30)
    quotas.begin(one)
    assert refused(quotas, one).headers == {"Retry-After": "10"}
    quotas.begin(key("y", minute=3))


async def test_a_limit_at_once_is_free_again_when_a_request_ends() -> None:
    """Each key has its own limit."""
    quotas, one = Quotas(), key(at_once=2)
    quotas.begin(one)
    quotas.begin(one)
    error = refused(quotas, one)
    assert (error.status, error.code, error.headers) == (
        *(429, "concurrency_limit"),
        {"Retry-After": "1"},
    )
    quotas.begin(key("y", at_once=1))
    quotas.end(one)
    quotas.begin(one)


async def test_a_limit_that_is_lowered_counts_what_came_before(autojump_clock: MockClock) -> None:
    """A reload does not give the key a fresh minute."""
    quotas = Quotas()
    for _ in range(5):
        quotas.begin(key(minute=10))
        await trio.sleep(1)
    assert refused(quotas, key(minute=3)).headers == {"Retry-After": "57"}


async def asked(running: Daemon, shown: str, body: dict[str, Any]) -> Reply:
    return await ask(running.port, "POST", CHAT, body, {"x-api-key": shown})


async def test_a_batch_is_refused_beyond_its_limit_and_others_are_not() -> None:
    """A request beyond the limit gets a 429 with its reason, and the metrics count it."""
    replies: list[Reply] = []

    async def keep(shown: str) -> None:
        replies.append(await asked(running, shown, SLOW))

    async with daemon({"a": stub()}, apiKeys=[BATCH, MATE]) as running:
        assert (await asked(running, "sk-batch", {"model": "a"})).status == 200
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(keep, "sk-batch")
            await trio.sleep(0.2)
            beyond = await asked(running, "sk-batch", {"model": "a"})
            assert (beyond.status, beyond.headers["retry-after"]) == (429, "1")
            assert beyond.json()["error"]["code"] == "concurrency_limit"
            assert (await asked(running, "sk-mate", {"model": "a"})).status == 200
            looked = await ask(running.port, "GET", "/v1/models", b"", {"x-api-key": "sk-batch"})
            assert looked.status == 200
        assert [one.status for one in replies] == [200, 200]
        assert (await asked(running, "sk-batch", {"model": "a"})).status == 200
        metrics = await ask(running.port, "GET", "/metrics", b"", {"x-api-key": "sk-mate"})
        assert b'llamadoze_key_refused_total{key="batch"} 1.0' in metrics.body


async def test_a_request_whose_client_leaves_is_no_longer_in_flight() -> None:
    """Its place is free at once."""
    async with daemon({"a": stub()}, apiKeys=[{**BATCH, "inFlight": 1}]) as running:
        assert (await asked(running, "sk-batch", {"model": "a"})).status == 200
        for _ in range(2):
            with trio.move_on_after(0.1) as scope:
                await asked(running, "sk-batch", {"model": "a", "delay": 5})
            assert scope.cancelled_caught
            await trio.sleep(0.1)
        assert (await asked(running, "sk-batch", {"model": "a"})).status == 200


async def test_a_colleague_gets_in_beyond_a_limit_that_a_batch_has_filled() -> None:
    """A key that has less than its share is let in beyond globalConcurrencyLimit."""
    keys = [{**BATCH, "inFlight": 0}, MATE]
    async with daemon({"a": stub()}, apiKeys=keys, globalConcurrencyLimit=2) as running:
        assert (await asked(running, "sk-batch", {"model": "a"})).status == 200
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(asked, running, "sk-batch", SLOW)
            await trio.sleep(0.2)
            assert (await asked(running, "sk-batch", {"model": "a"})).status == 429
            assert (await asked(running, "sk-mate", {"model": "a"})).status == 200
