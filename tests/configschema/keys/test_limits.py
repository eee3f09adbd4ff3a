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
    """The global setting applies to models without their own."""
    found = limits("cmdSleepTimeout: 120\ncmdWakeTimeout: 90\n")
    assert (found.sleep, found.wake) == (120, 90)


def test_models_own_value_wins() -> None:
    """A model's own setting applies, whether the global one is larger or smaller."""
    found = limits(
        "cmdSleepTimeout: 30\ncmdWakeTimeout: 300\n", ", cmdSleepTimeout: 90, cmdWakeTimeout: 45"
    )
    assert (found.sleep, found.wake) == (90, 45)


def test_sleep_and_wake_resolve_apart() -> None:
    """Setting one of the two does not change the other."""
    found = limits("cmdWakeTimeout: 90\n", ", cmdSleepTimeout: 120")
    assert (found.sleep, found.wake) == (120, 90)


def test_another_models_value_does_not_leak() -> None:
    """One model's setting does not change another model's limit."""
    text = """
    models:
      a: {cmd: x, proxy: 'http://localhost:1', cmdSleep: s, cmdWake: w, cmdSleepTimeout: 90}
      b: {cmd: x, proxy: 'http://localhost:2', cmdSleep: s, cmdWake: w}
    """
    config = parse(text).config
    assert resolve_limits(config, config.models["b"]).sleep == 60


@pytest.mark.parametrize("value", [0, -1, 1.5, "true", "soon", "'60'", "[60]"])
@pytest.mark.parametrize("key", ["cmdSleepTimeout", "cmdWakeTimeout", "stopTimeout"])
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
    assert problems(text) == [f"models.m.{given}: {given} needs {missing} as well"]


def test_health_check_timeout_is_at_least_15() -> None:
    """llamadoze raises a shorter value to 15, as llama-swap does."""
    assert limits("healthCheckTimeout: 5\n").ready == 15


def test_ttl_and_unload_timeout_resolve_like_llama_swap() -> None:
    """A ttl of -1 is the global one, 0 is never; an unloadTimeout of 0 is the global one, or 10."""
    assert limits("globalTTL: 30\n").sleep_ttl == 30
    assert limits("globalTTL: 30\n", ", ttl: 0").sleep_ttl == 0
    assert limits("globalTTL: 30\n", ", ttl: 7").sleep_ttl == 7
    assert limits().unload == 10
    assert limits("unloadTimeout: 20\n").unload == 20
    assert limits("unloadTimeout: 20\n", ", unloadTimeout: 3").unload == 3


ENDPOINTS = (
    "models: {m: {cmd: 'x ${PORT}', sleepMode: enable, %s, wakeEndpoints: [{endpoint: /w}]%s}}"
)


@pytest.mark.parametrize(
    ("text", "sleeps", "stops"),
    [
        ("models: {m: {cmd: 'x ${PORT}', ttl: 9}}", 0, 9),
        (MODEL % ", ttl: 9", 9, 0),
        (MODEL % ", ttl: 9, sleepTtl: 3", 3, 9),
        (MODEL % ", sleepTtl: 3", 3, 0),
        (MODEL % ", ttl: 9, sleepTtl: 0", 0, 9),
        (ENDPOINTS % ("sleepEndpoints: [{endpoint: /s}]", ", ttl: 9"), 0, 9),
        (ENDPOINTS % ("sleepEndpoints: [{endpoint: /s}]", ", ttl: 9, sleepTtl: 3"), 3, 9),
    ],
)
def test_an_idle_model_sleeps_and_then_stops(text: str, sleeps: int, stops: int) -> None:
    """ttl alone means sleep for cmdSleep and stop for endpoints, as in their own programs."""
    config = parse(text).config
    found = resolve_limits(config, config.models["m"])
    assert (found.sleep_ttl, found.stop_ttl) == (sleeps, stops)


def test_a_sleep_that_is_never_reached_is_warned_of() -> None:
    """The idle model stops before sleepTtl passes."""
    (warning,) = parse(MODEL % ", ttl: 9, sleepTtl: 9").warnings
    assert warning.path == "models.m.sleepTtl"
    assert warning.message == "is never reached, because the model stops after 9 idle seconds"


def test_limits_of_http_steps_resolve_one_by_one() -> None:
    """A step's own limit wins, then the global one of requests, then that of commands, then 60 s.

    All steps together have the limit of commands, or the sum of the steps' limits if it is higher.
    The sum counts only limits of steps and of requests.
    """
    steps = "sleepEndpoints: [{endpoint: /a, timeout: 5}, {endpoint: /b}]"
    for everyones, each, whole in (
        ("", 60, 60),
        ("sleepRequestTimeout: 20\n", 20, 60),
        ("sleepRequestTimeout: 70\n", 70, 75),
        ("cmdSleepTimeout: 30\n", 30, 30),
        ("cmdSleepTimeout: 3\n", 3, 5),
        ("cmdSleepTimeout: 30\nsleepRequestTimeout: 7\n", 7, 30),
    ):
        config = parse(everyones + ENDPOINTS % (steps, "")).config
        found = resolve_limits(config, config.models["m"])
        assert (found.sleep_call, found.sleep, found.wake) == (each, whole, 60)


def test_a_models_own_limit_holds_for_all_its_steps() -> None:
    """The model's limit applies to the whole sleep, whatever its single steps may take."""
    steps = "sleepEndpoints: [{endpoint: /a, timeout: 50}, {endpoint: /b}]"
    config = parse(ENDPOINTS % (steps, ", cmdSleepTimeout: 20")).config
    assert resolve_limits(config, config.models["m"]).sleep == 20


def test_what_a_sleep_must_prove_has_limits_of_its_own() -> None:
    """The verification of a sleep and the trust in it have limits of their own."""
    found = limits()
    assert (found.check, found.canary, found.sleep_failures, found.backoff) == (10, 60, 3, 60)
    own = ", verify: {timeout: 3, canaryTimeout: 20}, maxSleepFailures: 1"
    found = limits("maxSleepFailures: 9\nmaxBackoff: 5\n", own)
    assert (found.check, found.canary, found.sleep_failures, found.backoff) == (3, 20, 1, 5)
    assert limits("maxSleepFailures: 9\n", ", maxSleepFailures: 0").sleep_failures == 0


def test_a_model_may_have_its_own_limit_to_become_ready() -> None:
    """The key is `readyTimeout`; a model's `healthCheckTimeout` is ignored, as in llama-swap."""
    assert limits("healthCheckTimeout: 60\n", ", readyTimeout: 900").ready == 900
    assert limits("healthCheckTimeout: 60\n", ", readyTimeout: 5").ready == 5
    assert limits("healthCheckTimeout: 60\n", ", healthCheckTimeout: 900").ready == 60


@pytest.mark.parametrize("preset", ["vllm", "vllm-level2", "sglang"])
def test_a_preset_that_loads_long_has_more_time_to_become_ready(preset: str) -> None:
    """The longer time applies if no key sets one; a written value wins, even the usual default."""

    def ready(everyones: str = "", own: str = "") -> float:
        keys = f"cmd: serve, proxy: 'http://localhost:1', sleep: {preset}{own}"
        config = parse(f"{everyones}models: {{m: {{{keys}}}}}").config
        return resolve_limits(config, config.models["m"]).ready

    assert ready() == 600
    assert ready("healthCheckTimeout: 120\n") == 120
    assert ready("healthCheckTimeout: 5\n") == 15
    assert ready("", ", readyTimeout: 30") == 30
    assert limits().ready == 120


def test_a_stop_command_has_a_limit_of_its_own() -> None:
    """The model's limit wins, then the global one, then llama-swap's: the limit of a start."""
    assert limits().stop == 120
    assert limits("healthCheckTimeout: 5\n").stop == 15
    assert limits("healthCheckTimeout: 5\nunloadTimeout: 40\n").stop == 40
    assert limits("unloadTimeout: 40\n", ", unloadTimeout: 300").stop == 300
    assert limits("stopTimeout: 30\nunloadTimeout: 40\n").stop == 30
    assert limits("stopTimeout: 30\n", ", stopTimeout: 3").stop == 3
    assert limits("", ", readyTimeout: 900").stop == 120


def test_drain_timeout_resolves_from_model_to_global() -> None:
    """The default is an hour; 0 means no limit, also where a model overrides the global value."""
    assert limits().drain == 3600
    assert limits("drainTimeout: 30\n").drain == 30
    assert limits("drainTimeout: 30\n", ", drainTimeout: 0").drain == 0


def test_the_page_of_comfyui_may_ask_for_much_at_once() -> None:
    """llama-swap has this rule for the model named `comfyui_auto`."""
    config = parse("models: {comfyui_auto: {cmd: 'x ${PORT}'}}").config
    assert resolve_limits(config, config.models["comfyui_auto"]).concurrency == 50


def test_concurrency_limit_of_zero_is_ten() -> None:
    """This is llama-swap's default."""
    assert limits().concurrency == 10
    assert limits("", ", concurrencyLimit: 2").concurrency == 2
