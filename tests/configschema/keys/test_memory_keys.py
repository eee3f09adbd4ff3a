"""The keys for routing by memory: what each accepts, and what the error for anything else says."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from configschema import Config, ConfigError, Model, parse, rules_of
from configschema.keys.editorschema import json_schema

SCHEMA = jsonschema.Draft202012Validator(json_schema())


def whole(model: dict[str, Any] | None = None, memory: Any = None, **more: Any) -> dict[str, Any]:
    settings = {} if memory is None else {"settings": {"memory": memory}}
    return {
        "models": {"a": {"cmd": "serve --port ${PORT}", **(model or {})}},
        "routing": {"router": {"use": "memory", **settings}},
        **more,
    }


def read(**keys: Any) -> Config:
    return parse(json.dumps(whole(**keys))).config


def model(**keys: Any) -> Model:
    return read(model=keys).models["a"]


def problems(**keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(**keys)
    return str(caught.value)


def test_memory_rules_without_settings_have_defaults() -> None:
    """Half a GiB stays free on each GPU; all GPUs count, and the host memory that others leave."""
    rules = rules_of(read()).memory
    assert rules is not None
    assert (rules.reserve, rules.gpus, rules.host_memory) == (512, (), None)


@pytest.mark.parametrize("use", ["group", "matrix", None])
def test_memory_settings_without_memory_in_use_have_no_effect(use: str | None) -> None:
    """The settings may stay in the file for later use."""
    settings = {"memory": {"reserve": 0}, "matrix": {"sets": {"all": "a"}}}
    text = {**whole(), "routing": {"router": {"use": use, "settings": settings}}}
    assert rules_of(parse(json.dumps(text)).config).memory is None


@pytest.mark.parametrize(
    "old", [{"groups": {"g": {"members": ["a"]}}}, {"matrix": {"sets": {"s": "a"}}}]
)
def test_memory_and_an_older_rule_cannot_both_be_used(old: dict[str, Any]) -> None:
    """If both are used, llamadoze cannot know which is meant."""
    assert "cannot both be used" in problems(**old)


def test_the_settings_are_read() -> None:
    """Indexes of GPUs may also be written as numbers."""
    rules = rules_of(read(memory={"reserve": 0, "gpus": [0, "GPU-ab"], "hostMemory": 1.5})).memory
    assert rules is not None
    assert (rules.reserve, rules.gpus, rules.host_memory) == (0, ("0", "GPU-ab"), 1.5)


def test_a_model_without_keys_runs_on_one_gpu_and_is_not_guessed() -> None:
    """The model has no `keep` either."""
    one = model()
    assert str(one.gpus) == "1"
    assert one.memory.gpu is None
    assert one.memory.host is None
    assert not one.keep


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0),
        (1, 1),
        (8, 8),
        ([0], ("0",)),
        (["0", "GPU-ab"], ("0", "GPU-ab")),
        ("0,1", ("0", "1")),
        ("GPU-ab", ("GPU-ab",)),
        (" 1 , 0 ", ("1", "0")),
    ],
)
def test_gpus_are_a_number_or_a_list(written: Any, expected: object) -> None:
    """The forms of NVIDIA's variables work, too, and the schema accepts all forms."""
    assert model(gpus=written).gpus == expected
    assert not list(SCHEMA.iter_errors(whole(model={"gpus": written})))


@pytest.mark.parametrize(
    "wrong", [-1, 65, 1.5, True, [], "", ["0", "0"], ["0", ""], "0,,1", {}, [[0]]]
)
def test_other_gpus_are_refused_with_what_is_expected(wrong: Any) -> None:
    """The same GPU twice in a list is a mistake."""
    said = problems(model={"gpus": wrong})
    assert "gpus" in said
    assert "expected" in said


@pytest.mark.parametrize("size", [0, 1, 0.25, 512])
def test_sizes_are_gib(size: float) -> None:
    """Fractions are allowed; 0 is a model that uses no GPU."""
    one = model(memory={"gpu": size, "host": size})
    assert (one.memory.gpu, one.memory.host) == (size, size)
    assert not list(SCHEMA.iter_errors(whole(model={"memory": {"gpu": size}})))


@pytest.mark.parametrize("wrong", [-1, -0.1, True, "much", "12 GiB", [1], 1e9, {"GiB": 1}])
@pytest.mark.parametrize("key", ["gpu", "host"])
def test_other_sizes_are_refused(key: str, wrong: Any) -> None:
    """The error names the key."""
    assert "memory" in problems(model={"memory": {key: wrong}})


@pytest.mark.parametrize("wrong", [".nan", ".inf", "-.inf"])
def test_a_size_that_is_no_number_is_refused(wrong: str) -> None:
    """YAML allows values such as .nan and .inf."""
    text = f"models: {{a: {{cmd: 'serve ${{PORT}}', memory: {{gpu: {wrong}}}}}}}"
    with pytest.raises(ConfigError, match="expected GiB, at least 0"):
        parse(text)


@pytest.mark.parametrize(
    "memory",
    [{"reserve": -1}, {"reserve": "x"}, {"hostMemory": -1}, {"gpus": 3}, [], 3],
)
def test_other_settings_are_refused(memory: Any) -> None:
    """Wrong values are refused rather than ignored."""
    assert "memory" in problems(memory=memory)


def test_any_models_may_meet_by_memory() -> None:
    """With routing by memory, no two models may share a port."""
    text = whole()
    text["models"] = {
        name: {"cmd": "serve", "proxy": "http://127.0.0.1:5800"} for name in ("a", "b")
    }
    loaded = parse(json.dumps(text))
    assert any("5800" in str(one) for one in loaded.warnings)


def test_a_macro_may_stand_for_a_size() -> None:
    """Macros work here as for any other value."""
    text = {**whole(model={"memory": {"gpu": "${size}"}}), "macros": {"size": 12}}
    guessed = parse(json.dumps(text)).config.models["a"].memory.gpu
    assert guessed is not None
    assert float(guessed) == 12


def test_keep_is_yes_or_no() -> None:
    """`keep` accepts true or false only, like other switches."""
    assert model(keep=True).keep is True
    assert "keep" in problems(model={"keep": "always"})


def test_a_setting_that_does_not_exist_is_told_of() -> None:
    """An unknown key has no effect, so llamadoze warns about it."""
    loaded = parse(json.dumps(whole(memory={"spare": 1})))
    assert any("spare" in str(one) for one in loaded.warnings)
