"""Presets for known model servers: their steps, their verification, and what they need."""

from __future__ import annotations

import json
from pathlib import Path

import jmespath
import pytest

from configschema import Call, Checkpoint, ConfigError, Model, Recipe, Run, Step, parse
from configschema.advice import presetneeds
from configschema.keys.presets import PRESETS

VLLM = "cmd: 'vllm serve m --port ${PORT} --enable-sleep-mode', env: [VLLM_SERVER_DEV_MODE=1]"


def only(keys: str) -> Model:
    (model,) = parse(f"models: {{m: {{{keys}}}}}").config.models.values()
    return model


def warnings(keys: str) -> list[str]:
    return [one.message for one in parse(f"models: {{m: {{{keys}}}}}").warnings]


def problems(keys: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(f"models: {{m: {{cmd: 'x ${{PORT}}', {keys}}}}}")
    return [f"{one.path}: {one.message}" for one in caught.value.problems]


def shown(recipe: Recipe) -> dict[str, list[str]]:
    """Return the steps and questions in a short form."""
    return {
        part: [_short(step) for step in getattr(recipe, part)]
        for part in ("sleep", "wake", "asleep", "awake")
        if getattr(recipe, part)
    }


def _short(step: Step) -> str:
    if isinstance(step, Checkpoint):
        return step.action
    if isinstance(step, Run):
        return step.command.text
    path = step.url.partition(":5800")[2]
    return " ".join(filter(None, [step.method, path, step.body, step.holds]))


def test_vllm_sleeps_at_level_1() -> None:
    """The level is in the query, where vLLM reads it."""
    assert shown(only(f"{VLLM}, sleep: vllm").recipe) == {
        "sleep": ["POST /sleep?level=1"],
        "wake": ["POST /wake_up"],
        "asleep": ["GET /is_sleeping is_sleeping"],
        "awake": ["GET /is_sleeping !is_sleeping"],
    }


def test_vllm_at_level_2_wakes_weights_then_loads_them_then_the_cache() -> None:
    """The order is that of vLLM's documentation, and resetting the cache may fail."""
    model = only(f"{VLLM}, sleep: vllm-level2")
    assert shown(model.recipe)["wake"] == [
        "POST /wake_up?tags=weights",
        'POST /collective_rpc {"method": "reload_weights"}',
        "POST /wake_up?tags=kv_cache",
        "POST /reset_prefix_cache",
    ]
    assert [step.optional for step in model.recipe.wake] == [False, False, False, True]
    assert model.recipe.canary


def test_sglang_is_flushed_before_its_memory_is_released() -> None:
    """A release while a request runs kills the server, but a flush is only refused."""
    recipe = only("cmd: 'x ${PORT}', sleep: sglang").recipe
    assert shown(recipe) == {
        "sleep": ["POST /flush_cache", "POST /release_memory_occupation {}"],
        "wake": ["POST /resume_memory_occupation {}"],
    }
    assert recipe.sleep[0].repeat
    assert recipe.canary


NAPPER = "cmd: 'llama-server --port ${PORT} --sleep-idle-seconds 2', sleep: llama.cpp"


def test_llama_cpp_is_asked_until_it_sleeps_by_itself_and_woken_by_what_all_kinds_answer() -> None:
    """A tokenize request wakes the server and waits for it; /props does not wake it."""
    recipe = only(NAPPER).recipe
    assert shown(recipe) == {
        "sleep": ["GET /props is_sleeping"],
        "wake": ['POST /tokenize {"content": "a"}'],
        "asleep": ["GET /props is_sleeping"],
        "awake": ['POST /tokenize {"content": "a"}'],
    }
    assert recipe.sleep[0].repeat
    assert recipe.host_memory


@pytest.mark.parametrize(
    ("cmd", "limit"),
    [
        ("x --port ${PORT} --sleep-idle-seconds 2", 32),
        ("sh -c 'exec x --port ${PORT} --sleep_idle_seconds 90'", 120),
        ("x --port ${PORT} --sleep-idle-seconds -1", None),
        ("x --port ${PORT}", None),
    ],
)
def test_llama_cpp_has_its_own_idle_seconds_to_fall_asleep_and_some_more(
    cmd: str, limit: int | None
) -> None:
    """The limit comes from the command's idle seconds; without them, the general one applies."""
    assert only(f'cmd: "{cmd}", sleep: llama.cpp').recipe.sleep[0].limit == limit


@pytest.mark.parametrize(
    ("keys", "warning"),
    [
        (NAPPER, ""),
        (f"{NAPPER}, slots: keep", "slots: keep needs '--slot-save-path FOLDER': add it to cmd"),
        (
            "cmd: 'x --port ${PORT} --sleep-idle-seconds 2 --slot-save-path d', slots: keep, "
            "sleep: llama.cpp",
            "",
        ),
        ("cmd: 'x --port ${PORT} --slot-save-path d', slots: keep", ""),
        ("proxy: 'http://there:80', slots: keep", ""),
        ("cmd: 'x ${PORT}', sleep: llama.cpp", "llama.cpp needs '--sleep-idle-seconds 2': add"),
        (
            "cmd: 'x ${PORT} --sleep-idle-seconds -1', sleep: llama.cpp",
            "with --sleep-idle-seconds '-1' the server never sleeps: write --sleep-idle-seconds 2",
        ),
        (
            "cmd: 'x ${PORT} --sleep-idle-seconds 600', sleep: llama.cpp",
            "other models wait '600' s until it sleeps: write about --sleep-idle-seconds 2",
        ),
        (
            f"{VLLM}, sleep: vllm, slots: keep",
            "has no effect with sleep: vllm, because only llama.cpp has slots",
        ),
    ],
)
def test_what_llama_cpp_lacks_for_its_sleep_and_its_slots_is_warned_of(
    keys: str, warning: str
) -> None:
    """The warning suggests a value that works."""
    found = warnings(keys)
    assert len(found) == bool(warning)
    assert all(one.startswith(warning) for one in found)


@pytest.mark.parametrize("name", ["a", "org/a-b:Q4", "it's"])
def test_the_routers_questions_find_the_model_by_its_name(name: str) -> None:
    """The expression works with any characters in the name."""
    key = name.replace("'", "''")
    recipe = only(f"cmd: 'x ${{PORT}}', sleep: llama.cpp-router, useModelName: '{key}'").recipe
    (asleep,) = recipe.asleep
    _, loaded = recipe.wake
    assert isinstance(asleep, Call)
    assert isinstance(loaded, Call)
    others = [{"id": "other", "status": {"value": "loaded"}}]
    for value in ("loaded", "unloaded", "loading"):
        answer = {"data": [*others, {"id": name, "status": {"value": value}}]}
        assert jmespath.search(asleep.holds, answer) is (value == "unloaded")
        assert jmespath.search(loaded.holds, answer) is (value == "loaded")
    assert recipe.host_memory


@pytest.mark.parametrize("name", ["a`b", "a\\b", 'a"b', "a'b"])
def test_whatever_is_in_a_name_is_text_in_a_question(name: str) -> None:
    """No character of a name ends the quoted text in an expression."""
    quoted = json.dumps(name)
    recipe = only(f"cmd: 'x ${{PORT}}', sleep: tabbyapi, useModelName: {quoted}").recipe
    (awake,) = recipe.awake
    assert isinstance(awake, Call)
    assert jmespath.search(awake.holds, {"id": name}) is True


@pytest.mark.parametrize(("name", "tagged"), [("a", "a:latest"), ("a:7b", "a:7b")])
def test_ollama_is_asked_for_the_name_with_its_tag(name: str, tagged: str) -> None:
    """/api/ps lists names with tags; the preset checks /api/version, because /health is missing."""
    model = only(f"cmd: 'x ${{PORT}}', sleep: ollama, useModelName: '{name}'")
    assert model.check_endpoint == "/api/version"
    (asleep,), (awake,) = model.recipe.asleep, model.recipe.awake
    assert isinstance(asleep, Call)
    assert isinstance(awake, Call)
    gone: dict[str, list[str]] = {"models": []}
    there = {"models": [{"name": tagged}]}
    assert jmespath.search(asleep.holds, gone)
    assert not jmespath.search(asleep.holds, there)
    assert jmespath.search(awake.holds, there)


def test_a_check_endpoint_of_ones_own_wins_over_the_presets() -> None:
    """A check endpoint that the operator wrote always wins."""
    model = only("cmd: 'x ${PORT}', sleep: ollama, checkEndpoint: /mine")
    assert model.check_endpoint == "/mine"


def test_every_request_of_a_preset_has_the_control_headers() -> None:
    """A server that needs a key needs it for every request; llamadoze never shows the key."""
    keys = "cmd: 'x ${PORT}', sleep: tabbyapi, controlHeaders: {Authorization: Bearer s3cret}"
    model = only(keys)
    steps = [*model.recipe.sleep, *model.recipe.wake, *model.recipe.asleep, *model.recipe.awake]
    for step in steps:
        assert isinstance(step, Call)
        assert step.headers == {"authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(model)
    assert warnings(keys) == []


def test_no_other_host_gets_the_control_headers() -> None:
    """A control header may be a key; a step's own header wins, in upper or lower case."""
    keys = """
      cmd: 'x ${PORT}'
      sleepMode: enable
      controlHeaders: {Authorization: mine}
      sleepEndpoints: [{endpoint: 'http://elsewhere.test/hook'}, {endpoint: /s}]
      wakeEndpoints: [{endpoint: /w, headers: {authorization: its}}]
    """
    recipe = parse(f"models:\n    m: {keys}").config.models["m"].recipe
    found = [step.headers for step in (*recipe.sleep, *recipe.wake) if isinstance(step, Call)]
    assert found == [{}, {"authorization": "mine"}, {"authorization": "its"}]


def test_cuda_checkpoint_takes_one_step_each_way() -> None:
    """Only freed memory shows that the model sleeps; a generated token shows that it is awake."""
    recipe = only("cmd: 'x ${PORT}', sleep: cuda-checkpoint").recipe
    assert shown(recipe) == {"sleep": ["suspend"], "wake": ["resume"]}
    assert recipe.canary


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_sleeps_and_lets_ttl_mean_sleep(preset: str) -> None:
    """With a preset, as with `cmdSleep`, ttl puts the model to sleep."""
    model = only(f"cmd: 'x ${{PORT}}', sleep: {preset}")
    assert model.can_sleep
    assert model.recipe.sleeps_at_ttl


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        (f"{VLLM}, sleep: vllm", []),
        ("cmd: 'vllm serve --port ${PORT} --enable_sleep_mode', sleep: vllm", ["DEV_MODE=1"]),
        (
            "cmd: 'env VLLM_SERVER_DEV_MODE=1 vllm serve --port ${PORT}', sleep: vllm",
            ["--enable-sleep-mode"],
        ),
        (
            "cmd: \"sh -c 'vllm serve --port ${PORT} --enable-sleep-mode'\", sleep: vllm",
            ["DEV_MODE=1"],
        ),
        (
            "cmd: 'sglang --port ${PORT} --enable-memory-saver', sleep: sglang",
            ["--enable-weights-cpu-backup"],
        ),
        ("cmd: 'x ${PORT}', sleep: tabbyapi", ["authorization"]),
        ("cmd: 'x ${PORT}', sleep: cuda-checkpoint", ["cuda-checkpoint"]),
        ("cmd: 'x ${PORT}', sleep: llama.cpp-router", []),
        ("cmd: 'x ${PORT}', sleep: ollama", ["OLLAMA_KEEP_ALIVE=-1"]),
        ("cmd: 'x ${PORT}', sleep: ollama, env: [OLLAMA_KEEP_ALIVE=-1]", []),
    ],
)
def test_what_a_preset_needs_and_is_not_there_is_warned_of(
    keys: str, missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """llamadoze can check this only as far as cmd, env and headers show it."""
    monkeypatch.setattr(presetneeds, "DRIVER", Path("/nowhere"))
    found = warnings(keys)
    assert len(found) == len(missing)
    for warning, name in zip(found, missing, strict=True):
        assert name in warning


@pytest.mark.parametrize(
    ("driver", "program", "is_enough"),
    [
        ("Kernel Module  580.159.04  Wed Mar 18", "", True),
        ("Open Kernel Module for x86_64  570.86.15  Release", "", True),
        ("Kernel Module  550.54.15  Tue Mar 5", "", False),
        ("Kernel Module  550.54.15  Tue Mar 5", "cuda-checkpoint", True),
        ("Kernel Module  545.23.08  Mon Nov 6", "cuda-checkpoint", False),
        ("something else", "cuda-checkpoint", False),
    ],
)
def test_a_new_driver_needs_no_program(
    driver: str, program: str, is_enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version of the driver's kernel module tells whether the program is needed."""
    (tmp_path / "version").write_text(f"NVRM version: NVIDIA UNIX x86_64 {driver}\nGCC\n")
    if program:
        (tmp_path / program).write_text("")
        (tmp_path / program).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(presetneeds, "DRIVER", tmp_path / "version")
    found = warnings("cmd: 'x ${PORT}', sleep: cuda-checkpoint")
    older = "or 550 with the program 'cuda-checkpoint' on PATH"
    needed = f"cuda-checkpoint needs NVIDIA driver 570 or newer, {older}"
    assert found == ([] if is_enough else [needed])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("slots: saved", "slots: expected keep, found 'saved'"),
        ("sleep: vlm", "sleep: expected vllm or vllm-level2 or"),
        ("sleep: vllm, cmdSleep: a, cmdWake: b", "sleep: sleep and cmdSleep are two ways to sleep"),
        (
            "sleep: vllm, sleepMode: enable, sleepEndpoints: [{endpoint: /a}]",
            "sleepEndpoints: sleep and endpoints are two ways to sleep",
        ),
        ("verify: {asleep: [{}]}, sleep: vllm", "verify.asleep.0.endpoint: expected a path"),
        (
            "verify: {asleep: [{endpoint: /a, cmd: b}]}, sleep: vllm",
            "verify.asleep.0.cmd: a step is either a request or a command",
        ),
        (
            "verify: {asleep: [{endpoint: /a, holds: 'a ='}]}, sleep: vllm",
            "verify.asleep.0.holds: 'a =' is not a valid JMESPath expression",
        ),
        (
            "verify: {asleep: [{endpoint: /a, holds: 'a == true'}]}, sleep: vllm",
            "verify.asleep.0.holds: in 'a == true', 'true' is the name of a field; for the",
        ),
        (
            "verify: {asleep: [{endpoint: /a, holds: 'nosuch(a)'}]}, sleep: vllm",
            "verify.asleep.0.holds: in 'nosuch(a)', the function 'nosuch' does not exist",
        ),
        (
            "verify: {asleep: [{endpoint: /a, holds: 'a == \"b\"'}]}, sleep: vllm",
            "verify.asleep.0.holds: in 'a == \"b\"', 'b' is the name of a field; for a text",
        ),
        (
            "verify: {asleep: [{endpoint: /a, holds: !is_sleeping }]}, sleep: vllm",
            "verify.asleep.0.holds: YAML reads '!is_sleeping' as a tag, not as text: put it in "
            "quotes",
        ),
        (
            "verify: {awake: [{endpoint: /a, expect: [99]}]}, sleep: vllm",
            "verify.awake.0.expect.0: 99 is not an HTTP status from 200 to 599",
        ),
        ("verify: {freed: 101}, sleep: vllm", "verify.freed: expected a whole number, 0 to 100"),
        (
            "controlHeaders: {Host: c}, sleep: vllm",
            "controlHeaders.Host: llamadoze sets the header 'Host'",
        ),
        (
            "verify: {asleep: [{cmd: x, holds: y}]}, sleep: vllm",
            "verify.asleep.0.holds: is for requests only, but this step is a command: remove it",
        ),
        (
            "sleepMode: enable, sleepEndpoints: [null], wakeEndpoints: [{endpoint: /w}]",
            "sleepMode: sleepMode: enable needs sleepEndpoints",
        ),
        (
            "controlHeaders: {'a b': c}, sleep: vllm",
            "controlHeaders.a b: 'a b' is not a valid header",
        ),
        (
            'controlHeaders: {a: "b\\nc"}, sleep: vllm',
            "controlHeaders.a: the value has characters",
        ),
    ],
)
def test_mistakes_in_what_sleep_must_prove_are_refused(keys: str, message: str) -> None:
    """Each error names the place of the mistake."""
    (found,) = problems(keys)
    assert found.startswith(f"models.m.{message}")


def test_what_would_prove_the_sleep_of_a_model_that_never_sleeps_is_warned_of() -> None:
    """The author expects an effect that these keys do not have."""
    found = warnings("cmd: 'x ${PORT}', verify: {freed: 90}, maxSleepFailures: 1")
    assert found == ["has no effect, because the model has no way to sleep"] * 2


def test_commands_among_steps_are_looked_at_as_others_are() -> None:
    """Commands in steps run without a shell as well."""
    steps = "[{cmd: 'a && b'}, {cmd: curl -X POST http://x}]"
    found = warnings(
        f"cmd: 'x ${{PORT}}', sleepMode: enable, sleepEndpoints: {steps}, wakeEndpoints: {steps}"
    )
    assert len(found) == 4
    assert (
        sum("is an argument here, because no shell runs this command" in one for one in found) == 2
    )
    assert sum("curl without -f" in one for one in found) == 2


def test_steps_of_ones_own_have_all_that_a_preset_has() -> None:
    """Your own steps may have queries, headers, expected statuses, conditions, and commands."""
    keys = """
      cmd: 'x ${PORT}'
      sleepMode: enable
      controlHeaders: {key: k, other: o}
      sleepEndpoints:
        - {endpoint: '/s?a=1', query: {b: 2 3}, headers: {key: mine}, expect: [202], holds: ok}
        - {cmd: 'after ${PID}', timeout: 5, optional: true}
      wakeEndpoints: [{endpoint: /w, repeat: true}]
      verify: {asleep: [{endpoint: /q, method: POST, body: '{}', timeout: 3}, {cmd: 'test x'}]}
    """
    recipe = parse(f"models:\n    m: {keys}").config.models["m"].recipe
    first, second = recipe.sleep
    assert isinstance(first, Call)
    assert first.url.endswith("/s?a=1&b=2+3")
    assert first.headers == {"key": "mine", "other": "o"}
    assert (first.expect, first.holds) == ((202,), "ok")
    assert isinstance(second, Run)
    assert (second.limit, second.optional) == (5, True)
    assert second.command.for_process(7) == ("after", "7")
    assert recipe.wake[0].repeat
    question, command = recipe.asleep
    assert (question.repeat, question.limit) == (True, 3)
    assert isinstance(command, Run)
