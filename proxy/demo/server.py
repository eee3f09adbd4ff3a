"""The demo's model server: a real llama.cpp server in a process that can put it to sleep.

Owns `/sleep`, `/wake_up` and `/is_sleeping`, which have the names that vLLM uses. This is not vLLM.
A sleep ends the llama.cpp server and frees its memory. A wake loads the model again, in the same
process. All other routes are passed on to llama.cpp.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import trio
import xllamacpp

from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call
from proxy.http.addresses import Address, open_listeners
from proxy.http.bodies import Budget, Incoming, hold
from proxy.http.errors import Problem, problem_of
from proxy.http.exchange import Exchange
from proxy.http.headers import to_upstream
from proxy.http.heads import Request
from proxy.http.listening import serve_http
from proxy.http.origin import Origin
from proxy.http.parsing import UpstreamError
from proxy.http.upstream import Upstream
from proxy.naming.dialects import CHAT

GRACE = 1.0  # seconds for open answers to end
LONGEST_QUESTION = 64 * 1024 * 1024  # bytes
LONGEST_REPLY = 64  # tokens; a random model never ends by itself


@attrs.define(eq=False)
class Engine:
    """A llama.cpp server, loaded or not.

    Attributes:
        file: the model, in GGUF format.
    """

    file: str
    _server: Any = None
    _upstream: Upstream | None = None
    _exchanges: set[trio.CancelScope] = attrs.field(factory=set)
    _one_ended: trio.Event = attrs.field(factory=trio.Event)

    @property
    def upstream(self) -> Upstream | None:
        """The address of llama.cpp; None while it sleeps."""
        return self._upstream

    def load(self) -> None:
        """Start llama.cpp, and return when the model is loaded. This blocks the event loop."""
        if self._server is None:
            self._server = xllamacpp.Server(_parameters(self.file))
            self._upstream = Upstream(Origin.of(self._server.listening_address))

    async def free(self) -> None:
        """End llama.cpp and its open answers, and return its memory to the system."""
        server, upstream = self._server, self._upstream
        self._server = self._upstream = None
        for exchange in tuple(self._exchanges):
            exchange.cancel()
        if upstream is not None:
            upstream.close()
        # The end of llama.cpp waits for its open answers, and blocks the event loop meanwhile.
        # Shielded: the answers must be closed even if the client disconnects.
        with trio.move_on_after(GRACE, shield=True):
            while self._exchanges:
                await self._one_ended.wait()
        del server
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)

    @contextmanager
    def exchange(self) -> Iterator[trio.CancelScope]:
        """Register an open answer, which is cancelled when llama.cpp ends."""
        with trio.CancelScope() as scope:
            self._exchanges.add(scope)
            try:
                yield scope
            finally:
                self._exchanges.discard(scope)
                self._one_ended.set()
                self._one_ended = trio.Event()


def _parameters(file: str) -> Any:  # noqa: ANN401 -- xllamacpp ships no types
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.n_ctx, parameters.n_parallel = 4096, 2
    parameters.n_predict = LONGEST_REPLY
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 2
    parameters.sse_ping_interval = 1  # the server's end waits for the next ping of an open stream
    # Loaded, not mapped from the file, so that the freed memory can be measured.
    parameters.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    return parameters


@attrs.define(eq=False)
class ModelServer:
    """The HTTP server in front of the engine."""

    engine: Engine

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request. If its client disconnects, it is cancelled."""
        call = Call("", exchange.method, exchange.path, exchange.headers, "")
        answer = Answer(exchange, call, CHAT)
        await self._serve(exchange, answer)
        await answer.finish()

    async def _serve(self, exchange: Exchange, answer: Answer) -> None:
        match exchange.method, exchange.path:
            case "POST", "/sleep":
                await self.engine.free()
                await self._say_state(answer)
            case "POST", "/wake_up":
                self.engine.load()
                await self._say_state(answer)
            case "GET", "/is_sleeping":
                await self._say_state(answer)
            case _:
                await self._pass_on(exchange, answer)

    async def _say_state(self, answer: Answer) -> None:
        state = {"is_sleeping": self.engine.upstream is None}
        kind = (b"content-type", b"application/json")
        await answer.say(200, [kind], json.dumps(state).encode())

    async def _pass_on(self, exchange: Exchange, answer: Answer) -> None:
        if self.engine.upstream is None:
            text = "the model is asleep; POST /wake_up wakes it"
            await answer.refuse(Problem(503, text, "asleep"))
            return
        incoming = Incoming.of(exchange.fields, exchange)
        with self.engine.exchange() as scope, Budget().holding() as holding:
            query = b"?" + exchange.query if exchange.query else b""
            request = Request(
                method=exchange.method.encode(),
                target=exchange.raw_path + query,
                headers=to_upstream(exchange.headers, None),
                body=await hold(incoming, LONGEST_QUESTION, holding),
            )
            try:
                with await self.engine.upstream.exchange(request) as response:
                    await answer.relay(response, incoming)
            except UpstreamError as error:
                await answer.refuse(problem_of(error))
        if scope.cancelled_caught:
            await answer.refuse(Problem(503, "the model was put to sleep", "asleep"))


async def serve(file: str, port: int) -> None:
    """Serve a model until SIGTERM or SIGINT."""
    engine = Engine(file)
    engine.load()
    listeners = await open_listeners(Address("127.0.0.1", port))
    stop = trio.Event()

    async def watch_signals() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                stop.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_signals)
        await serve_http(ModelServer(engine).handle, listeners, stop=stop, grace=GRACE)
        await engine.free()
        nursery.cancel_scope.cancel()


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and serve."""
    parser = argparse.ArgumentParser(description="A llama.cpp server that can sleep.")
    parser.add_argument("--model", required=True, metavar="FILE")
    parser.add_argument("--port", required=True, type=int)
    options = parser.parse_args(arguments)
    trio.run(serve, options.model, options.port)


if __name__ == "__main__":
    main()
