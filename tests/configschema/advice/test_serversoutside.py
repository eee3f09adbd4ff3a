"""llamadoze warns about servers that outlive their command, and about no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configschema import Here, load, parse

PROXY = "proxy: http://127.0.0.1:9"


def advised(command: str, *keys: str) -> list[str]:
    body = ", ".join((f"cmd: {json.dumps(command)}", PROXY, *keys))
    found = parse(f"models: {{m: {{{body}}}}}").warnings
    return [f"{one.path.removeprefix('models.m.')}: {one.message}" for one in found]


@pytest.mark.parametrize(
    ("command", "way"),
    [
        (
            "docker compose up -d x",
            "so llamadoze cannot end it: write cmdStop, such as docker compose stop",
        ),
        (
            "docker-compose start x",
            "so llamadoze cannot end it: write cmdStop, such as docker-compose stop",
        ),
        ("docker compose up x", "outlive a client that crashes or is killed: write cmdStop, such"),
        ("docker start x", "so llamadoze cannot end it: write cmdStop, such as docker stop NAME"),
        (
            "sudo systemctl start x",
            "so llamadoze cannot end it: write cmdStop, such as systemctl stop UNIT",
        ),
        ("service x start", "so llamadoze cannot end it: write cmdStop, such as service NAME stop"),
        ("sbatch job.sh", "so llamadoze cannot end it: write cmdStop, such as scancel --name NAME"),
        ("ssh host serve", "the server outlives ssh, because it has no terminal: add -tt"),
        ("ssh -t -p 22 me@host serve", "the server outlives ssh"),
        ("ssh host -tt", "the server outlives ssh"),
        ("srun -n 1 serve", "kills its server before the server can end in order: write cmdStop"),
    ],
)
def test_a_server_that_nothing_ends_is_warned_of(command: str, way: str) -> None:
    """The warning suggests a command that ends the server; any `cmdStop` avoids the warning."""
    (warning,) = advised(command)
    assert warning.startswith("cmd: ")
    assert way in warning
    assert advised(command, "cmdStop: stopper") == []


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "sleep infinity",
        "ssh -tt host serve",
        "ssh -t -t host serve",
        "ssh -o RequestTTY=force host serve",
        "ssh -N -L 9:localhost:9 host",
        "kubectl port-forward x 9",
        "sh -c 'systemctl start x; exec serve'",
    ],
)
def test_a_server_that_ends_with_its_command_needs_no_other(command: str) -> None:
    """A command that leads to a server elsewhere, such as a tunnel, needs no `cmdStop` either."""
    assert advised(command) == []


def test_a_script_that_is_said_to_only_start_must_have_an_end() -> None:
    """Only the author knows how to stop what the script starts, so `cmdStop` is needed."""
    message = "cmd: cmd only starts the model server, so llamadoze cannot end it: write cmdStop"
    assert advised("start.sh", "detached: true") == [message]
    assert advised("start.sh", "detached: true", "cmdStop: stop.sh") == []


def test_a_model_without_a_command_is_the_server_at_its_address() -> None:
    """The address must be one that llamadoze can use."""
    assert parse("models: {m: {proxy: 'http://10.0.0.5:8000'}}").warnings == ()
    (nowhere,) = parse("models: {m: {proxy: '10.0.0.5'}}").warnings
    assert nowhere.message.startswith("expected an http address such as http://")
    (nothing,) = parse("models: {m: {proxy: ''}}").warnings
    assert nothing.message == "cmd is missing, so the model cannot be started"
    (contradiction,) = parse("models: {m: {proxy: 'http://h:1', detached: false}}").warnings
    assert contradiction.message == "cmd is missing, so the model cannot be started"


def test_a_preset_of_a_server_elsewhere_is_not_asked_for_what_nobody_sees() -> None:
    """llamadoze does not see that server's options and environment, so it does not check them."""
    assert parse("models: {m: {proxy: 'http://h:1', sleep: vllm}}").warnings == ()


def test_models_of_one_server_that_runs_by_itself_share_no_port() -> None:
    """All models of such a server may sleep; a server started on its port could not listen."""
    ollama = "sleep: ollama, checkEndpoint: /x"
    models = f"a: {{{PROXY}, {ollama}}}, b: {{cmd: sleep infinity, {PROXY}, {ollama}}}"
    loaded = parse(f"models: {{{models}}}")
    assert loaded.warnings == ()
    assert all(model.can_sleep for model in loaded.config.models.values())
    mixed = parse(f"models: {{{models}, c: {{cmd: serve, {PROXY}, {ollama}}}}}").warnings
    assert any("listens on port 9, too" in one.message for one in mixed)


def test_the_port_of_a_server_that_runs_by_itself_is_given_to_nobody() -> None:
    """A model that is started with that port could not listen on it."""
    text = "startPort: 5800\nmodels: {a: {proxy: 'http://localhost:5800'}, b: {cmd: 'x ${PORT}'}}"
    (warning,) = parse(text).warnings
    assert warning.path == "models.a.proxy"
    assert warning.message.startswith("port 5800 is the ${PORT} of model 'b': change")
    assert "use ${PORT}" not in warning.message


def test_a_server_elsewhere_is_not_the_daemon_itself(tmp_path: Path) -> None:
    """A daemon that is its own model server would send requests to itself without end."""
    file = tmp_path / "f.yaml"
    file.write_text("models: {m: {proxy: 'http://127.0.0.1:8080'}}")
    (warning,) = load(file, environ={}, place=Here(8080)).warnings
    assert warning.message.startswith("llamadoze itself listens on port 8080")


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ("cmd: 'wrapper serve vllm serve m --enable-sleep-mode'", "cmd"),
        ("cmd: 'vllm serve m --enable_sleep_mode'", "cmd"),
        ("cmd: w, cmdStop: 'vllm-wrapper sleep 9000 ${PID}'", "cmdStop"),
        ("cmd: w, cmdStop: 'curl -f -X POST http://127.0.0.1:9/sleep?level=1'", "cmdStop"),
        ("cmd: w, cmdStop: \"sh -c 'curl -f localhost:9/sleep; kill ${PID}'\"", "cmdStop"),
    ],
)
def test_a_server_that_could_sleep_and_is_stopped_is_warned_of(keys: str, place: str) -> None:
    """The warning names the key that makes the model sleep."""
    (warning,) = parse(f"models: {{m: {{{keys}, {PROXY}}}}}").warnings
    assert warning.path == f"models.m.{place}"
    assert "write sleep: vllm, VLLM_SERVER_DEV_MODE=1 in env" in warning.message


@pytest.mark.parametrize(
    "keys",
    [
        "cmd: w, cmdStop: \"sh -c 'sleep 5; kill ${PID}'\"",
        "cmd: w, cmdStop: /bin/sleep 5",
        "cmd: w, cmdStop: timeout 9 sleep 5",
        "cmd: 'x --enable-sleep-mode', cmdSleep: s, cmdWake: w",
        "cmd: w, cmdStop: curl -f http://h/sleeping",
    ],
)
def test_a_stop_that_waits_and_a_model_that_sleeps_are_left_alone(keys: str) -> None:
    """`sleep` is also the name of a program that only waits."""
    assert parse(f"models: {{m: {{{keys}, {PROXY}}}}}").warnings == ()
