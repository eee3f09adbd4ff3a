"""Sleep and wake timeouts: the model's own, else the global one, else 60 s."""

from __future__ import annotations

from typing import Any

import pytest

from configschema import ConfigError, Limits, parse, resolve_limits

MODEL = "models: {m: {cmd: serve, proxy: 'http://localhost:1', cmdSleep: s, cmdWake: w%s}}\n"


def limits(everyones: str = "", own: str = "") -> Limits:
    config = parse(everyones + MODEL % own).config
    return resolve_limits(config, config.models["m"])


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [f"{p.path}: {p.message}" for p in caught.value.problems]


def test_default_is_60_seconds() -> None:
    """Without any setting a sleep and a wake may take 60 s."""
    assert (limits().sleep, limits().wake) == (60, 60)


def test_global_value_replaces_the_default() -> None:
    """The global setting holds for models without their own."""
    found = limits("cmdSleepTimeout: 120\ncmdWakeTimeout: 90\n")
    assert (found.sleep, found.wake) == (120, 90)


def test_models_own_value_wins() -> None:
    """A model's own setting holds, whatever the global one is, larger or smaller."""
    found = limits(
        "cmdSleepTimeout: 30\ncmdWakeTimeout: 300\n", ", cmdSleepTimeout: 90, cmdWakeTimeout: 45"
    )
    assert (found.sleep, found.wake) == (90, 45)


def test_sleep_and_wake_resolve_apart() -> None:
    """Setting one of the two leaves the other alone."""
    found = limits("cmdWakeTimeout: 90\n", ", cmdSleepTimeout: 120")
    assert (found.sleep, found.wake) == (120, 90)


def test_another_models_value_does_not_leak() -> None:
    """What one model sets is no other model's limit."""
    text = """
    models:
      a: {cmd: x, proxy: 'http://localhost:1', cmdSleep: s, cmdWake: w, cmdSleepTimeout: 90}
      b: {cmd: x, proxy: 'http://localhost:2', cmdSleep: s, cmdWake: w}
    """
    config = parse(text).config
    assert resolve_limits(config, config.models["b"]).sleep == 60


@pytest.mark.parametrize("value", [0, -1, 1.5, "true", "soon", "'60'", "[60]"])
@pytest.mark.parametrize("key", ["cmdSleepTimeout", "cmdWakeTimeout"])
def test_only_positive_whole_seconds_are_accepted(key: str, value: Any) -> None:
    """0, negatives, fractions, truth values, words and lists are refused, global or own."""
    (globally,) = problems(f"{key}: {value}\n" + MODEL % "")
    assert globally.startswith(f"{key}: expected whole seconds, at least 1, found ")
    (own,) = problems(MODEL % f", {key}: {value}")
    assert own.startswith(f"models.m.{key}: expected whole seconds, at least 1, found ")


@pytest.mark.parametrize(("given", "missing"), [("cmdSleep", "cmdWake"), ("cmdWake", "cmdSleep")])
def test_sleep_and_wake_come_together(given: str, missing: str) -> None:
    """One command without the other is refused."""
    text = f"models: {{m: {{cmd: x, proxy: 'http://localhost:1', {given}: x}}}}"
    assert problems(text) == [f"models.m.{given}: {missing} is required where {given} is given"]


def test_health_check_timeout_is_at_least_15() -> None:
    """A shorter one is raised, as llama-swap raises it."""
    assert limits("healthCheckTimeout: 5\n").ready == 15


def test_ttl_and_unload_timeout_resolve_like_llama_swap() -> None:
    """-1 is the global ttl and 0 is never; an unloadTimeout of 0 is the global one, or 10."""
    assert limits("globalTTL: 30\n").stop_ttl == 30
    assert limits("globalTTL: 30\n", ", ttl: 0").stop_ttl == 0
    assert limits("globalTTL: 30\n", ", ttl: 7").stop_ttl == 7
    assert limits().unload == 10
    assert limits("unloadTimeout: 20\n").unload == 20
    assert limits("unloadTimeout: 20\n", ", unloadTimeout: 3").unload == 3


def test_concurrency_limit_of_zero_is_ten() -> None:
    """llama-swap's default."""
    assert limits().concurrency == 10
    assert limits("", ", concurrencyLimit: 2").concurrency == 2
