"""The launcher that runs on a node: a real one, with a stub as its model server."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
import trio

from configschema import Entrance, Model, parse
from configschema.keys.fields import Secret
from proxy.forwarding.modelcalls import ask_if_ready
from supervisor.clusters import node
from supervisor.clusters.control import Control, NotReached
from supervisor.clusters.launching import (
    BOOTSTRAP,
    MODULES,
    Report,
    ReportReader,
    beside_command,
    launch_environment,
    new_key,
    program,
    without_gpus_of_others,
    without_slurms_words,
)
from supervisor.clusters.tunnel import Stranger, enter
from supervisor.processes.census import COMMAND
from tests.configschema.landing import landed

STUB = Path(__file__).parents[2] / "peers" / "stub.py"


def model_of(cmd: str, **keys: object) -> Model:
    """Return a model in a cluster."""
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    text = f"clusters: {{c: {{}}}}\nmodels: {{a: {{cmd: '{cmd}', in: {{gres: 'gpu:1'}}{more}}}}}"
    return parse(text).config.models["a"]


@attrs.define(eq=False)
class Launched:
    """A launcher that runs."""

    process: subprocess.Popen[bytes]
    model: Model
    key: str
    lines: list[bytes]
    report: Report

    @property
    def entrance(self) -> Entrance:
        return Entrance("127.0.0.1", self.report.entrance, Secret(self.key))

    @property
    def landed(self) -> Model:
        """The model with the address at which its server can be reached."""
        return landed(self.model, port=self.report.port, entrance=self.entrance)


@contextmanager
def launched(model: Model, grace: float = 5) -> Iterator[Launched]:
    """Run a launcher as `srun` would."""
    assert model.holding is not None
    key = new_key()
    env = launch_environment({**os.environ, COMMAND: "ours"}, model, model.holding, key, grace)
    process = subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", BOOTSTRAP),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    lines: list[bytes] = []
    reader = ReportReader(lines.append)
    try:
        assert process.stdout is not None
        while reader.report is None and (line := process.stdout.readline()):
            reader.write(line)
        assert reader.report is not None
        yield Launched(process, model, key, lines, reader.report)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def stub(options: str = "") -> Model:
    return model_of(f"{sys.executable} -I -S {STUB} --port ${{PORT}} {options}")


async def ready(one: Launched) -> None:
    with trio.fail_after(10):
        while await ask_if_ready(one.landed) is not None:
            await trio.sleep(0.01)


@contextmanager
def connected(control: Control, nursery: trio.Nursery) -> Iterator[None]:
    nursery.start_soon(control.run)
    try:
        yield
    finally:
        nursery.cancel_scope.cancel()


async def test_requests_reach_the_server_through_the_entrance() -> None:
    """The launcher finds a port on the node, and the server listens only there."""
    with launched(stub()) as one:
        await ready(one)
        assert one.landed.proxy == f"http://127.0.0.1:{one.report.port}"


async def test_who_has_not_the_key_learns_nothing() -> None:
    """Guessing and waiting both fail, and clients with the key are served meanwhile."""
    with launched(stub()) as one:
        await ready(one)
        wrong = attrs.evolve(one.entrance, key=Secret(new_key()))
        with pytest.raises(Stranger):
            await enter(wrong)
        with socket.create_connection(("127.0.0.1", one.report.entrance)):
            assert await ask_if_ready(one.landed) is None


async def test_a_listener_that_has_not_the_key_is_a_stranger() -> None:
    """A process that has the port of an ended launcher gets no request."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def pretend(stream: trio.SocketStream) -> None:
        await stream.send_all(bytes(16))
        await stream.receive_some()
        await stream.send_all(b"K" + bytes(32))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, pretend, listeners)
        with pytest.raises(Stranger):
            await enter(Entrance("127.0.0.1", port, Secret(new_key())))
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_listen_yet_refuses() -> None:
    """The text is the same as without a launcher: connection refused."""
    with launched(model_of("sleep 60")) as one:
        assert "connection refused" in (await ask_if_ready(one.landed) or "").lower()


async def test_the_owner_is_told_how_the_server_ends() -> None:
    """The owner learns the exit status at once, and also if it connects later."""
    with launched(stub("--exit 7 --exit-after 0.3")) as one:
        control = Control(one.entrance)
        async with trio.open_nursery() as nursery:
            with connected(control, nursery), trio.fail_after(5):
                await control.has_exited.wait()
        assert control.exited == 7
        assert one.process.wait(5) == 7


async def test_the_owner_ends_the_server_in_its_grace() -> None:
    """The server ends with everything that it has started; after the grace, it is killed."""
    with launched(stub("--ignore-term 1 --escape 60")) as one:
        await ready(one)
        control = Control(one.entrance)
        async with trio.open_nursery() as nursery:
            with connected(control, nursery), trio.fail_after(5):
                await control.has_been_reached.wait()
                members = await control.ask("members")
                assert len(members) == 2  # the stub, and what has left its session
                await control.ask("end", grace=0.2)
                await control.has_exited.wait()
        assert control.exited == -signal.SIGKILL
        assert not any(map(psutil.pid_exists, members))


async def test_slurms_signal_is_told_to_the_owner() -> None:
    """The owner decides what to do with the server; without an owner, the server is ended."""
    with launched(stub()) as one:
        await ready(one)
        notices: list[str] = []
        control = Control(one.entrance, lambda: notices.append("told"))
        async with trio.open_nursery() as nursery:
            with connected(control, nursery), trio.fail_after(5):
                await control.has_been_reached.wait()
                one.process.send_signal(signal.SIGTERM)
                while not notices:
                    await trio.sleep(0.01)
                assert await ask_if_ready(one.landed) is None
        one.process.send_signal(signal.SIGTERM)
        await trio.to_thread.run_sync(one.process.wait, 5)


async def test_the_owner_learns_what_the_server_holds_and_that_it_listens() -> None:
    """The launcher measures on the node, where the server's processes are."""
    with launched(stub("--hold 64")) as one:
        await ready(one)
        control = Control(one.entrance)
        async with trio.open_nursery() as nursery:
            with connected(control, nursery), trio.fail_after(10):
                await control.has_been_reached.wait()
                told: dict[str, Any] = await control.ask("weigh")
                assert told["own"] >= 64 << 20
                assert await control.ask("own") is True


async def test_the_server_is_told_nothing_that_is_not_its_business() -> None:
    """The server's environment has no key and no mark of the daemon's machine."""
    with launched(model_of("env")) as one:
        out = one.process.stdout
        assert out is not None
        said = out.read().decode()
        assert one.key not in said
        assert "LLAMADOZE_PROGRAM" not in said
        assert "LLAMADOZE_ORDER" not in said
        assert COMMAND not in said


async def test_a_launcher_that_is_gone_cannot_be_asked() -> None:
    """The owner is told so, and this is not an error of the program."""
    with launched(stub()) as one:
        entrance = one.entrance
    control = Control(entrance)
    with pytest.raises(OSError, match="connect"):
        await control.run()
    with pytest.raises(NotReached):
        await control.ask("state")


def test_a_port_that_is_taken_is_told() -> None:
    """The launcher reports this before it starts anything."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        model = model_of(f"true --port {port}", proxy=f"http://127.0.0.1:{port}")
        with launched(model) as one:
            assert "cannot be listened on: it is in use" in one.report.failure


def test_a_range_of_ports_holds_for_the_entrance() -> None:
    """A firewall may open only some ports, so the entrance must be within the range."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = f"clusters: {{c: {{ports: {port}-{port}}}}}\n"
    text += "models: {a: {cmd: sleep 60, in: {gres: 'gpu:1'}}}"
    with launched(parse(text).config.models["a"]) as one:
        assert one.report.entrance == port


@pytest.mark.parametrize("name", MODULES)
def test_the_launcher_runs_on_an_older_python(name: str) -> None:
    """Nodes run the Python of their system."""
    text = (Path(node.__file__).parent / f"{name}.py").read_text()
    ast.parse(text, feature_version=(3, 8))
    imported = {one.module for one in ast.walk(ast.parse(text)) if isinstance(one, ast.ImportFrom)}
    ours = {one for one in imported if one and one.startswith(("supervisor", "configschema"))}
    assert all(str(one).startswith(node.__name__) for one in ours)


def test_the_launcher_is_small_enough_for_an_environment() -> None:
    """Linux allows 128 KiB in one environment variable, which holds the launcher's program."""
    assert len(program()) < 64 << 10
    assert json.loads(program())


def test_a_report_is_found_in_any_pieces() -> None:
    """The text around the report is the output of the step."""
    text = b'hello\nllamadoze-step {"port": 1, "entrance": 2}\nworld\nand more'
    for size in (1, 7, len(text)):
        heard: list[bytes] = []
        reader = ReportReader(heard.append)
        for start in range(0, len(text), size):
            reader.write(text[start : start + size])
        assert reader.report == Report(port=1, entrance=2)
        assert b"".join(heard) == b"hello\nworld\nand more"


async def test_a_report_is_found_in_a_file(tmp_path: Path) -> None:
    """The reader finds the report faster than the file is followed."""
    file = tmp_path / "log"
    reader = ReportReader(lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.find_in, file)
        await trio.sleep(0.05)
        file.write_bytes(b'x\nllamadoze-step {"failure": "no"}\n')
        with trio.fail_after(2):
            await reader.there.wait()
    assert reader.report is not None
    assert reader.report.failure == "no"


@pytest.mark.parametrize("command", ["true", "false"])
async def test_an_end_right_after_the_start_is_never_missed(command: str) -> None:
    """The launcher may reap other processes at that moment, but keeps the server's exit status."""
    for _ in range(10):
        with launched(model_of(command)) as one:
            control = Control(one.entrance)
            async with trio.open_nursery() as nursery:
                with connected(control, nursery), trio.fail_after(5):
                    await control.has_exited.wait()
            assert control.exited == (command == "false")


async def test_many_may_come_at_once_and_silent_strangers_keep_nobody_out() -> None:
    """Only a client with the key gets in; silent connections must go when others come."""
    with launched(stub()) as one, ExitStack() as open_ones:
        await ready(one)
        address = ("127.0.0.1", one.report.entrance)
        for _ in range(300):
            open_ones.enter_context(closing(socket.create_connection(address)))
        answers: list[str | None] = []

        async def ask() -> None:
            answers.append(await ask_if_ready(one.landed))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
        assert answers == [None] * 200


def test_a_choice_of_gpus_goes_along_if_the_job_has_them() -> None:
    """The next job may have other GPUs, so names are dropped; an operator's numbers stay."""
    env = {"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2", "PATH": "p", "HIP_VISIBLE_DEVICES": "0"}
    assert without_gpus_of_others(env, {"GPU-1", "GPU-2"}) == env
    kept = {"PATH": "p", "HIP_VISIBLE_DEVICES": "0"}
    assert without_gpus_of_others(env, {"GPU-1"}) == kept


def test_what_slurm_says_of_each_end_is_no_output_of_the_model() -> None:
    """Slurm's words would be taken for the reason why the model failed."""
    told = b"srun: error: n1: task 0: Exited with exit code 1\nreal\n"
    assert without_slurms_words(told) == b"real\n"


def test_commands_beside_a_server_know_nothing_of_the_daemons_own_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The daemon may run in a job itself; of that job's variables, only SLURM_CONF stays."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    holding = model_of("true").holding
    assert holding is not None
    command = list(beside_command(holding, "7", "n1", "us.a.1.command", ["echo", "x"]))
    assert "--unset=SLURM_JOB_ID" in command
    assert "--unset=SLURM_CONF" not in command
    assert "--job-name=us.a.1.command" in command
    assert command[-4:-2] == ["-u", COMMAND]
    assert command[-2:] == ["echo", "x"]
