"""A server that a local process is, or has started: its memory and its end."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from configschema import Model
from proxy.forwarding.modelcalls import CONTACT
from supervisor.places import localserver
from supervisor.places.handles import HereHandle
from supervisor.places.here import Here
from supervisor.places.running import RunningServer
from supervisor.processes.census import TOKEN, start_of
from supervisor.processes.memory import Held
from tests.conftest import stub_command
from tests.ports import free_port
from tests.supervisor.places.servers import answers, engine_in, model_of, order_for, scales
from tests.supervisor.processes.families import OWNER, kill

HERE = Here(OWNER, CONTACT.probe, scales)
OWN_GROUP = Path("/proc/self/cgroup").read_text().split()[0]


@asynccontextmanager
async def landed(model: Model) -> AsyncIterator[RunningServer]:
    """Start a server and wait until it answers."""
    async with HERE.start(order_for(model)) as server:
        with trio.fail_after(5):
            while await CONTACT.probe(model) is not None:
                await trio.sleep(0.01)
        assert await server.landed() is None
        yield server


def container(folder: Path, port: int, run: str = "--name box", stop: str = "") -> Model:
    """Return a model whose server an engine runs."""
    return model_of(
        cmd=f"docker run {run} image --port {port}",
        proxy=f"http://127.0.0.1:{port}",
        env=[f"PATH={engine_in(folder, OWN_GROUP)}"],
        cmdStop=stop,
    )


async def test_a_servers_memory_is_its_process_with_its_kin() -> None:
    """This includes a server that a wrapper has started in another session."""
    port = free_port(1)
    there = f"setsid {stub_command('--port', f'{port}')} & exec sleep 60"
    model = model_of(cmd=f"sh -c {shlex.quote(there)}", proxy=f"http://127.0.0.1:{port}")
    async with landed(model) as server:
        assert await server.weigh(host=True) == Held(server.pid, server.pid)
        handle = server.handle
        assert isinstance(handle, HereHandle)
        assert handle.is_valid
        assert (handle.pid, handle.started) == (server.pid, start_of(server.pid or 0))
        assert server.env == {TOKEN: handle.token}
        assert handle.token.startswith(f"{OWNER}.")
    assert server.left is None
    assert not answers(port)


async def test_before_it_has_answered_its_process_stands_for_it() -> None:
    """Before the first answer, nothing else is known."""
    model = model_of(cmd="sleep 60", proxy=f"http://127.0.0.1:{free_port(1)}")
    async with HERE.start(order_for(model)) as server:
        assert await server.weigh(host=True) == Held(server.pid, server.pid)


async def test_a_containers_memory_is_its_first_processes(tmp_path: Path) -> None:
    """The engine names the process, in the environment in which it was started."""
    port = free_port(1)
    async with landed(container(tmp_path, port, stop="docker stop box")) as server:
        pid = int((tmp_path / "pid").read_text())
        assert await server.weigh(host=False) == Held(None, pid)
        assert pid in await server.processes()
        kill([pid])
    assert server.left is None
    assert "inspect -f {{.State.Pid}} {{.Id}} box" in (tmp_path / "asked").read_text()


async def test_a_container_without_a_name_cannot_be_weighed(tmp_path: Path) -> None:
    """What the engine's client holds says nothing of the container."""
    port = free_port(1)
    model = container(tmp_path, port, run="--rm")
    async with landed(model) as server:
        found = await server.weigh(host=True)
        kill([int((tmp_path / "pid").read_text())])
    assert found == Held()


async def test_what_answers_after_the_end_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has ended, but nobody has told the engine to end the server."""
    monkeypatch.setattr(localserver, "LONGEST_GOODBYE", 0.2)
    port = free_port(1)
    async with landed(container(tmp_path, port)) as server:
        assert server.left is None
    try:
        assert server.left is not None
        assert str(server.left) == f"a server that answers at http://127.0.0.1:{port}"
        assert "cmdStop" in server.left.remedy
        assert await server.is_still_left()
    finally:
        kill([int((tmp_path / "pid").read_text())])
    with trio.fail_after(5):
        while await server.is_still_left():
            await trio.sleep(0.01)


async def test_another_server_on_the_same_port_is_not_what_is_left(tmp_path: Path) -> None:
    """The server is recognised by its socket, not by its answers."""
    port = free_port(1)
    model = model_of(
        cmd=f"docker run --name box image --port {port}",
        proxy=f"http://127.0.0.1:{port}",
        env=[f"PATH={engine_in(tmp_path, OWN_GROUP)}"],
    )
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with landed(model) as server:
        kill([int((tmp_path / "pid").read_text())])
        with trio.fail_after(5):
            while answers(port):
                await trio.sleep(0.005)
        listeners += await trio.open_tcp_listeners(port, host="127.0.0.1")
    assert answers(port)
    assert server.left is None
    for listener in listeners:
        await listener.aclose()


async def test_what_is_let_go_is_not_looked_for(tmp_path: Path) -> None:
    """A server that llamadoze lets go is not meant to end."""
    port = free_port(1)
    model = model_of(cmd=stub_command("--port", f"{port}"), proxy=f"http://127.0.0.1:{port}")
    async with HERE.start(order_for(model, tmp_path / "log")) as server:
        with trio.fail_after(5):
            while await CONTACT.probe(model) is not None:
                await trio.sleep(0.01)
        await server.landed()
        server.let_go()
    assert answers(port)
    assert server.left is None
    kill([server.pid or 0])
    await server.exited()
