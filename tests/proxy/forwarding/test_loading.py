"""What a client reads while its model starts or wakes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio

from proxy.forwarding.loading import Narration, about
from supervisor import State
from supervisor.scheduling.forecast import Forecast
from supervisor.states.snapshot import NO_QUEUE
from tests.peers.client import Client, Reply, ask
from tests.proxy.daemon import Daemon, daemon, stub

KINDS = {
    "/v1/chat/completions": None,
    "/v1/completions": None,
    "/v1/messages": "ping",
    "/v1/responses": "comment",
}


async def asked(running: Daemon, path: str, model: str = "a", **more: Any) -> Reply:
    body = {"model": model, "stream": True, "chunks": 2, **more}
    return await ask(running.port, "POST", path, body)


def events(reply: Reply) -> list[tuple[str | None, Any]]:
    """Return the events of a stream, each with its name and data."""
    found: list[tuple[str | None, Any]] = []
    for block in reply.body.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            found.append(("comment", json.loads(block.removeprefix(": llamadoze"))))
            continue
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((lines.get("event"), json.loads(lines["data"])))
    return found


@pytest.mark.parametrize("path", KINDS)
async def test_a_stream_says_that_its_model_starts(path: str) -> None:
    """The narration has the API's own form; the model's events follow it."""
    async with daemon({"a": stub("--ready-after", "0.3")}, sendLoadingState=True) as running:
        reply = await asked(running, path)
        assert (reply.status, reply.complete) == (200, True)
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.headers["x-accel-buffering"] == "no"
        *notes, first, second = events(reply)
        assert (first, second) == ((None, {"n": 0}), (None, {"n": 1}))
        assert notes[0][0] == KINDS[path]
        said = json.dumps(notes, ensure_ascii=False)
        assert "starting" in said
        assert '"queue_position": 1' in said or "queue position: #1" in said
        again = await asked(running, path)
        assert [data for _, data in events(again)] == [{"n": 0}, {"n": 1}]


async def test_chats_show_it_as_thinking() -> None:
    """The narration is in llama-swap's field and says how long the start took."""
    async with daemon({"a": stub("--ready-after", "0.3")}, sendLoadingState=True) as running:
        found = events(await asked(running, "/v1/chat/completions"))
    text = "".join(data["choices"][0]["delta"]["reasoning_content"] for _, data in found[:-2])
    assert "llamadoze loading model: a" in text
    assert "Done! (0." in text


async def test_chats_are_told_when_the_model_will_be_ready() -> None:
    """The estimate needs an earlier start, and says so if there was only one."""
    async with daemon({"a": stub("--ready-after", "0.3")}, sendLoadingState=True) as running:
        first = await asked(running, "/v1/chat/completions")
        assert b"ready in about" not in first.body
        await running.supervisor.unload("a")
        second = await asked(running, "/v1/chat/completions")
        assert b"(queue position: #1), ready in about 1 s (measured once)" in second.body
        await running.supervisor.unload("a")
        third = await asked(running, "/v1/chat/completions")
        assert b"ready in about 1 s" in third.body
        assert b"measured once" not in third.body


@pytest.mark.parametrize(
    ("ready", "text"),
    [
        (Forecast(37.2, 3), "ready in about 38 s"),
        (Forecast(38, 1), "ready in about 38 s (measured once)"),
        (Forecast(0.01), "ready in about 1 s"),
        (Forecast(119.5, 2), "ready in about 2 min"),
        (Forecast(400, 1), "ready in about 7 min (measured once)"),
    ],
)
def test_a_forecast_is_said_in_round_words(ready: Forecast, text: str) -> None:
    """A forecast is never zero, and says so if it was measured only once."""
    assert about(ready) == text


def narrating() -> tuple[Narration, SimpleNamespace, SimpleNamespace]:
    """Return a narration, the state of its model, and what the supervisor knows about the model."""
    at = SimpleNamespace(state=State.STARTING, queue=NO_QUEUE)
    known = SimpleNamespace(place=1, ready=None)
    server: Any = SimpleNamespace(at=at, model=SimpleNamespace(id="a"))
    supervisor: Any = SimpleNamespace(place=lambda _: known.place, ready_in=lambda _: known.ready)
    answer: Any = None  # nothing is written here
    return Narration(supervisor, answer, server, "a"), at, known


def test_an_estimate_is_said_again_when_it_is_another() -> None:
    """The estimate is repeated after a change of more than a fifth, or of the state."""
    narration, at, known = narrating()
    known.ready = Forecast(40, 2)
    assert narration._news() == "\nstarting (queue position: #1), ready in about 40 s"
    for left, said in ((39, ""), (32, ""), (31, "31"), (26, ""), (24, "24"), (30, "30")):
        known.ready = Forecast(left, 2)
        assert narration._news() == (f"\nready in about {said} s" if said else "")
    at.state = State.WAKING
    assert narration._news() == "\nwaking up (queue position: #1), ready in about 30 s"


def test_an_estimate_that_is_not_known_is_not_said() -> None:
    """The estimate appears as soon as it is known, and is not withdrawn later."""
    narration, _, known = narrating()
    assert narration._news() == "\nstarting (queue position: #1)"
    assert narration._news() == ""
    known.ready = Forecast(12)
    assert narration._news() == "\nready in about 12 s"
    known.ready = None
    assert narration._news() == ""


async def test_it_says_whether_the_model_wakes_or_waits() -> None:
    """The narration includes the place in the queue."""
    models = {"a": stub(sleeps=True, sendLoadingState=True), "b": stub()}
    async with daemon(models) as running, trio.open_nursery() as nursery:
        await asked(running, "/v1/completions")
        await ask(running.port, "POST", "/v1/completions", {"model": "b"})
        body = {"model": "b", "delay": 0.5}
        nursery.start_soon(ask, running.port, "POST", "/v1/completions", body)
        await trio.sleep(0.1)
        notes = events(await asked(running, "/v1/completions"))[:-2]
        found = [data["llamadoze"] for _, data in notes]
        assert found[0] == {"model": "a", "state": "asleep", "queue_position": 1}
        assert found[-1]["state"] == "ready"


async def test_who_asks_for_no_stream_reads_nothing_before_the_answer() -> None:
    """The same applies to an API without a form for it, and to a model with sendLoadingState:
    false."""
    models = {
        "a": stub("--ready-after", "0.2"),
        "b": stub("--ready-after", "0.2", sendLoadingState=False),
    }
    async with daemon(models, sendLoadingState=True) as running:
        reply = await ask(running.port, "POST", "/v1/chat/completions", {"model": "a"})
        assert reply.headers["content-type"] == "application/json"
        for path, model in (("/v1/chat/completions", "b"), ("/infill", "a")):
            reply = await asked(running, path, model)
            assert [data for _, data in events(reply)] == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize("path", KINDS)
async def test_a_failure_after_it_began_is_an_event(path: str) -> None:
    """The event has the form that the API's clients raise as an error."""
    failing = stub("--exit", "3", "--exit-after", "0.2")
    async with daemon({"a": failing}, sendLoadingState=True) as running:
        reply = await asked(running, path)
        assert (reply.status, reply.complete) == (200, True)
        assert reply.headers["cache-control"] == "no-store"
        metrics = (await ask(running.port, "GET", "/metrics")).body.decode()
        assert 'llamadoze_requests_total{model="a",status="502"} 1.0' in metrics
        name, data = events(reply)[-1]
        assert "the stub gives up" in json.dumps(data)
        if path == "/v1/messages":
            assert (name, data["type"], data["error"]["type"]) == ("error", "error", "api_error")
        elif path == "/v1/responses":
            assert (name, data["type"], data["code"]) == ("error", "error", "model_failed")
            assert data["error"]["message"] == data["message"]
        else:
            assert (name, data["error"]["code"]) == (None, "model_failed")


async def test_a_refusal_of_the_model_server_is_an_event_too() -> None:
    """The status line was already sent, so the event contains the refusal."""
    async with daemon({"a": stub("--ready-after", "0.2")}, sendLoadingState=True) as running:
        body = {"model": "a", "stream": True, "status": 422}
        reply = await ask(running.port, "POST", "/v1/chat/completions", body)
        _, data = events(reply)[-1]
        assert "the model server answered 422" in data["error"]["message"]
        assert reply.complete
        body |= {"raw": True, "error": {"message": "too long", "type": "exceed_context_size"}}
        await running.supervisor.unload("a")
        reply = await ask(running.port, "POST", "/v1/chat/completions", body)
        assert events(reply)[-1] == (None, {"error": body["error"]})
        body["error"] = {"message": "too long"}
        await running.supervisor.unload("a")
        reply = await ask(running.port, "POST", "/v1/responses", body)
        assert events(reply)[-1][1]["message"] == "too long"


async def test_who_is_refused_at_once_gets_a_status() -> None:
    """Narration does not begin if a limit is reached."""
    models = {"a": stub("--ready-after", "0.5", concurrencyLimit=1)}
    async with daemon(models, sendLoadingState=True) as running, trio.open_nursery() as nursery:
        nursery.start_soon(asked, running, "/v1/chat/completions")
        await trio.sleep(0.1)
        assert (await asked(running, "/v1/chat/completions")).status == 429


async def test_a_client_that_leaves_while_it_reads_leaves_no_lease() -> None:
    """The client leaves no place in the queue either."""
    async with daemon({"a": stub("--ready-after", "0.3")}, sendLoadingState=True) as running:
        for wait in (0.05, 0.28, 0.3, 0.32, 0.35):
            client = await Client.connect(running.port)
            body = {"model": "a", "stream": True, "chunks": 1000, "pause": 0.01}
            await client.send("POST", "/v1/chat/completions", json.dumps(body).encode())
            await trio.sleep(wait)
            await client.stream.aclose()
            with trio.fail_after(3):
                while running.in_use("a"):
                    await trio.sleep(0.01)
            await running.supervisor.unload("a")


async def test_a_reload_that_takes_the_model_away_is_told_in_the_stream() -> None:
    """The client reads that the model was removed, and no internal error."""
    models = {"a": stub("--ready-after", "30"), "b": stub()}
    async with daemon(models, sendLoadingState=True) as running, trio.open_nursery() as nursery:

        async def read() -> None:
            reply = await asked(running, "/v1/chat/completions")
            assert "was removed" in events(reply)[-1][1]["error"]["message"]
            assert reply.complete
            assert b"Done!" not in reply.body

        nursery.start_soon(read)
        await trio.sleep(0.2)
        config = running.supervisor.config
        left = {name: one for name, one in config.models.items() if name != "a"}
        running.supervisor.reload(attrs.evolve(config, models=left))
