"""Settings that are allowed but probably not meant cause a warning."""

from __future__ import annotations

import json

import pytest

from configschema import parse

NO_SHELL = "because no shell runs this command"


def warnings(keys: str, everyones: str = "") -> list[str]:
    text = everyones + f"models: {{m: {{cmd: 'serve ${{PORT}}', {keys}}}}}"
    return [f"{w.path.removeprefix('models.m.')}: {w.message}" for w in parse(text).warnings]


@pytest.mark.parametrize(
    ("command", "warning"),
    [
        ("a && b", f"'&&' is an argument here, {NO_SHELL}: write sh -c '...'"),
        ("a | b", f"'|' is an argument here, {NO_SHELL}: write sh -c '...'"),
        ("a >/tmp/log", f"'>/tmp/log' is an argument here, {NO_SHELL}: write sh -c '...'"),
        ("a 2>&1", f"'2>&1' is an argument here, {NO_SHELL}: write sh -c '...'"),
        ("a --shell bash && b", f"'&&' is an argument here, {NO_SHELL}: write sh -c '...'"),
        ("a; b", f"';' is part of an argument here, {NO_SHELL}: write sh -c '...'"),
        ("a $(b)", f"'$(...)' is not replaced here, {NO_SHELL}: write sh -c '...'"),
        ("a $HOME/x", f"'$HOME' is not replaced, {NO_SHELL}: write ${{env.NAME}}"),
        ("a ${X:-1}", f"'${{X:' is not replaced, {NO_SHELL}: write ${{env.NAME}}"),
        ("a -m ~/x", f"'~/x' is not replaced, {NO_SHELL}: write ${{env.HOME}}"),
        ("A=1 b", "setting 'A' before a command needs a shell: use env"),
        (
            "a # b",
            "a '#' after arguments begins no comment: it and the words after it are arguments",
        ),
        (
            r"C:\llama\server.exe -m 'D:\m.gguf'",
            r"a '\' outside quotes is dropped, as in 'C:\l': put the path into '...'",
        ),
    ],
)
def test_shell_syntax_that_no_shell_sees(command: str, warning: str) -> None:
    """This is the commonest mistake: the command starts, but does something else than was meant."""
    assert warnings(f"cmdStop: {json.dumps(command)}") == [f"cmdStop: {warning}"]


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'a && b; c $HOME | d $(e)'",
        "/bin/bash -lc 'a && b'",
        "docker exec x sh -c 'a && b'",
        "a --template '{{ x }} #1'",
        "a --prompt=#hash",
        "a --system-prompt 'Use `code` && $HOME ; | blocks'",
        "a -r ';' --sep '|' -ot 'blk.[0-9]+$A=CPU' --amount '$5'",
        "a -ot .ffn_.*_exps.=CPU --regex ^a|b$",
        r"a -m 'C:\models\m.gguf' --x C:\\y",
    ],
)
def test_what_is_meant_as_it_is_is_left_alone(command: str) -> None:
    """Shell commands, quoted text, and what only resembles shell syntax cause no warning."""
    assert warnings(f"cmdStop: {json.dumps(command)}") == []


LEVEL = "cmdSleep: vLLM ignores a level in the body, and uses level 1: "
NO_F = "curl without -f reports success even for HTTP errors: add -f"


@pytest.mark.parametrize(
    ("sleep", "wake", "found"),
    [
        ("curl -fsS -X POST http://x/sleep?level=2", "curl --fail http://x", []),
        ("curl -X POST http://x/sleep", "wake", [f"cmdSleep: {NO_F}"]),
        ("sleeper", "sh -c 'curl http://x'", [f"cmdWake: {NO_F}"]),
        ("sleeper", "sh -c 'curl -sSf http://x && curl -sf http://y'", []),
        ("sleeper", "sh -c 'curl -sSf http://x && curl -s http://y'", [f"cmdWake: {NO_F}"]),
        ("sh -c 'rm -f x; curl http://x'", "wake", [f"cmdSleep: {NO_F}"]),
        ("timeout 30 curl http://x", "wake", [f"cmdSleep: {NO_F}"]),
        ("docker exec vllm curl -sf http://x", "/usr/bin/curl -f http://x", []),
        ("""curl -f http://x/sleep -d '{"level": 2}'""", "wake", [LEVEL]),
        (r"""curl -f http://x/sleep -d "{\"level\": \"2\"}" """, "wake", [LEVEL]),
        ("""curl -f http://x/sleep?level=2 -d '{"level": 2}'""", "wake", []),
    ],
)
def test_sleep_commands_that_look_as_if_they_worked(
    sleep: str, wake: str, found: list[str]
) -> None:
    """If a sleep command fails unnoticed, the memory for the next model is missing."""
    said = warnings(f"cmdSleep: {json.dumps(sleep)}, cmdWake: {json.dumps(wake)}")
    assert len(said) == len(found)
    for warning, expected in zip(said, found, strict=True):
        assert warning.startswith(expected)


@pytest.mark.parametrize(
    ("a", "b", "loses"),
    [
        ("", "", []),
        ("cmdSleep: s, cmdWake: w", "", ["a"]),
        ("", "cmdSleep: s, cmdWake: w", ["b"]),
        ("cmdSleep: s, cmdWake: w", "cmdSleep: s, cmdWake: w", ["a", "b"]),
    ],
)
def test_a_model_whose_port_another_one_needs_does_not_sleep(
    a: str, b: str, loses: list[str]
) -> None:
    """Its server would answer for the other model, so llamadoze stops the model and warns."""
    text = f"models: {{a: {{cmd: x, proxy: 'http://localhost:9', {a}}}, "
    text += f"b: {{cmd: x, proxy: 'http://127.0.0.1:9', {b}}}}}"
    loaded = parse(text, "f")
    assert [w.path for w in loaded.warnings] == [f"models.{name}.proxy" for name in loses]
    assert all("this model cannot sleep" in w.message for w in loaded.warnings)
    assert not any(model.can_sleep for model in loaded.config.models.values())


def test_a_port_of_its_own_lets_a_model_sleep() -> None:
    """The protocol's usual port and a port on another machine count as own ports, too."""
    keys = "cmd: x, cmdSleep: s, cmdWake: w"
    proxies = ["http://localhost", "https://localhost", "http://far:80", "http://localhost:81"]
    models = ", ".join(f"m{n}: {{{keys}, proxy: '{at}'}}" for n, at in enumerate(proxies))
    loaded = parse(f"models: {{{models}}}")
    assert loaded.warnings == ()
    assert all(model.can_sleep for model in loaded.config.models.values())


def test_members_of_a_group_that_run_together_need_ports_of_their_own() -> None:
    """Models of groups that may run at the same time need ports of their own, too."""
    text = """
groups: {g: {swap: false, members: [a, b]}}
models:
  a: {cmd: x, proxy: "http://localhost:9"}
  b: {cmd: x, proxy: "http://localhost:9"}
  c: {cmd: x, proxy: "http://localhost:9"}
"""
    found = [w for w in parse(text).warnings if "port 9" in w.message]
    assert [w.path for w in found] == ["models.b.proxy"]
    assert "may run at the same time: use ${PORT}" in found[0].message


def test_models_to_preload_that_are_not_there_are_left_out() -> None:
    """llama-swap ignores such models silently; llamadoze ignores them with a warning."""
    found = warnings("aliases: [x]", "hooks: {on_startup: {preload: [m, x, ' ', nope]}}\n")
    assert found == [
        "hooks.on_startup.preload.3: there is no model 'nope', so it is not preloaded",
    ]


def test_a_level_in_the_body_of_a_request_is_warned_of() -> None:
    """vLLM reads the level from the query only, in whichever way the request is written."""
    ends = "wakeEndpoints: [{endpoint: /wake_up}]"
    step = "{endpoint: /sleep, body: '{\"level\": 2}'}"
    assert warnings(f"sleepMode: enable, sleepEndpoints: [{step}], {ends}") == [
        "sleepEndpoints.0: vLLM ignores a level in the body, and uses level 1: "
        "write '/sleep?level=2'"
    ]


def test_a_level_in_a_body_that_names_a_model_is_another_programs() -> None:
    """Ray Serve reads the model and the level from the body, so there is no warning."""
    ends = "wakeEndpoints: [{endpoint: /wakeup}]"
    step = '{endpoint: /sleep, body: \'{"model": "m", "options": {"level": 1}}\'}'
    assert warnings(f"sleepMode: enable, sleepEndpoints: [{step}], {ends}") == []
