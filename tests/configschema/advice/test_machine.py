"""llamadoze warns about what this machine lacks for a file before it starts anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from configschema import Here, load

PORT = 8080
BOTH = "cmd: 'sh --port ${PORT}'"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a configuration file."""
    return tmp_path / "config.yaml"


def warnings(file: Path, text: str, port: int | None = None, path: str = "/usr/bin:/bin") -> str:
    """Return the warnings about a configuration that this machine is to serve, one a line."""
    file.write_text(text)
    loaded = load(file, environ={"PATH": path}, place=Here(port))
    return "\n".join(f"{one.path}: {one.message}" for one in loaded.warnings)


def model(command: str, *more: str) -> str:
    keys = (f"cmd: {json.dumps(command)}", "proxy: http://127.0.0.1:9", *more)
    return f"models: {{m: {{{', '.join(keys)}}}}}\n"


@pytest.mark.parametrize(
    ("program", "where"),
    [
        ("llama-servr", "is not on PATH"),
        ("llama-server.exe", "is not on PATH"),
        ("'two words'", "is not on PATH"),
        ("/opt/nowhere/llama-server", "does not exist"),
        ("./llama-server", "does not exist"),
        ("/usr", "does not exist"),
    ],
)
def test_a_program_that_is_not_there_is_warned_of(file: Path, program: str, where: str) -> None:
    """The start would fail at once; a file that cannot be executed counts as missing, too."""
    said = warnings(file, model(f"{program} --port 9"))
    assert said == f"models.m.cmd: program '{program.strip(chr(39))}' {where}"


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'exit 0'",
        "/bin/sh -c 'exit 0'",
        "env A=1 nowhere-server",
        "sh -c 'nowhere-server --x'",
    ],
)
def test_a_program_that_is_there_is_not_warned_of(file: Path, command: str) -> None:
    """A program that the command itself would start is not checked."""
    assert warnings(file, model(command)) == ""


@pytest.mark.parametrize("key", ["cmdStop", "cmdSleep", "cmdWake"])
def test_programs_of_the_other_commands_are_looked_for_too(file: Path, key: str) -> None:
    """Without the check, these commands fail only when it is too late to notice."""
    commands = {"cmdStop": "sh", "cmdSleep": "sh", "cmdWake": "sh"} | {key: "crul -f http://x"}
    said = warnings(file, model("sh", *(f"{name}: {text}" for name, text in commands.items())))
    assert said == f"models.m.{key}: program 'crul' is not on PATH"


def test_a_models_own_path_counts(file: Path, tmp_path: Path) -> None:
    """llamadoze starts the command with the model's own environment, and so with its PATH."""
    program = tmp_path / "bin" / "my-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    own = f"env: ['PATH={program.parent}']"
    assert warnings(file, model("my-server", own)) == ""
    assert "'sh' is not on PATH" in warnings(file, model("sh", own))
    assert warnings(file, model("my-server"), path=str(program.parent)) == ""
    program.chmod(0o644)
    assert "'my-server' is not on PATH" in warnings(file, model("my-server", own))


def test_a_text_is_not_judged_for_this_machine(file: Path) -> None:
    """Without a place, llamadoze does not check: the file may be for another machine."""
    file.write_text(model("no-such-program -m /no/such.gguf"))
    assert load(file).warnings == ()


@pytest.mark.parametrize("option", ["-m", "--model"])
@pytest.mark.parametrize(
    "name", ["/no/such/m.gguf", "no-such.gguf", "'/no such/m.gguf'", "/no/m.safetensors"]
)
def test_a_model_file_that_is_not_there_is_warned_of(file: Path, option: str, name: str) -> None:
    """The warning comes minutes before the model's server would report the missing file."""
    said = warnings(file, model(f"sh --port 9 {option} {name} -c 8192"))
    assert said == f"models.m.cmd: the file of {option} cannot be read: '{name.strip(chr(39))}'"


@pytest.mark.parametrize(
    "arguments",
    [
        "-hf ggml-org/gemma-3-1b-it-GGUF",
        "-hf ggml-org/gemma-3-1b-it-GGUF:Q4_K_M",
        "--hf-repo a/b --hf-file no-such.gguf",
        "-mu https://example.com/no-such.gguf",
        "--model Qwen/Qwen3-0.6B",
        "-m",
        "--lora no-such.gguf",
        "--port 9",
    ],
)
def test_what_names_no_file_of_this_machine_is_left_alone(file: Path, arguments: str) -> None:
    """Repositories, web addresses and options with another meaning name no local file."""
    assert warnings(file, model(f"sh {arguments}")) == ""


def test_a_model_file_that_is_there_is_not_warned_of(file: Path, tmp_path: Path) -> None:
    """The path of the file may be absolute, or come from a macro."""
    weights = tmp_path / "m.gguf"
    weights.touch()
    assert warnings(file, model(f"sh -m {weights}")) == ""
    macros = f"macros: {{folder: {tmp_path}}}\n"
    assert warnings(file, macros + model("sh -m ${folder}/m.gguf")) == ""
    missing = warnings(file, macros + model("sh -m ${folder}/other.gguf"))
    assert missing.startswith(f"models.m.cmd: the file of -m cannot be read: '{str(tmp_path)[:20]}")
    assert "other.gguf'" in missing


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (f"startPort: {PORT}\nmodels: {{m: {{{BOTH}}}}}\n", ["m"]),
        (f"startPort: {PORT - 1}\nmodels: {{a: {{{BOTH}}}, m: {{{BOTH}}}}}\n", ["m"]),
        (f"startPort: {PORT + 1}\nmodels: {{m: {{{BOTH}}}}}\n", []),
        (f"startPort: {PORT - 1}\nmodels: {{m: {{{BOTH}}}}}\n", []),
        (f"models: {{m: {{cmd: sh, proxy: 'http://127.0.0.1:{PORT}'}}}}\n", ["m"]),
        (f"models: {{m: {{cmd: sh, proxy: 'http://localhost:{PORT}/v1'}}}}\n", ["m"]),
        (f"models: {{m: {{cmd: sh, proxy: 'http://far.example:{PORT}'}}}}\n", []),
        (f"models: {{m: {{cmd: sh, proxy: 'http://127.0.0.1:{PORT + 1}'}}}}\n", []),
    ],
)
def test_the_daemons_own_port_among_the_models_is_warned_of(
    file: Path, text: str, warned: list[str]
) -> None:
    """Such a model could never listen, or the daemon would send its own requests to itself."""
    message = f"llamadoze itself listens on port {PORT}: change startPort or --listen"
    assert warnings(file, text, PORT).splitlines() == [
        f"models.{name}.proxy: {message}" for name in warned
    ]
    assert warnings(file, text) == ""


@pytest.mark.parametrize(
    ("option", "proxy", "warned"),
    [
        ("--port 9001", "http://127.0.0.1:9002", True),
        ("--port 9001", "http://localhost:9002/v1", True),
        ("--port 9001", "http://127.0.0.1", True),
        ("--port 9001", "http://127.0.0.1:9001", False),
        ("--port 9001", "http://far.example:9002", False),
        ("-p 9001:8000", "http://127.0.0.1:9001", False),
        ("--port", "http://127.0.0.1:9002", False),
    ],
)
def test_a_command_that_listens_elsewhere_is_warned_of(
    file: Path, option: str, proxy: str, *, warned: bool
) -> None:
    """A model whose proxy leads to another port than its command listens on is never ready."""
    said = warnings(file, f"models: {{m: {{cmd: sh {option}, proxy: '{proxy}'}}}}\n")
    port = 80 if proxy == "http://127.0.0.1" else 9002
    message = f"cmd listens on port 9001, but proxy leads to port {port}: use the same port"
    assert said == (f"models.m.proxy: {message}" if warned else "")


def test_a_fixed_port_that_another_model_is_given_is_warned_of(file: Path) -> None:
    """A fixed port in the range of ${PORT} may be given to another model."""
    text = "startPort: 9000\nmodels:\n  a: {cmd: 'sh ${PORT}', cmdSleep: sh, cmdWake: sh}\n"
    fixed = "  b: {cmd: sh --port 9000, proxy: 'http://127.0.0.1:9000', cmdSleep: sh, cmdWake: sh}"
    said = warnings(file, f"{text}{fixed}\n")
    assert "models.b.proxy: port 9000 is the ${PORT} of model 'a': " in said
    assert warnings(file, f"{text}{fixed.replace('9000', '9900')}\n") == ""


def test_warnings_of_the_machine_refuse_nothing(file: Path) -> None:
    """You may check a file on a laptop that is for a server."""
    file.write_text(model("no-such-program -m /no/such.gguf"))
    loaded = load(file, environ=os.environ, place=Here(PORT))
    assert [one.path for one in loaded.warnings] == ["models.m.cmd", "models.m.cmd"]
    assert list(loaded.config.models) == ["m"]
