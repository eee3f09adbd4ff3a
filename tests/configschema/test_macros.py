"""Macros and ports, by llama-swap's rules."""

from __future__ import annotations

import pytest

from configschema import ConfigError, Model, parse


def model(text: str, name: str = "m", environ: dict[str, str] | None = None) -> Model:
    return parse(text, environ=environ or {}).config.models[name]


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f", {})
    (only,) = caught.value.problems
    return str(only)


def test_a_macro_may_use_those_declared_before_it() -> None:
    """Expansion goes from the last declared to the first."""
    text = """
    macros: {base: /opt, tool: "${base}/bin/serve"}
    models: {m: {cmd: "${tool} --port ${PORT}"}}
    """
    assert model(text).cmd.argv == ("/opt/bin/serve", "--port", "5800")


def test_a_forward_reference_is_an_unknown_macro() -> None:
    """As in llama-swap, whose files we read."""
    text = """\
macros: {tool: "${base}/bin", base: /opt}
models: {m: {cmd: "${tool}", proxy: "http://x:1"}}
"""
    assert problem(text) == "f:2:14: models.m.cmd: unknown macro '${base}'"


def test_the_models_own_macro_wins() -> None:
    """A model may give a macro another value."""
    text = """
    macros: {ctx: 4096}
    models: {m: {macros: {ctx: 512}, cmd: "x -c ${ctx} ${PORT}"}}
    """
    assert model(text).cmd.argv == ("x", "-c", "512", "5800")


def test_a_macro_that_is_the_whole_value_keeps_its_type() -> None:
    """A number stays a number, for keys that want one."""
    text = """
    macros: {T: 90, wake: 45}
    cmdWakeTimeout: "${wake}"
    models: {m: {cmd: "x ${PORT}", cmdSleepTimeout: "${T}", cmdSleep: s, cmdWake: w}}
    """
    config = parse(text).config
    assert (config.models["m"].cmd_sleep_timeout, config.cmd_wake_timeout) == (90, 45)


def test_sleep_and_wake_commands_are_expanded() -> None:
    """PORT, MODEL_ID and user macros work there; PID waits for the process."""
    text = """
    macros: {host: 127.0.0.1}
    models:
      org/m:
        cmd: serve --port ${PORT}
        cmdSleep: curl http://${host}:${PORT}/sleep?m=${MODEL_ID}&p=${PID}
        cmdWake: wake ${PID}
        cmdStop: stop ${PID}
    """
    found = model(text, "org/m")
    assert found.cmd_sleep.for_process(7) == ("curl", "http://127.0.0.1:5800/sleep?m=org/m&p=7")
    assert found.cmd_wake.for_process(7) == ("wake", "7")
    assert found.cmd_stop.for_process(7) == ("stop", "7")


def test_pid_is_unknown_where_there_is_no_process_yet() -> None:
    """cmd cannot hold the pid of the process it starts."""
    text = "models: {m: {cmd: 'x ${PID}', proxy: 'http://x:1'}}"
    assert problem(text) == "f:1:14: models.m.cmd: unknown macro '${PID}'"


def test_ports_go_to_models_that_use_one_in_the_order_of_their_ids() -> None:
    """startPort is the first; a model without ${PORT} takes none."""
    text = """
    startPort: 9000
    models:
      c: {cmd: "x ${PORT}"}
      a: {cmd: "x ${PORT}"}
      b: {cmd: x, proxy: "http://x:1"}
    """
    config = parse(text).config
    assert [config.models[name].proxy for name in "abc"] == [
        "http://localhost:9000",
        "http://x:1",
        "http://localhost:9001",
    ]


def test_a_proxy_port_that_cmd_does_not_use_is_refused() -> None:
    """The address would be nobody's."""
    text = "models: {m: {cmd: x, proxy: 'http://x:${PORT}'}}"
    assert problem(text).startswith("f:1:22: models.m.proxy: proxy uses ${PORT} but cmd does not")


def test_comment_lines_of_commands_are_dropped_before_expansion() -> None:
    """A macro in a comment is nobody's business, and an apostrophe there opens no quote."""
    text = """
    models:
      m:
        cmd: |
          serve --port ${PORT} \\
            # don't use ${OLD}
            --name 'a b'
    """
    assert model(text).cmd.argv == ("serve", "--port", "5800", "--name", "a b")


@pytest.mark.parametrize(
    ("macros", "message"),
    [
        ("{PORT: 1}", "macros.PORT: macro name 'PORT' is reserved"),
        ("{a: 'x${a}'}", "macros.a: macro 'a' contains itself"),
        ("{a: [1]}", "macros.a: a macro's value is a text, a number, or true or false"),
        ("{'a b': 1}", "macros.a b: a macro name is 1 to 63 letters, digits, '_' or '-'"),
    ],
)
def test_macros_that_cannot_be_used_are_refused(macros: str, message: str) -> None:
    """Each with its reason, at its place."""
    assert problem(f"macros: {macros}\n").endswith(message)


def test_environment_variables_are_replaced_and_missing_ones_named() -> None:
    """A plain value is typed after the replacement; a comment is not looked at."""
    text = """
    # ${env.NOT_LOOKED_AT}
    startPort: ${env.FIRST}
    models: {m: {cmd: "x ${env.WORD} ${PORT}"}}
    """
    found = model(text, environ={"FIRST": "7000", "WORD": "y"})
    assert found.cmd.argv == ("x", "y", "7000")
    assert problem("logLevel: ${env.NONE}\n") == (
        "f:1:1: logLevel: environment variable 'NONE' is not set"
    )


def test_macros_that_double_each_other_are_bounded() -> None:
    """A file of a few lines cannot fill the memory."""
    lines = [f"  m{n}: '" + f"${{m{n - 1}}}" * 10 + "'" for n in range(1, 30)]
    text = "macros:\n  m0: xxxxxxxxxx\n" + "\n".join(lines)
    text += "\nmodels: {m: {cmd: '${m29}', proxy: 'http://x:1'}}\n"
    with pytest.raises(ConfigError, match="expand to more than 1000000 characters"):
        parse(text)


def test_a_models_port_is_known_and_no_key_of_the_file() -> None:
    """It is what stood for ${PORT}."""
    loaded = parse(
        "models: {a: {cmd: 'x ${PORT}', port: 1, id: z}, b: {cmd: x, proxy: 'http://x:1'}}"
    )
    assert [(m.id, m.port) for m in loaded.config.models.values()] == [("a", 5800), ("b", None)]
    assert [w.path for w in loaded.warnings] == ["models.a.port", "models.a.id"]
