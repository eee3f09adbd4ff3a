"""What is allowed but hardly meant is said."""

from __future__ import annotations

import pytest

from configschema import parse

NO_SHELL = "as no shell runs it"


def warnings(keys: str, everyones: str = "") -> list[str]:
    text = everyones + f"models: {{m: {{cmd: 'serve ${{PORT}}', {keys}}}}}"
    return [f"{w.path.removeprefix('models.m.')}: {w.message}" for w in parse(text).warnings]


@pytest.mark.parametrize(
    ("command", "warning"),
    [
        ("a && b", f"'&&' is an argument here, {NO_SHELL}; write sh -c '...'"),
        ("a | b", f"'|' is an argument here, {NO_SHELL}; write sh -c '...'"),
        ("a; b", f"';' is part of an argument here, {NO_SHELL}; write sh -c '...'"),
        ("a $(b)", f"'$(...)' is no substitution here, {NO_SHELL}; write sh -c '...'"),
        ("a $HOME/x", f"'$HOME' is not replaced, {NO_SHELL}; write ${{env.NAME}}"),
        ("A=1 b", "'A=...' before a command needs a shell; use env"),
        ("a # b", "a '#' after arguments is no comment: it and what follows are arguments, too"),
    ],
)
def test_shell_syntax_that_no_shell_sees(command: str, warning: str) -> None:
    """The commonest mistake there is; it starts, and does something else."""
    assert warnings(f'cmdStop: "{command}"') == [f"cmdStop: {warning}"]


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'a && b; c $HOME | d $(e)'",
        "/bin/bash -lc 'a && b'",
        "docker exec x sh -c 'a && b'",
        "a --template '{{ x }} #1'",
        "a --prompt=#hash",
    ],
)
def test_what_a_shell_runs_is_left_alone(command: str) -> None:
    """And so is what only looks like it."""
    assert warnings(f'cmdStop: "{command}"') == []


@pytest.mark.parametrize(
    ("sleep", "wake", "found"),
    [
        ("curl -fsS -X POST http://x/sleep?level=2", "curl --fail http://x", []),
        ("curl -X POST http://x/sleep", "wake", ["cmdSleep: curl without -f counts"]),
        ("sleeper", "sh -c 'curl http://x'", ["cmdWake: curl without -f counts"]),
        ("sleeper", "sh -c 'curl -sSf http://x && curl -sf http://y'", []),
        (
            "curl -f -X POST http://x/sleep -d '{\\\"level\\\": 2}'",
            "wake",
            ["cmdSleep: vLLM reads the level from the address only, so this is level 1; "],
        ),
    ],
)
def test_sleep_commands_that_look_as_if_they_worked(
    sleep: str, wake: str, found: list[str]
) -> None:
    """A sleep that did not happen costs the next model its memory."""
    said = warnings(f'cmdSleep: "{sleep}", cmdWake: "{wake}"')
    assert len(said) == len(found)
    for warning, expected in zip(said, found, strict=True):
        assert warning.startswith(expected)


@pytest.mark.parametrize(
    ("a", "b", "clash"),
    [
        ("", "", False),
        ("cmdSleep: s, cmdWake: w", "", True),
        ("", "cmdSleep: s, cmdWake: w", True),
    ],
)
def test_one_port_for_two_models_that_may_both_be_there(a: str, b: str, clash: bool) -> None:
    """One that sleeps keeps its port; one that is stopped does not."""
    text = f"models: {{a: {{cmd: x, proxy: 'http://localhost:9', {a}}}, "
    text += f"b: {{cmd: x, proxy: 'http://127.0.0.1:9', {b}}}}}"
    found = [w for w in parse(text, "f").warnings if "port 9" in w.message]
    assert [w.path for w in found] == (["models.b.proxy"] if clash else [])
    for warning in found:
        assert warning.message.startswith("model 'a' listens on port 9, too, and both may be there")


def test_members_of_a_group_that_run_together_need_ports_of_their_own() -> None:
    """As do models of groups that let each other run."""
    text = """
groups: {g: {swap: false, members: [a, b]}}
models:
  a: {cmd: x, proxy: "http://localhost:9"}
  b: {cmd: x, proxy: "http://localhost:9"}
  c: {cmd: x, proxy: "http://localhost:9"}
"""
    paths = [w.path for w in parse(text).warnings if "port 9" in w.message]
    assert paths == ["models.b.proxy"]


def test_models_to_preload_that_are_not_there_are_left_out() -> None:
    """As llama-swap does, but not in silence."""
    found = warnings("aliases: [x]", "hooks: {on_startup: {preload: [m, x, ' ', nope]}}\n")
    assert found == [
        "hooks: not in effect yet: no model is loaded at the start",
        "hooks.on_startup.preload.3: there is no model 'nope'; it is left out",
    ]
