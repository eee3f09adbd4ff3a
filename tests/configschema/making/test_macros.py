"""Macros and ports follow llama-swap's rules."""

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
    """llamadoze expands macros from the last declared to the first."""
    text = """
    macros: {base: /opt, tool: "${base}/bin/serve"}
    models: {m: {cmd: "${tool} --port ${PORT}"}}
    """
    assert model(text).cmd.argv == ("/opt/bin/serve", "--port", "5800")


def test_a_forward_reference_is_an_unknown_macro() -> None:
    """This rule is llama-swap's, whose files llamadoze reads."""
    text = """\
macros: {tool: "${base}/bin", base: /opt}
models: {m: {cmd: "${tool}", proxy: "http://x:1"}}
"""
    assert problem(text) == (
        "f:2:14: models.m.cmd: unknown macro '${base}': "
        "it is declared after the macro that uses it; declare it earlier (see f:1:10)"
    )


def test_the_models_own_macro_wins() -> None:
    """A model may give a macro another value."""
    text = """
    macros: {ctx: 4096}
    models: {m: {macros: {ctx: 512}, cmd: "x -c ${ctx} ${PORT}"}}
    """
    assert model(text).cmd.argv == ("x", "-c", "512", "5800")


def test_a_macro_that_is_the_whole_value_keeps_its_type() -> None:
    """A number stays a number, because some keys need one."""
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
    """The pid of a process does not exist before cmd has started it."""
    text = "models: {m: {cmd: 'x ${PID}', proxy: 'http://x:1'}}"
    assert problem(text) == (
        "f:1:22: models.m.cmd: unknown macro '${PID}': "
        "it exists in cmdStop, cmdSleep, cmdWake and the cmd of a step only"
    )


def test_ports_go_to_models_that_use_one_in_the_order_of_their_ids() -> None:
    """startPort is the first port; a model without ${PORT} takes none."""
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
    """No server would listen at the address."""
    text = "models: {m: {cmd: x, proxy: 'http://x:${PORT}'}}"
    assert problem(text).startswith("f:1:22: models.m.proxy: proxy uses ${PORT}, but cmd does not")


def test_comment_lines_of_commands_are_dropped_before_expansion() -> None:
    """Macros in comments are ignored, and an apostrophe there opens no quote."""
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
        ("{PORT: 1}", "macros.PORT: the macro name 'PORT' is reserved: choose another"),
        ("{a: 'x${a}'}", "macros.a: the macro 'a' contains itself"),
        ("{a: [1]}", "macros.a: a macro's value must be a text, a number, or true or false"),
        ("{'a b': 1}", "macros.a b: a macro name is 1 to 63 letters, digits, '_' or '-'"),
    ],
)
def test_macros_that_cannot_be_used_are_refused(macros: str, message: str) -> None:
    """Each error names its reason and its place."""
    assert problem(f"macros: {macros}\n").endswith(message)


def test_environment_variables_are_replaced_and_missing_ones_named() -> None:
    """A plain value gets its type after the replacement; comments are ignored."""
    text = """
    # ${env.NOT_LOOKED_AT}
    startPort: ${env.FIRST}
    models: {m: {cmd: "x ${env.WORD} ${PORT}"}}
    """
    found = model(text, environ={"FIRST": "7000", "WORD": "y"})
    assert found.cmd.argv == ("x", "y", "7000")
    assert problem("logLevel: ${env.NONE}\n") == (
        "f:1:11: logLevel: environment variable 'NONE' is not set"
    )


def test_macros_that_double_each_other_are_bounded() -> None:
    """A file of a few lines must not fill the memory."""
    lines = [f"  m{n}: '" + f"${{m{n - 1}}}" * 10 + "'" for n in range(1, 30)]
    text = "macros:\n  m0: xxxxxxxxxx\n" + "\n".join(lines)
    text += "\nmodels: {m: {cmd: '${m29}', proxy: 'http://x:1'}}\n"
    with pytest.raises(ConfigError, match="expand to more than 1000000 characters"):
        parse(text)


def test_a_models_port_is_known_and_no_key_of_the_file() -> None:
    """A model's port is what ${PORT} stands for, and `port` is not a key of the file."""
    loaded = parse(
        "models: {a: {cmd: 'x ${PORT}', port: 1, id: z}, b: {cmd: x, proxy: 'http://x:1'}}"
    )
    assert [(m.id, m.port) for m in loaded.config.models.values()] == [("a", 5800), ("b", None)]
    assert [w.path for w in loaded.warnings] == ["models.a.port", "models.a.id"]


@pytest.mark.parametrize(
    ("use", "hint"),
    [
        ("${contxt}", "; did you mean '${context}'?"),
        ("${HOME}", "; did you mean '${env.HOME}'?"),
        ("${nothing}", "; declare it in macros"),
    ],
)
def test_an_unknown_macro_is_named_with_what_may_be_meant(use: str, hint: str) -> None:
    """The error suggests the nearest name, or the environment variable of this name."""
    text = f"macros: {{context: 1}}\nmodels: {{m: {{cmd: 'x {use}', proxy: 'http://x:1'}}}}\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, "f", {"HOME": "/root"})
    assert str(caught.value) == f"f:2:22: models.m.cmd: unknown macro '{use}'{hint}"


def test_an_unknown_macro_is_shown_on_its_own_line() -> None:
    """A command may use fifty macros, so the error names the exact line."""
    text = "models:\n  m:\n    proxy: http://x:1\n    cmd: |\n      serve\n      --model ${nope}\n"
    assert problem(text).startswith("f:6:15: models.m.cmd: unknown macro '${nope}'")


def test_a_port_that_cmd_does_not_use_is_nowhere() -> None:
    """No server would listen on the port."""
    text = "models: {m: {cmd: x, proxy: 'http://x:1', env: ['P=${PORT}']}}"
    assert problem(text) == (
        "f:1:52: models.m.env.0: unknown macro '${PORT}': "
        "a model has a port if its cmd uses ${PORT}"
    )


def test_macros_of_models_keep_the_place_of_the_global_ones() -> None:
    """Because of that, macros that are declared after the global one may still use it."""
    text = """
    macros: {size: 1, arguments: "--size ${size}"}
    models: {m: {macros: {size: 2}, cmd: "x ${arguments} ${PORT}"}}
    """
    assert model(text).cmd.argv == ("x", "--size", "2", "5800")


def test_numbers_in_texts_are_what_they_mean() -> None:
    """Whole numbers become plain integers, as programs expect; others stay as written: 1.10."""
    text = """
    macros: {a: 1.0, b: 1.10, c: 0x10, d: on, e: true, f: 1e3, g: y, h: 32_768, i: +5, j: 010}
    models: {m: {cmd: "x ${PORT} ${a} ${b} ${c} ${d} ${e} ${f} ${g} ${h} ${i} ${j}"}}
    """
    expected = ("1.0", "1.10", "16", "on", "true", "1e3", "y", "32768", "5", "8")
    assert model(text).cmd.argv[2:] == expected


def test_macros_are_expanded_in_every_section_that_is_known() -> None:
    """A macro that is the whole value keeps its type; PORT and MODEL_ID are the model's own."""
    text = """
    macros: {size: 4096, key: sk-1, header: X-Id}
    apiKeys: ["${key}"]
    ui: {activity: {session_id: ["${header}"]}}
    models:
      m:
        cmd: x ${PORT}
        metadata: {context: "${size}", port: "${PORT}", deep: [{name: "${MODEL_ID}-${size}"}]}
        filters: {setParams: {n: "${size}"}}
        capabilities: {context: "${size}"}
    """
    config = parse(text).config
    found = config.models["m"]
    assert found.metadata == {"context": 4096, "port": 5800, "deep": [{"name": "m-4096"}]}
    assert found.filters.set_params == {"n": 4096}
    assert found.capabilities.context == 4096
    assert [one.value for one in config.api_keys] == ["sk-1"]
    assert config.ui.activity.session_id == ("X-Id",)


def test_names_of_set_params_by_id_may_hold_macros() -> None:
    """These names are aliases; keys of other mappings are not expanded."""
    text = """
    macros: {fast: quick}
    models:
      m:
        cmd: x ${PORT}
        filters: {setParamsByID: {"${MODEL_ID}:${fast}": {a: 1}, m: {b: 2}}}
        metadata: {"${fast}": 1}
    """
    config = parse(text).config
    assert config.models["m"].filters.set_params_by_id == {"m:quick": {"a": 1}, "m": {"b": 2}}
    assert config.models["m"].other_names == ("m:quick",)
    assert config.find("m:quick") is config.models["m"]
    assert config.models["m"].metadata == {"${fast}": 1}


def test_two_names_of_set_params_by_id_cannot_mean_one() -> None:
    """llamadoze could not know which of the two values to use."""
    text = """\
macros: {x: a}
models:
  m:
    cmd: x ${PORT}
    filters:
      setParamsByID:
        a: {t: 1}
        ${x}: {t: 2}
"""
    assert problem(text) == (
        "f:8:9: models.m.filters.setParamsByID.${x}: expands to 'a', as 'a' does (see f:7:9)"
    )


def test_a_value_of_the_environment_is_text_and_never_yaml() -> None:
    """The value may contain any character; as a whole plain word it gets a type."""
    text = """
    apiKeys: [${env.KEY}, two]
    models:
      ${env.NAME}: {cmd: "x ${PORT}", description: "a \\"${env.ODD}\\"", ttl: ${env.TTL}}
    """
    environ = {"KEY": "a,b:{c}#d", "NAME": "m", "ODD": 'q" \\ ü', "TTL": "60"}
    config = parse(text, environ=environ).config
    assert [one.value for one in config.api_keys] == ["a,b:{c}#d", "two"]
    assert config.models["m"].description == 'a "q" \\ ü"'
    assert config.models["m"].ttl == 60


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_a_value_of_the_environment_is_one_line(value: str) -> None:
    """llamadoze refuses values of several lines, as llama-swap does."""
    with pytest.raises(ConfigError, match="variable 'X' has more than one line of text"):
        parse("logLevel: ${env.X}", environ={"X": value})


def test_unknown_sections_are_not_looked_at_for_macros() -> None:
    """Unknown sections may be other programs'; unknown keys in known sections are expanded."""
    text = "x-common: {cmd: '${nothing}'}\nhooks: {other: '${nope}'}\n"
    assert problem(text) == ("f:2:17: hooks.other: unknown macro '${nope}'; declare it in macros")


@pytest.mark.parametrize("first", ["6000.0", "6e3", "0x1770"])
def test_the_first_port_may_be_written_as_any_number(first: str) -> None:
    """Any spelling of a whole number is allowed."""
    assert model(f"startPort: {first}\nmodels: {{m: {{cmd: 'x ${{PORT}}'}}}}").port == 6000


@pytest.mark.parametrize("use", ["$PORT", "${port}", "${PORT:-8080}"])
def test_a_slip_in_port_is_pointed_out(use: str) -> None:
    """${PORT} is the commonest macro, so its misspellings get a hint."""
    with pytest.raises(ConfigError) as caught:
        parse(f"models: {{m: {{cmd: 'x --port {use}'}}}}", "f", {})
    assert f"proxy is missing: write ${{PORT}} in place of '{use}'" in str(caught.value)


def test_a_macro_with_a_fault_is_one_problem() -> None:
    """Uses of the faulty macro are not reported as unknown macros."""
    text = "macros: {a: 'x ${a}', b: '${a}'}\nmodels: {m: {cmd: '${b} ${PORT}'}}\n"
    assert problem(text) == "f:1:10: macros.a: the macro 'a' contains itself"


def test_macros_that_many_use_are_bounded() -> None:
    """The limit also counts a large macro that each of many models uses."""
    models = "\n".join(f"  m{n}: {{cmd: 'x ${{PORT}} ${{a}}'}}" for n in range(50))
    text = f"macros: {{a: {'x' * 500_000}}}\nmodels:\n{models}\n"
    with pytest.raises(ConfigError, match="expand to more than"):
        parse(text)


def test_a_missing_variable_hides_no_other_mistake() -> None:
    """llamadoze reports all mistakes at once, each with its place."""
    text = (
        "models:\n  m:\n    proxy: http://x:1\n    cmd: |\n      serve ${nope}\n      ${env.NO}\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse(text, "f", {})
    assert [str(problem).partition(": ")[0] for problem in caught.value.problems] == [
        "f:5:13",
        "f:6:7",
    ]
