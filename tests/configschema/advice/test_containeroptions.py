"""llamadoze warns if settings do not reach a model's container, or if nothing can end it."""

from __future__ import annotations

import json

import pytest

from configschema import Model, parse

GOOD = "--rm --init --name x"


def advised(command: str, *keys: str) -> list[str]:
    body = ", ".join((f"cmd: {json.dumps(command)}", "proxy: http://127.0.0.1:9", *keys))
    found = parse(f"models: {{m: {{{body}}}}}").warnings
    return [f"{one.path.removeprefix('models.m.')}: {one.message}" for one in found]


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (f"docker run {GOOD} image", ()),
        (f"docker run {GOOD} -d image", ("detached: true",)),
        ("docker run --rm --init -d image", ("detached: true", "cmdStop: stopper")),
        ("docker run --rm --init --cidfile /run/id image", ()),
        ("docker run --rm --init image", ("cmdStop: stopper",)),
        ("docker run --init --name x image", ("cmdStop: sh -c 'docker stop x; docker rm x'",)),
        ("sh -c 'docker rm -f x; docker run --init --name x image'", ()),
        ("podman run --replace --init --name x image", ()),
        ("docker run --rm --name x image tini -- serve", ()),
        (f"docker run {GOOD} -e A -e B=1 image", ("env: [A=1, B=2]",)),
        (f"docker run {GOOD} --env-file f image", ("env: [A=1]",)),
        (f"podman run {GOOD} --env 'VLLM_*' image", ("env: [VLLM_X=1]",)),
        (f"docker run {GOOD} image", ("env: [DOCKER_HOST=x, PATH=/bin, HOME=/x, https_proxy=x]",)),
        (f"sh -c 'docker run {GOOD} -v $DIR:/m -v ${{WHERE%/}}:/n image'", ("env: [DIR=/x]",)),
    ],
)
def test_a_container_that_can_be_found_and_ended_is_good(
    command: str, keys: tuple[str, ...]
) -> None:
    """The variables must reach the container, or be for the engine's client."""
    assert [one for one in advised(command, *keys) if "is not replaced" not in one] == []


@pytest.mark.parametrize(
    ("command", "keys", "said"),
    [
        (f"docker run -d {GOOD} image", (), "cmd: with -d (detach) the container outlives cmd"),
        (
            f"docker run -d {GOOD} image",
            (),
            "llamadoze ends it by its name: remove -d, or confirm with detached",
        ),
        ("docker run -d --init image", ("cmdStop: x",), "llamadoze ends it by cmdStop: remove -d"),
        ("docker run -d --init --cidfile f image", (), "llamadoze ends it by its id: remove -d"),
        ("docker run -d --init image", (), "with -d (detach) llamadoze cannot end the container"),
        ("docker run -d --init image", ("detached: true",), "llamadoze cannot end the container"),
        (f"docker run -d {GOOD} image", ("detached: false",), "detached: cmd has -d (detach)"),
        ("docker run --rm --init image", (), "cmd: without --name llamadoze cannot find the"),
        ("docker run --init --name x image", (), "cmd: container 'x' remains after it ends"),
        ("docker run --rm --name x image", (), "cmd: without --init the server is PID 1"),
    ],
)
def test_a_container_that_nobody_ends_or_that_is_in_the_way_is_warned_of(
    command: str, keys: tuple[str, ...], said: str
) -> None:
    """The warning names the option that is missing or superfluous."""
    (warning,) = advised(command, *keys)
    assert said in warning


def test_variables_that_reach_the_client_only_are_warned_of_once() -> None:
    """The warning names the variables, because docker can pass them on by name."""
    keys = "env: [HF_TOKEN=secret, CUDA_VISIBLE_DEVICES=1, B=2]"
    assert advised(f"docker run {GOOD} -e B image", keys) == [
        "env: reaches the container's client, but not the container: "
        "add -e 'HF_TOKEN' -e 'CUDA_VISIBLE_DEVICES' to cmd"
    ]


VLLM = f"docker run {GOOD} %s image vllm serve --enable-sleep-mode --served-model-name m"


@pytest.mark.parametrize(
    ("option", "env", "is_set"),
    [
        ("", "", False),
        ("", "VLLM_SERVER_DEV_MODE=1", False),
        ("-e VLLM_SERVER_DEV_MODE=1", "", True),
        ("-e VLLM_SERVER_DEV_MODE=0", "VLLM_SERVER_DEV_MODE=1", False),
        ("-e VLLM_SERVER_DEV_MODE", "VLLM_SERVER_DEV_MODE=1", True),
        ("-e VLLM_SERVER_DEV_MODE", "", False),
        ("--env-file x", "", True),
    ],
)
def test_what_a_preset_needs_must_be_in_the_container(
    option: str, env: str, is_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llamadoze warns once, even if the variable is set for the engine's client."""
    monkeypatch.delenv("VLLM_SERVER_DEV_MODE", raising=False)
    said = (
        []
        if is_set
        else [
            "sleep: vllm needs 'VLLM_SERVER_DEV_MODE=1', which is not in the container, because "
            "env "
            "does not reach it: add -e VLLM_SERVER_DEV_MODE=1"
        ]
    )
    assert advised(VLLM % option, "sleep: vllm", f"env: ['{env or 'PATH=/bin'}']") == said


def test_a_missing_init_is_said_once_for_all_models() -> None:
    """This is only advice, and it may apply to dozens of models."""
    models = ", ".join(
        f"m{n}: {{cmd: 'docker run --rm --name x{n} -p ${{PORT}}:80 i'}}" for n in range(3)
    )
    (warning,) = parse(f"models: {{{models}}}").warnings
    assert warning.path == "models.m0.cmd"
    assert warning.message.endswith("add --init (and 2 more models)")


def test_a_port_inside_of_a_container_is_not_the_models() -> None:
    """The published port stands before the image; a port after it is the container's own."""
    assert advised(f"docker run {GOOD} -p 9:8000 image --port 8000") == []


def test_a_detached_container_is_a_model_elsewhere() -> None:
    """It makes no difference whether `detached` is written or found in the command."""
    text = f"models: {{m: {{cmd: docker run -d {GOOD} image, proxy: 'http://127.0.0.1:9'}}}}"
    model: Model = parse(text).config.models["m"]
    assert model.is_elsewhere
