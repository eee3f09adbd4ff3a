"""How systemd and shells start a daemon, talk to it, and find it."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.ports import free_port
from tests.proxy.daemon import stub
from tests.system.daemon import LLAMADOZE, is_alive, run, started, wait_for, write


def over(path: Path, request: bytes) -> bytes:
    """Send a request over a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(request)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer


CHAT = b'{"model": "a", "messages": []}'
ASKED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(CHAT), CHAT)
)


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    """Requests work, commands find the socket, and its file is removed at the daemon's end."""
    file, path = write(tmp_path, models={"a": stub()}), tmp_path / "s.sock"
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with started("--config", file, listen=f"unix:{path}", env=env) as daemon:
        assert b" 200 OK" in over(path, ASKED).partition(b"\r\n")[0]
        shown = run("ps", env={**os.environ, **env})
        assert "a" in shown.stdout, shown
        daemon.end()
    assert not path.exists()
    assert "llamadoze.sock" in run("--config", file, "--listen", "unix:").stderr


@pytest.mark.parametrize(("umask", "mode"), [("000", 0o660), ("007", 0o660), ("077", 0o600)])
def test_the_umask_says_who_may_connect(tmp_path: Path, umask: str, mode: int) -> None:
    """The umask never lets users outside the group connect."""
    file, path = write(tmp_path, models={"a": stub()}), tmp_path / "s.sock"
    command = ("sh", "-c", f'umask {umask}; exec "$0" "$@"', LLAMADOZE)
    with started("--config", file, listen=f"unix:{path}", command=command):
        assert path.stat().st_mode & 0o777 == mode


def test_a_client_that_leaves_a_unix_socket_ends_its_request(tmp_path: Path) -> None:
    """This works over a unix socket as over TCP."""
    file, path = write(tmp_path, models={"a": stub()}), tmp_path / "s.sock"
    body = b'{"model": "a", "delay": 60}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with started("--config", file, listen=f"unix:{path}") as daemon:
        over(path, ASKED)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(head + body)
            time.sleep(0.3)
        wait_for(lambda: daemon.said("ended early"))


def test_the_socket_of_a_dead_daemon_is_no_obstacle(tmp_path: Path) -> None:
    """A living daemon's socket, however, is an error."""
    file, path = write(tmp_path, models={"a": stub()}), tmp_path / "s.sock"
    with started("--config", file, listen=f"unix:{path}") as daemon:
        daemon.process.kill()
        daemon.process.wait()
    assert path.exists()
    with started("--config", file, listen=f"unix:{path}"):
        second = run("--config", file, "--listen", f"unix:{path}")
        assert second.returncode == 1
        assert "Address already in use" in second.stderr


ACTIVATED = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(server.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_sockets_of_systemd_are_used(tmp_path: Path) -> None:
    """They replace --listen, and model servers do not inherit them."""
    file = write(tmp_path, models={"a": stub()})
    port = free_port(1)
    command = (sys.executable, "-c", ACTIVATED, str(port), LLAMADOZE)
    with started("--config", file, command=command) as daemon:
        assert daemon.said(f"Listening on http://127.0.0.1:{port}")
        daemon.port = port
        assert daemon.chat("a")[0] == 200
        pid = daemon.running()["a"]["pid"]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"LISTEN_FDS" not in environment


def test_systemd_is_told_of_readiness_life_and_end(tmp_path: Path) -> None:
    """Model servers do not get the socket for these messages."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(10)
        env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        with started("--config", write(tmp_path, models={"a": stub()}), env=env) as daemon:
            said = [systemd.recv(4096).decode() for _ in range(4)]
            assert any(one.startswith("READY=1\nSTATUS=Listening on http://") for one in said)
            assert said.count("WATCHDOG=1") >= 2
            daemon.chat("a")
            pid = daemon.running()["a"]["pid"]
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
            daemon.end()
        while (word := systemd.recv(4096).decode()) != "STOPPING=1":
            assert word == "WATCHDOG=1"


def in_a_terminal(*arguments: str, nohup: bool = False) -> tuple[int, int]:
    """Start the command as the first process of a terminal; return its pid and the terminal."""
    pid, screen = pty.fork()
    if pid == 0:
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(LLAMADOZE, [LLAMADOZE, *arguments])  # noqa: S606 -- no shell is wanted
    return pid, screen


def ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


@pytest.mark.parametrize("nohup", [False, True])
def test_a_daemon_ends_with_its_terminal(tmp_path: Path, nohup: bool) -> None:
    """All models end, too, unless nohup is used; before that, SIGHUP reloads."""
    port = free_port(1)
    file = write(tmp_path, models={"a": stub()})
    state = tmp_path / "state"
    listen = ("--listen", f"127.0.0.1:{port}", "--state-dir", str(state))
    pid, screen = in_a_terminal("--config", file, *listen, nohup=nohup)
    is_closed = False
    try:
        wait_for((state / "daemon.json").exists)
        url = f"http://127.0.0.1:{port}"
        run("load", "a", "--url", url)
        (model,) = json.loads(run("ps", "--json", "--url", url).stdout)
        data = yaml.safe_load(Path(file).read_text())
        Path(file).write_text(yaml.safe_dump({**data, "maxWait": 3}))
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: json.loads(run("status", "--json", "--url", url).stdout)["maxWait"] == 3)
        os.close(screen)
        is_closed = True
        if nohup:
            time.sleep(0.5)
            assert not ended(pid)
            assert is_alive(model["pid"])
            Path(file).write_text(yaml.safe_dump({**data, "maxWait": 4}))
            os.kill(pid, signal.SIGHUP)  # from an operator who wants a reload
            status = ("status", "--json", "--url", url)
            wait_for(lambda: json.loads(run(*status).stdout)["maxWait"] == 4)
        else:
            wait_for(lambda: ended(pid))
            assert not is_alive(model["pid"])
    finally:
        if not is_closed:
            os.close(screen)
        try:
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: ended(pid))
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.mark.parametrize("place", ["here", "home", "environment"])
def test_the_configuration_is_found(tmp_path: Path, place: str) -> None:
    """llamadoze looks in the usual places in order, and the log says which file it uses."""
    home = tmp_path / "home"
    (home / "llamadoze").mkdir(parents=True)
    usual = home / "llamadoze/config.yaml"
    usual.write_text("models: {of-home: {cmd: 'x ${PORT}'}}\n")
    env = {**os.environ, "XDG_CONFIG_HOME": str(home)}
    wanted = "home"
    if place != "home":
        (tmp_path / "config.yaml").write_text("models: {of-here: {cmd: 'x ${PORT}'}}\n")
        wanted = "here"
    if place == "environment":
        (tmp_path / "other.yaml").write_text("models: {of-environment: {cmd: 'x ${PORT}'}}\n")
        env["LLAMADOZE_CONFIG"] = str(tmp_path / "other.yaml")
        wanted = "environment"
    assert json.loads(run("check", "--json", env=env, cwd=tmp_path).stdout)["models"] == [
        f"of-{wanted}"
    ]


def test_without_a_configuration_the_places_are_told(tmp_path: Path) -> None:
    """The error also says what to do."""
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    for words in ((), ("serve",), ("check",)):
        result = run(*words, env=env, cwd=tmp_path)
        assert result.returncode == 1
        for word in ("./config.yaml", f"{tmp_path}/llamadoze/config.yaml", "/etc/", "init", "demo"):
            assert word in result.stderr


def test_the_command_line_sets_the_level_of_the_log(tmp_path: Path) -> None:
    """The option overrides the file, also after a reload."""
    file = write(tmp_path, models={"a": stub()}, logLevel="debug")
    with started("--config", file, "--log-level", "info") as daemon:
        daemon.ask("POST", "/api/reload")
        daemon.chat("a")
        assert all(entry["level"] != "debug" for entry in daemon.log())


def test_options_before_a_command_count(tmp_path: Path) -> None:
    """Options after a command count in the same way."""
    file = write(tmp_path, models={"a": stub()})
    for words in (
        ("--config", file, "check"),
        ("check", "--config", file),
        ("-config", file, "check"),
    ):
        assert run(*words).stdout == f"{file}: good, 1 model\n"
    before = subprocess.run(
        [LLAMADOZE, "--listen", "nonsense", "serve", "--config", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--listen nonsense" in before.stderr
