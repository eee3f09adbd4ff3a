"""What a command tells when the daemon, or the server of a model, ends in the middle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.proxy.daemon import stub
from tests.system.daemon import LLAMADOZE, Process, run, started, wait_for, write
from tests.system.test_commands import home

ENDED = "the daemon there has probably ended"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Process]:
    """A daemon with one model that takes long to start."""
    models = {"slow": stub("--ready-after", "60"), "code": stub("--talk", "0.3")}
    with started("--config", write(tmp_path, models=models), env=home(tmp_path)) as process:
        yield process


@contextmanager
def begun(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a command of the same user."""
    process = subprocess.Popen(
        [LLAMADOZE, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **home(folder)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("words", ["load slow", "pin slow", "run slow hello"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_daemon_is_told_to_a_command_that_waits(
    daemon: Process, tmp_path: Path, words: str, number: signal.Signals
) -> None:
    """The advice to use HTTPS would mislead."""
    with begun(tmp_path, *words.split()) as command:
        wait_for(lambda: daemon.running().get("slow", {}).get("waiting", 0) > 0)
        daemon.end(number)
        said = command.communicate(timeout=20)
    url = f"http://127.0.0.1:{daemon.port}"
    line = f"llamadoze: {url} closed the connection before it answered; {ENDED}\n"
    assert (command.returncode, *said) == (3, "", line)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Serve the beginning of an answer to everybody, then close; yield the address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with closing(connection):
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"
CUT_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


@pytest.mark.parametrize("answer", [CUT, CUT_CHUNK], ids=["length", "chunks"])
@pytest.mark.parametrize("words", ["ps", "status", "unpin x", "resume", "logs"])
def test_an_answer_that_is_cut_off_is_told(answer: bytes, words: str) -> None:
    """Whatever the command."""
    with answering(answer) as url:
        result = run(*words.split(), "--url", url)
    line = f"llamadoze: the answer of {url} broke off; {ENDED}\n"
    assert (result.returncode, result.stdout, result.stderr) == (3, "", line)


def test_a_log_that_is_followed_ends_with_the_daemon() -> None:
    """Its end is no fault, but an address that answers nothing is one."""
    with answering(CUT_CHUNK) as url:
        assert run("logs", "-f", "--url", url).stdout == "hello\n"
    with answering(b"") as url:
        result = run("logs", "-f", "--url", url)
    line = f"llamadoze: {url} closed the connection before it answered; {ENDED}\n"
    assert (result.returncode, result.stdout, result.stderr) == (3, "", line)
