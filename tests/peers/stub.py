"""A scriptable model server of plain sockets and threads, which starts in a few milliseconds.

``python -I -S tests/peers/stub.py --port P`` answers /health, and every POST with an echo. A JSON
body may ask for more: ``chunks`` and ``pause`` stream events, ``delay`` waits, and ``die`` exits
in mid-answer. ``GET /stats`` returns counts. ``--ready-after`` counts from the exec.

The stub sleeps by /sleep and /wake_up as vLLM does, and frees its ``--hold`` MiB meanwhile.
``--faults`` is JSON: paths with their faults, which are ``status``, ``delay``, ``hang``,
``close``, ``exit``, ``keep`` (answer well and do nothing), ``garbage`` (the word to say from then
on), ``chance`` (default: 1) and ``any`` (a list of faults to choose from). POST /faults replaces
them.

With ``--talk`` the stub streams as OpenAI does, and pauses so many seconds between words.

With ``--gpu`` the stub holds so many MiB on each GPU of `tests/peers/nvml` that
CUDA_VISIBLE_DEVICES names, or on the first one, and ``--gpu-rest`` MiB while it sleeps. With
``--gpu-strict 1`` a GPU cannot hold more than its size: the stub exits, or fails to wake.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

PAGE = os.sysconf("SC_PAGESIZE")
BOOT = time.clock_gettime(time.CLOCK_BOOTTIME)


def started_at() -> float:
    """Return when the process started, on the boot clock; exact to 10 ms."""
    with open("/proc/self/stat") as file:
        ticks = file.read().rpartition(")")[2].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")


class Gpus:
    """What this process holds on stand-in GPUs: a file for each GPU."""

    def __init__(self, options: dict[str, str]) -> None:
        self.folder = os.environ.get("CUDA_STAND_IN", "")
        self.awake = int(options.get("--gpu", 0)) << 20
        self.rest = int(options.get("--gpu-rest", 0)) << 20
        self.is_strict = options.get("--gpu-strict") == "1"
        said = os.environ.get("CUDA_STAND_IN_GPUS") or "80"
        self.sizes = [int(float(size) * (1 << 30)) for size in said.split(",")]
        self.mine = self.chosen() if self.awake and self.folder else []

    def chosen(self) -> list[int]:
        """Return the GPUs that CUDA_VISIBLE_DEVICES names, by UUID or by index."""
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        return [int(name.rpartition("-")[2]) for name in named if name not in ("", "-1")]

    def take(self, size: int) -> bool:
        """Hold so much on each GPU; without room, keep what was held and return false."""
        if not self.mine:
            return True
        with self.alone():
            if self.is_strict and any(size > self.room_on(number) for number in self.mine):
                os.write(1, b"CUDA error: out of memory\n")
                return False
            for number in self.mine:
                with open(f"{self.folder}/.{os.getpid()}.{number}", "w") as file:
                    file.write(str(size))
                os.rename(file.name, self.file_of(number))
        return True

    def room_on(self, number: int) -> int:
        """Return what other living processes leave of a GPU."""
        held = 0
        for name in os.listdir(self.folder):
            holder, _, rest = name.removesuffix(".bytes").partition(".")
            is_there = holder == "stranger" or os.path.exists(f"/proc/{holder}")
            if name.endswith(".bytes") and int(rest or 0) == number and is_there:
                held += self.size_in(name) if holder != str(os.getpid()) else 0
        return self.sizes[number] - held

    def size_in(self, name: str) -> int:
        with suppress(FileNotFoundError), open(f"{self.folder}/{name}") as file:
            return int(file.read() or 0)
        return 0

    def file_of(self, number: int) -> str:
        return f"{self.folder}/{os.getpid()}.{number}.bytes"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other stubs from taking memory in this block."""
        with open(f"{self.folder}/lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def give_back(self, *_: object) -> None:
        """End by SIGTERM as without a handler, and leave no files."""
        for number in self.mine:
            with suppress(FileNotFoundError):
                os.unlink(self.file_of(number))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


class Stub:
    def __init__(self, options: dict[str, str]) -> None:
        self.gpus = Gpus(options)
        if not self.gpus.take(self.gpus.awake):
            os._exit(1)
        self.ready_at = started_at() + float(options.get("--ready-after", 0))
        self.asleep = False
        self.hold = int(options.get("--hold", 0)) << 20
        self.memory = held(self.hold)
        self.faults: dict[str, dict[str, Any]] = json.loads(options.get("--faults", "{}"))
        self.word = "four"
        self.pause = float(options["--talk"]) if "--talk" in options else None
        self.stats = {"requests": 0, "cancelled": 0, "slept": 0, "woken": 0}

    def serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    buffer += piece
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                lines = head.split(b"\r\n")
                headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
                target = lines[0].decode().split()[1]
                if headers.get(b"upgrade") == b"websocket":
                    self.echo_raw(connection, target, buffer)
                    return
                length = int(headers.get(b"content-length", 0))
                if "?count" in target:
                    self.count(connection, length, buffer, target)
                    buffer = b""
                    continue
                if headers.get(b"transfer-encoding") == b"chunked":
                    body, buffer = dechunk(connection, buffer)
                    self.answer(connection, target, body, lines)
                    continue
                while len(buffer) < length:
                    piece = connection.recv(1 << 20)
                    if not piece:
                        return
                    buffer += piece
                body, buffer = buffer[:length], buffer[length:]
                self.answer(connection, target, body, lines)
                if headers.get(b"connection") == b"close":
                    return
        except OSError:
            self.stats["cancelled"] += 1
        finally:
            connection.close()

    def echo_raw(self, connection: socket.socket, target: str, buffer: bytes) -> None:
        """Accept or refuse a websocket; send back whatever arrives."""
        self.stats["requests"] += 1
        if "refuse" in target:
            self.send(connection, 403, b'{"error": "no websocket here"}')
            return
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: x\r\n\r\nhello "
        )
        while buffer or (buffer := connection.recv(65536)):
            connection.sendall(buffer)
            if b"bye" in buffer:
                return
            buffer = b""

    def count(self, connection: socket.socket, length: int, buffer: bytes, target: str) -> None:
        """Read a body at a given pace; answer its size and its digest."""
        digest, size = hashlib.sha256(buffer), len(buffer)
        pause = float(target.partition("pause=")[2] or 0)
        while size < length and (piece := connection.recv(1 << 20)):
            size += len(piece)
            digest.update(piece)
            time.sleep(pause)
        text = json.dumps({"size": size, "digest": digest.hexdigest()})
        self.send(connection, 200, text.encode())

    def answer(
        self, connection: socket.socket, target: str, body: bytes, lines: list[bytes]
    ) -> None:
        path = target.partition("?")[0]
        fault = self.faults.get(path, {})
        if random.random() < fault.get("chance", 1 if fault else 0) and self.fails(
            connection, fault
        ):
            return
        if path == "/faults":
            self.faults = json.loads(body)
            self.send(connection, 200, b"{}")
        elif path == "/is_sleeping":
            self.send(connection, 200, json.dumps({"is_sleeping": self.asleep}).encode())
        elif path == "/health":
            ready = time.clock_gettime(time.CLOCK_BOOTTIME) >= self.ready_at
            self.send(connection, 200 if ready else 503, b"{}")
        elif path == "/stats":
            self.send(connection, 200, json.dumps({**self.stats, "pid": os.getpid()}).encode())
        elif path in ("/sleep", "/wake_up"):
            sleeps = path == "/sleep"
            if not self.gpus.take(self.gpus.rest if sleeps else self.gpus.awake):
                self.send(connection, 500, b'{"error": "CUDA error: out of memory"}')
                return
            self.asleep = sleeps
            if self.asleep and self.memory:
                self.memory.close()
            self.memory = None if self.asleep else self.memory or held(self.hold)
            self.stats["slept" if self.asleep else "woken"] += 1
            self.send(connection, 200, b"{}")
        else:
            self.stats["requests"] += 1
            self.generate(connection, target, body, lines)

    def fails(self, connection: socket.socket, fault: dict[str, Any]) -> bool:
        """Do what the fault says; return whether it was the whole answer."""
        fault = random.choice(fault["any"]) if "any" in fault else fault
        time.sleep(fault.get("delay", 0))
        self.word = fault.get("garbage", self.word)
        while fault.get("hang"):
            time.sleep(60)
        if "exit" in fault:
            os.write(1, b"the stub ends by a fault\n")
            os._exit(fault["exit"])
        if fault.get("close"):
            connection.shutdown(socket.SHUT_RDWR)
        elif fault.get("keep"):
            self.send(connection, 200, b"{}")
        elif "status" in fault:
            self.send(connection, fault["status"], b'{"detail": "a fault"}')
        else:
            return False
        return True

    def generate(
        self, connection: socket.socket, target: str, body: bytes, lines: list[bytes]
    ) -> None:
        try:
            asked: dict[str, Any] = json.loads(body)
        except ValueError:
            asked = {}
        time.sleep(asked.get("delay", 0))
        if self.asleep:
            self.send(connection, 500, b'{"error": "asleep"}')
        elif "chunks" in asked:
            self.stream(connection, asked)
        elif self.pause is not None and asked.get("stream"):
            self.talk(connection)
        elif asked.get("die"):
            os.write(1, b"the stub was told to die\n")
            os._exit(int(asked["die"]))
        elif asked.get("raw"):
            self.send(connection, int(asked.get("status", 200)), body)
        else:
            echo = {"target": target, "body": body.decode("latin-1"), "pid": os.getpid()}
            headers = [line.decode("latin-1") for line in lines[1:]]
            said = [{"message": {"role": "assistant", "content": self.word}}]
            text = json.dumps({**echo, "headers": headers, "choices": said}).encode()
            self.send(connection, int(asked.get("status", 200)), text)

    def talk(self, connection: socket.socket) -> None:
        """Send a few words with Markdown, one after the other, and then the usage."""
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        )
        words = [
            "# A heading\n\n",
            "Some **bold** words, ",
            "and `code`.\n\n",
            "- one\n",
            "- two\n",
        ]
        for word in words:
            event = {"choices": [{"delta": {"content": word}}]}
            connection.sendall(b"data: %b\n\n" % json.dumps(event).encode())
            time.sleep(self.pause or 0)
        usage = {"prompt_tokens": 11, "completion_tokens": len(words)}
        timings = {"prompt_n": 11, "predicted_n": len(words), "predicted_per_second": 42.5}
        last = {"choices": [], "usage": usage, "timings": timings}
        connection.sendall(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(last).encode())
        connection.shutdown(socket.SHUT_WR)

    def stream(self, connection: socket.socket, asked: dict[str, Any]) -> None:
        kind = asked.get("kind", "text/event-stream").encode()
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
        )
        for number in range(asked["chunks"]):
            data = b'data: {"n": %d}\n\n' % number
            connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            if asked.get("die_after") == number:
                os._exit(1)
            time.sleep(asked.get("pause", 0))
        connection.sendall(b"0\r\n\r\n")
        return

    def send(self, connection: socket.socket, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (status, len(body)) + body)


def held(size: int) -> mmap.mmap | None:
    """Take real memory until it is closed; untouched pages of zeros would take none."""
    if not size:
        return None
    memory = mmap.mmap(-1, size)
    for start in range(0, size, PAGE):
        memory[start] = 1
    return memory


def dechunk(connection: socket.socket, buffer: bytes) -> tuple[bytes, bytes]:
    """Read a chunked body; return the body and what follows it."""
    body = b""
    while True:
        while b"\r\n" not in buffer:
            buffer += connection.recv(65536)
        size, _, buffer = buffer.partition(b"\r\n")
        wanted = int(size, 16)
        while len(buffer) < wanted + 2:
            buffer += connection.recv(65536)
        body, buffer = body + buffer[:wanted], buffer[wanted + 2 :]
        if not wanted:
            return body, buffer


def flood(seconds: float) -> None:
    """Write lines as fast as the reader takes them."""
    lines, end = b"all work and no play\n" * 3000, time.monotonic() + seconds
    while time.monotonic() < end:
        os.write(1, lines)


def main(arguments: list[str]) -> None:
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    if "--escape" in options and os.fork() == 0:
        os.setsid()  # and keep the pipe open that the parent writes to
        time.sleep(float(options["--escape"]))
        os._exit(0)
    if "--flood" in options:
        threading.Thread(target=flood, args=(float(options["--flood"]),), daemon=True).start()
    if "--ignore-term" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--exit" in options:
        sys.stdout.write("the stub gives up\n")
        sys.stdout.flush()
        time.sleep(float(options.get("--exit-after", 0)))
        os._exit(int(options["--exit"]))
    stub = Stub(options)
    if stub.gpus.mine and "--ignore-term" not in options:
        signal.signal(signal.SIGTERM, stub.gpus.give_back)
    listener = socket.create_server(("127.0.0.1", int(options["--port"])), backlog=128)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=stub.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
