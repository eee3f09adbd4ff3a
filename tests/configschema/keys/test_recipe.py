"""A file may describe sleep in two ways, and both become the same kind of recipe."""

from __future__ import annotations

import pytest

from configschema import Call, ConfigError, Model, Run, parse

LLMSNAP = """
sleepRequestTimeout: 20
models:
  m:
    cmd: vllm serve --port ${PORT}
    proxy: http://127.0.0.1:${PORT}/base
    sleepMode: enable
    sleepEndpoints:
      - endpoint: /sleep?level=2
        method: POST
        timeout: 120
    wakeEndpoints:
      - endpoint: /wake_up
      - {endpoint: /collective_rpc, body: '{"method": "reload_weights", "m": "${MODEL_ID}"}'}
      - {endpoint: "http://other:${PORT}/x", method: GET, timeout: 0}
"""


def only(text: str) -> Model:
    (model,) = parse(text).config.models.values()
    return model


def problem(keys: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(f"models: {{m: {{cmd: 'x ${{PORT}}', {keys}}}}}", "f")
    (found,) = caught.value.problems
    return f"{found.path}: {found.message}"


def test_llmsnaps_endpoints_become_calls() -> None:
    """Paths are resolved against the host of the proxy, as URL references are."""
    recipe = only(LLMSNAP).recipe
    base = "http://127.0.0.1:5800"
    assert recipe.sleep == (
        Call(
            name="sleep step 1 (POST /sleep?level=2)",
            method="POST",
            url=f"{base}/sleep?level=2",
            limit=120,
        ),
    )
    assert [
        (call.method, call.url, call.body) for call in recipe.wake if isinstance(call, Call)
    ] == [
        ("POST", f"{base}/wake_up", ""),
        ("POST", f"{base}/collective_rpc", '{"method": "reload_weights", "m": "m"}'),
        ("GET", "http://other:5800/x", ""),
    ]
    assert not recipe.sleeps_at_ttl


def test_commands_become_runs() -> None:
    """Each command becomes one step."""
    recipe = only("models: {m: {cmd: 'x ${PORT}', cmdSleep: s 1, cmdWake: w}}").recipe
    (sleep,), (wake,) = recipe.sleep, recipe.wake
    assert isinstance(sleep, Run)
    assert isinstance(wake, Run)
    assert (sleep.name, sleep.command.argv, wake.name) == ("cmdSleep", ("s", "1"), "cmdWake")
    assert recipe.sleeps_at_ttl


def test_a_model_with_neither_cannot_sleep() -> None:
    """To make room, llamadoze stops such a model."""
    assert not only("models: {m: {cmd: 'x ${PORT}'}}").can_sleep


def test_endpoints_that_are_not_enabled_are_not_used() -> None:
    """sleepMode is off by default, so llamadoze warns about endpoints that are unused."""
    loaded = parse(LLMSNAP.replace("sleepMode: enable", "sleepMode: disable"))
    assert not loaded.config.models["m"].can_sleep
    assert [w.message for w in loaded.warnings] == [
        "has no effect, because sleepMode is not enable"
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            "cmdSleep: s, cmdWake: w, sleepMode: enable, "
            "sleepEndpoints: [{endpoint: /s}], wakeEndpoints: []",
            "models.m.sleepEndpoints: cmdSleep and endpoints are two ways to sleep: remove one "
            "of them",
        ),
        (
            "sleepMode: enable, sleepEndpoints: [{endpoint: /s}]",
            "models.m.sleepMode: sleepMode: enable needs wakeEndpoints",
        ),
        (
            "sleepMode: enable, sleepEndpoints: 5, wakeEndpoints: [{endpoint: /w}]",
            "models.m.sleepEndpoints: expected a list, found ***; put it in [ ]",
        ),
        ("sleepMode: on", "models.m.sleepMode: expected enable or disable, found 'on'"),
        (
            "sleepEndpoints: [{endpoint: /s, method: DELETE}]",
            "models.m.sleepEndpoints.0.method: expected POST or GET or PUT or PATCH, found ",
        ),
        (
            "sleepEndpoints: [{method: GET}]",
            "models.m.sleepEndpoints.0.endpoint: expected a path such as /sleep?level=1, found ''",
        ),
        (
            'sleepEndpoints: [{endpoint: "/a\\r\\nb"}]',
            "models.m.sleepEndpoints.0.endpoint: "
            "expected a path such as /sleep?level=1, found '/a\\r\\nb'",
        ),
        (
            "sleepEndpoints: [{endpoint: '/${PID}'}]",
            "models.m.sleepEndpoints.0.endpoint: unknown macro '${PID}': "
            "it exists in cmdStop, cmdSleep, cmdWake and the cmd of a step only",
        ),
        (
            "sleepEndpoints: [{endpoint: 'http://h:99999/x'}]",
            "models.m.sleepEndpoints.0.endpoint: expected a path such as /sleep?level=1, found ",
        ),
        (
            "sleepEndpoints: [{endpoint: 'http://[::1/x'}]",
            "models.m.sleepEndpoints.0.endpoint: expected a path such as /sleep?level=1, found ",
        ),
        (
            "sleepMode: enable, sleepEndpoints: [{endpoint: /s}], "
            "wakeEndpoints: [{endpoint: /w}], proxy: 'http://[::1'",
            "models.m.proxy: expected an address such as",
        ),
        (
            "sleepEndpoints: [/sleep]",
            "models.m.sleepEndpoints.0: "
            "expected settings such as endpoint, method, query, found '/sleep'",
        ),
    ],
)
def test_mistakes_in_either_are_refused(keys: str, message: str) -> None:
    """Each mistake is reported in one line."""
    assert problem(keys).startswith(message)
