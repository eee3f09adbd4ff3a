"""The load progress that llama.cpp's router reports, and the forecast that follows from it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import yaml

from configschema import Model, parse
from proxy.forwarding.modelcalls import hear_progress
from proxy.http.parsing import UpstreamError
from supervisor import Supervisor, open_supervisor
from supervisor.scheduling.forecast import Forecast
from supervisor.sleep.contact import Contact
from tests.fakes import FakeCalls, FakeProbe, FakePrograms

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@attrs.define(eq=False)
class FakeRouter:
    """Sends its text to each client of the stream, and then stays silent or closes."""

    said: bytes
    closes: bool = True
    asked: list[bytes] = attrs.field(factory=list)
    left: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        self.asked.append(bytes(await stream.receive_some()))
        for start in range(0, len(self.said), 50):  # lines are split, as networks may do
            await stream.send_all(self.said[start : start + 50])
            await trio.sleep(0.001)
        if not self.closes:
            assert not await stream.receive_some()
            self.left.set()
        await stream.aclose()


@asynccontextmanager
async def listening(router: FakeRouter) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, router.serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def model_at(proxy: str, **keys: Any) -> Model:
    body = {"cmd": "serve", "proxy": proxy, "sleep": "llama.cpp-router", **keys}
    return parse(yaml.safe_dump({"models": {"m": body}})).config.models["m"]


def told(model: str = "m", event: str = "status_change", **progress: Any) -> bytes:
    data = {"status": "loading", "progress": progress}
    return f"data: {json.dumps({'model': model, 'event': event, 'data': data})}\n\n".encode()


ALL_STAGES = ["text_model", "spec_model", "mmproj_model"]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (told(stage="text_model", value=0.42), [0.42]),
        (told(stages=ALL_STAGES, current="text_model", value=0.5), [0.4]),
        (told(stages=ALL_STAGES, current="spec_model", value=0.5), [0.85]),
        (told(stages=ALL_STAGES, current="mmproj_model", value=1.0), [1.0]),
        (told(stages=["text_model"], current="text_model", value=0.25), [0.25]),
        (told(stage="fit_params"), []),
        (told(stage="mmproj_model", value=0.9), []),
        (told(stage="text_model", value=7), []),
        (told("another", stage="text_model", value=0.42), []),
        (b'data: {"model":"m","event":"status_change","data":{"status":"loaded"}}\n\n', []),
        (b": a comment\n\ndata: [1]\n\ndata: no JSON\n\nevent: x\n\n", []),
    ],
)
async def test_the_share_of_a_load_is_read_from_the_stream(said: bytes, heard: list[float]) -> None:
    """Old and present forms are read; anything else is ignored."""
    shares: list[float] = []
    router = FakeRouter(HEAD + said + told(stage="text_model", value=0.99))
    async with listening(router) as proxy:
        await hear_progress(model_at(proxy), shares.append)
    assert [round(share, 6) for share in shares] == [*heard, 0.99]
    assert router.asked[0].startswith(b"GET /models/sse HTTP/1.1\r\n")


async def test_it_is_asked_with_the_models_own_name_and_headers() -> None:
    """The request uses the same name and headers as other requests to the model."""
    keys = {"useModelName": "org/m:Q4", "controlHeaders": {"Authorization": "Bearer k"}}
    router = FakeRouter(HEAD + told("org/m:Q4", stage="text_model", value=0.5))
    shares: list[float] = []
    async with listening(router) as proxy:
        await hear_progress(model_at(proxy, **keys), shares.append)
    assert shares == [0.5]
    assert b"authorization: Bearer k\r\n" in router.asked[0]


async def test_a_server_without_the_stream_tells_nothing() -> None:
    """An older router has no such route; a server of another kind is not even asked."""
    shares: list[float] = []
    router = FakeRouter(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n")
    async with listening(router) as proxy:
        await hear_progress(model_at(proxy), shares.append)
        assert len(router.asked) == 1
        await hear_progress(model_at(proxy, sleep="vllm"), shares.append)
        assert len(router.asked) == 1
    with pytest.raises(UpstreamError):
        await hear_progress(model_at(proxy), shares.append)
    assert shares == []


async def test_who_hears_no_more_leaves_the_stream() -> None:
    """The daemon closes the connection, so that the router does not go on writing."""
    router = FakeRouter(HEAD + told(stage="text_model", value=0.5), closes=False)
    shares: list[float] = []

    def hear(share: float) -> None:
        shares.append(share)
        hearing.cancel()  # as soon as the share has arrived, however slow the machine is

    async with listening(router) as proxy:
        with trio.fail_after(5):
            with trio.CancelScope() as hearing:
                await hear_progress(model_at(proxy), hear)
            await router.left.wait()
    assert shares == [0.5]


@attrs.define(eq=False)
class FakeProgress:
    """Reports these shares, each so many seconds after the load began; can fail at the end."""

    shares: list[tuple[float, float]]
    failure: Exception | None = None
    ended: list[float] = attrs.field(factory=list)

    async def __call__(self, _: Model, hear: Callable[[float], None]) -> None:
        began = trio.current_time()
        try:
            for at, share in self.shares:
                await trio.sleep_until(began + at)
                hear(share)
            if self.failure:
                raise self.failure
            await trio.sleep_forever()
        finally:
            self.ended.append(trio.current_time() - began)


@asynccontextmanager
async def waking(progress: FakeProgress) -> AsyncIterator[Supervisor]:
    """Yield a supervisor whose only model sleeps and takes 10 seconds to wake."""
    body = {
        "cmd": "serve",
        "proxy": "http://m.test:9",
        "cmdSleep": "sleep 1",
        "cmdWake": "sleep 10",
    }
    config = parse(yaml.safe_dump({"models": {"m": body}})).config
    contact = Contact(probe=FakeProbe(), call=FakeCalls(), progress=progress)
    async with open_supervisor(config, contact) as supervisor:
        await supervisor.load("m")
        await supervisor.sleep("m")
        yield supervisor


async def test_what_is_left_of_a_wake_follows_from_the_share_that_is_done(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also works for the first wake, and ends with the wake."""
    FakePrograms().install(monkeypatch)
    progress = FakeProgress([(1, 0.01), (4, 0.25), (8, 0.8)])
    async with waking(progress) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.load, "m")
        await trio.sleep(2)
        assert supervisor.ready_in("m") is None, "too little is done"
        await trio.sleep(2.5)
        assert supervisor.ready_in("m") == Forecast(13.5)
        await trio.sleep(4)
        found = supervisor.ready_in("m")
        assert found is not None
        assert round(found.seconds, 3) == round(8.5 * 0.2 / 0.8, 3)
        await trio.sleep(2)
        server = supervisor.server("m")
        assert (server.is_serving, server.at.share, progress.ended) == (True, None, [10])


async def test_progress_that_cannot_be_heard_is_no_failure_of_the_wake(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the progress fails, the forecast uses earlier wakes instead."""
    FakePrograms().install(monkeypatch)
    progress = FakeProgress([(1, 0.5), (2, 0.6)], failure=ValueError("no stream"))
    async with waking(progress) as supervisor:
        await supervisor.load("m")
        await supervisor.sleep("m")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.load, "m")
            await trio.sleep(1.5)
            assert supervisor.ready_in("m") == Forecast(1.5)
            await trio.sleep(1)
            assert supervisor.ready_in("m") == Forecast(7.5, 1)
        assert supervisor.server("m").sleeping.trust.failures == 0
    assert progress.ended == [2, 2]
