"""What llamadoze asks a container engine: to stop a container, and which process it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configschema import Limits, Model
from supervisor.places.containers import pid_of_container, stop_command
from tests.supervisor.places.servers import model_of


def argv_of(model: Model, limits: Limits, pid: int | None = None) -> tuple[str, ...]:
    command = stop_command(model, limits, pid)
    return tuple(command.argv) if command else ()


GROUP = Path("/proc/self/cgroup").read_text().split()[0]


@pytest.mark.parametrize(
    ("cmd", "stop"),
    [
        ("docker run --name box image", "docker stop -t 8 box"),
        (
            "podman --url tcp://h:1 run --rm --name=box image",
            "podman --url tcp://h:1 stop -t 8 box",
        ),
        ("docker run image", ""),
        ("docker run --name box-$(id -u) image", ""),
        ("docker exec box serve", ""),
        ("serve --name box", ""),
    ],
)
def test_a_container_is_stopped_by_its_engine(cmd: str, stop: str) -> None:
    """The engine gets the model's grace; a container without a known name cannot be stopped."""
    model = model_of(cmd=cmd, proxy="http://127.0.0.1:9")
    command = stop_command(model, Limits(unload=7.2, stop=3))
    assert (command is not None) == bool(stop)
    if command:
        assert " ".join(command.argv) == stop
        assert command.name == f"{cmd.split()[0]} stop"
        assert command.limit > 7.2


def test_what_the_operator_says_comes_first() -> None:
    """cmdStop gets the pid that it is for; without a pid, the engine stops the container."""
    keys = {"cmd": "docker run --name box image", "proxy": "http://127.0.0.1:9"}
    model = model_of(**keys, cmdStop="end ${PID}")
    assert argv_of(model, Limits(), 77) == ("end", "77")
    command = stop_command(model, Limits(stop=3), 77)
    assert command
    assert (command.name, command.limit) == ("cmdStop", 3)
    without = stop_command(model, Limits())
    assert without
    assert without.name == "docker stop"


def test_an_id_that_an_engine_has_written_is_used(tmp_path: Path) -> None:
    """If the id's file is missing or unreadable, the name must be enough."""
    file = tmp_path / "cid"
    keys = {"cmd": f"docker run --cidfile {file} image", "proxy": "http://127.0.0.1:9"}
    model, limits = model_of(**keys), Limits(unload=5)
    assert argv_of(model, limits) == ()
    file.write_text("0123abc\n")
    assert argv_of(model, limits) == ("docker", "stop", "-t", "5", "0123abc")
    file.write_bytes(b"\xff" * 100)
    assert argv_of(model, limits) == ()
    file.unlink()
    file.mkdir()
    assert argv_of(model, limits) == ()


@pytest.mark.timeout(10)
def test_a_pipe_in_the_place_of_an_id_holds_nobody_up(tmp_path: Path) -> None:
    """A pipe may never get a writer, so llamadoze does not wait for one."""
    file = tmp_path / "cid"
    os.mkfifo(file)
    model = model_of(cmd=f"docker run --cidfile {file} image", proxy="http://127.0.0.1:9")
    assert argv_of(model, Limits()) == ()


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ("ME GROUP", True),
        ("ME another", False),  # a process of this machine, and of another container
        ("ME ", False),
        ("0 GROUP", False),
        ("99999999 GROUP", False),
        ("no such container", False),
        ("", False),
    ],
)
async def test_an_engines_word_for_a_process_must_fit_this_machine(
    tmp_path: Path, says: str, found: bool
) -> None:
    """The engine may be on another machine, so the process's control group must have the id."""
    engine = tmp_path / "docker"
    me = os.getpid()
    said = says.replace("ME", f"{me}").replace("GROUP", GROUP)
    engine.write_text(f"#!/bin/sh\necho '{said}'\n")
    engine.chmod(0o700)
    model = model_of(cmd="docker run --name box image", proxy="http://127.0.0.1:9")
    assert await pid_of_container(model, {"PATH": f"{tmp_path}:/bin"}) == (me if found else None)


@pytest.mark.parametrize("script", ["exit 1", "sleep 60", "exec /no/such/engine"])
async def test_an_engine_that_does_not_answer_tells_nothing(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llamadoze does not wait long for the engine."""
    monkeypatch.setattr("supervisor.places.containers.LONGEST_INSPECTION", 0.2)
    engine = tmp_path / "docker"
    engine.write_text(f"#!/bin/sh\n{script}\necho '{os.getpid()} {GROUP}'\n")
    engine.chmod(0o700)
    model = model_of(cmd="docker run --name box image", proxy="http://127.0.0.1:9")
    path = f"{tmp_path}:/bin"
    if script == "exit 1":
        assert await pid_of_container(model, {"PATH": "/no/such/folder"}) is None
    assert await pid_of_container(model, {"PATH": path}) is None
