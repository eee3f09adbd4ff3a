"""A daemon whose configuration changes while it serves, as an operator sees it."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import trio
import yaml

from tests.peers.client import ask, chat
from tests.ports import free_port
from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, wait_for
from tests.system.test_log_and_signals import read_from


def put(folder: Path, port: int, **whole: Any) -> str:
    """Write the configuration anew as an editor does: a new file replaces the old one."""
    file = folder / "config.yaml"
    beside = folder / "config.yaml.new"
    beside.write_text(yaml.safe_dump({"startPort": port, **whole}))
    shutil.move(beside, file)
    return str(file)


def test_sighup_reads_the_file_again(tmp_path: Path) -> None:
    """Unchanged models keep pid and port, and a new model takes a free port."""
    port = free_port()
    file = put(tmp_path, port, models={"m": stub(), "z": stub(sleeps=True)})
    with started("--config", file) as daemon:
        for name in "zm":
            assert daemon.chat(name)[0] == 200
        before = {name: (row["pid"], row["proxy"]) for name, row in daemon.running().items()}
        put(tmp_path, port, models={"a": stub(), "m": stub(), "z": stub(sleeps=True)})
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: daemon.said("Configuration reloaded: added a; 2 models unchanged"))
        after = {name: (row["pid"], row["proxy"]) for name, row in daemon.running().items()}
        assert after == before
        assert daemon.chat("a")[0] == 200
        assert daemon.running()["a"]["proxy"] == f"http://127.0.0.1:{port + 2}"
        assert daemon.chat("z")[1]["pid"] == before["z"][0]


def test_a_file_with_faults_changes_nothing(tmp_path: Path) -> None:
    """The answer and the log say what is wrong and where."""
    port = free_port()
    file = put(tmp_path, port, models={"a": stub()})
    with started("--config", file) as daemon:
        pid = daemon.chat("a")[1]["pid"]
        good, since = in_effect(daemon)
        assert good == 1
        put(tmp_path, port, models={"a": {**stub(), "ttl": "long"}, "b": stub()})
        status, answer = daemon.ask("POST", "/api/reload")
        assert status == 422
        assert "config.yaml:" in answer["error"]["message"]
        assert "models.a.ttl" in answer["error"]["message"]
        wait_for(lambda: daemon.said("Configuration not reloaded"))
        assert daemon.chat("a")[1]["pid"] == pid
        assert daemon.chat("b")[0] == 404
        assert in_effect(daemon) == (0, since)
        Path(file).unlink()
        assert daemon.ask("POST", "/api/reload")[0] == 422
        put(tmp_path, port, models={"a": stub(), "b": stub()})
        status, answer = daemon.ask("POST", "/api/reload")
        assert (status, answer["kept"], answer["added"]) == (200, ["a"], ["b"])
        good, later = in_effect(daemon)
        assert good == 1
        assert later > since


def in_effect(daemon: Process) -> tuple[float, float]:
    """Return what the metrics tell: whether the files are in effect, and since when."""
    text = read_from(daemon.port, "/metrics")
    start = "llamadoze_config_last_reload_success"
    found = [line.split()[1] for line in text.splitlines() if line.startswith(start)]
    good, since = map(float, found)
    return good, since


def test_changed_files_are_noticed_where_that_is_wanted(tmp_path: Path) -> None:
    """With --watch-config, new files in a folder and another log level take effect at once."""
    port = free_port()
    file = put(tmp_path, port, models={"a": stub()})
    more = tmp_path / "more"
    more.mkdir()
    (more / "one.yaml").write_text("models: {}\n")
    with started("--config", file, "--config-dir", str(more), "--watch-config") as daemon:
        time.sleep(0.3)  # the watch begins in parallel with serving
        (more / "two.yaml").write_text(yaml.safe_dump({"models": {"b": stub()}}))
        wait_for(lambda: daemon.said("Configuration reloaded: added b; 1 model unchanged"))
        put(tmp_path, port, models={"a": stub()}, logLevel="debug")
        wait_for(
            lambda: daemon.said("Configuration reloaded: changed logLevel; 2 models unchanged")
        )
        assert daemon.chat("b")[0] == 200
        wait_for(lambda: daemon.said("State is starting"))


def test_a_stream_of_a_removed_or_changed_model_ends_as_it_should(tmp_path: Path) -> None:
    """Streams end whole; a request for the changed model meanwhile gets the new process."""
    port = free_port()
    beside = {"g": {"swap": False, "members": ["a", "b"]}}
    file = put(tmp_path, port, models={"a": stub(), "b": stub()}, groups=beside)

    async def play(daemon: Process) -> None:
        first = (await chat(daemon.port, "a")).json()["pid"]
        replies = {}

        async def stream(name: str) -> None:
            replies[name] = await chat(daemon.port, name, chunks=20, pause=0.1)

        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(stream, name)
            await trio.sleep(0.7)
            put(tmp_path, port, models={"a": {**stub(), "env": ["X=1"]}})
            reply = await ask(daemon.port, "POST", "/api/reload")
            assert (reply.json()["replaced"], reply.json()["removed"]) == (["a"], ["b"])
            assert (await chat(daemon.port, "b")).status == 404
            assert (await chat(daemon.port, "a")).json()["pid"] != first
        for reply in replies.values():
            assert reply.complete
            assert reply.body.count(b"data:") == 20

    with started("--config", file) as daemon:
        trio.run(play, daemon)
        wait_for(lambda: list(daemon.running()) == ["a"])


def test_the_memory_is_yielded_and_taken_back(tmp_path: Path) -> None:
    """During the pause, requests wait, or llamadoze refuses them if the operator asks for that."""
    file = put(tmp_path, free_port(), models={"a": stub(sleeps=True), "b": stub()})
    with started("--config", file) as daemon:
        pid = daemon.chat("a")[1]["pid"]
        status, answer = daemon.ask("POST", "/api/pause?requests=refuse")
        assert (status, answer["paused"]) == (200, True)
        assert [(row["model"], row["state"]) for row in answer["models"]] == [("a", "asleep")]
        assert daemon.ask("GET", "/api/pause")[1] == {"paused": True}
        status, refusal = daemon.chat("b")
        assert (status, refusal["error"]["code"]) == (503, "paused")
        status, answer = daemon.ask("POST", "/api/resume")
        assert (status, answer["paused"]) == (200, False)
        assert [(row["state"], row["pid"]) for row in answer["models"]] == [("ready", pid)]
        assert daemon.ask("POST", "/api/pause?requests=perhaps")[0] == 400


def test_models_are_loaded_at_the_start_and_sleep_until_they_are_wanted(tmp_path: Path) -> None:
    """Each model generates a token first; a model that fails does not stop the next."""
    models = {
        "a": stub(sleeps=True, aliases=["first"]),
        "bad": stub("--exit", "3"),
        "c": stub(sleeps=True),
    }
    hooks = {"on_startup": {"preload": ["bad", "first", "nobody", " c "]}}
    file = put(tmp_path, free_port(), models=models, hooks=hooks)
    with started("--config", file) as daemon:
        wait_for(lambda: daemon.said("<c> Model preloaded; it has answered a token"))
        assert daemon.said("<a> Model preloaded; it has answered a token")
        assert daemon.said("<bad> Not preloaded")
        states = {name: row["state"] for name, row in daemon.running().items()}
        assert states == {"a": "asleep", "bad": "failed", "c": "ready"}


def test_a_file_that_is_being_written_is_not_read_halfway(tmp_path: Path) -> None:
    """A file without any model does not take effect either."""
    port = free_port()
    file = put(tmp_path, port, models={"a": stub()})
    with started("--config", file, "--watch-config") as daemon:
        pid = daemon.chat("a")[1]["pid"]
        time.sleep(0.3)
        whole = Path(file).read_text()
        Path(file).write_text("")
        assert daemon.ask("POST", "/api/reload")[0] == 422
        time.sleep(0.7)
        Path(file).write_text(whole + "logLevel: debug\n")
        wait_for(lambda: daemon.said("Configuration reloaded: changed logLevel; 1 model unchanged"))
        assert daemon.chat("a")[1]["pid"] == pid


def test_a_link_that_is_put_elsewhere_is_noticed(tmp_path: Path) -> None:
    """Container platforms replace a link to change a configuration."""
    port = free_port()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    put(tmp_path / "one", port, models={"a": stub()})
    put(tmp_path / "two", port, models={"a": stub(), "b": stub()})
    link = tmp_path / "now"
    link.symlink_to("one")
    with started("--config", str(link / "config.yaml"), "--watch-config") as daemon:
        time.sleep(0.3)
        link.unlink()
        link.symlink_to("two")
        wait_for(lambda: daemon.said("Configuration reloaded: added b; 1 model unchanged"))
        assert daemon.end()[1] < 2


def test_a_circle_of_links_ends_nothing(tmp_path: Path) -> None:
    """It counts as a file that cannot be read now."""
    port = free_port()
    file, more = put(tmp_path, port, models={"a": stub()}), tmp_path / "more"
    more.mkdir()
    (more / "b.yaml").write_text("models: {}\n")
    with started("--config", file, "--config-dir", str(more), "--watch-config") as daemon:
        pid = daemon.chat("a")[1]["pid"]
        Path(file).unlink()
        Path(file).symlink_to(file)
        assert daemon.ask("POST", "/api/reload")[0] == 422
        time.sleep(1.5)
        assert daemon.chat("a")[1]["pid"] == pid
