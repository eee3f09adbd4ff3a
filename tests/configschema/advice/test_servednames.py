"""llamadoze warns about names that vLLM does not serve, because vLLM answers 404 to them."""

from __future__ import annotations

import json

import pytest

from configschema import parse


def advised(command: str, *keys: str, name: str = "m") -> str:
    """Return the warnings about a model's names."""
    body = ", ".join((f"cmd: {json.dumps(command)}", "proxy: http://127.0.0.1:9", *keys))
    found = parse(f"models: {{'{name}': {{{body}}}}}").warnings
    said = (one for one in found if "vLLM serves" in one.message)
    return "\n".join(f"{one.path}: {one.message}" for one in said)


def unknown(served: str, asked: str) -> str:
    way = f"add --served-model-name {asked}, or set useModelName"
    return f"models.m.cmd: vLLM serves '{served}' and answers 404 to '{asked}': {way}"


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve org/x",
        "vllm serve org/x --enable-sleep-mode --port 9",
        "/opt/venv/bin/vllm serve org/x",
        "uvx vllm serve org/x",
        "uv run --with vllm vllm serve org/x",
        "env A=1 vllm serve org/x",
        "sh -c 'exec vllm serve org/x --port 9'",
        "vllm serve --model org/x",
        "vllm serve --model=org/x --port 9",
        "vllm serve --port 9 --model org/x",
        "python -m vllm.entrypoints.openai.api_server --model org/x",
        "python3 -m vllm.entrypoints.openai.api_server --port 9 --model=org/x",
        "docker run --gpus all some/image vllm serve org/x",
    ],
)
def test_a_model_that_vllm_does_not_know_by_its_id_is_warned_of(command: str) -> None:
    """Without --served-model-name, vLLM serves a model under its path, however vLLM is started."""
    assert advised(command) == unknown("org/x", "m")


@pytest.mark.parametrize(
    "served",
    [
        "--served-model-name m",
        "--served-model-name=m",
        "--served_model_name m",
        "--served-model-name other m",
        "--served-model-name m other --port 9",
        "--port 9 --served-model-name m",
        "--served-model-name ${MODEL_ID}",
        '--served-model-name "m"',
    ],
)
def test_a_served_name_that_is_the_id_is_enough(served: str) -> None:
    """All spellings of the option work, and the id may be one of several names."""
    assert advised(f"vllm serve org/x {served}") == ""
    assert advised(f"python -m vllm.entrypoints.openai.api_server --model org/x {served}") == ""


@pytest.mark.parametrize("served", ["other", "other another", "M", "m2", "org/m"])
def test_a_served_name_that_is_another_is_warned_of(served: str) -> None:
    """A served name must match the id exactly, including upper and lower case."""
    said = advised(f"vllm serve org/x --served-model-name {served}")
    assert said == unknown(served.split()[0], "m")


def test_an_id_that_is_the_path_needs_no_other_name() -> None:
    """The simplest files name a model by its path."""
    assert advised("vllm serve org/x", name="org/x") == ""
    assert advised("vllm serve --model org/x", name="org/x") == ""


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ("aliases: [x]", "x"),
        ("aliases: [m, x, y]", "x"),
        ("filters: {setParamsByID: {'m:high': {effort: high}}}", "m:high"),
        ("filters: {setParamsByID: {'m:high': {a: 1}, 'm:low': {a: 2}}}", "m:high"),
        ("aliases: [x], filters: {setParamsByID: {'m:high': {a: 1}}}", "x"),
    ],
)
def test_other_names_without_use_model_name_are_warned_of(keys: str, asked: str) -> None:
    """Aliases and variants reach vLLM as the client wrote them; one warning names the first."""
    assert advised("vllm serve org/x --served-model-name m", keys) == unknown("m", asked)


@pytest.mark.parametrize(
    ("served", "keys"),
    [
        ("m x", "aliases: [x]"),
        ("x m y", "aliases: [x, y]"),
        ("m m:high", "filters: {setParamsByID: {'m:high': {a: 1}}}"),
        ("m", "filters: {setParamsByID: {m: {a: 1}}}"),
        ("m", "aliases: []"),
    ],
)
def test_other_names_that_are_served_are_not_warned_of(served: str, keys: str) -> None:
    """vLLM can serve a model under several names."""
    assert advised(f"vllm serve org/x --served-model-name {served}", keys) == ""


@pytest.mark.parametrize(
    "keys",
    [
        "useModelName: org/x",
        "useModelName: org/x, aliases: [x, y]",
        "useModelName: org/x, filters: {setParamsByID: {'m:high': {a: 1}}}",
    ],
)
def test_use_model_name_is_enough(keys: str) -> None:
    """Every request then reaches vLLM under the one name that vLLM knows."""
    assert advised("vllm serve org/x", keys) == ""


@pytest.mark.parametrize(
    "command",
    [
        "llama-server -m m.gguf --port 9",
        "llama-server --model org/x",
        "python -m sglang.launch_server --model-path org/x",
        "ollama serve",
        "tabby serve --model org/x",
        "serve org/x",
        "my-vllm-wrapper serve org/x",
        "/opt/vllm/start.sh org/x",
        "python -m vllm.entrypoints.api_server --model org/x",
        "docker start vllm",
    ],
)
def test_other_programs_are_not_warned_of(command: str) -> None:
    """These programs answer to any name, or their names are not known."""
    assert advised(command, "aliases: [x]") == ""


@pytest.mark.parametrize(
    "command", ["vllm serve", "vllm serve --port 9", "vllm serve --config vllm.yaml", "vllm"]
)
def test_what_cannot_be_told_from_the_command_is_not_warned_of(command: str) -> None:
    """vLLM's own configuration file may name the model."""
    assert advised(command) == ""


def test_only_the_model_that_would_not_answer_is_named() -> None:
    """llamadoze warns about the model whose name vLLM does not serve, and about no other."""
    text = """
models:
  a: {cmd: 'vllm serve org/x --port ${PORT} --served-model-name a'}
  b: {cmd: 'vllm serve org/x --port ${PORT}'}
  c: {cmd: 'llama-server --port ${PORT}'}
"""
    loaded = parse(text, "f")
    assert [(one.path, one.line) for one in loaded.warnings] == [("models.b.cmd", 4)]
    assert list(loaded.config.models) == ["a", "b", "c"]
