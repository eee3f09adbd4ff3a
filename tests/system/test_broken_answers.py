"""What a command tells when the daemon, or the server of a model, ends in the middle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.conftest import processes_with
from tests.proxy.daemon import stub
from tests.system.daemon import LLAMADOZE, Process, run, started, wait_for, write
from tests.system.test_commands import home

ENDED = "the daemon there has probably ended"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Process]:
    """A daemon with one model that takes long to start. A killed daemon leaves its models."""
    mark = f"broken-{os.getpid()}"
    models = {
        "slow": stub("--ready-after", "60", "--name", mark),
        "code": stub("--talk", "0.3", "--name", mark),
    }
    with started("--config", write(tmp_path, models=models), env=home(tmp_path)) as process:
        yield process
    for left in processes_with(mark):
        os.kill(int(left.split()[0]), signal.SIGKILL)


@contextmanager
def begun(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Begin a command of the same user."""
    process = subprocess.Popen(
        [LLAMADOZE, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **home(folder)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


WAITING = ("load slow", "pin slow", "run slow hello")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_daemon_is_told_to_commands_that_wait(
    daemon: Process, tmp_path: Path, number: signal.Signals
) -> None:
    """The advice to use HTTPS would mislead."""
    with ExitStack() as stack:
        commands = [stack.enter_context(begun(tmp_path, *one.split())) for one in WAITING]
        wait_for(lambda: daemon.running().get("slow", {}).get("waiting") == len(WAITING))
        daemon.end(number)
        said = [(*one.communicate(timeout=20), one.returncode) for one in commands]
    url = f"http://127.0.0.1:{daemon.port}"
    line = f"llamadoze: {url} closed the connection before it answered; {ENDED}\n"
    assert said == [(b"", line.encode(), 3)] * len(WAITING)


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Serve these bytes, one after the other and the last to the rest; yield the address."""
    left = list(answers)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with closing(connection):
                    connection.recv(65536)
                    connection.sendall(left.pop(0) if len(left) > 1 else left[0])
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # a close with unread bytes would be a reset
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"
CUT_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\n\r\n"


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


def ended_by(daemon: Process, how: str) -> None:
    """End a model in the middle of its answer, or the whole daemon."""
    if how == "unload":
        daemon.ask("POST", "/api/models/unload/code")
    elif how == "kill":
        os.kill(daemon.running()["code"]["pid"], signal.SIGKILL)
    else:
        daemon.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("unload", 1, "the answer broke off before its end; 'llamadoze logs code' may say why"),
        ("kill", 1, "the answer broke off before its end; 'llamadoze logs code' may say why"),
        ("daemon", 3, f"the answer of {{url}} broke off; {ENDED}"),
    ],
)
def test_a_streamed_answer_that_breaks_off_is_told(
    daemon: Process, tmp_path: Path, how: str, status: int, line: str
) -> None:
    """After what has arrived of it, on a line of its own."""
    with begun(tmp_path, "run", "code", "hello") as command:
        assert command.stdout is not None
        first = command.stdout.read(3)
        ended_by(daemon, how)
        rest, said = command.communicate(timeout=20)
    assert (first + rest)[-1:] == b"\n"
    assert b"- two" not in rest
    line = line.format(url=f"http://127.0.0.1:{daemon.port}")
    assert (command.returncode, said.decode()) == (status, f"llamadoze: {line}\n")


WHOLE = b'data: {"choices": [{"delta": {"content": "Yes"}}]}\n\ndata: [DONE]\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
STATUS = b'{"models": [], "paused": false}'


@pytest.mark.parametrize(
    ("body", "words", "status"),
    [
        (WHOLE, "", 0),
        (WHOLE.partition(b"data: [")[0], "", 1),
        (b"", "", 1),
        (b'data: {"error": {"message": "gone"}}\n\n', "", 1),
        (b'{"choices": []}', "--json", 0),
        (b'{"choices": [', "--json", 1),
    ],
)
def test_an_answer_is_whole_if_it_says_so(body: bytes, words: str, status: int) -> None:
    """A model server that ends closes the connection, too."""
    with answering(HEAD + STATUS, HEAD + body) as url:
        assert run("run", "m", "hello", "--url", url, *words.split()).returncode == status
