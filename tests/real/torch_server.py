"""A model server on torch and transformers that really sleeps, with vLLM's routes and forms.

``python -m tests.real.torch_server --port P --gigabytes 16`` serves a random model on the GPU.
Level 1 of a sleep copies the weights to pinned host memory, level 2 drops them; a wake copies them
back, or makes them again from the seed. ``--engine stand-in`` needs no torch. ``GET /timings``
tells the weights' bytes, and the seconds of the last sleep and the wake from it.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.real.engines import VOCABULARY, Engine, StandIn, Torch

TAGS = frozenset({"weights", "kv_cache"})
MOST_TOKENS = 16  # if the request names no number


class Sleeper:
    """An engine with vLLM's rules of sleep: the server sleeps until all tags are awake."""

    def __init__(self, engine: Engine, *, lies: bool) -> None:
        self.engine, self._lies = engine, lies
        self._awake, self._dropped = TAGS, False
        self.turn = threading.Lock()
        self.timings: dict[str, float] = {}

    @property
    def is_sleeping(self) -> bool:
        return self._awake != TAGS

    def sleep(self, level: int) -> None:
        """Level 1 keeps the weights in host memory, level 2 drops them; a liar only claims to."""
        with self._timed("sleep"):
            if not self._lies and not self.is_sleeping:
                self.engine.drop_cache()
                self.engine.drop_weights(keep=level == 1)
                self._dropped = level == 2
            self._awake = frozenset()

    def wake_up(self, tags: frozenset[str]) -> None:
        """Allocate the memory of these tags; without tags, allocate all and restore the weights."""
        with self._timed("wake"):
            takes = {"weights": self.engine.make_room, "kv_cache": self.engine.make_cache}
            for tag, take in takes.items():
                if tag in (tags or TAGS) - self._awake and not self._lies:
                    take()
            self._awake |= tags or TAGS
            if not tags and self._dropped:
                self._fill()

    def reload_weights(self) -> None:
        """Make the weights again, after their memory was allocated."""
        with self._timed("wake"):
            self._fill()

    def _fill(self) -> None:
        self.engine.fill()
        self._dropped = False

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Run one step at a time, and note how long it took; the parts of a wake add up."""
        with self.turn:
            began = time.monotonic()
            yield
            took = time.monotonic() - began
        before = self.timings if what == "wake" else {}
        self.timings = {**before, what: before.get(what, 0.0) + took}


class Handler(BaseHTTPRequestHandler):
    """One request; `sleeper` and `sleeps` are set on a subclass."""

    protocol_version = "HTTP/1.1"
    sleeper: Sleeper
    sleeps: bool

    def do_GET(self) -> None:
        answers: dict[str, Callable[[], object]] = {
            "/health": dict,
            "/v1/models": lambda: {"object": "list", "data": [{"id": "random"}]},
            "/timings": lambda: {**self.sleeper.timings, "bytes": self.sleeper.engine.size},
        }
        if self.sleeps:
            answers["/is_sleeping"] = lambda: {"is_sleeping": self.sleeper.is_sleeping}
        self._answer(answers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._body = json.loads(body) if body.strip() else {}
        if urlsplit(self.path).path == "/v1/chat/completions":
            self._chat()
            return
        query = parse_qs(urlsplit(self.path).query)
        tags = frozenset(query.get("tags", []))
        answers: dict[str, Callable[[], object]] = {}
        if self.sleeps:
            answers = {
                "/sleep": lambda: self.sleeper.sleep(int(query.get("level", ["1"])[0])),
                "/wake_up": lambda: self.sleeper.wake_up(tags),
                "/collective_rpc": self.sleeper.reload_weights,
                "/reset_prefix_cache": dict,
            }
        self._answer(answers)

    def _answer(self, answers: dict[str, Callable[[], object]]) -> None:
        answer = answers.get(urlsplit(self.path).path)
        if answer is None:
            self._send(404, {"detail": "Not Found"})
        else:
            self._send(200, answer())

    def _chat(self) -> None:
        prompt = list(json.dumps(self._body.get("messages", [])).encode()[-64:])
        words = self._words(prompt, int(self._body.get("max_tokens") or MOST_TOKENS))
        if not self._body.get("stream"):
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            self._send(200, {"object": "chat.completion", "choices": [choice]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in words:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            self._event({"object": "chat.completion.chunk", "choices": [choice]})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _words(self, prompt: list[int], count: int) -> Iterator[str]:
        tokens = self.sleeper.engine.say(prompt, count)
        for _ in range(count):
            with self.sleeper.turn:
                token = next(tokens)
            yield f" {token % VOCABULARY}"

    def _event(self, chunk: object) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def _send(self, status: int, content: Any) -> None:
        text = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Log nothing: the daemon logs the requests."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engine", choices=["torch", "stand-in"], default="torch")
    parser.add_argument("--lies", action="store_true", help="say that it sleeps, and keep all")
    parser.add_argument("--never-sleeps", action="store_true", help="have no routes for it")
    options = parser.parse_args()
    engine = {"torch": Torch, "stand-in": StandIn}[options.engine]
    model = engine(options.gigabytes, options.seed, options.device)
    state = {
        "sleeper": Sleeper(model, lies=options.lies),
        "sleeps": not options.never_sleeps,
    }
    Server(("127.0.0.1", options.port), type("Bound", (Handler,), state)).serve_forever()


if __name__ == "__main__":
    main()
