"""This machine as a place: which port a model gets, and what keeps its server from starting."""

from __future__ import annotations

import os
import shlex
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from configschema import Limits
from proxy.forwarding.modelcalls import CONTACT
from supervisor.places.here import Here
from supervisor.places.running import CannotRun
from tests.conftest import stub_command
from tests.peers.client import chat
from tests.ports import free_port
from tests.proxy.daemon import Daemon, daemon, stub
from tests.supervisor.places.servers import (
    answers,
    engine_in,
    model_of,
    order_for,
    scales,
    stub_on,
    with_port,
)
from tests.supervisor.processes.families import OWNER, kill
from tests.supervisor.processes.test_listeners import used_up

HERE = Here(OWNER, CONTACT.probe, scales)
MOVABLE = {"cmd": "serve --port ${PORT}", "proxy": "http://127.0.0.1:${PORT}"}


def none_taken() -> set[int]:
    return set()


async def test_a_model_whose_port_is_free_stays_as_it_is() -> None:
    """llamadoze does not even copy the model."""
    model = with_port(free_port(), **MOVABLE)
    assert await HERE.fitted(model, none_taken) is model


async def test_a_port_that_is_listened_on_is_left_for_one_that_nobody_has() -> None:
    """The new port belongs to no other model, and nothing listens there."""
    first = free_port(5)
    model = with_port(first, **MOVABLE)
    with ExitStack() as others:
        for port in (first, first + 2):
            others.enter_context(socket.create_server(("127.0.0.1", port)))
        fitted = await HERE.fitted(model, lambda: {first + 1, first + 3})
    assert fitted.port == first + 4
    assert fitted.cmd.argv == ("serve", "--port", f"{first + 4}")
    assert fitted.proxy == f"http://127.0.0.1:{first + 4}"
    assert await HERE.fitted(fitted, none_taken) is fitted


async def test_a_port_with_remains_of_connections_is_left() -> None:
    """A server that does not set SO_REUSEADDR could not listen there for a minute."""
    port = used_up("127.0.0.1")
    model = with_port(port, **MOVABLE)
    assert (await HERE.fitted(model, none_taken)).port != port


async def test_one_that_listens_on_all_addresses_is_in_the_way_too() -> None:
    """A socket on all addresses also takes the model's own address."""
    first = free_port(2)
    with socket.create_server(("0.0.0.0", first)):
        assert (await HERE.fitted(with_port(first, **MOVABLE), none_taken)).port == first + 1


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
async def test_a_port_that_is_the_operators_or_another_machines_stays(host: str) -> None:
    """It stays even if it is taken, because nobody would find the model on another port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        cmd = "serve --port ${PORT}" if host != "127.0.0.1" else f"serve --port {port}"
        model = with_port(port, cmd=cmd, proxy=f"http://{host}:{port}")
        assert await HERE.fitted(model, none_taken) is model


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cmd": "", "detached": False, "proxy": "http://127.0.0.1:9"}, "cmd is empty"),
        ({"cmd": "serve", "proxy": "nowhere"}, "proxy leads nowhere: it must be an address"),
        ({"cmd": "serve", "proxy": "http://192.0.2.1:9"}, None),
    ],
)
async def test_what_is_missing_is_said_before_anything_starts(
    keys: dict[str, object], words: str | None
) -> None:
    """The reason uses the words of the file."""
    found = await HERE.obstacle(with_port(5800, **keys))
    assert (found is None) if words is None else (found or "").startswith(words)


async def test_a_port_that_is_taken_is_said_with_who_has_it() -> None:
    """The reason names the process that has the port, and says what an operator can do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = await HERE.obstacle(model_of(cmd="serve", proxy=f"http://127.0.0.1:{port}"))
        assert found
        assert found.startswith(f"its port {port} is in use by '")
        assert f"(pid {os.getpid()})" in found
        assert "set detached: true" in found


@pytest.mark.parametrize("cmd", ["sleep infinity", "sh -c 'while true; do sleep 5; done'", "cat"])
async def test_a_placeholder_stands_for_whoever_answers(cmd: str) -> None:
    """The placeholder's server belongs to something else, and is in nobody's way."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert await HERE.obstacle(model_of(cmd=cmd, proxy=proxy)) is None
        assert await HERE.obstacle(model_of(cmd="sleep 5", proxy=proxy)) is not None


async def test_a_program_that_is_not_there_is_named() -> None:
    """The error has the system's own text."""
    with pytest.raises(CannotRun, match=r"cmd cannot be started: No such file.*'/no/such'"):
        async with HERE.start(order_for(model_of(cmd="/no/such", proxy="http://127.0.0.1:9"))):
            raise AssertionError("it runs")


def fixed(port: int, *options: str, **keys: object) -> dict[str, object]:
    """Return a model whose port does not come from ``${PORT}``, so that it cannot move."""
    cmd = stub_command("--port", f"{port}", *options)
    return {"cmd": cmd, "proxy": f"http://127.0.0.1:{port}", **keys}


@pytest.mark.parametrize("works", [True, False])
async def test_cmd_stop_is_run_where_an_earlier_life_may_have_left_a_server(
    works: bool, log_lines: list[dict[str, object]]
) -> None:
    """If cmdStop works, the start goes on; if not, the failure says so."""
    port = free_port(1)
    with stub_on(port) as pid:
        stop = f"kill {pid}" if works else "sh -c 'exit 3'"
        limits = {"a": Limits(unload=0.2)}
        async with daemon({"a": fixed(port, cmdStop=stop)}, limits=limits) as running:
            reply = await chat(running.port, "a")
            if works:
                assert reply.json()["pid"] == running.pid("a") != pid
            else:
                said = reply.json()["error"]["message"]
                assert f"its port {port} is in use by '" in said
                assert "(cmdStop exited with status 3)" in said
    warned = [line["event"] for line in log_lines if "Running cmdStop, in case" in f"{line}"]
    assert len(warned) == 1


async def _until_started(running: Daemon) -> None:
    with trio.fail_after(5):
        while not (running.state("a") == "starting" and running.pid("a")):
            await trio.sleep(0.005)


async def test_a_stranger_that_answers_is_not_the_model() -> None:
    """The start fails and names the process, because requests would go there."""
    port = free_port(1)
    never = {"cmd": f"sh -c 'sleep 30; exec serve {port}'", "proxy": f"http://127.0.0.1:{port}"}
    async with daemon({"a": never}) as running, trio.open_nursery() as nursery:
        said: list[str] = []

        async def want() -> None:
            said.append((await chat(running.port, "a")).json()["error"]["message"])

        nursery.start_soon(want)
        await _until_started(running)
        with stub_on(port) as pid:
            with trio.fail_after(5):
                while not said:
                    await trio.sleep(0.01)
            assert f"(pid {pid}), which is not a process of the model; end that process" in said[0]
            assert answers(port)


async def test_a_placeholders_server_is_taken_and_left_alone() -> None:
    """Whoever runs the placeholder's server goes on running it."""
    port = free_port(1)
    model = {"cmd": "sleep infinity", "proxy": f"http://127.0.0.1:{port}"}
    with stub_on(port) as pid:
        async with daemon({"a": model}) as running:
            assert (await chat(running.port, "a")).json()["pid"] == pid
        assert answers(port)


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_server_of_an_engine_is_accepted_and_ended(tmp_path: Path, wrapped: bool) -> None:
    """No process of the model holds its socket; a script may run the engine, too."""
    port = free_port(1)
    path = engine_in(tmp_path, "0" * 64)
    cmd = f"docker run --name box image --port {port}"
    if wrapped:
        script = tmp_path / "serve.sh"
        script.write_text(f"#!/bin/sh\nsleep 0.05\nexec {cmd}\n")
        script.chmod(0o700)
        cmd = shlex.quote(str(script))
    model = {
        "cmd": cmd,
        "proxy": f"http://127.0.0.1:{port}",
        "env": [f"PATH={path}"],
        "cmdStop": "docker stop box",
    }
    async with daemon({"a": model}) as running:
        reply = await chat(running.port, "a")
        pid = int((tmp_path / "pid").read_text())
    left = answers(port)
    kill([pid])
    assert reply.status == 200, reply.body
    assert (reply.json()["pid"], left) == (pid, False)


async def test_a_server_that_leaves_its_session_is_the_models_own() -> None:
    """llamadoze knows the server by its token."""
    port = free_port(1)
    stub_there = stub_command("--port", f"{port}")
    cmd = f"sh -c {shlex.quote(f'setsid {stub_there} & exec sleep 60')}"
    async with daemon({"a": {"cmd": cmd, "proxy": f"http://127.0.0.1:{port}"}}) as running:
        assert (await chat(running.port, "a")).status == 200
    assert not answers(port)


async def test_a_model_moves_when_it_is_started_and_keeps_that_port() -> None:
    """The model keeps the new port until it is started again and that port is taken, too."""
    async with daemon({"a": stub(), "b": stub()}) as running:
        first = running.supervisor.config.models["a"].port or 0
        with socket.create_server(("127.0.0.1", first)):
            assert (await chat(running.port, "a")).status == 200
            moved = running.supervisor.servers["a"].model.port or 0
            assert moved not in (first, running.supervisor.config.models["b"].port)
            assert (await chat(running.port, "b")).status == 200
            assert (await chat(running.port, "a")).status == 200
