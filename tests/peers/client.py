"""A small HTTP client on h11, independent of llamadoze's own client."""

from __future__ import annotations

import json
from typing import Any

import attrs
import h11
import trio


@attrs.define
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True

    def json(self) -> Any:
        return json.loads(self.body)


@attrs.define(eq=False)
class Client:
    """One connection to a server."""

    stream: trio.SocketStream
    _http: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.CLIENT))

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(await trio.open_tcp_stream("127.0.0.1", port))

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        fields = {"host": "localhost", "content-length": str(len(body)), **(headers or {})}
        if "transfer-encoding" in fields:
            del fields["content-length"]
        request = h11.Request(method=method, target=path, headers=list(fields.items()))
        data = self._http.send(request) or b""
        data += self._http.send(h11.Data(body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(data)

    async def event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                self._http.receive_data(bytes(await self.stream.receive_some(65536)))
            except trio.BrokenResourceError:
                self._http.receive_data(b"")
        return event

    async def receive(self) -> Reply:
        response = await self.event()
        assert isinstance(response, h11.Response), response
        names = {name.decode(): value.decode() for name, value in response.headers}
        reply = Reply(response.status_code, names, b"")
        while True:
            try:
                event = await self.event()
            except h11.RemoteProtocolError:
                reply.complete = False
                return reply
            if isinstance(event, h11.Data):
                reply.body += event.data
            else:
                break
        if self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return reply

    async def ask(
        self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None
    ) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.send(method, path, data, headers)
        return await self.receive()


async def ask(
    port: int, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None
) -> Reply:
    """Send one request on its own connection."""
    client = await Client.connect(port)
    async with client.stream:
        return await client.ask(method, path, body, headers)


async def chat(port: int, model: str, **more: Any) -> Reply:
    return await ask(port, "POST", "/v1/chat/completions", {"model": model, **more})
