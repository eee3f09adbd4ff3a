"""The log of a real daemon with bad readers, and edge cases of signals, pipes and addresses."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote
from urllib.request import urlopen

import pytest

from tests.ports import free_port
from tests.proxy.daemon import stub
from tests.system.daemon import LLAMADOZE, STATE, Process, run, started, wait_for, write

LAST_LINES = 4  # of a daemon that is told to end
PIPE = 64 * 1024  # bytes of a pipe
SLOW = 30  # seconds within which everything here must finish


@contextmanager
def unread(*arguments: str, more: tuple[str, ...] = ()) -> Iterator[Process]:
    """Start the command with a log that nobody reads; wait until the daemon answers."""
    port = free_port(1)
    process = subprocess.Popen(
        [LLAMADOZE, *arguments, "--listen", f"127.0.0.1:{port}", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "XDG_STATE_HOME": STATE},
    )
    daemon = Process(process, port)
    try:
        assert process.stdout
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE)
        wait_for(lambda: process.poll() is not None or answers(port))
        yield daemon
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_from(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
        return str(reply.read().decode())


def answers(port: int, host: str = "127.0.0.1") -> bool:
    shown = f"[{host}]" if ":" in host else host
    try:
        with urlopen(f"http://{shown}:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def say_much(daemon: Process, lines: int) -> None:
    """Make the daemon write lines: each is a request for an unknown model."""
    body = b'{"model": "%b"}' % (b"x" * 190)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    request = head % len(body) + body
    with socket.create_connection(("127.0.0.1", daemon.port), SLOW) as client:
        answer = client.makefile("rb")
        for _ in range(lines):
            client.sendall(request)
            length = 0
            while (line := answer.readline()) != b"\r\n":
                name, _, value = line.lower().partition(b":")
                length = int(value) if name == b"content-length" else length
            answer.read(length)


def is_full(daemon: Process) -> bool:
    """Whether the pipe has no room for another line."""
    assert daemon.process.stdout
    size = bytearray(4)
    fcntl.ioctl(daemon.process.stdout, 0x541B, size)  # FIONREAD
    return int.from_bytes(size, "little") > PIPE - 4 * 4096  # a line is in one page


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path, form: str) -> None:
    """The daemon answers requests, starts models, and ends at SIGTERM."""
    file = write(tmp_path, models={"a": stub()})
    with unread("--config", file, more=("--log-format", form)) as daemon:
        say_much(daemon, 1000)
        wait_for(lambda: is_full(daemon))
        assert answers(daemon.port)
        assert daemon.chat("a")[0] == 200
        status, took = daemon.end(signal.SIGTERM)
    assert status == 0
    assert took < 5


def test_models_whose_output_nobody_reads_stop_nothing(tmp_path: Path) -> None:
    """The models write much more than the buffers hold."""
    file = write(tmp_path, models={"a": stub("--flood", "2")}, logToStdout="both")
    with unread("--config", file) as daemon:
        for _ in range(5):
            assert daemon.chat("a")[0] == 200
            assert answers(daemon.port)
            time.sleep(0.3)
        status, took = daemon.end(signal.SIGTERM)
    assert status == 0
    assert took < 5


def test_what_was_dropped_is_counted_and_said(tmp_path: Path) -> None:
    """A line with the count stands where lines are missing; no line is cut or uncounted."""
    file = write(tmp_path, models={"a": stub()})
    with unread("--config", file) as daemon:
        say_much(daemon, 6000)
        assert daemon.process.stdout
        first = daemon.process.stdout.read(PIPE // 2)
        say_much(daemon, 200)
        second = daemon.process.stdout.read(PIPE // 2)
        wait_for(lambda: is_full(daemon))  # so there is room for the last lines
        daemon.process.send_signal(signal.SIGTERM)
        events = said(first + second + daemon.process.stdout.read())
    found = [
        re.fullmatch(r"(\d+) lines dropped: the reader of the log is too slow", one)
        for one in events
    ]
    counts = [int(one[1]) for one in found if one]
    assert sum(counts) > 1000
    told = sum("/v1/completions 404" in one for one in events) + sum(counts)
    assert 0 <= told - 6200 <= LAST_LINES  # of which some may be dropped, too
    assert events[-1] == "Stopped"


def said(log: bytes) -> list[str]:
    """Return the events of a log in which every line is JSON."""
    return [str(json.loads(line)["event"]) for line in log.splitlines()]


ODD = "import sys; sys.stdout.buffer.write(%r); sys.stdout.flush(); import time; time.sleep(60)"


def test_all_lines_are_json_whatever_a_model_writes(tmp_path: Path) -> None:
    """A model may write pieces, invalid bytes, or fake log lines; each line names the model."""
    odd = b'{"event": "Stopped"}\r\n\xff\x00\x1b[2J\n\n\xe2\x80\xaex\n' + b"y" * 50_000 + b"\nend\n"
    program = tmp_path / "odd.py"
    program.write_text(ODD % odd)
    odd_one = {"cmd": f"{sys.executable} {program} ${{PORT}}", "checkEndpoint": "none"}
    file = write(tmp_path, models={"a": odd_one}, logToStdout="both")
    with started("--config", file) as daemon:
        assert daemon.ask("POST", "/api/models/load/a")[0] == 200
        wait_for(lambda: any(one.get("line") == "end" for one in daemon.log()))
        daemon.end()
    entries = [json.loads(line) for line in daemon.lines]
    of_model = [one for one in entries if one.get("logger") == "upstream"]
    own = [one["line"] for one in of_model]
    said_of_all = {(one["event"], one["model"], one["stream"]) for one in of_model}
    assert said_of_all == {("Output", "a", "output")}
    assert own[:4] == ['{"event": "Stopped"}', "\ufffd", "", "\u202ex"]
    assert "".join(own[4:]) == "y" * 50_000 + "end"
    assert all(line.isascii() and line.isprintable() for line in daemon.lines)


COLOURED = b"\x1b[31mred\x1b[0m \x1b]0;title\x07and \x1b[1" + b";32mgreen\x1b[m\n10%\r20%\nno end"


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_colours_are_in_the_log(tmp_path: Path, form: str) -> None:
    """Colours are also missing from /logs and events; in text each line begins with its model."""
    program = tmp_path / "odd.py"
    program.write_text((ODD % COLOURED).replace("sleep(60)", "sleep(.5)"))
    odd_one = {"cmd": f"{sys.executable} {program} ${{PORT}}", "checkEndpoint": "none"}
    file = write(tmp_path, models={"a": odd_one}, logToStdout="both")
    with started("--config", file, "--log-format", form) as daemon:
        daemon.ask("POST", "/api/models/load/a")
        wait_for(lambda: any("no end" in line for line in daemon.lines))
        logs, whole = (read_from(daemon.port, path) for path in ("/logs?source=a", "/logs"))
    assert "red and green\n" in logs
    assert "\x1b" not in logs + whole
    if form == "text":
        assert {"<a> | red and green", "<a> | 20%", "<a> | no end"} <= {*daemon.lines}
    else:
        lines = [one["line"] for one in daemon.log() if "line" in one and one["event"] == "Output"]
        assert lines == ["red and green", "20%", "no end"]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/%E2%80%AEgpj.exe",
        "/upstream/%E2%81%A6a%E2%81%A9/x",
        "/v1/models/%E2%80%8Fa",
        "/upstream/nobody/%0Aevil%1B%5B2J%C2%9B",
    ],
)
def test_what_turns_the_direction_of_a_line_is_escaped(
    tmp_path: Path, form: str, path: str
) -> None:
    """Request paths and model names may not change how a line of the log looks."""
    file = write(tmp_path, models={"a": stub()})
    with started("--config", file, "--log-format", form) as daemon:
        assert daemon.ask("POST", path, {"model": unquote(path)})[0] >= 400
        assert daemon.ask("POST", "/v1/completions", {"model": unquote(path)})[0] == 404
        daemon.end()
    assert any("404" in line for line in daemon.lines)
    assert all(line.isprintable() for line in daemon.lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_early_signal_leaves_no_traceback(tmp_path: Path, number: signal.Signals) -> None:
    """Here the signal comes while llamadoze reads its file, a pipe without data."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    began = time.monotonic()
    process = subprocess.Popen(
        [LLAMADOZE, "--config", str(pipe), "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "XDG_STATE_HOME": STATE},
    )
    with writer_to(pipe):
        process.send_signal(number)
        output, _ = process.communicate(timeout=SLOW)
    assert process.returncode == -number
    assert b"Traceback" not in output
    assert len(output.splitlines()) <= 1
    assert time.monotonic() - began < 5


@contextmanager
def writer_to(pipe: Path) -> Iterator[None]:
    """Hold a pipe open for writing, which works as soon as a process reads it."""
    deadline = time.monotonic() + SLOW
    while True:
        try:
            held = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            break
    try:
        yield
    finally:
        os.close(held)


@pytest.mark.parametrize("name", ["state.json", "state.new", "lock"])
def test_a_pipe_in_the_place_of_a_state_file_holds_nothing_up(tmp_path: Path, name: str) -> None:
    """The daemon serves its models, and ends as usual."""
    state = tmp_path / "state"
    state.mkdir()
    os.mkfifo(state / name)
    file = write(tmp_path, models={"a": stub()})
    with started("--config", file, "--state-dir", str(state)) as daemon:
        assert daemon.chat("a")[0] == 200
        status, took = daemon.end()
    assert status == 0
    assert took < 5
    if name == "state.json":
        assert daemon.said(f"Cannot read {state / name}: ")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_port_alone_is_every_address(tmp_path: Path) -> None:
    """As in llama-swap, the daemon then listens on all addresses of IPv4 and of IPv6."""
    file = write(tmp_path, models={"a": stub()}, apiKeys=["sk-1"])
    with started("--config", file, host="") as daemon:
        assert answers(daemon.port, "127.0.0.1")
        assert answers(daemon.port, "::1")
        status, _ = daemon.end()
    assert status == 0


def test_a_port_alone_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    """The line is the same, whichever address has the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f":{taken.getsockname()[1]}"
        result = run("--config", write(tmp_path, models={"a": stub()}), "--listen", where)
    line = f"cannot listen on {where}: Address already in use; choose another with --listen"
    assert (result.returncode, result.stderr) == (1, f"llamadoze: {line}\n")
