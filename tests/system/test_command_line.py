"""The command line as an operator uses it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import processes_with
from tests.peers.client import chat as chat_async
from tests.ports import free_port
from tests.proxy.daemon import stub
from tests.system.daemon import LLAMADOZE, run, started, write

BAD = "cmdSleepTimeout: 0\nmodels:\n  m: {cmd: sh, proxy: 'http://x:1', cmdSleep: sh}\nfoo: 1\n"


def test_the_version_is_said() -> None:
    """Both spellings of the option work."""
    assert run("--version").stdout == run("-version").stdout == "llamadoze 0.1.0\n"


def test_check_prints_every_problem_and_fails(tmp_path: Path) -> None:
    """Each problem is one line, in the form that editors read."""
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    result = run("check", str(file))
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        f"{file}:1:1: cmdSleepTimeout: expected whole seconds, at least 1, found 0",
        f"{file}:3:37: models.m.cmdSleep: cmdSleep needs cmdWake as well",
        f"{file}:4:1: foo: unknown key, ignored (warning)",
        f"{file}: refused, 2 problems",
    ]


def test_check_is_silent_about_a_good_file_but_for_one_line(tmp_path: Path) -> None:
    """The exit status is 0."""
    file = write(tmp_path, models={"m": stub()})
    result = run("check", file)
    assert (result.returncode, result.stdout) == (0, f"{file}: good, 1 model\n")


OF_THE_DAEMON = {
    *("supervisor", "trio", "asyncio", "ssl", "structlog", "psutil"),
    *("quart", "quart_trio", "werkzeug", "hypercorn", "httptools", "prometheus_client", "msgspec"),
}
OF_FEW_FILES = {"re2", "jmespath"}
OF_COMMANDS = (
    *(
        "acting",
        "checking",
        "cli",
        "daemons",
        "looking",
        "options",
        "printing",
        "serving",
    ),
    *("shells", "sources"),
)


def test_check_does_not_import_the_daemon(tmp_path: Path) -> None:
    """`check` is quick because it imports only what it needs, of libraries and of llamadoze."""
    code = "import sys; from proxy.__main__ import main; main(); print(*sys.modules)"
    file = write(tmp_path, models={"a": stub()})
    result = subprocess.run(
        [sys.executable, "-c", code, "check", file], check=True, capture_output=True, text=True
    )
    loaded = result.stdout.splitlines()[-1].split()
    assert not {name.partition(".")[0] for name in loaded} & (OF_THE_DAEMON | OF_FEW_FILES)
    assert {name for name in loaded if name.startswith("proxy.")} == {
        *("proxy.__main__", "proxy.command", "proxy.lifecycle", "proxy.lifecycle.startup"),
        *("proxy.simulation", "proxy.simulation.usualtimes"),  # the figures that --help shows
        *(f"proxy.command.{name}" for name in OF_COMMANDS),
    }


def test_a_bad_file_starts_nothing(tmp_path: Path) -> None:
    """All problems of the file are on stderr."""
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    result = run("--config", str(file))
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config", "/no/such"], "cannot read /no/such: No such file or directory"),
        (["check", "/no/such"], "cannot read /no/such: No such file or directory"),
        (
            ["--config", "{file}", "--listen", "192.0.2.1:80"],
            "cannot listen on 192.0.2.1:80: Cannot assign requested address; "
            "choose another with --listen",
        ),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    arguments: list[str], line: str, tmp_path: Path
) -> None:
    """The exit status is 1."""
    file = write(tmp_path, models={"a": stub()})
    result = run(*(argument.format(file=file) for argument in arguments))
    assert (result.returncode, result.stderr) == (1, f"llamadoze: {line}\n")


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    """llamadoze starts no model before it finds out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run("--config", write(tmp_path, models={"a": stub()}), "-listen", where)
    assert result.returncode == 1
    assert result.stderr == (
        f"llamadoze: cannot listen on {where}: Address already in use; "
        "choose another with --listen\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_and_its_models(tmp_path: Path, number: signal.Signals) -> None:
    """The exit status is 0, the end is quick without open requests, and no process is left."""
    models = {"a": stub("--name", f"mark-{os.getpid()}", sleeps=True), "b": stub()}
    with started("-config", write(tmp_path, models=models)) as daemon:
        assert [daemon.chat(name)[0] for name in "ab"] == [200, 200]
        status, took = daemon.end(number)
    assert status == 0
    assert took < 2
    assert processes_with(f"mark-{os.getpid()}") == []
    assert daemon.events()[-1] == "Stopped"


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    """Neither an open stream nor a model that ignores SIGTERM delays the end."""
    word = f"mark-second-{os.getpid()}"
    models = {"a": stub("--ignore-term", "1", "--name", word)}
    with started("--config", write(tmp_path, models=models)) as daemon:
        assert daemon.chat("a")[0] == 200
        body = b'{"model": "a", "delay": 60}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 27\r\n\r\n"
        with socket.create_connection(("127.0.0.1", daemon.port)) as client:
            client.sendall(head + body)
            time.sleep(0.2)
            daemon.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            assert daemon.process.poll() is None
            status, took = daemon.end()
    assert status == 0
    assert took < 2
    assert processes_with(word) == []
    assert not any("did not end within" in event for event in daemon.events())


def test_the_log_is_json_for_machines_and_text_on_request(tmp_path: Path) -> None:
    """The events have fields for their model and their numbers."""
    file = write(tmp_path, models={"a": stub(sleeps=True, cmdSleepTimeout=120), "b": stub()})
    with started("--config", file) as daemon:
        for name in "aba":
            daemon.chat(name)
        daemon.end()
    entries = {entry["event"]: entry for entry in daemon.log()}
    sleeping = entries["<a> Executing cmdSleep (timeout: 120s)"]
    assert (sleeping["model"], sleeping["state"]) == ("a", "sleepPending")
    assert sleeping["timeout_s"] == 120
    assert sleeping["level"] == "info"
    assert isinstance(sleeping["pid"], int)
    (slept,) = [e for text, e in entries.items() if text.startswith("<a> Model sleep completed")]
    assert 0 < slept["duration_s"] < 5
    assert slept["state"] == "asleep"
    with started("--config", file, "--log-format", "text") as daemon:
        daemon.end()
    assert not daemon.log()
    assert any("Listening on http://" in line for line in daemon.lines)


def test_a_log_whose_reader_went_away_does_not_end_the_daemon(tmp_path: Path) -> None:
    """Serving models matters more than the log."""
    file = write(tmp_path, models={"a": stub()})
    port = free_port(1)
    process = subprocess.Popen(
        [LLAMADOZE, "--config", file, "--listen", f"127.0.0.1:{port}"], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        import trio

        for _ in range(5):
            assert trio.run(chat_async, port, "a").status == 200
    finally:
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.06, 0.12])
def test_a_late_second_signal_does_not_spoil_the_exit_status(tmp_path: Path, pause: float) -> None:
    """The status is right at any moment of the daemon's end."""
    with started("--config", write(tmp_path, models={"a": stub()})) as daemon:
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(pause)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(5) == 0


def test_names_that_a_terminal_cannot_write_are_escaped(tmp_path: Path) -> None:
    """Both `check` and the log continue despite such a name."""
    file = write(tmp_path, models={"ü": {"cmd": "x", "proxy": []}})
    result = run("check", file, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 1
    assert "models.\\xfc.proxy: expected a text, found a list" in result.stdout


def test_check_prints_json_for_programs(tmp_path: Path) -> None:
    """The JSON has problems, warnings and models, and the exit status is as without it."""
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    bad.write_text(BAD)
    good.write_text("models: {b: {cmd: 'true ${PORT}'}, a: {cmd: 'true ${PORT}'}}\n")
    result = run("check", "--json", str(bad))
    found = json.loads(result.stdout)
    assert (result.returncode, found["good"], found["models"]) == (1, False, [])
    assert found["problems"][0] == {
        "file": str(bad),
        "line": 1,
        "column": 1,
        "path": "cmdSleepTimeout",
        "message": "expected whole seconds, at least 1, found 0",
    }
    assert [warning["path"] for warning in found["warnings"]] == ["foo"]
    result = run("check", str(good), "--json")
    found = json.loads(result.stdout)
    assert (result.returncode, found["good"], found["models"]) == (0, True, ["a", "b"])


def test_a_file_that_cannot_be_read_is_json_too(tmp_path: Path) -> None:
    """A program that asks for JSON gets JSON for this error, too."""
    result = run("check", "--json", "nowhere.yaml", cwd=tmp_path)
    found = json.loads(result.stdout)
    assert (result.returncode, found["good"]) == (1, False)
    assert found["problems"][0]["message"].startswith("cannot read nowhere.yaml: No such file")


def test_a_folder_of_files_is_one_configuration(tmp_path: Path) -> None:
    """The folder may stand alone or add to the file that is named."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    first, second = folder / "1.yaml", folder / "2.yml"
    first.write_text("models: {a: {cmd: 'true ${PORT}'}}\n")
    second.write_text("models: {b: {cmd: 'true ${PORT}'}}\n")
    result = run("check", "--config-dir", str(folder))
    assert (result.returncode, result.stdout) == (0, f"{first}, {second}: good, 2 models\n")
    named = write(tmp_path, models={"b": stub()})
    result = run("check", named, "--config-dir", str(folder))
    assert result.returncode == 1
    assert f"models.b: is in two files: {named}:" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["check", "--config-dir", "."], ". has no file that ends in .yaml or .yml"),
        (["check", "--config-dir", "nowhere"], "cannot read nowhere: No such file or directory"),
        (["check", "nowhere.yaml"], "cannot read nowhere.yaml: No such file or directory"),
        (["check", "d"], "d is a folder: use --config-dir for folders"),
        (["--config-dir", "d", "--config", "d/a.yaml"], "d/a.yaml is in d, too; give it once"),
    ],
)
def test_files_that_are_not_there_are_one_line(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    """The exit status is 1."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.yaml").touch()
    result = run(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"llamadoze: {complaint}\n")


def test_the_schema_is_printed() -> None:
    """An editor or a build may use the schema to check files."""
    result = run("schema")
    assert result.returncode == 0
    assert json.loads(result.stdout)["properties"]["models"]["description"]


def test_the_daemon_serves_what_a_folder_says(tmp_path: Path) -> None:
    """The daemon serves the models of all files; one model sleeps by the daemon's own requests."""
    endpoints = {
        "sleepMode": "enable",
        "sleepEndpoints": [{"endpoint": "/sleep"}],
        "wakeEndpoints": [{"endpoint": "/wake_up"}],
    }
    named = write(tmp_path, models={"a": {**stub(), **endpoints}})
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "b.yaml").write_text(yaml.safe_dump({"models": {"b": stub()}}))
    with started("--config", named, "--config-dir", str(folder)) as daemon:
        first = daemon.chat("a")[1]["pid"]
        daemon.chat("b")
        assert daemon.running()["a"]["state"] == "asleep"
        assert daemon.chat("a")[1]["pid"] == first


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [("0.0.0.0", [], True), ("0.0.0.0", ["sk-1"], False), ("127.0.0.1", [], False)],
)
def test_who_listens_wide_without_keys_is_warned(
    tmp_path: Path, host: str, keys: list[str], warned: bool
) -> None:
    """Without keys, anybody who reaches the port can use and control everything."""
    file = write(tmp_path, models={"a": stub()}, apiKeys=keys)
    with started("--config", file, host=host) as daemon:
        assert daemon.ask("GET", "/health")[0] == 200  # the warning comes before the first answer
        assert daemon.said("without apiKeys") is warned


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve", "models.yaml"), "did you mean --config models.yaml?"),
        (("serve", "--listen", ":1", "a.yml"), "did you mean --config a.yml?"),
        (("serve", "--config", "a.yml", "b.yml"), "did you mean --config b.yml?"),
        (("pull", "gemma3"), "model servers download models"),
    ],
)
def test_habits_of_other_programs_are_answered_with_the_way_here(
    arguments: tuple[str, ...], words: str
) -> None:
    """Users of Ollama pull models; users of many programs give a file without an option."""
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
