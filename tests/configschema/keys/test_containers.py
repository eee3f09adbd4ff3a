"""llamadoze reads container commands: their options, and the scripts and wrappers around them."""

from __future__ import annotations

import time

import pytest

from configschema.keys.commandline import split
from configschema.keys.containers import Container, container_of


def container(command: str) -> Container:
    found = container_of(split(command).argv)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("command", "engine"),
    [
        ("docker run --name x image", "docker"),
        ("/usr/bin/docker run --name x image", "/usr/bin/docker"),
        ("docker.exe run --name x image", "docker.exe"),
        ("podman container run --name x image", "podman"),
        ("nerdctl -n k8s.io run --name x image", "nerdctl -n k8s.io"),
        ("docker -D --context=far run --name x image", "docker -D --context=far"),
        ("docker --context far -H tcp://h:1 run --name x i", "docker --context far -H tcp://h:1"),
        ("sudo -n -u me docker run --name x image", "sudo -n -u me docker"),
        ("env -u B A=b docker run --name x image", "env -u B A=b docker"),
        ("exec docker run --name x image", "docker"),
        ("nice -n 5 nohup docker run --name x image", "docker"),
        ("timeout -k 5 60 docker run --name x image", "docker"),
        ("systemd-run --user --scope -p A=1 docker run --name x image", "docker"),
        ("sh -c 'docker run --name x image'", "docker"),
        ("sh -c 'docker pull image; exec docker run --name x image'", "docker"),
        ("sh -c 'docker rm -f x || true\n# comment\ndocker run --name x image'", "docker"),
        ("bash -lc 'A=1 docker run --name x image'", "env A=1 docker"),
        ("bash -euo pipefail -c 'set -x; docker run --name x image'", "docker"),
        ("sudo sh -c 'docker run --name x image'", "sudo docker"),
        ("sh -c 'docker run -v $(pwd)/m:/m --name x image 2>&1 | tee log'", "docker"),
        ("sh -c 'docker run --name x image & trap \"kill $!\" TERM; wait $!'", "docker"),
        ("sh -c \"sh -c 'docker run --name x image'\"", "docker"),
        ("busybox sh -c 'docker run --name x image >log'", "docker"),
    ],
)
def test_a_container_is_found_behind_wrappers_and_in_scripts(command: str, engine: str) -> None:
    """The engine keeps the global options and wrappers that further commands to it need."""
    found = container(command)
    assert (found.engine, found.name) == (tuple(engine.split()), "x")
    assert found.stop_argv(2) == (*found.engine, "stop", "-t", "2", "x")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "docker",
        "docker run" + "x",
        "docker start x",
        "docker exec x run",
        "docker compose run x",
        "llama-server run",
        "ssh host docker run image",
        "sh run.sh docker run image",
        "sh -c",
        "sh -c 'docker run image; llama-server'",
        "sh -c 'docker run \"image'",
        "sh -c '(docker run image)'",
        "sh -c 'for x in a b; do docker run $x; done'",
        "sh -c 'f() { docker run image; }; f'",
    ],
)
def test_other_commands_run_no_container(command: str) -> None:
    """A command that llamadoze cannot parse counts as no container, too."""
    assert container_of(split(command).argv) is None


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ("--rm --init --privileged -P --read-only", "image"),
        ("--gpus all --shm-size 8g --ipc=host --restart no", "image"),
        ("-it -v /a:/b -v/c:/d -u 1000:1000 -w /x", "image"),
        ("-itv /a:/b --device /dev/kfd --security-opt seccomp=unconfined", "image"),
        ("--health-cmd none --entrypoint python3 --ulimit memlock=-1", "image"),
        ("--tls-verify=false --replace --unknown-option value", "image"),
        ("--rm --", "image"),
    ],
)
def test_the_image_is_behind_the_options_and_their_values(options: str, image: str) -> None:
    """The words after the image are the container's command."""
    found = container(f"docker run {options} {image} --rm -d --name y")
    assert (found.image, found.command) == (image, ("--rm", "-d", "--name", "y"))
    assert (found.name, found.detached) == ("", False)


@pytest.mark.parametrize(
    ("options", "detached"),
    [
        ("-d", True),
        ("-dit", True),
        ("-itd", True),
        ("--detach", True),
        ("--detach=true", True),
        ("-d=true", True),
        ("--detach=false", False),
        ("-d --detach=false", False),
        ("-e d", False),
        ("-ed", False),
        ("--name -d", False),
        ("-it", False),
    ],
)
def test_a_detached_container_is_known_by_its_option(options: str, detached: bool) -> None:
    """All spellings work, the last one wins, and an option's value is no option."""
    assert container(f"docker run {options} image").detached is detached


def test_what_a_container_is_given_is_read() -> None:
    """llamadoze reads the container's variables, ports and network, and whether it is removed."""
    found = container(
        "docker run --rm --init -e A=1 -eB=2 --env C --env=D=x=y -p 127.0.0.1:5800:8000 "
        "--publish=9:9 --net host --cidfile /run/id --env-file f image serve"
    )
    assert found.variables == {"A": "1", "B": "2", "C": None, "D": "x=y"}
    assert found.ports == ("127.0.0.1:5800:8000", "9:9")
    assert (found.network, found.cidfile) == ("host", "/run/id")
    assert found.has_env_file
    assert found.has_init
    assert found.is_removed
    assert container("podman run --replace --name x image").is_removed
    assert container("podman run --env-host image").has_env_file
    bare = container("docker run image")
    assert not any((bare.has_env_file, bare.has_init, bare.is_removed, bare.variables))


def test_a_container_is_stopped_by_its_id_or_its_name() -> None:
    """llamadoze prefers the id to the name, and rounds the grace up to whole seconds."""
    named = container("sudo docker run --name=x image")
    assert named.stop_argv(2.2) == ("sudo", "docker", "stop", "-t", "3", "x")
    assert named.stop_argv(10, "4f2") == ("sudo", "docker", "stop", "-t", "10", "4f2")
    template = "{{.State.Pid}} {{.Id}}"
    assert named.inspect_argv() == ("sudo", "docker", "inspect", "-f", template, "x")
    by_file = container("docker run --cidfile /run/id image")
    assert (by_file.stop_argv(1), by_file.inspect_argv()) == (None, None)
    assert by_file.stop_argv(1, "4f2") == ("docker", "stop", "-t", "1", "4f2")
    assert container("docker run image").stop_argv(1) is None


def test_a_name_that_a_shell_puts_in_is_not_known() -> None:
    """The shell replaces `$$`, so no container has the name as it is written."""
    assert container("sh -c 'docker run --name x-$$ image'").stop_argv(1) is None


def test_shells_within_shells_are_followed_so_far() -> None:
    """Nine shells within shells are too deep: llamadoze then finds no container."""
    words: tuple[str, ...] = ("docker", "run", "image")
    for _ in range(9):
        words = ("sh", "-c", " ".join("'" + word.replace("'", "'\\''") + "'" for word in words))
    assert container_of(words) is None


@pytest.mark.parametrize("piece", ["$(", "`", "a;", "'", "<", "\\", "docker run x;"])
def test_a_script_that_is_too_long_is_given_up(piece: str) -> None:
    """Parsing a long script must not take seconds, because no person writes such a command."""
    begun = time.monotonic()
    container_of(("sh", "-c", piece * 200_000))
    container_of(("sh", "-c", piece * (20_000 // len(piece))))
    assert time.monotonic() - begun < 2
