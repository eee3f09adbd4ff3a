"""Two network namespaces with a cable between them, which look like two machines to a socket.

``unshare --user --map-root-user --net python -m tests.proxy.http.two_machines`` sends requests to a
server at the other end and prints their outcomes as JSON: by name, the answer or the error, and the
seconds until then. The cable is cut during some of the requests. `is_possible` says whether this
machine allows such namespaces.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from socket import create_server, socket

import trio

from configschema import Timeouts
from proxy.http.heads import Request
from proxy.http.origin import Origin
from proxy.http.parsing import UpstreamError
from proxy.http.upstream import Upstream

HERE, THERE, NOBODY, PORT = "10.77.0.1", "10.77.0.2", "10.77.0.9", 8000
SILENCE = 2  # seconds
WHILE = 2.5 * SILENCE  # seconds in which a live server sends and reads nothing
LONG = b"x" * 30_000_000
NAMESPACES = ("unshare", "--user", "--map-root-user", "--net")
SHORT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


def is_possible() -> bool:
    """Return whether this machine allows namespaces with a cable."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    cable = ("ip", "link", "add", "cable", "type", "veth", "peer", "name", "far")
    return subprocess.run([*NAMESPACES, *cable], capture_output=True, check=False).returncode == 0


def serve() -> None:
    """Run the server; the path of a request selects how the server misbehaves."""
    with create_server(("", PORT)) as listener:
        print("up", flush=True)
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def answer(connection: socket) -> None:
    """Answer the requests on one connection."""
    with suppress(OSError):
        answer_all(connection)


def answer_all(connection: socket) -> None:
    while head := connection.recv(1000):
        if head.startswith(b"POST /hang"):
            time.sleep(1000)
        if head.startswith(b"POST /stream"):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi")
            time.sleep(1000)
        if not head.startswith(b"POST /quick"):
            time.sleep(WHILE)
        left = len(LONG) - len(head.partition(b"\r\n\r\n")[2])
        while head.startswith(b"POST /unread") and left:
            left -= len(connection.recv(1 << 20))
        connection.sendall(SHORT)


class Cable:
    """The connection to the other machine, which is a process in its own namespace."""

    def __init__(self) -> None:
        command = ("unshare", "--net", sys.executable, "-m", __spec__.name, "serve")
        self.far = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.far.stdout is not None
        self.far.stdout.readline()
        run("ip link set lo up")
        run("ip link add cable type veth peer name far")
        run(f"ip link set far netns {self.far.pid}")
        run(f"ip addr add {HERE}/24 dev cable")
        run("ip link set cable up")
        self.there(f"ip addr add {THERE}/24 dev far")
        self.there("ip link set far up")

    def there(self, command: str) -> None:
        """Run a command on the other machine."""
        run(f"nsenter --net=/proc/{self.far.pid}/ns/net {command}")

    def cut(self) -> None:
        """Drop all packets from the other machine without any error message."""
        self.there(f"ip route add blackhole {HERE}/32")


def run(command: str) -> None:
    """Run a command."""
    subprocess.run(command.split(), check=True)


async def ask(upstream: Upstream, path: str, body: bytes = b"{}") -> str:
    """Return the answer or the error."""
    request = Request(method=b"POST", target=path.encode(), headers=[(b"host", b"h")], body=body)
    try:
        with await upstream.exchange(request) as response:
            said = b""
            while piece := await response.read():
                said += piece
            return said.decode()
    except UpstreamError as error:
        return str(error)


def there() -> Upstream:
    """Return new connections to the other machine."""
    timeouts = Timeouts(connect=SILENCE, silence=SILENCE)  # type: ignore[arg-type] # plain numbers
    return Upstream(Origin(THERE, PORT), timeouts)


async def play() -> dict[str, tuple[str, float]]:
    """Send requests while the other machine is there, and again after it has vanished."""
    outcomes: dict[str, tuple[str, float]] = {}
    cable = Cable()
    began = trio.current_time()

    async def note(name: str, upstream: Upstream, path: str, body: bytes = b"{}") -> None:
        said = await ask(upstream, path, body)
        outcomes[name] = said, trio.current_time() - began

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "thinks", there(), "/think")
        nursery.start_soon(note, "reads late", there(), "/unread", LONG)
        nursery.start_soon(note, "nobody has the address", Upstream(Origin(NOBODY, PORT)), "/")
    kept, kept_longer = there(), there()
    await ask(kept, "/quick")
    await ask(kept_longer, "/quick")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "before the head", there(), "/hang")
        nursery.start_soon(note, "in mid-answer", there(), "/stream")
        nursery.start_soon(note, "in mid-upload", there(), "/hang", LONG)
        await trio.sleep(0.3)
        cable.cut()
        began = trio.current_time()
        nursery.start_soon(note, "on a kept connection", kept, "/quick")
        nursery.start_soon(note, "on a new connection", there(), "/quick")
        await trio.sleep(SILENCE + 2)
        nursery.start_soon(note, "on one kept for longer", kept_longer, "/quick")
    cable.far.kill()
    return outcomes


if __name__ == "__main__":
    roles: dict[bool, Callable[[], None]] = {
        True: serve,
        False: lambda: print(json.dumps(trio.run(play))),
    }
    roles["serve" in sys.argv]()
