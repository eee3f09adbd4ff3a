"""The words of a command tell whether the model server outlives the command."""

from __future__ import annotations

import pytest

from configschema import Model, parse
from configschema.keys.commandline import split
from configschema.keys.elsewhere import is_placeholder, leaves_the_tree, lives_elsewhere

PROXY = "http://127.0.0.1:9"


def model(keys: str) -> Model:
    (only,) = parse(f"models: {{m: {{{keys}}}}}").config.models.values()
    return only


PLACEHOLDERS = [
    "sleep infinity",
    "sleep 99999",
    "/bin/sleep infinity",
    "nohup sleep infinity",
    "tail -f /dev/null",
    "cat",
    "sh -c 'while :; do sleep 60; done'",
    "sh -c 'while true\ndo\n  sleep 60\ndone'",
    "sh -c 'exec sleep infinity'",
    "bash -c 'trap \"exit 0\" TERM; sleep infinity & wait'",
    "sh -c 'echo ready; cat >/dev/null'",
    "sh -c 'read -r line'",
]
STARTERS = [
    "docker run -d --name x image",
    "sh -c 'docker rm -f x; docker run -d --name x image'",
    "docker start x",
    "sudo docker container start x",
    "docker compose -f a.yaml -p b up -d x",
    "docker compose up --detach",
    "docker compose start x",
    "docker-compose up -d",
    "podman-compose start x",
    "systemctl start x",
    "systemctl --user restart x",
    "sudo -n systemctl --no-block start x",
    "service x start",
    "sbatch job.sh",
    "launchctl start x",
    "supervisorctl start x",
    "kubectl -n models scale --replicas=1 deployment/x",
    "kubectl apply -f x.yaml",
    "sh -c 'systemctl stop y; systemctl start x && echo started'",
]
IN_THEIR_COMMANDS = [
    "llama-server --port 9",
    "docker run --name x image",
    "docker start -a x",
    "docker start -ai x",
    "docker start --attach x",
    "docker compose up x",
    "docker compose logs -f",
    "docker logs -f x",
    "systemctl start --wait x",
    "systemctl status x",
    "sbatch --wait job.sh",
    "kubectl port-forward x 9",
    "ssh host systemctl start x",
    "cat model",
    "sleepy-server",
    "sh -c 'systemctl start x; journalctl -fu x'",
    "sh -c 'docker start x; exec llama-server'",
    "sh -c 'sleep 5; exec llama-server'",
    "sh -c 'sleep 0.6; echo no name >&2; exit 125'",
    "sleep 1",
    "true",
    "sh -c 'llama-server & wait'",
    "sh start.sh",
    "sh -c 'for x in a; do systemctl start $x; done'",
]


@pytest.mark.parametrize("command", STARTERS)
def test_a_server_that_its_command_only_starts_lives_elsewhere(command: str) -> None:
    """The server runs elsewhere, unless the file has `detached: false`."""
    argv = split(command).argv
    assert lives_elsewhere(argv, PROXY, None)
    assert not lives_elsewhere(argv, PROXY, detached=False)
    assert not is_placeholder(argv)


@pytest.mark.parametrize("command", PLACEHOLDERS)
def test_a_command_that_never_serves_stands_for_its_server(command: str) -> None:
    """The server may belong to anybody, but the placeholder is a process of the model."""
    argv = split(command).argv
    assert is_placeholder(argv)
    assert not lives_elsewhere(argv, PROXY, None)
    assert lives_elsewhere(argv, PROXY, detached=True)


@pytest.mark.parametrize("command", IN_THEIR_COMMANDS)
def test_what_is_not_sure_lives_in_its_command(command: str) -> None:
    """In doubt, the server is part of its command, unless the file has `detached: true`."""
    argv = split(command).argv
    assert not lives_elsewhere(argv, PROXY, None)
    assert lives_elsewhere(argv, PROXY, detached=True)
    assert not is_placeholder(argv)


def test_a_model_without_a_command_is_the_server_at_its_address() -> None:
    """A model with neither a command nor an address is no server at all."""
    assert model("proxy: http://10.0.0.5:8000").is_elsewhere
    assert not model("proxy: http://10.0.0.5:8000, detached: false").is_elsewhere
    assert model("cmd: docker start x, proxy: http://127.0.0.1:9").is_elsewhere
    assert not model("cmd: 'serve ${PORT}'").is_elsewhere
    (nothing,) = parse("models: {m: }").config.models.values()
    assert not nothing.is_elsewhere


@pytest.mark.parametrize(
    "command",
    [
        "docker run --rm image",
        "sh -c 'docker pull image; docker run image'",
        "docker compose up x",
        "docker logs -f x",
        "ssh host llama-server",
        "srun llama-server",
        "kubectl port-forward x 9",
        "systemd-run --user llama-server",
        "flatpak-spawn --host llama-server",
        "distrobox enter box -- llama-server",
        "wsl.exe llama-server",
        "sh -c 'for x in a; do docker run $x; done'",
    ],
)
def test_servers_of_an_engine_or_of_another_machine_are_no_descendants(command: str) -> None:
    """These servers do not descend from the local process that stands for them."""
    assert leaves_the_tree(split(command).argv)


@pytest.mark.parametrize(
    "command",
    [
        "llama-server",
        "llama-server --alias docker",
        "sh -c 'docker stop other; exec llama-server'",
        "apptainer run image.sif",
        "systemd-run --user --scope llama-server",
        "sh start.sh",
        "",
    ],
)
def test_other_servers_are_descendants_of_their_command(command: str) -> None:
    """Apptainer's servers are descendants, too; earlier engine commands do not count."""
    assert not leaves_the_tree(split(command).argv)
