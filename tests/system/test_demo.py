"""The demo end to end, with real llama.cpp servers, a real client and real sleep."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import yaml

from configschema import load
from proxy.demo.prepare import told_by
from proxy.demo.weights import Shape, write_model
from supervisor.states.learned import Learned
from supervisor.states.snapshot import Costs
from supervisor.succession.knowledge import Knowledge
from tests.conftest import processes_with
from tests.ports import free_port
from tests.proxy.daemon import stub
from tests.system.daemon import (
    LLAMADOZE,
    Process,
    end,
    is_alive,
    started,
    wait_for,
    write,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> Iterator[Process]:
    """One demo for all tests that only send requests to it."""
    with started("demo", "--folder", str(folder)) as daemon:
        yield daemon


@pytest.fixture
def client(demo: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{demo.port}/v1", api_key="none", max_retries=0
    ) as found:
        yield found


def say(client: openai.OpenAI, model: str) -> str:
    reply = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=16
    )
    return reply.choices[0].message.content or ""


def test_models_take_turns_and_a_sleeper_wakes_under_its_pid(
    demo: Process, client: openai.OpenAI
) -> None:
    """The test asks A, then B, then A again, as the README does."""
    assert say(client, "doze-a")
    first = demo.running()["doze-a"]
    assert first["state"] == "ready"
    assert say(client, "doze-b")
    assert demo.running()["doze-a"]["state"] == "asleep"
    assert demo.running()["doze-b"]["state"] == "ready"
    assert say(client, "doze-a")
    again = demo.running()
    assert (again["doze-a"]["state"], again["doze-a"]["pid"]) == ("ready", first["pid"])
    assert again["doze-b"]["state"] == "asleep"
    for step in ("Model ready in", "Model sleep completed in", "Model wake completed in"):
        assert any(event.startswith(f"<doze-a> {step}") for event in demo.events())


def test_a_stream_of_the_real_server_arrives_in_pieces(client: openai.OpenAI) -> None:
    """The stream has its end and the count of its tokens."""
    stream = client.chat.completions.create(
        model="doze-a",
        messages=[{"role": "user", "content": "tell me of the night"}],
        max_tokens=32,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    pieces = list(stream)
    words = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert len(words.split()) > 10
    assert pieces[-1].usage
    assert pieces[-1].usage.completion_tokens == 32


def test_other_routes_of_the_real_server_work(client: openai.OpenAI, demo: Process) -> None:
    """The routes are completions, responses and Anthropic's messages."""
    completion = client.completions.create(model="doze-a", prompt="the moon", max_tokens=4)
    assert completion.choices[0].text
    response = client.responses.create(model="doze-a", input="hi", max_output_tokens=4)
    assert response.output_text
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "doze-a", "max_tokens": 4, "messages": messages}
    status, reply = demo.ask("POST", "/v1/messages", body)
    assert (status, reply["type"]) == (200, "message")


def test_the_clients_errors_are_openais(client: openai.OpenAI) -> None:
    """For an unknown model, OpenAI's client raises its own exception."""
    with pytest.raises(openai.NotFoundError, match="no model is called 'nope'"):
        say(client, "nope")
    assert [model.id for model in client.models.list()] == ["doze-a", "doze-b"]


def test_ctrl_c_ends_the_demo_within_two_seconds(tmp_path: Path) -> None:
    """A stream may be open, and no process is left."""
    with started("demo", "--folder", str(tmp_path)) as daemon:
        for name in ("doze-a", "doze-b"):
            assert daemon.chat(name)[0] == 200
        with openai.OpenAI(
            base_url=f"http://127.0.0.1:{daemon.port}/v1", api_key="none", max_retries=0
        ) as client:
            stream = client.chat.completions.create(
                model="doze-b",
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=4000,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            next(iter(stream))
            status, took = daemon.end(signal.SIGINT)
            stream.close()
    assert status == 0
    assert took < 2
    assert processes_with(str(tmp_path)) == []
    assert daemon.lines[-1].startswith("A start of a model took ")


def test_the_last_line_compares_a_start_with_a_wake(tmp_path: Path) -> None:
    """The demo exists for this comparison; if no model woke, the line says how to cause a wake."""
    models = {"doze-a": stub(), "doze-b": stub("--quiet")}
    file = Path(write(tmp_path, models=models))
    assert told_by(file, tmp_path) == ""
    knowledge = Knowledge(tmp_path / "learned.json")
    a, b = load(file).config.models.values()
    knowledge.keep(a, Learned(costs=Costs(start=2.0)))
    knowledge.keep(b, Learned(costs=Costs(start=3.0)))
    knowledge.write()
    assert told_by(file, tmp_path) == (
        "A start of a model took 2.5s. No model was woken: ask doze-a, doze-b, and doze-a again.\n"
    )
    knowledge.keep(a, Learned(costs=Costs(start=2.0, wake=0.02)))
    knowledge.write()
    assert told_by(file, tmp_path) == "A start of a model took 2.5s, and a wake took 0.020s.\n"
    file.unlink()
    assert told_by(file, tmp_path) == ""


def test_a_second_start_uses_what_the_first_wrote(folder: Path) -> None:
    """The demo does not write its models a second time."""
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.gguf")}
    assert len(before) == 2
    assert all(200_000 < (folder / name).stat().st_size < 500_000 for name in before)
    with started("demo", "--folder", str(folder)) as daemon:
        lines = "\n".join(daemon.lines)
        daemon.end()
    assert before == {file.name: file.stat().st_mtime_ns for file in folder.glob("*.gguf")}
    assert lines.count("\n  curl -s http://") == 3


def test_without_curl_the_demo_says_what_is_missing(tmp_path: Path) -> None:
    """The message comes before the demo starts anything."""
    result = subprocess.run(
        [LLAMADOZE, "demo", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("llamadoze: the demo needs curl")
    assert list(tmp_path.iterdir()) == []


def memory(pid: int) -> float:
    """Return the MiB of a process's anonymous memory."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = dict(line.split(":") for line in list(file)[1:])
    return int(fields["Anonymous"].split()[0]) / 1024


def test_sleep_really_frees_the_models_memory(tmp_path: Path) -> None:
    """A wake loads the memory again; the test uses a model of 40 MB in a living process."""
    file = tmp_path / "large.gguf"
    write_model(file, name="large", seed=3, shape=Shape(width=512, heads=8, layers=6, inner=1024))
    size = file.stat().st_size / 1024 / 1024
    server = f"'{sys.executable}' -m proxy.demo.server"
    curl = "curl -fsS -X POST http://127.0.0.1:${PORT}"
    model = {
        "cmd": f"{server} --model '{file}' --port ${{PORT}}",
        "proxy": "http://127.0.0.1:${PORT}",
        "cmdSleep": f"{curl}/sleep?level=1",
        "cmdWake": f"{curl}/wake_up",
    }
    with started("--config", write(tmp_path, models={"large": model})) as daemon:
        assert daemon.chat("large")[0] == 200
        pid = daemon.running()["large"]["pid"]
        awake = memory(pid)
        assert daemon.ask("POST", "/api/models/sleep/large")[0] == 200
        asleep = memory(pid)
        assert daemon.chat("large")[0] == 200
        woken = memory(pid)
        assert daemon.running()["large"]["pid"] == pid
    assert size > 30
    assert awake - asleep > 0.8 * size
    assert woken - asleep > 0.8 * size


def test_the_demos_server_sleeps_with_streams_open(folder: Path, demo: Process) -> None:
    """There are more streams than slots; they end with an error, and the server wakes again."""
    port = free_port(1)
    command = [sys.executable, "-m", "proxy.demo.server", "--port", str(port), "--model"]
    server = subprocess.Popen([*command, folder / "doze-a.gguf"], stderr=subprocess.DEVNULL)
    direct = Process(server, port)
    try:
        _wait_for(direct)
        bodies = [json.dumps({"messages": [], "stream": True, "prompt": "x " * 500}).encode()] * 6
        streams = []
        for body in bodies:
            stream = socket.create_connection(("127.0.0.1", port))
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Length: {len(body)}\r\n"
            stream.sendall(head.encode() + b"\r\n" + body)
            streams.append(stream)
        for _ in range(5):
            assert direct.ask("POST", "/sleep?level=1") == (200, {"is_sleeping": True})
            assert direct.chat("x")[0] == 503
            assert direct.ask("POST", "/wake_up") == (200, {"is_sleeping": False})
            assert direct.chat("x")[0] == 200
        for stream in streams:
            stream.close()
        status, took = direct.end()
        assert (status, took < 3) == (0, True)
    finally:
        server.kill()
        server.wait()


def _wait_for(server: Process) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if server.ask("GET", "/health")[0] == 200:
                return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError


def test_real_servers_are_preloaded_and_outlive_a_restart(folder: Path, tmp_path: Path) -> None:
    """Each model generates a token before any request; the next daemon wakes the sleeping one."""
    whole = yaml.safe_load((folder / "config.yaml").read_text())
    hooks = {"on_startup": {"preload": ["doze-a", "doze-b"]}}
    file = write(tmp_path, **{**whole, "startPort": free_port(), "hooks": hooks, "adopt": True})
    pids: list[int] = []
    try:
        with started("--config", file) as daemon:
            wait_for(lambda: any("<doze-b> Model preloaded" in line for line in daemon.events()))
            assert "<doze-a> Model preloaded; it has answered a token" in daemon.events()
            rows = daemon.running()
            assert [rows[name]["state"] for name in ("doze-a", "doze-b")] == ["asleep", "ready"]
            pids += [row["pid"] for row in rows.values()]
            daemon.end(signal.SIGTERM)
        with started("--config", file) as daemon:
            status, answer = daemon.chat("doze-a")
            assert status == 200
            assert answer["choices"][0]["message"]["content"]
            assert {row["pid"] for row in daemon.running().values()} == set(pids)
            assert daemon.running()["doze-b"]["state"] == "asleep"
            daemon.end(signal.SIGINT)
        assert not any(map(is_alive, pids))
    finally:
        end(pids)
