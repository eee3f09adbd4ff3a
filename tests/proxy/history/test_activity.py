"""Finished requests: llama-swap's routes with its JSON, and what is kept of each request."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from proxy.history.paging import histogram
from tests.peers.client import Reply, ask, chat
from tests.proxy.daemon import daemon, stub

KEYS = {
    *("id", "timestamp", "model", "req_path", "resp_content_type", "resp_status_code", "tokens"),
    *("duration_ms", "has_capture", "metadata"),
}
TOKENS = {
    *("cache_tokens", "draft_tokens", "draft_acc_tokens", "input_tokens", "output_tokens"),
    *("prompt_per_second", "tokens_per_second"),
}
TALKS = stub("--talk", "0")


async def stream(port: int, model: str = "a", **headers: str) -> Reply:
    body = f'{{"model": "{model}", "messages": [], "stream": true}}'.encode()
    return await ask(port, "POST", "/v1/chat/completions", body, headers)


async def activity(port: int, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = (await ask(port, "GET", f"/api/metrics/activity{query}")).json()
    return found


async def test_a_row_has_llama_swaps_keys() -> None:
    """Unknown numbers are -1; facts that llama-swap has no key for are in the metadata."""
    async with daemon({"a": TALKS}) as running:
        await stream(running.port, **{"x-request-id": "mine", "x-session-id": "my talk"})
        await chat(running.port, "a")
        told = await activity(running.port)
    assert {key: told[key] for key in ("page", "limit", "total", "total_pages")} == {
        "page": 1,
        "limit": 25,
        "total": 2,
        "total_pages": 1,
    }
    second, first = told["data"]
    assert first.keys() == KEYS
    assert first["tokens"].keys() == TOKENS
    assert (first["id"], first["model"], first["resp_status_code"]) == (1, "a", 200)
    assert first["req_path"] == "/v1/chat/completions"
    assert first["tokens"]["input_tokens"] == 11
    assert first["tokens"]["output_tokens"] == 5
    assert first["tokens"]["tokens_per_second"] == 42.5
    assert set(second["tokens"].values()) == {-1}
    assert first["metadata"]["request_id"] == "mine"
    assert first["metadata"]["session_id"] == "my talk"
    assert first["timestamp"].endswith("Z")


async def test_a_request_that_failed_says_why() -> None:
    """Only a failed request has the key; a request that was refused at once is not listed."""
    async with daemon({"a": stub("--exit", "3")}) as running:
        await chat(running.port, "a")
        await chat(running.port, "nobody")
        (row,) = (await activity(running.port))["data"]
    assert row["resp_status_code"] == 502
    assert "status 3" in row["error_msg"]


async def test_pages_sorts_and_filters() -> None:
    """The parameters are llama-swap's; in addition, you can filter by words and for failures."""
    async with daemon({"a": TALKS, "b": stub()}) as running:
        for model in "abab":
            await stream(running.port, model)

        async def ids(query: str) -> list[int]:
            return [row["id"] for row in (await activity(running.port, query))["data"]]

        assert await ids("?limit=3") == [4, 3, 2]
        assert await ids("?limit=3&page=2") == [1]
        assert await ids("?order=asc") == [1, 2, 3, 4]
        assert await ids("?model=b&order=asc") == [2, 4]
        assert await ids("?model=b&model=a&min_id=2&max_id=3") == [3, 2]
        assert (await ids("?sort=generated"))[:2] in ([1, 3], [3, 1])
        assert await ids("?start=2999-01-01T00:00:00Z") == []
        assert await ids("?text=completions&limit=1") == [4]
        assert await ids("?failed=true") == []
        for bad in ("page=0", "limit=1000", "sort=x", "order=up", "start=x", "min_id=-1"):
            assert (await ask(running.port, "GET", f"/api/metrics/activity?{bad}")).status == 400


async def test_the_sums_have_llama_swaps_keys() -> None:
    """The sums are for all models or one model; without speeds, there is no histogram."""
    async with daemon({"a": TALKS, "b": stub()}) as running:
        for model in "aab":
            await stream(running.port, model)
        told = (await ask(running.port, "GET", "/api/metrics/stats")).json()
        of_b = (await ask(running.port, "GET", "/api/metrics/stats?model=b")).json()
    assert told["total_requests"] == 3
    assert (told["total_input_tokens"], told["total_output_tokens"]) == (22, 10)
    assert told["gen_histogram"].keys() == {"bins", "min", "max", "binSize", "p50", "p95", "p99"}
    assert sum(told["gen_histogram"]["bins"]) == 2
    assert of_b["total_requests"] == 1
    assert of_b["gen_histogram"] is None


@pytest.mark.parametrize("values", [[5.0], [1.0, 1.0, 1.0], [float(n) for n in range(1000)]])
def test_a_histogram_counts_all_values(values: list[float]) -> None:
    """The values may be equal or spread; the percentiles lie between minimum and maximum."""
    found = histogram(values)
    assert found
    assert sum(found["bins"]) == len(values)
    assert found["min"] <= found["p50"] <= found["p95"] <= found["p99"] <= found["max"]


async def test_the_oldest_are_forgotten() -> None:
    """metricsMaxInMemory limits the rows; the numbers keep counting."""
    async with daemon({"a": stub()}, metricsMaxInMemory=2) as running:
        for _ in range(4):
            await chat(running.port, "a")
        told = await activity(running.port)
    assert [row["id"] for row in told["data"]] == [4, 3]


async def test_a_capture_has_both_bodies_and_no_secret() -> None:
    """Keys and cookies are redacted in the headers of the request and of the answer."""
    secrets = {"authorization": "Bearer sk-1", "cookie": "c=sk-2", "x-api-key": "sk-3"}
    async with daemon({"a": TALKS}) as running:
        await stream(running.port, **secrets)
        told = (await ask(running.port, "GET", "/api/captures/1")).json()
        assert (await ask(running.port, "GET", "/api/captures/2")).status == 404
        assert (await ask(running.port, "GET", "/api/captures/x")).status == 400
    assert told.keys() == {
        *("id", "req_path", "req_headers", "req_body", "resp_headers", "resp_body"),
    }
    assert b'"stream": true' in b64decode(told["req_body"])
    assert b"Some **bold** words" in b64decode(told["resp_body"])
    assert "sk-" not in str({**told["req_headers"], **told["resp_headers"]})
    assert told["req_headers"]["authorization"] == "[redacted]"


async def test_captures_are_bounded_and_can_be_off() -> None:
    """The oldest captures go first, a body that is too long is not kept, and 0 keeps nothing."""
    async with daemon({"a": stub()}, captureBuffer=0) as running:
        await chat(running.port, "a")
        assert (await ask(running.port, "GET", "/api/captures/1")).status == 404
        (row,) = (await activity(running.port))["data"]
        assert row["has_capture"] is False
    async with daemon({"a": stub()}, captureBuffer=1) as running:
        filler = "x" * 100_000
        for _ in range(8):
            body = f'{{"model": "a", "messages": [], "filler": "{filler}"}}'.encode()
            await ask(running.port, "POST", "/v1/chat/completions", body)
        rows = (await activity(running.port))["data"]
        kept = [row["id"] for row in rows if row["has_capture"]]
        assert kept == [8, 7, 6, 5]
        long = f'{{"model": "a", "messages": [], "filler": "{filler * 4}"}}'.encode()
        await ask(running.port, "POST", "/v1/chat/completions", long)
        told = (await ask(running.port, "GET", "/api/captures/9")).json()
        assert (told["req_body"], told["resp_body"]) == ("", "")


async def test_the_machine_is_sampled_and_described() -> None:
    """The keys are llama-swap's; `after` skips older samples; 503 means that sampling is off."""
    async with daemon({"a": stub()}) as running:
        while not (told := (await ask(running.port, "GET", "/api/performance")).json())[
            "sys_stats"
        ]:
            pass
        (sample,) = told["sys_stats"]
        assert told["enabled"] is True
        assert len(sample["cpu_util_per_core"]) >= 1
        assert sample["mem_used_mb"] + sample["mem_free_mb"] <= sample["mem_total_mb"]
        after = "/api/performance?after=2999-01-01T00:00:00Z"
        assert (await ask(running.port, "GET", after)).json()["sys_stats"] == []
        for bad in ("x", "nan", "inf", "1e20", "-5"):
            assert (await ask(running.port, "GET", f"/api/performance?after={bad}")).status == 400
        hardware = (await ask(running.port, "GET", "/api/hardware")).json()
        assert hardware["schema_version"] == 1
        assert hardware["cpu"]["logical_cores"] >= 1
    async with daemon({"a": stub()}, performance={"disabled": True}) as running:
        reply = await ask(running.port, "GET", "/api/performance")
        assert (reply.status, reply.json()) == (503, {"enabled": False})
