"""Which bytes go to a client in one write, and which bytes must not wait for more."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trio

from proxy.http.wire import Plain
from tests.proxy.daemon import daemon, stub

BODY = b'{"model": "m"}'
ASK = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 14\r\n\r\n" + BODY
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\n"
HI, BYE, END = b"2\r\nhi\r\n", b"3\r\nbye\r\n", b"0\r\n\r\n"
PAUSE = 0.05  # seconds in which sent bytes are passed on


@attrs.define(eq=False)
class Written:
    """The writes to clients, piece by piece."""

    pieces: list[bytes] = attrs.field(factory=list)
    _wires: set[Plain] = attrs.field(factory=set)

    def note(self, wire: Plain, data: bytes | bytearray) -> None:
        """Record a write to a client; its connection is known by a status line at the beginning."""
        if data.startswith(b"HTTP/1.1 "):
            self._wires.add(wire)
        if wire in self._wires:
            self.pieces.append(bytes(data))

    @property
    def bodies(self) -> list[bytes]:
        """The writes without the head of the answer."""
        head, _, rest = self.pieces[0].partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        return [rest, *self.pieces[1:]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """Record all writes."""
    found, real = Written(), Plain.send

    async def send(self: Plain, data: bytes | bytearray) -> None:
        found.note(self, data)
        await real(self, data)

    monkeypatch.setattr(Plain, "send", send)
    return found


async def answered(script: list[bytes], ask: bytes = ASK) -> bytes:
    """Return what a client reads if a server sends this script, with a pause after each piece."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            heard = b""
            while not heard.endswith(BODY):
                heard += await stream.receive_some()
            for piece in script:
                await stream.send_all(piece)
                await trio.sleep(PAUSE)

    read = b""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with (
            daemon({"a": stub()}, peers={"p": {"proxy": url, "models": ["m"]}}) as running,
            await trio.open_tcp_stream("127.0.0.1", running.port) as client,
        ):
            await client.send_all(ask)
            with trio.move_on_after((len(script) + 4) * PAUSE):
                while piece := await client.receive_some():
                    read += piece
        nursery.cancel_scope.cancel()
    return read


@pytest.mark.parametrize(
    ("script", "bodies"),
    [
        ([SIZED + b"hi"], [b"hi"]),
        ([SIZED, b"hi"], [b"hi"]),
        ([SIZED + b"h", b"i"], [b"h", b"i"]),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], [b""]),
        ([CHUNKED + HI + END], [HI + END]),
        ([CHUNKED + HI, BYE + END], [HI, BYE + END]),
        ([CHUNKED + HI, BYE, END], [HI, BYE, END]),
        ([TO_THE_END + b"hi"], [HI, END]),
    ],
    ids=repr,
)
async def test_what_comes_together_goes_on_in_one_write(
    script: list[bytes], bodies: list[bytes], written: Written
) -> None:
    """The first piece goes out with the head, the last piece with the end."""
    read = await answered(script)
    assert written.bodies == bodies
    assert b"".join(written.pieces) == read


@pytest.mark.parametrize("script", [[CHUNKED, HI + END], [CHUNKED, HI, END], [CHUNKED, END]])
async def test_the_head_of_a_stream_does_not_wait_for_its_body(
    script: list[bytes], written: Written
) -> None:
    """The head tells the client that its request was accepted, long before the first word."""
    await answered(script)
    assert written.bodies == [b"", *script[1:]]


async def test_http_1_0_gets_the_same_pieces_without_their_sizes(written: Written) -> None:
    """The end of the connection marks the end of the answer."""
    read = await answered([CHUNKED + HI, BYE + END], ASK.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert written.bodies == [b"hi", b"bye"]
    assert read.endswith(b"\r\n\r\nhibye")


async def test_an_answer_of_our_own_is_one_write(written: Written) -> None:
    """A client gets the whole answer with one read."""
    async with (
        daemon({"a": stub()}) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as client,
    ):
        for path in (b"/health", b"/nothing"):
            await client.send_all(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path)
            await client.receive_some()
        await client.send_all(ASK.replace(b'"m"', b'"n"'))
        await client.receive_some()
    assert [piece[9:12] for piece in written.pieces] == [b"200", b"404", b"404"]
